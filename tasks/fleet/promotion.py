"""Promotion and rollback: the pointer of a target, and then its devices.

Whoever changes a target holds its lock from the pointer to the last device, so that two changes come one after the
other on every device as they do in the log. An engine is measured before that on devices that have not run it: that
takes minutes, for which no rollback has to wait. A process that dies has changed the pointer or has not; the same
command again, or `settle_target`, brings the devices to what the pointers say. A rollback notes beforehand which
change it is about to make, so that the same command again completes it and does not go back one engine more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from deploy import stages
from deploy.devices import RINGS, Device, Ring, ring
from deploy.pointers import Pointer, Promoted, StagedEngine, StageStatus
from deploy.shells.opening import OpenShell, open_shell
from schemas.errors import FpenetError, GateError, InputError, ReviewError
from schemas.storage import read_json, write_json
from tasks.fleet.deliveries import (
    DeviceRecord,
    Measure,
    Tried,
    behind,
    bring_all,
    has_run,
    read_record,
)
from tasks.fleet.results import BAD, DeviceRow
from tasks.review.approval import Accepted

LOCK, UNFINISHED = ".changing.lock", ".rollback.json"
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Promotion:
    """A change of a target.

    Attributes:
        stage: that it was about.
        changed: False if the stage held the engine already: of a rollback, that an earlier one was cut off, and
            is complete now.
        devices: those that were asked to run what their ring ought to.
    """

    target: str
    stage: Promoted
    pointer: Pointer
    changed: bool
    devices: tuple[DeviceRecord, ...]


@contextmanager
def changing(targets: Path, target: str, *, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Hold a target: no other promotion, rollback or rollout changes it, or its devices, meanwhile.

    Raises:
        InputError: somebody else holds it for longer than `patience_s`.
    """
    if not (targets / target).is_dir():
        raise InputError(stages.NOTHING_STAGED.format(target=target))
    try:
        with FileLock(targets / target / LOCK, timeout=patience_s):
            yield
    except Timeout as error:
        raise InputError(
            f"target '{target}': another promotion, rollback or rollout has been under way for {patience_s:g} s; "
            "let it end, and run the same command again"
        ) from error


def promote_target(
    targets: Path,
    target: str,
    devices: Sequence[Device],
    *,
    to: Promoted,
    by: str,
    why: str,
    accepted: Accepted | None,
    measure: Measure,
    override: str = "",
    open_shell: OpenShell = open_shell,
) -> Promotion:
    """Promote an engine one stage, and have the devices of the stage run it: the canary ring, or both rings.

    Args:
        devices: the fleet, of all targets.
        accepted: the approval that stands, as `tasks.review.approval.accepted_version` has it.
        measure: asked of devices that have not run the engine, before anything changes, and while others may change
            the target.
        override: why an engine of another version goes there nevertheless; kept in the log.

    Raises:
        ReviewError: the engine's version is not the one that was accepted, and there is no override.
        GateError: no device passed that ought to run it in production, and no canary device has tried it before.
        InputError: nothing is at the stage before; or no canary device runs the engine yet; or others have changed
            the target while devices were measured.
        StorageError: the engine's file is gone or was changed.
        FpenetError: this machine lacks what it takes to measure the engine. No stage has changed.
    """
    canaries = ring(devices, target, "canary")
    asked = canaries if to == "canary" else _of(devices, target)

    def allow(engine: StagedEngine) -> str:
        return _allowed(target, engine, accepted, override)

    with changing(targets, target):
        seen = _ready(targets, target, to, canaries)
        engine = stages.promotable(targets, target, to=to, has_canaries=bool(canaries), allow=allow)
    tried = _tried(targets, asked, _wanted_with(engine, to, seen), measure)
    if not canaries and not engine.is_same(seen.production and seen.production.engine):
        _require_passed(targets, target, engine, asked, tried)
    with changing(targets, target):
        _require_unchanged(targets, target, seen)
        before = _ready(targets, target, to, canaries)
        pointer = stages.promote(
            targets,
            target,
            by=by,
            why=why,
            to=to,
            has_canaries=bool(canaries),
            expected=engine.engine_sha256,
            allow=allow,
        )
        changed = before.pointer(to) != pointer
        return Promotion(target, to, pointer, changed, _settled(targets, target, asked, open_shell, tried))


def roll_back_target(
    targets: Path, target: str, devices: Sequence[Device], *, by: str, why: str, open_shell: OpenShell = open_shell
) -> Promotion:
    """End a canary that is newer than production, or else restore the production engine before this one, on every
    device; `pointer.event.before` is what it was, and `stage` says which of the two was done.

    Raises:
        InputError: there is no such canary, and no engine was in production before this one.
        StorageError: the file or the manifest of the engine to go back to is gone or was changed.
    """
    with changing(targets, target):
        pointer = _cut_off(targets, target)
        changed = pointer is None
        if pointer is None:
            write_json(targets / target / UNFINISHED, {"number": len(stages.history(targets, target)) + 1})
            pointer = stages.rollback(targets, target, by=by, why=why)
        stage: Promoted = "canary" if pointer.event.action == "end" else "production"
        return Promotion(target, stage, pointer, changed, _all_settled(targets, target, devices, open_shell))


def _cut_off(targets: Path, target: str) -> Pointer | None:
    """What an earlier rollback of this very target did, if it died before the last device had it. An engine that was
    staged meanwhile changes nothing of that; a promotion does."""
    path = targets / target / UNFINISHED
    if not path.is_file():
        return None
    events = stages.history(targets, target)[read_json(path)["number"] - 1 :]
    done = [event for event in events if event.action != "stage"]
    return Pointer(event=done[0]) if len(done) == 1 and done[0].action in ("rollback", "end") else None


def settle_target(
    targets: Path,
    target: str,
    devices: Sequence[Device],
    *,
    measure: Measure,
    open_shell: OpenShell = open_shell,
) -> tuple[DeviceRecord, ...]:
    """Have every device of a target run what the stages say: those that were offline, or that somebody changed. A
    rollback that was cut off is complete then: the next one goes back one engine more.

    Args:
        measure: asked of devices that have not run what they ought to, while others may change the target.

    Raises:
        InputError: others have changed the target while devices were measured.
        StorageError: an engine that they ought to run is gone here, or was changed.
        FpenetError: this machine lacks what it takes to measure it.
    """
    with changing(targets, target):
        wanted = _wanted(stages.status(targets, target))
    tried = _tried(targets, _of(devices, target), wanted, measure)
    with changing(targets, target):
        return _all_settled(targets, target, devices, open_shell, tried)


def finish_rollbacks(
    targets: Path, devices: Sequence[Device], *, open_shell: OpenShell = open_shell
) -> tuple[tuple[DeviceRecord, ...], tuple[str, ...]]:
    """Ask the devices that have missed a rollback of their target, or the end of its canary: they were offline, or it
    was cut off. What they get has run on them, or on others of their target, so nothing is measured again.

    Returns:
        Records of the devices that were asked; and why those of other targets were not, for people.
    """
    records: list[DeviceRecord] = []
    problems: list[str] = []
    for target in sorted({device.target for device in devices}):
        try:
            if _missed_rollback(targets, target, devices):
                with changing(targets, target):  # one under way has come to an end then
                    missed = _missed_rollback(targets, target, devices)
                    records += _settled(targets, target, missed, open_shell)
                    end_cut_off(targets, target, devices)
        except FpenetError as error:  # of this target: a record that can't be read, or somebody else holds it
            problems.append(str(error))
    return tuple(records), tuple(problems)


def end_cut_off(targets: Path, target: str, devices: Sequence[Device]) -> None:
    """A rollback that was cut off is complete once no device is behind, whoever has brought them up; for whoever
    holds the target.

    Args:
        devices: the fleet, of all targets.
    """
    if not behind(targets, target, devices):
        (targets / target / UNFINISHED).unlink(missing_ok=True)


def _missed_rollback(targets: Path, target: str, devices: Sequence[Device]) -> list[Device]:
    """Devices that are behind a rollback, or the end of a canary, and have not failed to follow it."""
    status = stages.status(targets, target)
    return [device for device in behind(targets, target, devices) if _can_go_back(targets, status, device)]


def _can_go_back(targets: Path, status: StageStatus, device: Device) -> bool:
    record, wanted = read_record(targets, device.target, device.name), status.wanted(device.ring)
    if record is None:
        return False
    left = status.ended if status.ended and record.runs(status.ended.engine) else wanted and wanted[1]
    return left is not None and left.event.action in ("end", "rollback") and not record.gave_up(left.event)


def _of(devices: Sequence[Device], target: str) -> list[Device]:
    return [device for device in devices if device.target == target]


def _wanted(status: StageStatus) -> dict[Ring, StagedEngine]:
    """What the devices of each ring ought to run."""
    return {name: found[1].engine for name in RINGS if (found := status.wanted(name))}


def _wanted_with(engine: StagedEngine, stage: Promoted, before: StageStatus) -> dict[Ring, StagedEngine]:
    """The same once an engine was promoted to a stage, if it is not there already."""
    held = before.pointer(stage)
    same = held is not None and engine.is_same(held.engine)
    return _wanted(before) if same else dict.fromkeys(RINGS, engine)


def _tried(targets: Path, devices: Sequence[Device], wanted: Mapping[Ring, StagedEngine], measure: Measure) -> Tried:
    """What the engines are on those devices that have not run them."""
    new = [
        (engine, device)
        for device in devices
        if (engine := wanted.get(device.ring)) and not has_run(targets, device, engine)
    ]
    found: dict[tuple[str, str], DeviceRow] = {}
    for sha256, engine in {engine.engine_sha256: engine for engine, _ in new}.items():
        rows = measure(engine, [device for each, device in new if each.engine_sha256 == sha256])
        found |= {(row.device, sha256): row for row in rows}
    return found


def _require_passed(
    targets: Path, target: str, engine: StagedEngine, devices: Sequence[Device], tried: Tried
) -> None:
    """What is in production a rollback may bring to every device, so one that answers has to have passed."""
    bad = [row for row in tried.values() if row.state in BAD]
    passed = any(row.state == "passed" for row in tried.values())
    if bad and not passed and not any(has_run(targets, device, engine) for device in devices):
        told = ", ".join(f"{row.device} {row.state} ({row.why})" for row in bad)
        raise GateError(f"target '{target}': {engine} passed on no device, and nothing was promoted: {told}")


def _settled(
    targets: Path, target: str, devices: Sequence[Device], open_shell: OpenShell, tried: Tried | None = None
) -> tuple[DeviceRecord, ...]:
    return tuple(bring_all(targets, stages.status(targets, target), devices, open_shell, tried))


def _all_settled(
    targets: Path, target: str, devices: Sequence[Device], open_shell: OpenShell, tried: Tried | None = None
) -> tuple[DeviceRecord, ...]:
    """Every device of a target was asked then; those that are offline are asked again without a rollback."""
    records = _settled(targets, target, _of(devices, target), open_shell, tried)
    (targets / target / UNFINISHED).unlink(missing_ok=True)
    return records


def _allowed(target: str, engine: StagedEngine, accepted: Accepted | None, override: str) -> str:
    """What the log notes of an engine that may go to devices."""
    if accepted is not None and (engine.model_name, engine.model_version) == (accepted.name, accepted.version):
        return ""
    if override.strip():
        return f"not approved, override: {override.strip()}"
    stands = f"accepted is {accepted}" if accepted else "no version was accepted yet"
    raise ReviewError(
        f"target '{target}': {engine} is not the version that was approved ({stands}); approve it in the registry "
        "and `fpenet run review --config FILE`, or say why it goes to devices nevertheless: --override REASON"
    )


def _ready(targets: Path, target: str, to: Promoted, canaries: Sequence[Device]) -> StageStatus:
    """What the stages hold. An engine that no canary device has run has not been tried, and goes no further."""
    status = stages.status(targets, target)
    if to == "canary" or not canaries or status.canary is None:  # of the last, `stages.promote` says more
        return status
    engine = status.canary.engine
    records = [read_record(targets, target, device.name) for device in canaries]
    if any(record is not None and record.runs(engine) for record in records):
        return status
    told = ", ".join(
        f"{device.name} {record.outcome if record else 'not asked'}"
        for device, record in zip(canaries, records, strict=True)
    )
    raise InputError(
        f"target '{target}': no canary device runs {engine} yet ({told}); "
        f"`fpenet promote --target {target} --to canary --config FILE` asks them again"
    )


def _require_unchanged(targets: Path, target: str, seen: StageStatus) -> None:
    """A rollback that came in between is not to be undone by the promotion that did not know of it."""
    now = stages.status(targets, target)
    if (now.canary, now.production) != (seen.canary, seen.production):
        raise InputError(
            f"target '{target}': somebody else has changed it while devices were measured, and nothing was promoted; "
            "see `fpenet status --config FILE`, and promote again if that is still right"
        )
