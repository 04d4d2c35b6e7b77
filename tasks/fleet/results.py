"""What became of a rollout, as plain data: the record that a later run goes on from, the page and the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from deploy.devices import Ring
from schemas.errors import StorageError
from schemas.storage import write_json

DeviceState = Literal["active", "passed", "gated", "failed", "refused", "offline", "not reached"]
"""What a device is to the new engine.

active       it runs it
passed       it passed there; others of its ring did not, so the device runs the earlier one
gated        a number was beyond its bound there
failed       the device did not do what it was asked
refused      engine and device do not match, or it lets nobody in
offline      it did not answer, or went away; it is asked again
not reached  nothing was asked of it
"""

TargetState = Literal["promoted", "canary", "built", "gated", "failed", "refused", "offline", "skipped"]
"""How far a target came.

promoted  in production: every device of both rings that answered has it
canary    it passed on the canary devices; no device of the main ring has it (yet)
built     there is no canary device to check it on; it stays at staging
gated, failed, refused, offline    what kept it from the canary devices; asked again only where `offline`
skipped   nothing to build it on, or rolled back since the rollout began
"""


BAD: tuple[Literal["gated", "failed", "refused"], ...] = ("gated", "failed", "refused")
"""Of a device that answers and has no use for the engine, the worst first; a target takes its state from them."""


@dataclass(frozen=True)
class DeviceRow:
    """What became of the engine on one device.

    Attributes:
        state, why: see `DeviceState`; the reason in words, '' where there is nothing to say.
        parity_px: mean distance from the FP32 graph over all points, network-input pixels; `parity_max_px`: the
            furthest point of a face; `regions_px`: the mean by region. None where it did not run or
            put out no numbers.
        p50_ms, p99_ms: of one call at the target's usual batch. `fps`: faces a second.
        facts: what the device is, for people.
        seconds: how long it took.
    """

    device: str
    ring: Ring
    state: DeviceState
    why: str = ""
    parity_px: float | None = None
    parity_max_px: float | None = None
    regions_px: dict[str, float | None] | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    fps: float | None = None
    facts: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class TargetRow:
    """What became of a target.

    Attributes:
        state, why: see `TargetState`.
        builder, built_on: by what, and where: `here`, or the name of a device.
        engine, sha256, size_bytes, precision: of the engine; None where there is none.
        ladder: precisions that were tried before, and why they were left.
        at: when it came into this state, ISO 8601, UTC.
        seconds: work on it, of all runs of this rollout.
        again: somebody else was changing the target; the next run goes on although no device is waited for.
    """

    target: str
    title: str
    builder: str
    state: TargetState
    why: str
    at: str
    built_on: str | None = None
    engine: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    precision: str | None = None
    ladder: tuple[str, ...] = ()
    devices: tuple[DeviceRow, ...] = ()
    seconds: float = 0.0
    again: bool = False

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Devices that are asked again by the next run: none where something keeps the target from going on."""
        held_up = self.state != "promoted" and any(row.state in BAD for row in self.devices)
        if held_up or self.state not in ("promoted", "canary", "offline"):
            return ()
        return tuple(row.device for row in self.devices if row.state == "offline")

    @property
    def measured(self) -> DeviceRow | None:
        """The first device that has numbers."""
        return next((row for row in self.devices if row.parity_px is not None), None)


@dataclass(frozen=True)
class RolloutResult:
    """A version on its way to the devices. Times are ISO 8601, UTC.

    Attributes:
        id: names version and approval: the same approval is the same rollout, whichever run works on it.
        approved_by, approved_at: who approved it, and when the flow `review` accepted that. `began_at`: the first
            run. `seen_at`: the last one.
        targets: of the configuration, in its order.
        rows: of the targets that were gone through, in the same order; others were not finished.
        stopped: why it is over although something is open, such as a newer version; ''.
    """

    id: str
    model_name: str
    model_version: str
    report: str
    approved_by: str
    approved_at: str
    began_at: str
    seen_at: str
    targets: tuple[str, ...]
    rows: tuple[TargetRow, ...] = ()
    stopped: str = ""

    @property
    def version(self) -> str:
        return f"{self.model_name}/{self.model_version}"

    @property
    def open_targets(self) -> tuple[str, ...]:
        """Those that a later run goes on with: not finished, waiting for a device, or changed by somebody else."""
        rows = {row.target: row for row in self.rows}
        return tuple(name for name in self.targets if name not in rows or rows[name].waits_for or rows[name].again)

    @property
    def is_open(self) -> bool:
        return not self.stopped and bool(self.open_targets)

    @property
    def accepted_to_last_s(self) -> float | None:
        """From the acceptance by the flow `review` to the last engine that came into production, in seconds; None if
        none did."""
        return self._to_last_s(self.approved_at)

    @property
    def began_to_last_s(self) -> float | None:
        """The same from the beginning of this rollout: one begun anew comes long after the acceptance."""
        return self._to_last_s(self.began_at)

    def _to_last_s(self, since: str) -> float | None:
        promoted = [datetime.fromisoformat(row.at) for row in self.rows if row.state == "promoted"]
        return (max(promoted) - datetime.fromisoformat(since)).total_seconds() if promoted else None

    def row(self, target: str) -> TargetRow | None:
        return next((row for row in self.rows if row.target == target), None)

    @property
    def states(self) -> dict[str, str]:
        """Target -> state, for people and tests."""
        return {row.target: row.state for row in self.rows}


PAGE, DATA = "index.html", "result.json"
_RESULT = TypeAdapter(RolloutResult)


def in_order(rows: Iterable[TargetRow], targets: Sequence[str]) -> tuple[TargetRow, ...]:
    by_name = {row.target: row for row in rows}
    return tuple(by_name[name] for name in targets if name in by_name)


def save_result(result: RolloutResult, rollouts: Path) -> None:
    """Write the record `<rollouts>/<id>/result.json`."""
    write_json(rollouts / result.id / DATA, asdict(result))


def load_result(rollout_id: str, rollouts: Path) -> RolloutResult | None:
    """The record of a rollout; None if it never began.

    Raises:
        StorageError: it can't be read.
    """
    path = rollouts / rollout_id / DATA
    try:
        return _RESULT.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StorageError(
            f"{path}: not a rollout's record; remove it, and `fpenet run rollout` writes it anew"
        ) from error
