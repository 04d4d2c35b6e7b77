"""From a float ONNX graph and calibration faces to INT8: scales, and which layers stay in float.

Legend: B faces, S side of the crop, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from deploy.builders.base import Predictions, channels_first
from deploy.builders.onnxruntime import PROVIDERS, session_options
from deploy.onnx_graph import INPUT_NAME, with_outputs
from deploy.parity import Parity, compare, graph_predictions
from deploy.qdq import (
    LEVELS,
    ONE_SIDED_LEVELS,
    SMALLEST_SCALE,
    Placement,
    always_float,
    convolutions,
    insert,
    one_sided,
    scale_groups,
)

if TYPE_CHECKING:
    import onnx

SHIFT_FACES, RANKING_FACES = 128, 32
WATCHED_FACES = 8
"""In one call while activations are watched: all of them are in memory at once."""

INT8_FLOAT_SHARE = 0.5
"""Of the layers that may stay in float: more would be INT8 in name only."""

BINS = 4096
STRIDES = (7, 11, 13)
"""One of so many values is counted, by the first that the map's side is no multiple of: no column is left out."""

_CLIPS = np.linspace(0.2, 1.0, 81)


@dataclass(frozen=True)
class Quantised:
    """A graph with Q/DQ.

    Attributes:
        model: of opset 13, float32 in and out.
        scales: tensor of the float graph -> its scale, largest magnitude / number of steps (`deploy.qdq`).
        float_layers: convolutions left in float, in the graph's order.
        shift: distance of its keypoints from the float graph's, both in ONNX Runtime; None without faces.
    """

    model: onnx.ModelProto
    scales: dict[str, float]
    float_layers: tuple[str, ...]
    shift: Parity | None


class Calibrated:
    """A float graph whose activations were measured on faces: INT8 of it with any of its layers in float.

    Attributes:
        layers: convolutions, in the graph's order.

    Args:
        batches: float32 crops (B, S, S, C), 0..255; gone through twice, and its first faces a third time.
        placement: where Q/DQ stand.

    Raises:
        ModelFileError: too few convolutions.
    """

    def __init__(
        self, model: onnx.ModelProto, batches: Iterable[np.ndarray], placement: Placement = "inputs"
    ) -> None:
        self.layers = convolutions(model)
        self._model, self._placement, self._fixed = model, placement, always_float(model, placement)
        groups = scale_groups(model, self._fixed, placement)
        by_group = calibrate(model, groups, batches, one_sided(model, groups, placement))
        self._scales = {tensor: by_group[group] for tensor, group in groups.items()}
        self._images_BSSC = first_faces(batches, SHIFT_FACES)
        self._expected = graph_predictions(model, self._images_BSSC)
        self._made: dict[int, Quantised] = {}

    def with_float(self, names: Collection[str] = (), *, faces: int = SHIFT_FACES) -> Quantised:
        """INT8 with the layers `names` in float; the shift is measured on the first `faces` of the faces.

        Raises:
            ModelFileError: opset below 13.
        """
        kept = tuple(name for name in self.layers if name in {*self._fixed, *names})
        scales = {tensor: self._scales[tensor] for tensor in scale_groups(self._model, kept, self._placement)}
        made = insert(self._model, scales, kept, self._placement)
        expected = Predictions(*(values[:faces] for values in self._expected))
        return Quantised(made, scales, kept, compare(expected, graph_predictions(made, self._images_BSSC[:faces])))

    @cached_property
    def ranking(self) -> tuple[str, ...]:
        """Layers that may be quantised, that which alone moves keypoints most first."""
        free = [name for name in self.layers if name not in self._fixed]
        alone = {name: self._alone(name) for name in free}
        return tuple(sorted(free, key=lambda name: -alone[name]))

    def within(
        self, fits: Callable[[Parity], bool], *, share: float = INT8_FLOAT_SHARE, at_least: int = 0
    ) -> Quantised:
        """INT8 with as few layers in float as fit, taken in the order of `ranking`.

        Args:
            fits: whether a shift is small enough. What is left of it is in the result.
            share: of all layers, how many may be in float.
            at_least: layers in float in any case, as far as `share` allows.
        """
        most = max(len(self._fixed), int(len(self.layers) * share))
        count = max(len(self._fixed), min(at_least, most))
        while not fits(self._with(count).shift) and count < most:
            count += 1
        return self._with(count)

    def _with(self, float_layers: int) -> Quantised:
        if float_layers not in self._made:
            more = float_layers - len(self._fixed)
            self._made[float_layers] = self.with_float(self.ranking[:more] if more else ())
        return self._made[float_layers]

    def _alone(self, name: str) -> float:
        others = [other for other in self.layers if other != name]
        return self.with_float(others, faces=RANKING_FACES).shift.worst_px


def quantise(model: onnx.ModelProto, batches: Iterable[np.ndarray], *, max_shift_px: float) -> Quantised:
    """Calibrate and insert Q/DQ.

    While the keypoints of a region move by more than `max_shift_px` on average, the layer that moves them most when
    it alone is quantised stays in float too, up to half of all layers. What that leaves of the shift is in the
    result; whether it is too much is for the caller to say.

    Raises:
        ModelFileError: opset below 13, or too few convolutions.
    """
    return Calibrated(model, batches).within(lambda shift: shift.worst_px <= max_shift_px)


def with_scales(
    model: onnx.ModelProto,
    scales: Mapping[str, float],
    float_layers: Collection[str],
    batches: Iterable[np.ndarray] | None = None,
) -> Quantised:
    """Insert Q/DQ by scales that are known; `batches` only to measure the shift.

    Raises:
        ModelFileError: opset below 13.
    """
    made = insert(model, scales, float_layers)
    shift = None
    if batches is not None:
        images_BSSC = first_faces(batches, SHIFT_FACES)
        shift = compare(graph_predictions(model, images_BSSC), graph_predictions(made, images_BSSC))
    return Quantised(made, dict(scales), tuple(float_layers), shift)


def calibrate(
    model: onnx.ModelProto,
    groups: Mapping[str, str],
    batches: Iterable[np.ndarray],
    positive: Collection[str] = (),
) -> dict[str, float]:
    """Scale of every group of tensors: that whose rounding and clipping cost least in squared error.

    The first pass finds the largest magnitude of each group, the second one counts magnitudes below it.

    Args:
        positive: groups without negative values that have all the steps above zero, `deploy.qdq.one_sided`.
    """
    largest = dict.fromkeys(groups.values(), 0.0)
    for tensor, values in _activations(model, groups, batches):
        largest[groups[tensor]] = max(largest[groups[tensor]], float(values.max()), -float(values.min()))
    counts = {group: np.zeros(BINS, np.int64) for group in largest}
    for tensor, values in _activations(model, groups, batches):
        group = groups[tensor]
        if largest[group]:
            stride = next((one for one in STRIDES if values.shape[-1] % one), 1)
            counts[group] += _histogram(values.reshape(-1)[::stride], largest[group])
    levels = {group: ONE_SIDED_LEVELS if group in positive else LEVELS for group in largest}
    return {group: best_scale(counts[group], largest[group], levels[group]) for group in largest}


def best_scale(counts: np.ndarray, largest: float, levels: int = LEVELS) -> float:
    """The scale that loses least of magnitudes 0..`largest`, counted in bins of equal width, in so many levels."""
    if not largest:
        return 1.0 / levels
    middles = (np.arange(len(counts)) + 0.5) * largest / len(counts)
    scales = _CLIPS * largest / levels
    rounded = np.clip(np.rint(middles / scales[:, None]), 0, levels) * scales[:, None]
    best = scales[np.argmin(((rounded - middles) ** 2) @ counts)]
    return float(np.float32(max(best, SMALLEST_SCALE)))


def first_faces(batches: Iterable[np.ndarray], count: int) -> np.ndarray:
    """(count, S, S, C), or as many as there are."""
    taken: list[np.ndarray] = []
    for images_BSSC in batches:
        taken.append(images_BSSC)
        if sum(map(len, taken)) >= count:
            break
    return np.concatenate(taken)[:count]


def _activations(
    model: onnx.ModelProto, tensors: Iterable[str], batches: Iterable[np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor's values for every batch."""
    import onnxruntime

    names = list(tensors)
    watched = with_outputs(model, names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), session_options(), providers=PROVIDERS)
    for images_BSSC in batches:
        for start in range(0, len(images_BSSC), WATCHED_FACES):
            images_BCSS = channels_first(images_BSSC[start : start + WATCHED_FACES])
            yield from zip(names, session.run(names, {INPUT_NAME: images_BCSS}), strict=True)


def _histogram(values: np.ndarray, largest: float) -> np.ndarray:
    bins = np.minimum((np.abs(values) * np.float32(BINS / largest)).astype(np.int32), BINS - 1)
    return np.bincount(bins, minlength=BINS)
