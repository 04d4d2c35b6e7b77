"""INT8 -> mixed -> FP16: the fastest precision that stays close enough, and why the faster ones were left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.builders.base import Predictions
from deploy.calibration import Crops
from deploy.onnx_export import load_onnx
from deploy.parity import Parity, compare, graph_predictions
from deploy.precision import PreparedGraph, graph_in
from deploy.target_gates import failures, parity_gates
from deploy.targets import Precision, Target
from schemas.errors import GateError, ModelFileError

if TYPE_CHECKING:
    from deploy.divergence import Divergence, LayerRelief

LADDER: tuple[Precision, ...] = ("int8", "mixed", "fp16")
DIVERGENCE_FACES = 8

Measure = Callable[[PreparedGraph], Parity]
"""Builds an engine of a graph, runs it where it belongs, and compares."""


@dataclass(frozen=True)
class Rung:
    """A precision that was tried.

    Attributes:
        float_layers: convolutions left in float on purpose.
        graph: the graph in ONNX Runtime against the network in float; None where it could not be made.
        engine: the engine, where it was measured.
        failure: why it was left, or ''.
        divergence: where a graph that failed first errs by more than its rounding; None where it passed.
        relief: the layer of such a graph that brings most back in FP32, on the same few faces.
    """

    precision: Precision
    float_layers: tuple[str, ...]
    graph: Parity | None
    engine: Parity | None
    failure: str
    divergence: Divergence | None = None
    relief: LayerRelief | None = None

    def __str__(self) -> str:
        words = (self.failure or "passed", *(str(part) for part in (self.divergence, self.relief) if part))
        return f"{self.precision}: {'; '.join(words)}"


@dataclass(frozen=True)
class Ladder:
    """What was tried, in order; `result` is the last one's graph if it passed."""

    result: PreparedGraph | None
    rungs: tuple[Rung, ...]

    def require(self, target: Target) -> PreparedGraph:
        """The graph to build.

        Raises:
            GateError: no precision is within the target's bounds; says how each failed.
        """
        if self.result is None:
            tried = "; ".join(map(str, self.rungs))
            raise GateError(f"target '{target.name}': no precision is close enough to the network in float: {tried}")
        return self.result


def precisions(target: Target) -> tuple[Precision, ...]:
    """Those that may be tried, the target's own first."""
    if target.precision not in LADDER:
        return (target.precision,)
    return LADDER[LADDER.index(target.precision) :]


def climb(
    onnx: Path,
    target: Target,
    *,
    expected: Predictions,
    images_BSSC: np.ndarray,
    calibration: Crops | None = None,
    measure: Measure | None = None,
) -> Ladder:
    """Try the target's precision and the slower ones after it, until one is within the target's bounds.

    Args:
        onnx: the exported FP32 graph.
        expected: predictions of the network in float for `images_BSSC` (B, S, S, C).
        calibration: training faces, for int8 and mixed.
        measure: also asked of a graph that is close enough; a GateError of it counts as not close enough.

    Raises:
        ModelFileError: `onnx` is not of this project.
        CalibrationError: int8 or mixed, and no faces that calibrate.
    """
    rungs: list[Rung] = []
    for precision in precisions(target):
        rung, prepared = _try(
            onnx, target.model_copy(update={"precision": precision}), expected, images_BSSC, calibration, measure
        )
        rungs.append(rung)
        if not rung.failure:
            return Ladder(prepared, tuple(rungs))
    return Ladder(None, tuple(rungs))


def _try(
    onnx: Path,
    target: Target,
    expected: Predictions,
    images_BSSC: np.ndarray,
    calibration: Crops | None,
    measure: Measure | None,
) -> tuple[Rung, PreparedGraph | None]:
    try:
        prepared = graph_in(onnx, target, calibration=calibration)
    except ModelFileError as error:
        return Rung(target.precision, (), None, None, str(error)), None
    graph = compare(expected, graph_predictions(prepared.model, images_BSSC))
    failure = _failure(target, graph)
    if failure:
        found, relief = _blamed(onnx, prepared, images_BSSC[:DIVERGENCE_FACES])
        return Rung(target.precision, prepared.float_layers, graph, None, failure, found, relief), prepared
    engine, failure = _measured(target, prepared, measure) if measure else (None, "")
    return Rung(target.precision, prepared.float_layers, graph, engine, failure), prepared


def _measured(target: Target, prepared: PreparedGraph, measure: Measure) -> tuple[Parity | None, str]:
    try:
        engine = measure(prepared)
    except GateError as error:
        return None, str(error)
    failure = _failure(target, engine)
    return engine, f"the engine, not its graph: {failure}" if failure else ""


def _failure(target: Target, parity: Parity) -> str:
    return "; ".join(gate.words for gate in failures(parity_gates(target, parity)))


def _blamed(onnx: Path, prepared: PreparedGraph, images_BSSC: np.ndarray) -> tuple[Divergence, LayerRelief | None]:
    import onnx as onnx_format

    from deploy.divergence import best_relief, find_divergence

    exported, model = load_onnx(onnx), onnx_format.load_from_string(prepared.model)
    return find_divergence(exported, model, images_BSSC), best_relief(exported, model, images_BSSC)
