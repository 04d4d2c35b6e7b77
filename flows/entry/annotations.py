"""`fpenet annotations convert`, and what it shares with `fpenet label-studio export`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.entry.progress import counting
from flows.entry.terminal import console, say
from schemas.config import load_config
from schemas.errors import SpecError, nearest
from schemas.records import Violation
from schemas.sources import Source

if TYPE_CHECKING:
    from tasks.workspace import Workspace

SHOWN = 5


def convert(arguments: argparse.Namespace) -> int:
    from tasks.workspace import Workspace

    config = load_config(arguments.config)
    sources = {source.name: source for source in config.sources}
    if arguments.source not in sources:
        raise SpecError(
            str(arguments.config),
            f"no source '{arguments.source}'{nearest(arguments.source, sources)}; there are {', '.join(sources)}",
        )
    workspace = Workspace(Path(config.workspace))
    return write_folder(sources[arguments.source], Path(arguments.folder), workspace, config.num_keypoints)


def tell_left_out(violations: Sequence[Violation]) -> None:
    """The first ones, and how many more there are of which kind."""
    for violation in violations[:SHOWN]:
        say(f"left out {violation}")
    if more := Counter(violation.code for violation in violations[SHOWN:]):
        kinds = ", ".join(f"{code} {number:,}" for code, number in more.most_common())
        say(f"left out {more.total():,} more: {kinds}")


def write_folder(source: Source, folder: Path, workspace: Workspace, num_keypoints: int) -> int:
    """Write the folder, and tell what is in it and what is not."""
    from tasks.folder_export import export_source

    with counting(console) as progress:
        done = export_source(source, folder, workspace, num_keypoints=num_keypoints, progress=progress)
    tell_left_out(done.left_out)
    say(
        f"{done.folder}: {sum(done.sets.values()):,} faces in {', '.join(done.sets)}, {done.images:,} "
        f"pictures; {done.skipped:,} not annotated",
    )
    return 0
