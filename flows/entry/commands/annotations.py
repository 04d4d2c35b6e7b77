"""Annotations of any source as a folder."""

from __future__ import annotations

from typing import Any

from flows.entry.commands.parsers import add_command


def add(commands: Any) -> None:
    parser = commands.add_parser("annotations", help="turn the annotations of a source into a folder")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    convert = add_command(
        actions,
        "convert",
        "annotations:convert",
        "write a source of a configuration as a folder of Sloth/TAO ground truth",
        more="The folder is what `fpenet label-studio import` takes: so .pts files, WFLW, COFW, COCO keypoints and "
        "the rest get to Label Studio. Annotations that break a rule are left out, and named.",
    )
    convert.add_argument("--config", required=True, metavar="FILE", help="configuration of the flows (YAML)")
    convert.add_argument("--source", required=True, metavar="NAME", help="which of its sources")
    convert.add_argument("--folder", required=True, metavar="DIR", help="folder to write")
