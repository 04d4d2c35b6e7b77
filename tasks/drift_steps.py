"""The Prefect tasks of the flow `drift`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.events import emit_event
from rich.markup import escape
from rich.table import Table

from deploy.devices import load_devices
from schemas.errors import InputError
from schemas.storage import write_json
from tasks.drift.devices import References, judge, watch_device
from tasks.drift.records import files_of_folder, read_records, window_start
from tasks.drift.watch import DeviceDrift
from tasks.fleet.threads import at_once
from tasks.fleet.work_pool import open_device
from tasks.run import Run
from tasks.steps import step_task

DETECTED = "fpenet.drift.detected"
DEVICES_AT_ONCE = 16


@step_task(name="ask devices")
def ask_devices(run: Run) -> list[DeviceDrift]:
    """Every device of the configuration's targets, side by side."""
    devices = load_devices(run.config.devices)
    own = [device for device in devices.values() if device.target in run.config.targets]
    references = References(run.config, run.workspace)
    watch = partial(watch_device, references=references, **_window(run), open_shell=open_device)
    with run.step("ask devices") as step:
        found = [result for results in at_once(watch, own, most=DEVICES_AT_ONCE) for result in results]
        step.detail = _counted(found)
    return found


@step_task(name="read records")
def read_folder(run: Run, folder: str) -> list[DeviceDrift]:
    """Records that somebody brought: `<folder>/<device>/*.json`."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; it holds a folder of records for each device")
    references, window = References(run.config, run.workspace), _window(run)
    with run.step("read records") as step:
        found = []
        for place in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
            records = read_records(place.name, files_of_folder(place), **window)
            found += judge(records, references)
        step.detail = _counted(found)
    return found


@step_task(name="tell drift")
def tell_drift(run: Run, found: Sequence[DeviceDrift]) -> Path:
    """Write it down, show it, and raise an event for each device that sees something else."""
    path = run.workspace.drift / run.id / "drift.json"
    write_json(path, {"at": run.started.isoformat(timespec="seconds"), "devices": [asdict(one) for one in found]})
    table = Table("device", "model", "state", "faces", "hours", "furthest signal", "index", "at least", box=None)
    for one in found:
        table.add_row(*map(escape, _cells(one).values()))
    run.console.print(table)
    for one in found:
        for said in filter(None, (one.why, *one.problems)):
            run.console.print(f"{one.device}: {escape(said)}", soft_wrap=True)
        if one.state == "drift":
            emit_event(**drift_event(one))
    create_table_artifact([_cells(one) for one in found], key="drift", description=_counted(found))
    return path


def drift_event(one: DeviceDrift) -> dict[str, Any]:
    """What is raised for a device, with its signals that moved: the arguments of `emit_event`."""
    payload = {
        "device": one.device,
        "model": one.model,
        "faces": one.faces,
        "hours": one.hours,
        "signals": [{"name": signal.name, "allowed": signal.allowed} | asdict(signal.shift) for signal in one.moved],
    }
    resource = {"prefect.resource.id": f"fpenet.device.{one.device}", "prefect.resource.name": one.device}
    return {"event": DETECTED, "resource": resource, "payload": payload}


def _cells(one: DeviceDrift) -> dict[str, str]:
    furthest = one.shifts[0] if one.shifts else None
    return {
        "device": one.device,
        "model": one.model,
        "state": one.state,
        "faces": f"{one.faces:,}",
        "hours": str(one.hours),
        "furthest signal": furthest.name if furthest else "",
        "index": f"{furthest.shift.index:.3f}" if furthest else "",
        "at least": f"{furthest.shift.low:.3f}" if furthest else "",
    }


def _counted(found: Sequence[DeviceDrift]) -> str:
    states = sorted({one.state for one in found})
    return ", ".join(f"{sum(one.state == state for one in found)} {state}" for state in states) or "no devices"


def _window(run: Run) -> dict[str, datetime]:
    """From when to when records count."""
    now = datetime.now(UTC)
    return {"since": window_start(now, run.config.drift.window_hours), "now": now}
