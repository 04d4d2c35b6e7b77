"""Asking where labels went, and what is in an engine."""

from __future__ import annotations

from typing import Any

from flows.entry.commands.parsers import add_command, add_place

_NAMES = (
    "an ENGINE by the first digits of its build key or SHA-256, or by its file; a VERSION as fpenet/3, or 3; an "
    "ANNOTATION as source:task/17/annotation/29, or source:gt/train.json#12; a SUBJECT as multipie/079"
)
_MORE = (
    "From an engine or a version: back to its training, its snapshot, and the subjects and annotations in it, by "
    "split. From an annotation or a subject: on to every snapshot, version, engine, stage and device. A file that "
    "was copied off a device is enough: fpenet lineage engine.plan. The first question after a new snapshot takes "
    "some seconds more, for the index."
)


def add(commands: Any) -> None:
    lineage = add_command(
        commands,
        "lineage",
        "lineage:lineage",
        "show which labels are in an engine, and which engines and devices a label went to",
        more=_MORE,
    )
    lineage.add_argument("name", metavar="ENGINE|VERSION|ANNOTATION|SUBJECT", help=_NAMES)
    add_place(lineage)
    lineage.add_argument("--all", action="store_true", help="name every subject and annotation, not the first ten")
    lineage.add_argument("--json", action="store_true", help="write everything as JSON")
