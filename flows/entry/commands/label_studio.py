"""Label Studio projects."""

from __future__ import annotations

import argparse
from typing import Any

from flows.entry.commands.parsers import add_command, add_workspace, keypoints, origin


def add(commands: Any) -> None:
    parser = commands.add_parser("label-studio", help="set up Label Studio projects")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_init(actions)
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
    load.add_argument("--num-keypoints", type=keypoints, default=80, metavar="N", help="(default: %(default)s)")
    load.add_argument(
        "--origin",
        type=origin,
        default=0.0,
        metavar="PX",
        help="coordinate that the files give to the centre of the top-left pixel: 1 if they were made of MATLAB's, "
        "0.5 if they count from the image's corner (default: %(default)s)",
    )
    _add_subject(load, "key of the entries, such as `subject`, which export writes", required=True)

    export = add_command(
        actions,
        "export",
        "label_studio:export_folder",
        "write a project as a folder of Sloth/TAO ground truth",
        more="The token comes from the environment variable LABEL_STUDIO_API_KEY. What the server holds is pulled "
        "into the workspace, as a flow does it; running it again brings the folder up to date. Annotations that "
        "break a rule are left out, and named. Without a --subject option the field `subject` of a task's data holds "
        "its subject: tell how it is found, and name the --workspace that `fpenet forget` worked in, or nobody who "
        "was forgotten is left out.",
    )
    export.add_argument("--url", required=True, metavar="URL", help="Label Studio, such as http://127.0.0.1:8080")
    export.add_argument("--project", required=True, metavar="ID", help="number or title of the project")
    export.add_argument("--folder", required=True, metavar="DIR", help="folder to write")
    export.add_argument("--num-keypoints", type=keypoints, default=80, metavar="N", help="(default: %(default)s)")
    _add_subject(export, "key of the tasks' data (default: subject)")
    add_workspace(export)

    serve = add_command(
        actions,
        "serve",
        "label_studio:serve",
        "start a Label Studio for this machine alone",
        more="It needs the environment that `make label-studio` makes.",
    )
    serve.add_argument("--data", default="workspace/label-studio", metavar="DIR", help="its database (%(default)s)")
    serve.add_argument("--port", type=int, default=8080, metavar="N", help="on the loopback interface (%(default)s)")


def _add_subject(parser: argparse.ArgumentParser, field: str, *, required: bool = False) -> None:
    parser.add_argument(
        "--dataset", metavar="NAME", help="first part of the subjects: NAME/<id>; a field may hold both parts"
    )
    places = parser.add_mutually_exclusive_group(required=required)
    places.add_argument("--subject-csv", metavar="FILE", help="CSV with the columns file and subject_id")
    places.add_argument("--subject-pattern", metavar="REGEX", help="on the image name, with a group (?P<subject>...)")
    places.add_argument("--subject-field", metavar="KEY", help=field)


def _add_init(actions: Any) -> None:
    init = add_command(
        actions,
        "init",
        "label_studio_init:init",
        "set up a project for a labelling team",
        more="Makes the project with its labelling config and instructions, connects the images and the webhook. "
        "Running it again doubles nothing; it completes what is missing and names what people changed in the config. "
        "The token comes from the environment variable LABEL_STUDIO_API_KEY, the secret that the webhook sends from "
        "FPENET_LABEL_STUDIO_WEBHOOK_SECRET. Exit code 2 if the config or the instructions drifted and --repair is "
        "not given.",
    )
    init.add_argument("--url", required=True, metavar="URL", help="Label Studio, such as http://127.0.0.1:8080")
    init.add_argument(
        "--title", required=True, metavar="TEXT", help="title of the project, created if it is not there"
    )
    init.add_argument("--keypoints", type=keypoints, default=80, metavar="N", help="how many (default: %(default)s)")
    init.add_argument(
        "--storage",
        metavar="PLACE",
        help="where the images are: a folder of the server's machine, below its local-files document root "
        "(/srv/images/faces), or s3://bucket/prefix, gs://bucket/prefix, azure://container/prefix. Keys for a bucket "
        "are taken from AWS_ACCESS_KEY_ID and its like, GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT and "
        "AZURE_STORAGE_KEY, and given to the server; without them the server must have access by itself. Every image "
        "that is not there yet becomes a task",
    )
    init.add_argument(
        "--webhook-url", metavar="URL", help="the gateway: http://gateway.example.test/webhooks/label-studio"
    )
    init.add_argument(
        "--repair",
        action="store_true",
        help="put a labelling config and instructions that people changed back as they were made",
    )
