"""What each device of a target runs, as far as is known: one record per device.

`<targets>/<target>/devices/<device>.json` is written after the device has done, or failed to do, what it was asked. A
process that dies between the two leaves a record that is behind; the next delivery finds the engine on the device and
brings the record up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from deploy import stages
from deploy.delivery import Activation, CurrentEngine, Delivery, activate, deactivate, deliver, described
from deploy.device.facts import read_facts, require_same
from deploy.devices import Device, Ring, program_of
from deploy.pointers import Event, Stage, StagedEngine, StageStatus, utc_now
from deploy.shells.base import Shell
from deploy.shells.opening import OpenShell, open_shell
from deploy.targets import find_target
from schemas.errors import (
    DeviceOfflineError,
    DeviceRefusedError,
    EngineMismatchError,
    FpenetError,
    GateError,
    InputError,
    StorageError,
)
from schemas.storage import read_json, write_json
from schemas.yamlspec import SpecModel
from tasks.fleet.results import DeviceRow
from tasks.fleet.threads import at_once

Outcome = Literal["active", "offline", "refused", "failed"]

Measure = Callable[[StagedEngine, Sequence[Device]], Sequence[DeviceRow]]
"""Runs an engine on devices and holds it against its gates. An FpenetError is of this machine: it lacks what that
takes."""

Tried = Mapping[tuple[str, str], DeviceRow]
"""What came of that, by device and SHA-256 of the engine."""

_ERRORS: dict[str, type[FpenetError]] = {"offline": DeviceOfflineError, "refused": DeviceRefusedError}


class Measured(SpecModel):
    """What was measured of an engine on a device: mean distance of all keypoints from the FP32 graph, network-input
    pixels, and faces a second; None where it was not."""

    px: float | None = None
    fps: float | None = None


class DeviceRecord(SpecModel):
    """A device, as it was when it was last asked to run an engine.

    Attributes:
        current: what it runs; None for nothing yet, as far as is known.
        kept: the engines on it, the current one last.
        outcome, why, at: how the last attempt ended, the reason or what was found there, and when (UTC, ISO 8601).
        stage: for which stage it was asked.
        since: when `current` became what it runs.
        measured: build key -> numbers, of the engines on it.
    """

    device: str
    target: str
    ring: Ring
    outcome: Outcome
    stage: Stage
    at: str
    why: str = ""
    current: CurrentEngine | None = None
    since: str | None = None
    kept: list[CurrentEngine] = []
    measured: dict[str, Measured] = {}

    @property
    def broken(self) -> bool:
        """It answered, and did not do it. Who is offline is asked again."""
        return self.outcome in ("failed", "refused")

    def gave_up(self, event: Event) -> bool:
        """It failed since a change of its stage, and is not asked again before the next one."""
        return self.broken and self.at > event.at

    def runs(self, engine: StagedEngine) -> bool:
        return self.current is not None and self.current.engine_sha256 == engine.engine_sha256


def outcome_of(error: FpenetError) -> Outcome:
    """Offline is told apart from refused, and both from failed."""
    if isinstance(error, DeviceOfflineError):
        return "offline"
    return "refused" if isinstance(error, DeviceRefusedError | EngineMismatchError) else "failed"


def bring_all(
    targets: Path,
    status: StageStatus,
    devices: Iterable[Device],
    open_shell: OpenShell = open_shell,
    tried: Tried | None = None,
) -> list[DeviceRecord]:
    """Have every device run what its ring ought to, all at once; those for which there is nothing are left alone, but
    one that runs a canary that was ended runs nothing then.

    What goes wrong with a device is in its record, and no reason for another to wait.

    Args:
        tried: what engines are on devices that have not run them: those that did not pass there do not run there.
            None measures nothing.

    Raises:
        InputError: a device ought to run an engine that it has not run, and that is none of `tried`.
        StorageError: an engine that devices ought to run is gone here, or was changed.
        No device was asked then.
    """
    todo = [device for device in devices if status.wanted(device.ring) or _is_left(targets, status, device)]
    if tried is not None:
        _require_tried(targets, status, todo, tried)
    for name in {device.ring for device in todo}:
        if wanted := status.wanted(name):
            engine_directory(targets, status.target, wanted[1].engine)
    return at_once(lambda device: _bring_one(targets, status, device, open_shell, tried or {}), todo)


def bring_passed(
    targets: Path, devices: Sequence[Device], sha256: str, rows: Sequence[DeviceRow], open_shell: OpenShell
) -> list[DeviceRow]:
    """Have devices of one ring run the engine that they were measured with, where they passed; if that is still what
    they ought to run. For whoever holds the target.

    Args:
        sha256: of the engine.
        rows: what it was on each device; what became of it is in the result.

    Raises:
        StorageError: as for `bring_all`.
    """
    if not devices:
        return []
    held = stages.status(targets, devices[0].target)
    wanted = held.wanted(devices[0].ring)
    if wanted is None or wanted[1].engine.engine_sha256 != sha256:
        why = f"it ought to run {wanted[1].engine if wanted else 'nothing'} by now"
        return [replace(row, state="not reached", why=why) for row in rows]
    records = bring_all(targets, held, devices, open_shell, {(row.device, sha256): row for row in rows})
    return [
        replace(row, state=record.outcome, why=record.why) if row.state == "passed" else row
        for row, record in zip(rows, records, strict=True)
    ]


def behind(targets: Path, target: str, devices: Iterable[Device]) -> list[Device]:
    """Devices of a target that do not run what the stages say, as far as is known here: no device is asked.
    `bring_all` brings them up to it.

    Args:
        devices: the fleet, of all targets.
    """
    held = stages.status(targets, target)
    mine = [device for device in devices if device.target == target]
    return [device for device in mine if is_behind(held, device, read_record(targets, target, device.name))]


def is_behind(status: StageStatus, device: Device, record: DeviceRecord | None) -> bool:
    """Whether a device does not run what its ring ought to, or still runs a canary that was ended."""
    wanted = status.wanted(device.ring)
    if wanted is None:
        return status.ended is not None and record is not None and record.runs(status.ended.engine)
    return record is None or not record.runs(wanted[1].engine)


def has_run(targets: Path, device: Device, engine: StagedEngine) -> bool:
    """Whether a device is known to have run these very bytes, and to have them still."""
    record = read_record(targets, device.target, device.name)
    return record is not None and engine.engine_sha256 in [kept.engine_sha256 for kept in record.kept]


def note_active(targets: Path, device: Device, stage: Stage, activation: Activation, found: str = "") -> DeviceRecord:
    """Write down that a device runs an engine."""
    earlier, now = read_record(targets, device.target, device.name), utc_now()
    known = {engine.folder: engine for engine in (*(earlier.kept if earlier else []), activation.engine)}
    kept = [known[folder] for folder in activation.kept if folder in known]
    same = earlier is not None and earlier.current == activation.engine
    record = DeviceRecord(
        device=device.name,
        target=device.target,
        ring=device.ring,
        outcome="active",
        stage=stage,
        at=now,
        why=found,
        current=activation.engine,
        since=earlier.since if same and earlier else now,
        kept=kept,
        measured=_measured(earlier, kept),
    )
    return _write(targets, record)


def note_failure(targets: Path, device: Device, stage: Stage, error: FpenetError) -> DeviceRecord:
    """Write down that a device could not be had to run an engine; what it ran, it is taken to run still."""
    earlier = read_record(targets, device.target, device.name)
    attempt = {"outcome": outcome_of(error), "stage": stage, "at": utc_now(), "why": str(error)}
    if earlier is None:
        return _write(targets, DeviceRecord(device=device.name, target=device.target, ring=device.ring, **attempt))
    return _write(targets, earlier.model_copy(update=attempt | {"ring": device.ring}))


def note_measured(targets: Path, device: Device, build_key: str, measured: Measured) -> None:
    """Keep what was measured of an engine on a device that has a record."""
    record = read_record(targets, device.target, device.name)
    if record is not None:
        _write(targets, record.model_copy(update={"measured": record.measured | {build_key: measured}}))


def read_record(targets: Path, target: str, device: str) -> DeviceRecord | None:
    """The record of a device; None if nothing was ever asked of it.

    Raises:
        StorageError: it can't be read.
    """
    path = _path(targets, target, device)
    try:
        return DeviceRecord.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError as error:
        raise StorageError(f"{path}: not a device's record; remove it, the next delivery writes it anew") from error


def read_records(targets: Path, target: str) -> list[DeviceRecord]:
    """Records of all devices of a target that were ever asked for something, by name."""
    names = sorted(path.stem for path in (targets / target / "devices").glob("[!.]*.json"))
    return [record for name in names if (record := read_record(targets, target, name)) is not None]


def engine_directory(targets: Path, target: str, engine: StagedEngine) -> Path:
    """Where a staged engine lies here, once it is certain that it, and what is told of it, is what was staged.

    Raises:
        StorageError: it is gone, or was changed.
    """
    directory = (targets / target / engine.engine).resolve().parent
    found = described(directory, stages.manifest_path(targets, target, engine))
    if found.engine_sha256 != engine.engine_sha256:
        raise StorageError(f"{directory}: its engine was changed since {engine} was staged; run the flow again")
    return directory


def _is_left(targets: Path, status: StageStatus, device: Device) -> bool:
    record = read_record(targets, device.target, device.name)
    return status.wanted(device.ring) is None and is_behind(status, device, record)


def _require_tried(targets: Path, status: StageStatus, devices: Iterable[Device], tried: Tried) -> None:
    for device in devices:
        wanted = status.wanted(device.ring)
        if wanted is None or has_run(targets, device, wanted[1].engine):
            continue
        if (device.name, wanted[1].engine.engine_sha256) not in tried:
            raise InputError(
                f"target '{status.target}': what '{device.name}' ought to run has changed while devices were "
                "measured; run the same command again"
            )


def _bring_one(
    targets: Path, status: StageStatus, device: Device, open_shell: OpenShell, tried: Tried
) -> DeviceRecord:
    wanted = status.wanted(device.ring)
    stage: Stage = wanted[0] if wanted else "canary"
    row = tried.get((device.name, wanted[1].engine.engine_sha256)) if wanted else None
    if row is not None and row.state != "passed":
        return note_failure(targets, device, stage, _error_of(row))
    try:
        with open_shell(device) as shell:
            if wanted is None:
                return _note_idle(targets, device, deactivate(shell, device.target))
            delivery, activation = _bring(shell, targets, device, wanted[1].engine)
    except FpenetError as error:
        return note_failure(targets, device, stage, error)
    found = "; ".join(filter(None, (delivery.found, activation.found)))
    record = note_active(targets, device, stage, activation, found)
    if row is not None:
        note_measured(targets, device, activation.engine.build_key, Measured(px=row.parity_px, fps=row.fps))
    return record


def _bring(shell: Shell, targets: Path, device: Device, engine: StagedEngine) -> tuple[Delivery, Activation]:
    """Deliver a staged engine to a device that can load it, and have the device run it; it is told what the engine
    was staged with.

    Raises:
        EngineMismatchError: the engine was built for another GPU, or by another TensorRT than the device has now.
        FpenetError: as `deploy.delivery.deliver` and `activate`; it runs what it ran, or, offline, one of the two.
    """
    directory = engine_directory(targets, device.target, engine)
    manifest = stages.manifest_path(targets, device.target, engine)
    _require_loadable(shell, device, read_json(manifest))
    delivery = deliver(shell, directory, device.target, manifest=manifest)
    return delivery, activate(shell, delivery.engine, device.target)


def _error_of(row: DeviceRow) -> FpenetError:
    """Of a device that did not pass."""
    return _ERRORS.get(row.state, GateError)(row.why)


def _require_loadable(shell: Shell, device: Device, manifest: dict[str, Any]) -> None:
    """An engine that is tied to no GPU runs wherever it was measured; nothing is asked for it."""
    if "compute_capability" in manifest["target"]:
        target = find_target(device.target)
        require_same(manifest, read_facts(shell, target, program=program_of(device, target)))


def _note_idle(targets: Path, device: Device, found: str) -> DeviceRecord:
    """Write down that a device, which has a record, runs nothing any more."""
    record, now = read_record(targets, device.target, device.name), utc_now()
    assert record is not None
    why = "; ".join(filter(None, ("its canary was ended, and nothing is in production", found)))
    told = {"outcome": "active", "stage": "canary", "ring": device.ring, "why": why, "current": None}
    return _write(targets, record.model_copy(update=told | {"at": now, "since": now}))


def _measured(earlier: DeviceRecord | None, kept: Iterable[CurrentEngine]) -> dict[str, Measured]:
    keys = {engine.build_key for engine in kept}
    return {key: numbers for key, numbers in earlier.measured.items() if key in keys} if earlier else {}


def _write(targets: Path, record: DeviceRecord) -> DeviceRecord:
    write_json(_path(targets, record.target, record.device), record.model_dump(mode="json"))
    return record


def _path(targets: Path, target: str, device: str) -> Path:
    return targets / target / "devices" / f"{device}.json"
