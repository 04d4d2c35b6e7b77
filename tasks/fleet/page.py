"""A rollout for people: one self-contained page, and a table in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from schemas.storage import write_bytes
from tasks.fleet.results import PAGE, RolloutResult, TargetRow, save_result
from tasks.pages import duration, number, render_page

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"promoted": "green", "gated": "red", "failed": "red", "refused": "red", "skipped": "dim"}


def write_rollout(result: RolloutResult, rollouts: Path) -> Path:
    """Write record and page into `<rollouts>/<id>/`; return the page's path."""
    save_result(result, rollouts)
    page = rollouts / result.id / PAGE
    write_bytes(page, render(result).encode())
    return page


def render(result: RolloutResult) -> str:
    """The page."""
    devices = [device for row in result.rows for device in row.devices]
    measured = [device for device in devices if device.regions_px]
    return render_page(
        "fleet/rollout.html",
        rollout=result,
        promoted=sum(row.state == "promoted" for row in result.rows),
        devices=len(devices),
        active=sum(device.state == "active" for device in devices),
        waiting=[device for row in result.rows for device in row.waits_for],
        unfinished=[name for name in result.targets if result.row(name) is None],
        regions=list(measured[0].regions_px or ()) if measured else [],
    )


def print_rollout(result: RolloutResult, console: Console) -> None:
    """The rollout in a terminal: a line per target, then why, where there is something to say."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"Rollout of {result.version}",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_justify="left",
        title_style="bold",
    )
    for column in ("target", "state", "engine", "precision"):
        table.add_column(column, no_wrap=True)
    for column in ("shift px", "faces/s", "devices"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in result.rows:
        for said in filter(None, (row.why, *(f"tried before: {step}" for step in row.ladder))):
            console.print(f"{row.target}: {escape(said)}", soft_wrap=True)
    for row in result.rows:
        for device in row.devices:
            if device.why:
                console.print(f"{device.device} ({row.target}): {device.state}: {escape(device.why)}", soft_wrap=True)
    spent = {
        "its beginning": result.began_to_last_s,
        "its acceptance by the flow `review`": result.accepted_to_last_s,
    }
    for since, seconds in spent.items():
        if seconds is not None:
            console.print(f"from {since} to the last promoted engine: {duration(seconds)}")


def _cells(row: TargetRow) -> tuple[str, ...]:
    measured, colour = row.measured, COLOURS.get(row.state, "yellow")
    return (
        row.target,
        f"[{colour}]{row.state}[/]",
        row.engine[:8] if row.engine else "–",
        row.precision or "–",
        number(measured and measured.parity_px),
        "–" if measured is None or measured.fps is None else f"{measured.fps:,.0f}",
        f"{sum(device.state == 'active' for device in row.devices)}/{len(row.devices)}",
    )
