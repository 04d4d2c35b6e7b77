"""`fpenet prune`."""

from __future__ import annotations

import argparse

from rich.table import Table

from flows.entry.terminal import console, say
from flows.entry.workspaces import workspace_in_use
from tasks.prune import Pruning, Retention, find_leftovers, prune_workspace

MIB = 2**20


def prune(arguments: argparse.Namespace) -> int:
    from schemas.config import load_config

    config = load_config(arguments.config)
    workspace = workspace_in_use(config)
    retention = Retention(versions=arguments.versions, days=arguments.days)
    act = find_leftovers if arguments.dry_run else prune_workspace
    found = act(workspace, config.tracking, retention)
    _show(found)
    size = f"{found.size / MIB:,.1f} MiB"
    say(f"{size} would be freed. Nothing was removed." if arguments.dry_run else f"{size} freed.")
    return 0


def _show(found: Pruning) -> None:
    for (name, version), why in found.kept.items():
        say(f"kept: {name}/{version} ({why})")
    table = Table("what", "number", "MiB", box=None, header_style="bold")
    for kind in dict.fromkeys(leftover.kind for leftover in found.leftovers):
        sizes = [leftover.size for leftover in found.leftovers if leftover.kind == kind]
        table.add_row(kind, f"{len(sizes):,}", f"{sum(sizes) / MIB:,.1f}")
    if table.rows:
        console.print(table)
