"""A drift profile of random shapes, for tests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from deploy.builders.base import Predictions
from deploy.drift_client import Profile
from deploy.drift_profile import write_profile
from model.shape_model import ShapeModel, complex_shapes, fit_shape_model

NUM_KEYPOINTS = 68


def some_predictions(count: int, *, seed: int = 0, spread: float = 1.0, confidence: float = 0.8) -> Predictions:
    """Faces of one shape with noise of `spread` pixels, turned and moved; confidences about `confidence`."""
    mean_N2 = np.random.default_rng(99).uniform(20, 60, (NUM_KEYPOINTS, 2))
    rng = np.random.default_rng(seed)
    points_BN2 = mean_N2 + rng.normal(0, spread, (count, NUM_KEYPOINTS, 2))
    confidence_BN = np.clip(rng.normal(confidence, 0.1, (count, NUM_KEYPOINTS)), 0, 1)
    return Predictions(points_BN2.astype(np.float32), confidence_BN.astype(np.float32))


@lru_cache
def some_shapes() -> ShapeModel:
    return fit_shape_model(complex_shapes(some_predictions(400, seed=7).keypoints_BN2))


def some_profile(path: Path, *, model: str = "fpenet/3") -> Profile:
    return write_profile(path, some_shapes(), some_predictions(500, seed=8), model=model)
