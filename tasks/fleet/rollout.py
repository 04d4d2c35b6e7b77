"""From an accepted version to engines on devices: the composition, without Prefect and without a network of its own.

Per target: a graph in its precision, an engine (built here, or on the first canary device that can), the gates on
every canary device, the stage `canary`, then the same for the main ring and the stage `production`. Where parity
fails, the next precision of the ladder is tried. Targets and devices go in parallel, and what happens to one is a row
of the result and no reason for another to stop.

A ring is passed when every device of it that answered passed, and at least one did. A target without canary devices
goes straight to its main ring, one without main devices into production with its canary ring. What was done is found
again, so a run that was killed goes on where it was: engines by their build key, deliveries by what is read back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deploy import stages
from deploy.devices import Device, Ring
from deploy.engine import BuiltEngine, read_engine
from deploy.stages import Promoted
from deploy.targets import Target
from schemas.errors import FpenetError, GateError, StorageError
from tasks.engines import why_not_here
from tasks.fleet.ascent import Ascent, ascend, build_here, record_passed
from tasks.fleet.check import activate_on
from tasks.fleet.pending import utc_now
from tasks.fleet.plan import Plan, at_once
from tasks.fleet.promotion import changing
from tasks.fleet.results import BAD, DeviceRow, TargetRow, TargetState

REACHED: dict[Ring, tuple[TargetState, ...]] = {"canary": ("canary", "promoted"), "main": ("promoted",)}
"""States of a target that has its engine in production, or is past a ring."""


def roll_out_target(plan: Plan, target: Target, earlier: TargetRow | None = None) -> TargetRow:
    """Bring the version to the devices of one target as far as it goes, and say how far.

    Args:
        earlier: where an earlier run left it; devices that run the engine by now are left alone.
    """
    began = time.perf_counter()
    try:
        if earlier is not None and earlier.engine and earlier.state in REACHED["canary"]:
            row = _go_on(plan, target, earlier)
        else:
            row = _begin(plan, target)
    except FpenetError as error:  # of this machine: its disk, a store of engines that somebody changed
        row = replace(earlier or _blank(target), state="failed", why=str(error))
    spent = earlier.seconds if earlier else 0.0
    return replace(row, seconds=spent + time.perf_counter() - began)


def _begin(plan: Plan, target: Target) -> TargetRow:
    rings = plan.rings(target)
    if not rings:
        return _without_devices(plan, target)
    first, *others = rings
    found = ascend(plan, target, rings[first])
    untouched = [_not_reached(device) for name in others for device in rings[name]]
    row = replace(_described(target, found), devices=(*found.rows, *untouched))
    why = found.why or _held_up(found.rows)
    if found.built is None or why:
        return replace(row, state=_worst(found), why=why)
    record_passed(plan, found)
    stages.stage(plan.workspace.targets, target.name, found.built.directory, by=plan.by, why=plan.why)
    return _from_ring_to_ring(plan, found.built, replace(row, state="built"))


def _go_on(plan: Plan, target: Target, earlier: TargetRow) -> TargetRow:
    """What is left of a target that came to the canary devices, or further."""
    if why := _overtaken(plan, earlier):
        return replace(earlier, why=why, devices=tuple(_given_up(row) for row in earlier.devices))
    rung = target.model_copy(update={"precision": earlier.precision})
    built = read_engine(plan.workspace.engines / str(earlier.engine), rung)
    return _from_ring_to_ring(plan, built, earlier)


def _without_devices(plan: Plan, target: Target) -> TargetRow:
    none = "no device of this target is in the fleet"
    if why := why_not_here(target):
        return replace(_blank(target), state="skipped", why=f"{none}, and it is not built here: {why}")
    try:
        found = build_here(plan, target)
    except GateError as error:
        return replace(_blank(target), state="gated", why=str(error))
    stages.stage(plan.workspace.targets, target.name, found.built.directory, by=plan.by, why=plan.why)
    return replace(_described(target, found), state="built", why=f"{none}; it waits at staging")


def _from_ring_to_ring(plan: Plan, built: BuiltEngine, row: TargetRow) -> TargetRow:
    """Ring after ring: check whoever was not asked yet, promote, and have those that passed run the engine.

    Args:
        row: how far the target is, and what became of devices that were asked.
    """
    rings, state = plan.rings(built.target), row.state
    rows = {device.device: device for device in row.devices}
    why = ""
    for name, devices in rings.items():
        rows |= _asked(plan, built, devices, rows)
        if state not in REACHED[name] and (why := _held_up([rows[device.name] for device in devices])):
            why = f"{name} ring: {why}"
            break
        with changing(plan.workspace.targets, built.target.name):
            state = _promoted(plan, built, name, rings, state)
            rows |= _activated(plan, built, devices, rows, "canary" if state == "canary" else "production")
    at = row.at if state == row.state else utc_now()
    order = [device for devices in rings.values() for device in devices]
    found = tuple(rows.get(device.name) or _not_reached(device) for device in order)
    return replace(row, state=state, at=at, why=why or _waiting(found), devices=found)


def _asked(
    plan: Plan, built: BuiltEngine, devices: Sequence[Device], rows: Mapping[str, DeviceRow]
) -> dict[str, DeviceRow]:
    """Devices that have no answer yet: they are asked now."""
    known = (*BAD, "passed", "active")
    new = [device for device in devices if device.name not in rows or rows[device.name].state not in known]
    return {checked.row.device: checked.row for checked in plan.check_all(new, built)}


def _promoted(
    plan: Plan, built: BuiltEngine, ring: Ring, rings: Mapping[Ring, Sequence[Device]], state: TargetState
) -> TargetState:
    """Promote as far as a ring that passed allows: past the last one, into production."""
    targets: list[Promoted] = []
    if ring == "canary" and state not in REACHED["canary"]:
        targets.append("canary")
    if ring == list(rings)[-1] and state != "promoted":
        targets.append("production")
    for to in targets:
        pointer = stages.promote(
            plan.workspace.targets,
            built.target.name,
            by=plan.by,
            why=plan.why,
            to=to,
            has_canaries="canary" in rings,
        )
        if pointer.engine.build_key != built.key:
            raise StorageError(
                f"target '{built.target.name}': {pointer.engine} came between while this one was checked; it is at "
                f"{to} now, and goes to devices by `fpenet promote`; or roll it back"
            )
        state = "promoted" if to == "production" else "canary"
    return state


def _activated(
    plan: Plan, built: BuiltEngine, devices: Sequence[Device], rows: Mapping[str, DeviceRow], stage: Promoted
) -> dict[str, DeviceRow]:
    passed = [device for device in devices if rows[device.name].state == "passed"]
    targets = plan.workspace.targets
    done = at_once(
        lambda device: activate_on(device, plan.open_shell, built, rows[device.name], stage=stage, targets=targets),
        passed,
    )
    return {row.device: row for row in done}


def _overtaken(plan: Plan, earlier: TargetRow) -> str:
    """Why devices that were waited for do not get this engine any more, or ''."""
    held = stages.status(plan.workspace.targets, earlier.target)
    stage: Promoted = "production" if earlier.state == "promoted" else "canary"
    pointer = held.pointer(stage)
    if pointer is not None and pointer.engine.build_key == earlier.engine:
        return ""
    now = f"{pointer.engine} by {pointer.event.by}" if pointer else "nothing"
    return f"{stage} holds {now} by now, so nothing more is delivered; `fpenet promote` brings devices up to it"


def _blank(target: Target) -> TargetRow:
    return TargetRow(target.name, target.title, target.builder, "offline", "", utc_now())


def _described(target: Target, found: Ascent) -> TargetRow:
    row = replace(_blank(target), ladder=found.tried)
    if found.built is None:
        return row
    return replace(
        row,
        built_on=found.built_on,
        engine=found.built.key,
        sha256=found.built.sha256,
        size_bytes=found.built.size,
        precision=found.built.target.precision,
    )


def _not_reached(device: Device) -> DeviceRow:
    return DeviceRow(device.name, device.ring, "not reached")


def _given_up(row: DeviceRow) -> DeviceRow:
    return replace(row, state="not reached") if row.state == "offline" else row


def _worst(found: Ascent) -> TargetState:
    """The state of a target that did not come to its first stage."""
    states = {row.state for row in found.rows}
    if bad := next((state for state in BAD if state in states), None):
        return bad
    if "offline" in states and not found.why:
        return "offline"
    return "gated" if found.tried else "failed"


def _held_up(rows: Sequence[DeviceRow]) -> str:
    """Why a ring is not passed, or ''."""
    if bad := [row for row in rows if row.state in BAD]:
        return "; ".join(f"{row.device} {row.state}" for row in bad)
    if not any(row.state in ("passed", "active") for row in rows):
        return f"no device answers: {', '.join(row.device for row in rows)}"
    return ""


def _waiting(rows: Sequence[DeviceRow]) -> str:
    offline = [row.device for row in rows if row.state == "offline"]
    return f"waits for {', '.join(offline)}" if offline else ""
