"""What a target asks of an engine, and whether it was reached: parity per region, latency, speed, size.

A number that could not be measured is said to be so, and never counts as passed: where an engine ran, that stops it.
Ahead of time, where it can't run, the numbers are reported as not measured, and its devices measure them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deploy.parity import Latency, Parity
from deploy.targets import Target
from schemas.errors import GateError

MIB = 2**20


@dataclass(frozen=True)
class TargetGate:
    """One number against its bound.

    Attributes:
        name: `parity Eyes mean`, `parity Eyes max`, `parity confidence`, `latency p99`, `speed`, `size`.
        value: None where it was not measured.
        unit: px of the network's input, spreads (see `Parity.mean_confidence`), ms, faces/s, MiB.
        words: the whole of it as a sentence; why it was not measured.
    """

    name: str
    value: float | None
    bound: float
    unit: str
    passed: bool
    words: str


def gate_engine(
    target: Target,
    *,
    parity: Parity | None = None,
    latency: Latency | None = None,
    size: int | None = None,
    not_measured: str = "not run",
) -> tuple[TargetGate, ...]:
    """Every gate that the target has, in a fixed order.

    Args:
        parity: of the engine, where it ran.
        latency: of one call with `target.batch.optimum` faces; of another number it counts as not measured.
        size: of the engine's file, in bytes.
        not_measured: why what is None is None.
    """
    return (*parity_gates(target, parity, not_measured), *_other_gates(target, latency, size, not_measured))


def parity_gates(target: Target, parity: Parity | None, not_measured: str = "not run") -> tuple[TargetGate, ...]:
    """Mean and largest distance of each region; without numbers, of all keypoints and the regions named apart. And
    the difference of all confidences."""
    gates = target.gates
    regions = parity.mean_px if parity is not None else ("All", *gates.regions)
    distances = (
        _at_most(f"parity {region} {kind}", value and value.get(region), bound, "px", not_measured)
        for region in regions
        for kind, value, bound in (
            ("mean", parity and parity.mean_px, gates.parity_of(region).mean_px),
            ("max", parity and parity.max_px, gates.parity_of(region).max_px),
        )
    )
    found = parity and parity.mean_confidence
    return (*distances, _at_most("parity confidence", found, gates.confidence, "spreads", not_measured))


def failures(gates: Iterable[TargetGate]) -> list[TargetGate]:
    """What stops an engine where it ran: numbers beyond their bounds, and those that were not measured there."""
    return [gate for gate in gates if not gate.passed]


def require_reached(gates: Iterable[TargetGate], what: str) -> None:
    """Let an engine pass that ran and reached every gate.

    Raises:
        GateError: names every number that is beyond its bound or was not measured.
    """
    if beyond := failures(gates):
        raise GateError(f"{what} does not reach its gates: {'; '.join(gate.words for gate in beyond)}")


def _other_gates(target: Target, latency: Latency | None, size: int | None, not_measured: str) -> list[TargetGate]:
    gates, batch, found = target.gates, target.batch.optimum, []
    if latency is not None and latency.batch != batch:
        not_measured = f"timed with {latency.batch} faces a call, the gate is for {batch}"
        latency = None
    if gates.max_p99_ms is not None:
        p99_ms = latency and latency.p99_ms
        found.append(_at_most("latency p99", p99_ms, gates.max_p99_ms, "ms", not_measured))
    if gates.min_fps is not None:
        fps = latency and latency.faces_per_second
        found.append(_at_least("speed", fps, gates.min_fps, "faces/s", not_measured))
    if gates.max_size_mib is not None:
        mib = None if size is None else size / MIB
        found.append(_at_most("size", mib, gates.max_size_mib, "MiB", not_measured))
    return found


def _at_most(name: str, value: float | None, bound: float, unit: str, why: str) -> TargetGate:
    passed = value is not None and value <= bound
    return TargetGate(name, value, bound, unit, passed, _words(name, value, f"at most {bound:g} {unit}", unit, why))


def _at_least(name: str, value: float | None, bound: float, unit: str, why: str) -> TargetGate:
    passed = value is not None and value >= bound
    return TargetGate(name, value, bound, unit, passed, _words(name, value, f"at least {bound:g} {unit}", unit, why))


def _words(name: str, value: float | None, bound: str, unit: str, why: str) -> str:
    return f"{name} not measured: {why} ({bound})" if value is None else f"{name} {value:.3g} {unit} ({bound})"
