"""Devices that do not run what their stage says: those that missed a rollout, and those that are new in the fleet.

They are measured before they get the engine, as those before them were; only its build and its promotion are over.
What a device failed is written down, and not tried again until the stage changes or somebody asks it by `fpenet`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from deploy import stages
from deploy.devices import RINGS, Device, ring
from deploy.engine import read_engine
from deploy.pointers import Pointer, StagedEngine
from schemas.errors import FpenetError
from tasks.fleet.check import OpenShell, absent, check_on
from tasks.fleet.deliveries import Measure, behind, bring_passed, engine_directory, read_record
from tasks.fleet.material import MaterialOf
from tasks.fleet.promotion import UNFINISHED, changing, end_cut_off
from tasks.fleet.results import BAD, DeviceRow
from tasks.fleet.threads import at_once


def catch_up(
    targets: Path,
    devices: Sequence[Device],
    *,
    open_shell: OpenShell,
    material_of: MaterialOf,
    asked: Collection[str],
) -> tuple[DeviceRow, ...]:
    """Bring devices up to their stages, where they pass.

    Args:
        devices: the fleet, of all targets.
        material_of: what engines of a model version are compared on.
        asked: names of devices that had their turn just now.

    Returns:
        A row for every device that was behind, without those in `asked`; where a target can't be looked at, for all
        of its devices.
    """
    rows: list[DeviceRow] = []
    for target in sorted({device.target for device in devices}):
        late = [device for device in devices if device.target == target and device.name not in asked]
        try:
            late = behind(targets, target, late)
            for name in RINGS:
                if group := ring(late, target, name):
                    rows += _ring_caught_up(targets, group, open_shell, material_of)
            if (targets / target / UNFINISHED).is_file():
                with changing(targets, target):
                    end_cut_off(targets, target, devices)
        except FpenetError as error:  # of this target, such as a record that can't be read
            done = {row.device for row in rows}
            left = [device for device in late if device.name not in done]
            rows += [DeviceRow(device.name, device.ring, "not reached", str(error)) for device in left]
    return tuple(rows)


def measure_by(targets: Path, open_shell: OpenShell, material_of: MaterialOf) -> Measure:
    """What measures an engine on devices, for whoever brings it there."""

    def measure(engine: StagedEngine, devices: Sequence[Device]) -> list[DeviceRow]:
        built = read_engine(engine_directory(targets, devices[0].target, engine))
        material = material_of(engine)
        return at_once(lambda device: check_on(device, open_shell, built, material).row, devices)

    return measure


def told(rows: Iterable[DeviceRow]) -> str:
    """What came of it, for people; '' where no device was behind."""
    return "; ".join(f"{row.device} {row.state}{f' ({row.why})' if row.why else ''}" for row in rows)


def _ring_caught_up(
    targets: Path, devices: Sequence[Device], open_shell: OpenShell, material_of: MaterialOf
) -> list[DeviceRow]:
    """Devices of one ring of one target: the same engine for all."""
    target = devices[0].target
    wanted = stages.status(targets, target).wanted(devices[0].ring)
    if wanted is None:  # `finish_rollbacks` has asked them
        why = f"it runs a canary that was ended; `fpenet deliver --target {target} --config FILE` asks it again"
        return [DeviceRow(device.name, device.ring, "not reached", why) for device in devices]
    left = {device.name: row for device in devices if (row := _failed_before(targets, device, wanted[1]))}
    left |= absent([device for device in devices if device.name not in left], open_shell)
    todo = [device for device in devices if device.name not in left]
    if not todo:
        return list(left.values())
    engine = wanted[1].engine
    try:
        checked = measure_by(targets, open_shell, material_of)(engine, todo)
    except FpenetError as error:  # of the version: nothing to compare on here, or its engine is gone
        return [
            *left.values(),
            *(DeviceRow(device.name, device.ring, "not reached", str(error)) for device in todo),
        ]
    return [*left.values(), *_activated(targets, todo, engine, checked, open_shell)]


def _activated(
    targets: Path, devices: Sequence[Device], engine: StagedEngine, rows: Sequence[DeviceRow], open_shell: OpenShell
) -> list[DeviceRow]:
    """Devices that passed run the engine, unless the stage has changed meanwhile."""
    try:
        with changing(targets, devices[0].target):
            return bring_passed(targets, devices, engine.engine_sha256, rows, open_shell)
    except FpenetError as error:  # somebody else is changing the target
        return [replace(row, state="not reached", why=str(error)) for row in rows]


def _failed_before(targets: Path, device: Device, pointer: Pointer) -> DeviceRow | None:
    record = read_record(targets, device.target, device.name)
    if record is None or not record.gave_up(pointer.event):
        return None
    state = next(state for state in BAD if state == record.outcome)
    return DeviceRow(device.name, device.ring, state, record.why)
