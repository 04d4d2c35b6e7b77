"""`fpenet status`, `promote`, `rollback`, `deliver`."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.devices import Device, load_devices
from deploy.pointers import Event, Pointer
from deploy.stages import status as stages_of
from deploy.targets import find_target
from flows.entry.terminal import say, warn
from flows.entry.workspaces import workspace_of
from schemas.errors import DeviceError
from tasks.fleet.deliveries import DeviceRecord, Measure
from tasks.fleet.promotion import promote_target, roll_back_target, settle_target
from tasks.fleet.status import DeviceStatus, StageRow, TargetStatus, fleet_status, left_out
from tasks.fleet.work_pool import open_device
from tasks.review.approval import accepted_version
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from schemas.config import WorkflowConfig

console = Console(highlight=False)
"""Of its own, for it is widened for the table of stages."""

_JSON = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE

_WIDE = 200
_COLOURS = {"active": "green", "refused": "red", "failed": "red", "changed": "red"}
_UNITS = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1)))


@dataclass(frozen=True)
class _Place:
    workspace: Workspace
    names: tuple[str, ...]
    devices: tuple[Device, ...]
    config: WorkflowConfig | None = None

    @property
    def targets(self) -> Path:
        return self.workspace.targets

    def measure(self) -> Measure:
        from tasks.fleet.catch_up import measure_by
        from tasks.fleet.material import materials

        assert self.config is not None  # commands that change devices need one
        return measure_by(self.targets, open_device, materials(self.config.tracking, self.workspace))


def status(arguments: argparse.Namespace) -> int:
    place = _place(arguments)
    found = fleet_status(place.workspace, place.names, place.devices, ask=open_device if arguments.check else None)
    if arguments.json:
        console.file.write(orjson.dumps([asdict(target) for target in found], option=_JSON).decode())
        return 0
    if not found:
        say(f"{place.workspace.root}: no engine; name the configuration with --config")
    _show_stages(found, datetime.now(UTC))
    for line in _remarks(found):
        console.print(line, soft_wrap=True)
    if place.config and (missed := left_out(place.config, place.devices)):
        warn(missed)
    return 0


def promote(arguments: argparse.Namespace) -> int:
    find_target(arguments.target)
    place = _place(arguments)
    done = promote_target(
        place.targets,
        arguments.target,
        place.devices,
        to=arguments.to,
        by=_decider(arguments),
        why=arguments.reason,
        accepted=accepted_version(place.workspace),
        override=arguments.override,
        open_shell=open_device,
        measure=place.measure(),
    )
    event = done.pointer.event
    before = f"; before it: {event.before}" if event.before and done.changed else ""
    was = "" if done.changed else f" since {_short(event.at)} UTC, unchanged"
    say(f"{done.target}: at {done.stage}{was}: {event.engine}{before}")
    if event.note and done.changed:
        say(f"{done.target}: {event.note}")
    staged = stages_of(place.targets, done.target).staging
    if not done.changed and staged is not None and not staged.engine.is_same(event.engine):
        say(f"{done.target}: at staging: {staged.engine}; it goes to canary first")
    return _tell_devices(done.devices, arguments.config)


def rollback(arguments: argparse.Namespace) -> int:
    find_target(arguments.target)
    place = _place(arguments)
    done = roll_back_target(
        place.targets,
        arguments.target,
        place.devices,
        by=_decider(arguments),
        why=arguments.reason,
        open_shell=open_device,
    )
    event = done.pointer.event
    cut_off = "" if done.changed else f" (a rollback of {_short(event.at)} that was cut off is complete now)"
    production = stages_of(place.targets, done.target).production
    say(f"{done.target}: {_taken_back(event, production)}{cut_off}")
    return _tell_devices(done.devices, arguments.config)


def deliver(arguments: argparse.Namespace) -> int:
    find_target(arguments.target)
    place = _place(arguments)
    records = settle_target(
        place.targets, arguments.target, place.devices, open_shell=open_device, measure=place.measure()
    )
    return _tell_devices(records, arguments.config)


def _taken_back(event: Event, production: Pointer | None) -> str:
    if event.action == "end":
        earlier = production.earlier if production else []
        further = f". The next rollback takes production back to {earlier[-1]}" if earlier else ""
        return f"the canary is over: taken back: {event.before}; {event.note}{further}"
    return f"in production again: {event.engine}; taken back: {event.before}"


def _tell_devices(records: Sequence[DeviceRecord], config: str) -> int:
    """A line per device; the exit code of a device that failed. Offline is no failure: the device is asked again."""
    for record in records:
        console.print(f"  {record.device} ({record.ring}): {_told(record)}", soft_wrap=True)
    if missed := [record for record in records if record.outcome != "active"]:
        again = f"fpenet deliver --target {missed[0].target} --config {config}"
        say(f"`{again}` asks the others again.")
    return DeviceError.exit_code if any(record.broken for record in records) else 0


def _told(record: DeviceRecord) -> str:
    colour = _COLOURS.get(record.outcome, "yellow")
    if record.outcome == "active":
        found = f"; {escape(record.why)}" if record.why else ""
        runs = f"engine {record.current.build_key}" if record.current else "nothing"
        return f"[{colour}]runs {runs}[/]{found}"
    return f"[{colour}]{record.outcome}[/]: {escape(record.why)}"


def _show_stages(found: Sequence[TargetStatus], now: datetime) -> None:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("target", "stage"):
        table.add_column(column, no_wrap=True)
    table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=20)
    for column in ("engine", "prec."):
        table.add_column(column, no_wrap=True)
    for column in ("px", "FPS", "age"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("devices")
    rows = [row for target in found for row in target.stages if not row.further]
    shown = ""
    for row in rows:
        table.add_row(row.target if row.target != shown else "", *_cells(row, now))
        shown = row.target
    if rows:
        if not console.is_terminal:  # a file or another program has no width, and rich would take 80 columns
            console.width = max(console.width, _WIDE)
        console.print(table)
    if any(row.px is not None and not row.measured_on for row in rows):
        console.print("* not measured on a device, but where it was built", style="dim")


def _cells(row: StageRow, now: datetime) -> tuple[str, ...]:
    mark = "" if row.measured_on else "*"
    return (
        row.stage,
        escape(f"{row.model_name}/{row.model_version}" if row.model_version else row.model_name),
        row.engine[:8],
        row.precision,
        "–" if row.px is None else f"{row.px:.2g}{mark}",
        "–" if row.fps is None else f"{row.fps:,.0f}{mark}",
        _age(now - datetime.fromisoformat(row.since)),
        _devices(row),
    )


def _devices(row: StageRow) -> str:
    total = sum(len(names) for names in row.devices.values())
    if not total:
        return "–"
    rest = [
        f"[{_COLOURS.get(state, 'yellow')}]{len(names)} {state}[/]"
        for state, names in row.devices.items()
        if state != "active"
    ]
    return ", ".join([f"{len(row.devices.get('active', ()))} of {total}", *rest])


def _remarks(found: Sequence[TargetStatus]) -> Iterator[str]:
    empty = [target.target for target in found if not (target.stages or target.note)]
    if empty:
        yield f"no engine yet: {', '.join(empty)}"
    for target in found:
        if target.note:
            yield escape(f"{target.target}: {target.note}")
        for device in target.devices:
            if device.state not in ("active", "idle") or device.why:
                yield _remark(target, device)


def _remark(target: TargetStatus, device: DeviceStatus) -> str:
    runs = f"runs {device.engine[:8]} of {device.model}" if device.engine else "runs nothing"
    asked = f", asked {_short(device.at)} UTC" if device.at and not device.live else ""
    vain = f" in vain ({device.outcome})" if device.state == "active" and device.outcome != "active" else ""
    colour = _COLOURS.get(device.state, "yellow")
    said = f": {device.why}" if device.why else ""
    told = escape(f"{runs}{asked}{vain}{said}")
    return f"{device.device} ({target.target}, {device.ring}): [{colour}]{device.state}[/], {told}"


def _age(age: timedelta) -> str:
    for unit, length in _UNITS:
        if age >= length:
            return f"{age // length} {unit}"
    return "now"


def _short(at: str) -> str:
    return at[:16].replace("T", " ")


def _place(arguments: argparse.Namespace) -> _Place:
    if arguments.config:
        from schemas.config import load_config

        config = load_config(arguments.config)
        devices = load_devices(config.devices)
        return _Place(Workspace(Path(config.workspace)), tuple(config.targets), tuple(devices.values()), config)
    return _Place(workspace_of(arguments), (), tuple(load_devices().values()))


def _decider(arguments: argparse.Namespace) -> str:
    return arguments.by or getpass.getuser()
