"""Which rollout there is work for: the version accepted last, or what an earlier run left open.

One rollout is under way at a time. `<rollouts>/current.json` names it; it is the one begun last, so that a newer
approval replaces it, and so does a version that somebody rolls out by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deploy.devices import Device
from deploy.pointers import utc_now
from schemas.storage import read_json, sha256_of, write_json
from tasks.fleet.results import RolloutResult, load_result, save_result
from tasks.review.approval import Accepted

CURRENT = "current.json"


def rollout_id(accepted: Accepted) -> str:
    """Names version and approval: `fpenet-7-1a2b3c4d`."""
    parts = [accepted.name, accepted.version, accepted.report, accepted.at]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '_', accepted.name)}-{accepted.version}-{sha256_of(parts)[:8]}"


def open_rollout(accepted: Accepted | None, targets: list[str], rollouts: Path) -> RolloutResult | None:
    """The rollout that a run without a wish of its own is to go on with; None if there is nothing to do.

    A version that was accepted and never rolled out begins, and ends one that is under way. Targets that the
    configuration has since got are open too; those that it lost are dropped.
    """
    if accepted is not None and is_new(accepted, rollouts):
        return begin(accepted, targets, rollouts)
    current = current_rollout(rollouts)
    if current is None:
        return None
    current = _with_targets(current, targets)
    return current if current.is_open else None


def has_work(accepted: Accepted | None, targets: list[str], rollouts: Path) -> bool:
    """Whether `open_rollout` would find one; begins none."""
    if accepted is not None and is_new(accepted, rollouts):
        return True
    current = current_rollout(rollouts)
    return current is not None and _with_targets(current, targets).is_open


def is_new(accepted: Accepted, rollouts: Path) -> bool:
    """Whether its rollout was never begun."""
    return load_result(rollout_id(accepted), rollouts) is None


def only_waited_for(result: RolloutResult, devices: Sequence[Device]) -> list[Device]:
    """The devices of the fleet that all open targets wait for; none where there is other work, such as a target that
    was not gone through, or whose devices are others by now."""
    found: list[Device] = []
    for name in result.open_targets:
        row, own = result.row(name), [device for device in devices if device.target == name]
        if row is None or row.again or {device.name for device in own} != {known.device for known in row.devices}:
            return []
        found += [device for device in own if device.name in row.waits_for]
    return found


def begin(accepted: Accepted, targets: list[str], rollouts: Path) -> RolloutResult:
    """The rollout of a version, from its beginning: what failed or was gated before is tried again."""
    now = utc_now()
    result = RolloutResult(
        id=rollout_id(accepted),
        model_name=accepted.name,
        model_version=accepted.version,
        report=accepted.report,
        approved_by=accepted.by,
        approved_at=accepted.at,
        began_at=now,
        seen_at=now,
        targets=tuple(targets),
    )
    _stop_current(result, rollouts)
    write_json(rollouts / CURRENT, {"id": result.id})  # first: a record that nothing names would count as begun
    save_result(result, rollouts)
    return result


def current_rollout(rollouts: Path) -> RolloutResult | None:
    """The rollout that was begun last, finished or not."""
    path = rollouts / CURRENT
    return load_result(read_json(path)["id"], rollouts) if path.is_file() else None


def _stop_current(newer: RolloutResult, rollouts: Path) -> None:
    current = current_rollout(rollouts)
    if current is not None and current.is_open and current.id != newer.id:
        save_result(replace(current, stopped=f"replaced by {newer.version} at {newer.began_at}"), rollouts)


def _with_targets(result: RolloutResult, targets: list[str]) -> RolloutResult:
    rows = tuple(row for row in result.rows if row.target in targets)
    return replace(result, targets=tuple(targets), rows=rows)
