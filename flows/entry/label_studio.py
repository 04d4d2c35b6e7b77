"""`fpenet label-studio import`, `export` and `serve`."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from flows.entry.annotations import tell_left_out, write_folder
from flows.entry.progress import counting
from flows.entry.terminal import console, say
from schemas.errors import SpecError
from schemas.sources import LabelStudioSource, SubjectRule
from schemas.storage import sha256_of, write_private

TOKEN_ENV = "LABEL_STUDIO_API_KEY"


def import_folder(arguments: argparse.Namespace) -> int:
    from tasks.label_studio.client import token_from_environment
    from tasks.label_studio.folder_import import import_folder as load

    rule = subject_rule(arguments)
    token = token_from_environment(TOKEN_ENV)
    with counting(console) as progress:
        result = load(
            arguments.url,
            token,
            title=arguments.title,
            folder=Path(arguments.folder),
            num_keypoints=arguments.num_keypoints,
            subject=rule,
            origin=arguments.origin,
            progress=progress,
        )
    tell_left_out(result.left_out)
    say(
        f"project {result.project} '{result.title}': {result.imported:,} tasks added, {result.present:,} were there, "
        f"{len({violation.record for violation in result.left_out}):,} left out: {result.url}",
    )
    return 0


def export_folder(arguments: argparse.Namespace) -> int:
    """Each project has a place of its own in the workspace, whatever the configurations there call it."""
    from tasks.workspace import Workspace

    project = int(arguments.project) if arguments.project.isdigit() else arguments.project
    source = LabelStudioSource(
        kind="label_studio",
        name=f"export-{sha256_of([arguments.url, project])[:12]}",
        url=arguments.url,
        project=project,
        token_env=TOKEN_ENV,
        subject=subject_rule(arguments),
    )
    workspace = Workspace(Path(arguments.workspace))
    return write_folder(source, Path(arguments.folder), workspace, arguments.num_keypoints)


def subject_rule(arguments: argparse.Namespace) -> SubjectRule:
    """By default, which import does not have, the field that import and export write."""
    places = (arguments.subject_csv, arguments.subject_pattern, arguments.subject_field)
    field = "subject" if places == (None, None, None) else arguments.subject_field
    if not arguments.dataset and field is None:
        raise SpecError("--dataset", "is needed: the same id means another person in another dataset")
    return SubjectRule(
        dataset=arguments.dataset or "",
        csv=arguments.subject_csv,
        pattern=arguments.subject_pattern,
        field=field,
    )


def serve(arguments: argparse.Namespace) -> int:
    """Start a Label Studio of this machine's own and stay until it ends; its token is kept beside its data."""
    from tasks.label_studio.server import USER, LabelStudioServer
    from tasks.label_studio.server import serve as run_server

    data = Path(arguments.data)
    token_file = data / "token"
    if not token_file.is_file():
        write_private(token_file, secrets.token_hex(20).encode())
    server = LabelStudioServer(data, arguments.port, token_file.read_text())
    say(
        f"Label Studio will be at {server.url}; sign in as {USER} with the text in {token_file} as the password.\n"
        f"For the commands of this project:\n"
        f"  export LABEL_STUDIO_URL={server.url} {TOKEN_ENV}=$(cat {token_file})"
    )
    return run_server(server)
