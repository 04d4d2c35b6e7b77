"""How far an engine is from the Keras model it was made of, and how fast it is.

Legend: B faces, S side of the crop, C channels, N keypoints.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.builders.base import Engine, Predictions
from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.float16_graph import with_half_rounding
from deploy.targets import ParityBound
from schemas.errors import GateError, ModelFileError
from schemas.layouts import layout

if TYPE_CHECKING:
    import keras
    import onnx

KERAS_BATCH = 64
WARM_UP_RUNS = 20
TIMED_RUNS = 200
LEAST_SPREAD = 1e-6
"""Of confidences: near 1 float32 knows no steps much smaller."""


@dataclass(frozen=True)
class Parity:
    """Distance between two sets of predictions.

    Attributes:
        faces: how many were compared.
        mean_px: region -> mean over its keypoints and all faces, in network-input pixels.
        p95_px: region -> what 95 % of the keypoints of all faces stay below.
        max_px: region -> the largest of one keypoint of one face.
        max_confidence: largest difference of a confidence.
        mean_confidence: mean difference of a confidence, in spreads: divided by the mean distance of the expected
            confidences from their median. So it does not depend on how large a network's confidences are, and any
            constant, 0 included, is off by at least 1.
    """

    faces: int
    mean_px: dict[str, float]
    p95_px: dict[str, float]
    max_px: dict[str, float]
    max_confidence: float
    mean_confidence: float

    @property
    def worst_region(self) -> str:
        """That with the largest mean."""
        return max(self.mean_px, key=lambda region: self.mean_px[region])

    @property
    def worst_px(self) -> float:
        """The largest of the regions' means."""
        return self.mean_px[self.worst_region]


@dataclass(frozen=True)
class Latency:
    """Wall time of one call with `batch` faces, after warm-up, in milliseconds."""

    batch: int
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def faces_per_second(self) -> float:
        return 1000.0 * self.batch / self.p50_ms


def keras_predictions(model: keras.Model, images_BSSC: np.ndarray) -> Predictions:
    """What the Keras model says of float32 crops (B, S, S, C)."""
    parts = [
        [np.asarray(output) for output in model(images_BSSC[i : i + KERAS_BATCH], training=False)[:2]]
        for i in range(0, len(images_BSSC), KERAS_BATCH)
    ]
    return Predictions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def graph_predictions(graph: onnx.ModelProto | bytes, images_BSSC: np.ndarray) -> Predictions:
    """What a graph says of float32 crops (B, S, S, C), in ONNX Runtime; what is FP16 in it is rounded as on a GPU."""
    import onnx

    model = onnx.load_from_string(graph) if isinstance(graph, bytes) else graph
    content = with_half_rounding(model).SerializeToString()
    return OnnxRuntimeEngine(Path("the graph"), threads=0, content=content).predict(images_BSSC)


def compare(expected: Predictions, found: Predictions) -> Parity:
    """Distances of `found` from `expected`, every face and keypoint counted once.

    Raises:
        ModelFileError: no faces, or `found` has another number of them or of keypoints.
    """
    if expected.keypoints_BN2.shape != found.keypoints_BN2.shape or not len(expected.keypoints_BN2):
        shapes = f"{expected.keypoints_BN2.shape} and {found.keypoints_BN2.shape}"
        raise ModelFileError(
            f"predictions of the same faces and keypoints are needed, not {shapes}; is the engine of this model?"
        )
    difference_BN2 = found.keypoints_BN2.astype(np.float64) - expected.keypoints_BN2
    confidence_BN = np.abs(found.confidence_BN.astype(np.float64) - expected.confidence_BN)
    spread = np.abs(expected.confidence_BN - np.median(expected.confidence_BN)).mean(dtype=np.float64)
    distance_BN = _beyond_all(np.linalg.norm(difference_BN2, axis=-1))
    regions = {name: distance_BN[:, list(points)] for name, points in layout(distance_BN.shape[1]).regions.items()}
    return Parity(
        faces=len(distance_BN),
        mean_px={name: float(distances.mean()) for name, distances in regions.items()},
        p95_px={name: _p95(distances) for name, distances in regions.items()},
        max_px={name: float(distances.max()) for name, distances in regions.items()},
        max_confidence=float(np.nan_to_num(confidence_BN, nan=1.0, posinf=1.0).max()),
        mean_confidence=float(
            np.nan_to_num(confidence_BN, nan=np.inf, posinf=np.inf).mean() / max(spread, LEAST_SPREAD)
        ),
    )


def _beyond_all(distances: np.ndarray) -> np.ndarray:
    """What is no number is as far away as can be."""
    return np.nan_to_num(distances, nan=np.inf, posinf=np.inf)


def _p95(distances_BK: np.ndarray) -> float:
    """Between two infinite distances NumPy interpolates to what is no number."""
    with np.errstate(invalid="ignore"):
        return float(np.nan_to_num(np.percentile(distances_BK, 95), nan=np.inf, posinf=np.inf))


def require_parity(parity: Parity, bound: ParityBound, what: str, *, confidence: float) -> None:
    """Let a small enough difference pass.

    Args:
        confidence: largest `Parity.mean_confidence`.

    Raises:
        GateError: names the regions beyond the bound, or the confidences, their numbers and the bound.
    """
    beyond = [
        f"{region} mean {parity.mean_px[region]:.3g} px (at most {bound.mean_px:g}), "
        f"largest {parity.max_px[region]:.3g} px (at most {bound.max_px:g})"
        for region in parity.mean_px
        if not (parity.mean_px[region] <= bound.mean_px and parity.max_px[region] <= bound.max_px)
    ]
    if not parity.mean_confidence <= confidence:
        beyond.append(f"confidence {parity.mean_confidence:.3g} spreads (at most {confidence:g})")
    if beyond:
        raise GateError(f"{what} is too far from Keras on {parity.faces} faces: {'; '.join(beyond)}")


def measure_latency(
    engine: Engine, images_BSSC: np.ndarray, *, batch: int, warm_up: int = WARM_UP_RUNS, runs: int = TIMED_RUNS
) -> Latency:
    """Time `runs` calls, each with the first `batch` faces of `images_BSSC`, again and again where they are fewer."""
    crops = np.resize(images_BSSC, (batch, *images_BSSC.shape[1:])).astype(np.float32)
    times_ms = []
    for _ in range(warm_up + runs):
        started = time.perf_counter()
        engine.predict(crops)
        times_ms.append(1000 * (time.perf_counter() - started))
    return latency_of(times_ms[warm_up:], batch=batch)


def latency_of(times_ms: Sequence[float], *, batch: int) -> Latency:
    """Of single calls, in milliseconds, that were made after warm-up."""
    p50, p90, p99 = np.percentile(times_ms, (50, 90, 99))
    return Latency(batch, len(times_ms), float(p50), float(p90), float(p99))
