"""Label Studio projects."""

from __future__ import annotations

from typing import Any

from flows.entry.commands.parsers import add_command


def add(commands: Any) -> None:
    parser = commands.add_parser("label-studio", help="set up Label Studio projects")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    load = add_command(
        actions,
        "import",
        "label_studio:import_folder",
        "make a project from a folder of Sloth/TAO ground truth",
        more="The token comes from the environment variable LABEL_STUDIO_API_KEY. Running it twice doubles nothing.",
    )
    load.add_argument("--url", required=True, metavar="URL", help="Label Studio, such as http://127.0.0.1:8080")
    load.add_argument(
        "--title", required=True, metavar="TEXT", help="title of the project, created if it is not there"
    )
    load.add_argument("--folder", required=True, metavar="DIR", help="folder with gt/**/*.json and the images")
    load.add_argument("--num-keypoints", type=int, default=80, metavar="N", help="(default: %(default)s)")
    load.add_argument("--dataset", required=True, metavar="NAME", help="first part of the subjects: NAME/<id>")
    subject = load.add_mutually_exclusive_group(required=True)
    subject.add_argument("--subject-csv", metavar="FILE", help="CSV with the columns file and subject_id")
    subject.add_argument(
        "--subject-pattern", metavar="REGEX", help="on the image name, with a group (?P<subject>...)"
    )

    serve = add_command(
        actions,
        "serve",
        "label_studio:serve",
        "start a Label Studio for this machine alone",
        more="It needs the environment that `make label-studio` makes.",
    )
    serve.add_argument("--data", default="workspace/label-studio", metavar="DIR", help="its database (%(default)s)")
    serve.add_argument("--port", type=int, default=8080, metavar="N", help="on the loopback interface (%(default)s)")
