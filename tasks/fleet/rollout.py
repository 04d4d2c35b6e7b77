"""From an accepted version to engines on devices: the composition, without Prefect and without a network of its own.

Per target: a graph in its precision, an engine (built here, or on the first canary device that can), the gates on
every canary device, the stage `canary`, then the same for the main ring and the stage `production`. Where parity
fails, the next precision of the ladder is tried. Targets and devices go in parallel, and what happens to one is a row
of the result and no reason for another to stop.

A ring is passed when every device of it that answered passed, and at least one did. A target without canary devices
goes straight to its main ring; one without main devices goes into production once a canary device runs it. What was
done is found again, so a run that was killed goes on where it was: engines by their build key, deliveries by what is
read back. What somebody has taken back since the rollout began is not brought back by a run that goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from deploy import stages
from deploy.devices import Device, Ring
from deploy.engine import BuiltEngine, read_engine
from deploy.pointers import Promoted, StagedEngine, utc_now
from deploy.targets import Target
from schemas.errors import FpenetError, GateError, InputError
from schemas.storage import make_folder
from tasks.engines import why_not_here
from tasks.fleet.ascent import Ascent, ascend, build_here, record_passed
from tasks.fleet.deliveries import bring_passed
from tasks.fleet.plan import Plan
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
    reached = earlier if earlier is not None and earlier.engine and earlier.state in REACHED["canary"] else None
    try:
        if reached is not None:
            row = _go_on(plan, reached)
        elif why := _taken_back(plan, target.name):
            row = replace(_blank(target), state="skipped", why=why)
        else:
            row = _begin(plan, target)
    except FpenetError as error:  # of this machine: its disk, a store of engines that somebody changed
        row = replace(reached or replace(_blank(target), state="failed"), why=str(error))
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
    return _from_ring_to_ring(plan, found.built, replace(row, state="built"))


def _go_on(plan: Plan, earlier: TargetRow) -> TargetRow:
    """What is left of a target that came to the canary devices, or further."""
    built = read_engine(plan.workspace.engines / str(earlier.engine))
    if why := _overtaken(plan, built, earlier.state):
        return replace(earlier, why=why, again=False, devices=tuple(_given_up(row) for row in earlier.devices))
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
    way = _Way(plan, built, row)
    why, again = "", False
    try:
        why = next(filter(None, map(way.take, plan.rings(built.target))), "") or way.arrive()
    except InputError as error:  # somebody else is changing the target, or has staged another engine there
        why, again = str(error), True
    except FpenetError as error:
        why = str(error)
        way.state = "failed" if way.state == "built" else way.state
    at = row.at if way.state == row.state else utc_now()
    order = [device for devices in plan.rings(built.target).values() for device in devices]
    found = tuple(way.rows.get(device.name) or _not_reached(device) for device in order)
    return replace(row, state=way.state, at=at, why=why or _waiting(found), again=again, devices=found)


class _Way:
    """An engine on its way from ring to ring: how far it is, also where an error ends it."""

    def __init__(self, plan: Plan, built: BuiltEngine, row: TargetRow) -> None:
        self._plan, self._built = plan, built
        self._rings = plan.rings(built.target)
        self.state: TargetState = row.state
        self.rows = {device.device: device for device in row.devices}

    def take(self, ring: Ring) -> str:
        """Take one ring; says why the way ends there, or ''."""
        plan, built, devices = self._plan, self._built, self._rings[ring]
        self.rows |= _asked(plan, built, devices, self.rows)
        if self.state not in REACHED[ring] and (why := _held_up(self._of(ring))):
            return f"{ring} ring: {why}"
        to: Promoted = "canary" if ring == "canary" and self.state != "promoted" else "production"
        with self._changing():
            if why := _overtaken(plan, built, self.state):
                self.rows = {name: _given_up(row) for name, row in self.rows.items()}
                return why
            self._promote(to)
            self.rows |= _activated(plan, built, devices, self.rows)
        if to == "canary" and not any(row.state == "active" for row in self._of(ring)):
            return f"canary ring: no device runs it yet: {', '.join(device.name for device in devices)}"
        return ""

    def arrive(self) -> str:
        """Into production where there is no main ring; says why not, or ''."""
        if self.state != "canary" or "main" in self._rings or not self._rings:
            return ""
        with self._changing():
            if why := _overtaken(self._plan, self._built, self.state):
                return why
            self._promote("production")
        return ""

    def _changing(self) -> AbstractContextManager[None]:
        targets, name = self._plan.workspace.targets, self._built.target.name
        make_folder(targets / name)
        return changing(targets, name)

    def _promote(self, to: Promoted) -> None:
        """Past `canary` an engine comes from there, whether or not the fleet still has canary devices."""
        if self.state in (to, "promoted"):
            return
        plan, built = self._plan, self._built
        targets, name = plan.workspace.targets, built.target.name
        if self.state == "built":
            stages.stage(targets, name, built.directory, by=plan.by, why=plan.why)
        tried = to == "canary" or self.state == "canary"
        meant = {"expected": built.sha256, "allow": self._meant}
        stages.promote(targets, name, by=plan.by, why=plan.why, to=to, has_canaries=tried, **meant)
        self.state = "promoted" if to == "production" else "canary"

    def _meant(self, engine: StagedEngine) -> str:
        """Other versions of the same network have the same bytes, and were not approved with this one."""
        origin = self._plan.material.provenance
        if (engine.model_name, engine.model_version) != (origin.model_name, origin.model_version):
            raise InputError(f"target '{self._built.target.name}': {engine} came between, and nothing was promoted")
        return ""

    def _of(self, ring: Ring) -> list[DeviceRow]:
        return [self.rows[device.name] for device in self._rings[ring]]


def _asked(
    plan: Plan, built: BuiltEngine, devices: Sequence[Device], rows: Mapping[str, DeviceRow]
) -> dict[str, DeviceRow]:
    """Devices that have no answer yet: they are asked now."""
    known = (*BAD, "passed", "active")
    new = [device for device in devices if device.name not in rows or rows[device.name].state not in known]
    return {checked.row.device: checked.row for checked in plan.check_all(new, built)}


def _activated(
    plan: Plan, built: BuiltEngine, devices: Sequence[Device], rows: Mapping[str, DeviceRow]
) -> dict[str, DeviceRow]:
    passed = [device for device in devices if rows[device.name].state == "passed"]
    found = [rows[device.name] for device in passed]
    done = bring_passed(plan.workspace.targets, passed, built.sha256, found, plan.open_shell)
    return {row.device: row for row in done}


def _overtaken(plan: Plan, built: BuiltEngine, state: TargetState) -> str:
    """Why devices do not get this engine any more, or ''."""
    if state == "built":
        return _taken_back(plan, built.target.name)
    stage: Promoted = "production" if state == "promoted" else "canary"
    pointer = stages.status(plan.workspace.targets, built.target.name).pointer(stage)
    held = pointer and (pointer.engine.build_key, pointer.engine.engine_sha256)
    if held == (built.key, built.sha256):
        return ""
    now = f"{pointer.engine} by {pointer.event.by}" if pointer else "nothing"
    return f"{stage} holds {now} by now, so nothing more is delivered; `fpenet promote` brings devices up to it"


def _taken_back(plan: Plan, target: str) -> str:
    """Who rolled the target back since the rollout began, unless something was promoted again since; or ''."""
    changes = [event for event in stages.history(plan.workspace.targets, target) if event.action != "stage"]
    if not changes or changes[-1].action not in ("rollback", "end") or changes[-1].at <= plan.began_at:
        return ""
    version = plan.material.provenance.model_version
    return (
        f"rolled back by {changes[-1].by} since this rollout began ({changes[-1].why}); "
        f"`fpenet run rollout --version {version}` begins it anew"
    )


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
