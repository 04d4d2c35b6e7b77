"""What is where: target by stage, and every device of the fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from deploy import stages
from deploy.delivery import CurrentEngine, inspect
from deploy.devices import Device, Ring
from deploy.pointers import Pointer, Stage, StageStatus
from deploy.shells.opening import OpenShell
from schemas.config import WorkflowConfig
from schemas.errors import FpenetError
from schemas.storage import read_json
from tasks.fleet.deliveries import DeviceRecord, Measured, Outcome, is_behind, outcome_of, read_records
from tasks.fleet.pending import current_rollout
from tasks.fleet.results import RolloutResult
from tasks.fleet.threads import at_once
from tasks.workspace import Workspace

State = Literal["active", "pending", "offline", "refused", "failed", "changed", "idle", "gone"]
"""What a device is to the engine that it ought to run.

active   it runs it
pending  it was not asked to run it yet
offline, refused, failed    it was asked, and did not
changed  somebody else changed what it runs
idle     there is no engine for it yet
gone     it is not in the fleet any more, and had an engine
"""


@dataclass(frozen=True)
class DeviceStatus:
    """A device.

    Attributes:
        stage: whose engine it ought to run; None for none.
        engine, model: what it runs, as far as is known; None for nothing.
        outcome, why, at: of the last attempt; None and '' where there was none. A device that runs what it ought to
            may have been asked in vain since.
        px, fps: measured there, of what it runs.
        live: True where the device itself was asked, now.
    """

    device: str
    ring: Ring
    stage: Stage | None
    state: State
    engine: str | None = None
    model: str | None = None
    outcome: Outcome | None = None
    why: str = ""
    at: str | None = None
    px: float | None = None
    fps: float | None = None
    live: bool = False


@dataclass(frozen=True)
class StageRow:
    """An engine at a stage.

    Attributes:
        since: when it came there (UTC, ISO 8601); `by`, `why`: the log's.
        px: mean distance of all keypoints from the network in float, network-input pixels: the worst of the devices
            that run it. `fps`: faces a second on the slowest of them. Where no device was measured, as it was checked
            where it was built; None where it never ran.
        measured_on: devices that the numbers are of; empty for where it was built.
        devices: of those that ought to run it, state -> names.
        further: it is at a later stage too.
    """

    target: str
    stage: Stage
    engine: str
    engine_sha256: str
    precision: str
    model_name: str
    model_version: str
    check: str
    since: str
    by: str
    why: str
    px: float | None
    fps: float | None
    measured_on: tuple[str, ...]
    devices: Mapping[State, tuple[str, ...]]
    further: bool


@dataclass(frozen=True)
class TargetStatus:
    """A target. `note`: how far the last rollout's version came, where that is not to the devices; or ''."""

    target: str
    stages: tuple[StageRow, ...]
    devices: tuple[DeviceStatus, ...]
    note: str = ""


def fleet_status(
    workspace: Workspace, names: Iterable[str], devices: Sequence[Device], *, ask: OpenShell | None = None
) -> list[TargetStatus]:
    """The status of some targets, and of any other that has engines, by what is written down here.

    Args:
        names: targets, in this order.
        devices: the fleet.
        ask: how to reach the devices, to ask each what it runs now; None asks none of them.

    Raises:
        StorageError: a pointer or a record can't be read.
    """
    targets, rollout = workspace.targets, current_rollout(workspace.rollouts)
    ordered = dict.fromkeys([*names, *sorted(place.name for place in targets.glob("*/"))])
    found = [_of_target(targets, name, [d for d in devices if d.target == name], ask) for name in ordered]
    return [replace(target, note=_note(rollout, target.target)) for target in found]


def left_out(config: WorkflowConfig, devices: Iterable[Device]) -> str:
    """Which devices of the configuration's file no engine is built for, as it does not name their target; or ''."""
    missed = [f"{d.name} ({d.target})" for d in devices if config.devices and d.target not in config.targets]
    return (
        f"not among the `targets` of the configuration, so nothing is built for: {', '.join(missed)}"
        if missed
        else ""
    )


def _note(rollout: RolloutResult | None, target: str) -> str:
    row = rollout.row(target) if rollout else None
    if rollout is None or row is None or row.state == "promoted":
        return ""
    return f"{rollout.version} {row.state}" + (f": {row.why}" if row.why else "")


def _of_target(targets: Path, target: str, devices: Sequence[Device], ask: OpenShell | None) -> TargetStatus:
    status = stages.status(targets, target)
    records = {record.device: record for record in read_records(targets, target)}
    found = [_of_device(device, records.get(device.name), status) for device in devices]
    if ask is not None:
        found = at_once(lambda pair: _asked(*pair, status, ask), zip(devices, found, strict=True))
    fleet = {device.name for device in devices}
    gone = [_gone(record) for name, record in records.items() if name not in fleet and record.current]
    rows, later = [], set[str]()
    for stage, pointer in status.held:
        rows.append(_row(targets, target, stage, pointer, found, records, later))
        later.add(pointer.engine.engine_sha256)
    return TargetStatus(target, tuple(rows), (*found, *gone))


def _of_device(device: Device, record: DeviceRecord | None, status: StageStatus) -> DeviceStatus:
    wanted = status.wanted(device.ring)
    known = _known(record)
    if wanted is None:
        return DeviceStatus(device.name, device.ring, None, _state_of_rest(device, record, status), **known)
    stage, pointer = wanted
    return DeviceStatus(device.name, device.ring, stage, _state(record, pointer), **known)


def _state(record: DeviceRecord | None, pointer: Pointer) -> State:
    if record is None:
        return "pending"
    if record.runs(pointer.engine):
        return "active"
    asked = record.outcome != "active" and record.at >= pointer.event.at
    return record.outcome if asked else "pending"


def _state_of_rest(device: Device, record: DeviceRecord | None, status: StageStatus) -> State:
    """Of a device that ought to run nothing: it may have missed the end of its canary."""
    if record is None or not is_behind(status, device, record):
        return "idle"
    return "pending" if record.outcome == "active" else record.outcome


def _known(record: DeviceRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    measured = record.measured.get(record.current.build_key, Measured()) if record.current else Measured()
    attempt = {"outcome": record.outcome, "why": record.why, "at": record.at}
    return {**_running(record.current), **attempt, "px": measured.px, "fps": measured.fps}


def _running(current: CurrentEngine | None) -> dict[str, Any]:
    if current is None:
        return {"engine": None, "model": None}
    return {"engine": current.build_key, "model": f"{current.model_name}/{current.model_version}"}


def _gone(record: DeviceRecord) -> DeviceStatus:
    known = {**_known(record), "why": "it is not in the fleet's file; it may run the engine still"}
    return DeviceStatus(record.device, record.ring, None, "gone", **known)


def _asked(device: Device, known: DeviceStatus, status: StageStatus, ask: OpenShell) -> DeviceStatus:
    """What a device says itself."""
    try:
        with ask(device) as shell:
            current, found = inspect(shell, device.target)
    except FpenetError as error:
        outcome = outcome_of(error)
        return replace(known, state=outcome, outcome=outcome, why=str(error), live=True)
    wanted = status.wanted(device.ring)
    same = bool(current and wanted and current.engine_sha256 == wanted[1].engine.engine_sha256)
    left = bool(current and status.ended and current.engine_sha256 == status.ended.engine.engine_sha256)
    state: State = "changed" if found else "active" if same else "pending" if wanted or left else "idle"
    numbers = {} if current and current.build_key == known.engine else {"px": None, "fps": None}
    return replace(known, state=state, outcome="active", why=found, live=True, **_running(current), **numbers)


def _row(
    targets: Path,
    target: str,
    stage: Stage,
    pointer: Pointer,
    devices: Sequence[DeviceStatus],
    records: Mapping[str, DeviceRecord],
    later: set[str],
) -> StageRow:
    engine, event = pointer.engine, pointer.event
    manifest = _manifest(stages.manifest_path(targets, target, engine))
    states = {device.device: device.state for device in devices if device.stage == stage}
    running = {d.device: records[d.device] for d in devices if d.device in records and records[d.device].runs(engine)}
    numbers = {
        name: record.measured[engine.build_key]
        for name, record in running.items()
        if engine.build_key in record.measured
    }
    px, fps = _worst(numbers.values()) if numbers else _where_built(manifest)
    return StageRow(
        target=target,
        stage=stage,
        engine=engine.build_key,
        engine_sha256=engine.engine_sha256,
        precision=manifest.get("precision", ""),
        model_name=engine.model_name,
        model_version=engine.model_version,
        check=engine.check,
        since=event.at,
        by=event.by,
        why="; ".join(filter(None, (event.why, event.note))),
        px=px,
        fps=fps,
        measured_on=tuple(sorted(numbers)),
        devices={
            state: tuple(sorted(name for name in states if states[name] == state))
            for state in sorted(set(states.values()))
        },
        further=engine.engine_sha256 in later,
    )


def _manifest(path: Path) -> dict[str, Any]:
    """Empty where it is gone: then the engine's pointer is all that is known of it."""
    return read_json(path) if path.is_file() else {}


def _worst(measured: Iterable[Measured]) -> tuple[float | None, float | None]:
    found = list(measured)
    px = [each.px for each in found if each.px is not None]
    fps = [each.fps for each in found if each.fps is not None]
    return max(px, default=None), min(fps, default=None)


def _where_built(manifest: Mapping[str, Any]) -> tuple[float | None, float | None]:
    check = manifest.get("check", {})
    parity, latency = check.get("parity"), check.get("latency")
    px = parity["mean_px"]["All"] if parity else None
    return px, 1000.0 * latency["batch"] / latency["p50_ms"] if latency else None
