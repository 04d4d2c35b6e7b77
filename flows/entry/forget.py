"""`fpenet forget`."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from flows.entry.progress import counting
from flows.entry.terminal import console, say
from tasks.forget.forget import Forgotten, forget_subject, preview
from tasks.workspace import Workspace


def forget(arguments: argparse.Namespace) -> int:
    from schemas.config import load_config

    config = load_config(arguments.config)
    workspace, also = Workspace(Path(config.workspace)), [Path(folder) for folder in arguments.also]
    if arguments.dry_run:
        _show(preview(arguments.subject, workspace, config.tracking, also=also))
        say("Nothing was changed. Without --dry-run all of it is purged, which can't be undone.")
        return 0
    with counting(console) as progress:
        done = forget_subject(
            arguments.subject,
            workspace,
            config.tracking,
            also=also,
            by=arguments.by or getpass.getuser(),
            why=arguments.reason,
            progress=progress,
        )
    _show(done)
    say(
        f"{len(done.changed)} files changed or removed; nothing below {workspace.root} tells of {done.mark} now.\n"
        "A tombstone keeps pulls from bringing the subject back.\n"
        "The sources themselves are not ours: delete the images and annotations there, in Label Studio and on disks."
    )
    return 0


def _show(found: Forgotten) -> None:
    for snapshot, splits in found.faces.items():
        shown = ", ".join(f"{number} {split}" for split, number in splits.items())
        say(f"snapshot {snapshot[:12]}: {shown} faces")
    if not found.faces:
        say("no snapshot holds the subject" + ("" if found.images else ": see that it is written correctly"))
    for model in found.models:
        say(f"{'train again without the subject' if model.learnt else 'evaluate anew'}: {model}")
    for engine in found.engines:
        say(f"{'withdraw' if engine.learnt else 'check again'}: {engine}")
    for bundle in found.bundles:
        say(f"{'withdraw' if bundle.learnt else 'check again'}: {bundle}")
    if found.kpi_snapshots:
        say("The subject was held out for the KPI: take it off the configuration's KPI list, if it is named there.")
