"""Where a graph in a lower precision first goes wrong.

Every tensor of the float graph has its like in the other one, behind casts and Q/DQ. Two errors are told of each,
relative to the root mean square of the float tensor over the crops:

    error   against the float graph: what all layers so far have added up to; it grows along any quantised network
    own     against the float operator with float weights on the inputs that the layer really had: what it alone adds

An own error says little by itself: 8 bits cost one tensor a thousandth and another a tenth. So it is held against
`clean`, what correct rounding of the same thing costs on the same crops: weights rounded once more from the float
graph, activations by the scale that loses least of them, half the spacing of FP16. A tensor diverges where its own
error is more than `TIMES_CLEAN` times that. The limit lies between what a sound graph reaches, and what a scale that
is off by a factor of eight or a number that is not finite does: see ADR 022.

Where nothing diverges, the shift is rounding that has added up, and `bisect_layers` says what to leave in float.

Legend: B faces, S side of the crop, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deploy.builders.base import channels_first
from deploy.builders.onnxruntime import PROVIDERS, session_options
from deploy.divergence_probe import Point, Twins, probe, with_layer_in_float
from deploy.onnx_graph import INPUT_NAME, with_outputs
from deploy.parity import Parity, compare, graph_predictions
from deploy.qdq import LEVELS, ONE_SIDED_LEVELS, one_sided
from deploy.quantise import calibrate

if TYPE_CHECKING:
    import onnx
    import onnxruntime

TIMES_CLEAN = 3.0
HALF_ROUNDING, FLOAT_ROUNDING = 2.0**-11, 2.0**-18
"""Largest relative error of a number in FP16; and of a sum of FP32 numbers in another order, with room."""

FACES_AT_ONCE = 2
"""All tensors of as many faces are in memory at once."""


@dataclass(frozen=True)
class TensorError:
    """How far a tensor is from where it should be.

    Attributes:
        tensor: its name in the float graph.
        operator: what made it: the float graph's operator, or QuantizeLinear for its rounding to 8 bits.
        error, own, clean: see above.
    """

    tensor: str
    operator: str
    error: float
    own: float
    clean: float

    @property
    def times_clean(self) -> float:
        return self.own / self.clean

    @property
    def diverges(self) -> bool:
        return self.times_clean > TIMES_CLEAN

    def __str__(self) -> str:
        return (
            f"{self.tensor} ({self.operator}): its own error is {self.own:.2g} of its size, "
            f"{self.times_clean:.0f} times what rounding costs"
        )


@dataclass(frozen=True)
class Divergence:
    """Every tensor, in the order in which they are computed."""

    tensors: tuple[TensorError, ...]

    @property
    def first(self) -> TensorError | None:
        """The first that diverges."""
        return next((tensor for tensor in self.tensors if tensor.diverges), None)

    def __str__(self) -> str:
        if self.first is not None:
            return f"first diverges at {self.first}"
        return "no layer errs by more than its rounding: it adds up"


@dataclass(frozen=True)
class LayerRelief:
    """Distance from the float graph of a lower one, and of the same with one layer of it computed in FP32."""

    layer: str
    before: Parity
    parity: Parity

    def __str__(self) -> str:
        return (
            f"{self.layer} in FP32 alone brings most back: worst region {self.parity.worst_px:.2g} px instead of "
            f"{self.before.worst_px:.2g} px on {self.before.faces} faces"
        )


def find_divergence(float_model: onnx.ModelProto, model: onnx.ModelProto, images_BSSC: np.ndarray) -> Divergence:
    """Compare every tensor of `model` with the float graph that it was made of, on the same crops (B, S, S, C).

    Raises:
        ModelFileError: `model` was not made of `float_model`.
    """
    twins = Twins(float_model, model)
    rounding = _clean_rounding(float_model, twins, images_BSSC)
    probed, points = probe(twins)
    names = [point.tensor for point in points]
    watched = with_outputs(float_model, [name for name in names if name != INPUT_NAME])
    found, expected = _session(probed), _session(watched)
    sums = np.zeros((4, len(points)))
    for images_BCSS in _batches(images_BSSC):
        truth = _run(expected, images_BCSS) | {INPUT_NAME: images_BCSS}
        values = _run(found, images_BCSS)
        for number, point in enumerate(points):
            sums[:, number] += _squares(point, truth[point.tensor], values, rounding.get(point.tensor))
    return Divergence(tuple(_error(point, column) for point, column in zip(points, sums.T, strict=True)))


def bisect_layers(
    float_model: onnx.ModelProto, model: onnx.ModelProto, images_BSSC: np.ndarray
) -> tuple[LayerRelief, ...]:
    """What each convolution of `model` alone brings back when it is computed in FP32; the best first.

    Raises:
        ModelFileError: `model` was not made of `float_model`.
    """
    twins, expected = Twins(float_model, model), graph_predictions(float_model, images_BSSC)
    before = compare(expected, graph_predictions(model, images_BSSC))
    reliefs = []
    for layer in twins.lowered:
        found = graph_predictions(with_layer_in_float(twins, layer), images_BSSC)
        reliefs.append(LayerRelief(layer, before, compare(expected, found)))
    return tuple(sorted(reliefs, key=lambda relief: relief.parity.worst_px))


def best_relief(float_model: onnx.ModelProto, model: onnx.ModelProto, images_BSSC: np.ndarray) -> LayerRelief | None:
    """The first of `bisect_layers` if it brings anything back."""
    best = next(iter(bisect_layers(float_model, model, images_BSSC)), None)
    return best if best is not None and best.parity.worst_px < best.before.worst_px else None


def _clean_rounding(
    float_model: onnx.ModelProto, twins: Twins, images_BSSC: np.ndarray
) -> dict[str, tuple[float, int]]:
    """Tensor with Q/DQ -> the scale that loses least of these crops, and its steps from zero."""
    groups = twins.quantised_groups
    positive = one_sided(float_model, groups, twins.placement)
    by_group = calibrate(float_model, groups, [images_BSSC], positive) if groups else {}
    return {
        tensor: (by_group[group], ONE_SIDED_LEVELS if group in positive else LEVELS)
        for tensor, group in groups.items()
    }


def _squares(
    point: Point, truth: np.ndarray, values: dict[str, np.ndarray], rounding: tuple[float, int] | None
) -> tuple[float, float, float, float]:
    """Sums of squares over a batch: float tensor, error, own error, clean error."""
    given, local = (values[name].astype(np.float64) for name in (point.given, point.local))
    if point.rounded:
        assert rounding is not None, point
        scale, levels = rounding
        clean = np.clip(np.rint(local / scale), -levels, levels) * scale
    else:
        clean = values[point.clean].astype(np.float64) if point.clean else local
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.nan_to_num(given - truth, nan=np.inf)
        own = np.where(np.isfinite(local), np.nan_to_num(given - local, nan=np.inf), 0.0)
        off = np.where(np.isfinite(local) & np.isfinite(clean), clean - local, 0.0)
        return _square(truth), _square(error), _square(own), _square(off)


def _error(point: Point, sums: np.ndarray) -> TensorError:
    size, error, own, clean = np.sqrt(sums)
    unit = size if size > 0 else 1.0
    floor = HALF_ROUNDING if point.half else FLOAT_ROUNDING
    return TensorError(
        point.tensor, point.operator, float(error / unit), float(own / unit), float(clean / unit + floor)
    )


def _square(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = session_options()
    # no tensor may be fused away
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=PROVIDERS)


def _run(session: onnxruntime.InferenceSession, images_BCSS: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT_NAME: images_BCSS}), strict=True))


def _batches(images_BSSC: np.ndarray) -> Iterator[np.ndarray]:
    images_BCSS = channels_first(images_BSSC)
    for start in range(0, len(images_BCSS), FACES_AT_ONCE):
        yield images_BCSS[start : start + FACES_AT_ONCE]
