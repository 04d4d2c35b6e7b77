"""Keypoints of rendered heads without their pictures, for tests of what looks at shapes alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from model.faces.expression import EXPRESSIONS
from model.faces.identity import sample_identity
from model.faces.scene import Pose, Scene, keypoints

NOISE_PX = 0.6
"""Of an annotator, standard deviation; the eyes are about 50 px apart."""


@lru_cache
def rendered_shapes(number: int, seed: int = 0) -> tuple[np.ndarray, tuple[str, ...]]:
    """Keypoints (F, 104, 2) as somebody would have clicked them, two faces of each subject, and the subjects."""
    rng = np.random.default_rng(seed)
    acts = list(EXPRESSIONS.values())
    points, subjects = [], []
    for face in range(number):
        if face % 2 == 0:
            identity = sample_identity(rng)
        pose = Pose(yaw=rng.uniform(-40, 40), pitch=rng.uniform(-10, 10), roll=rng.uniform(-15, 15))
        points.append(keypoints(Scene(identity, acts[face % len(acts)], pose)))
        subjects.append(f"made/{face // 2:03d}")
    points_FN2 = np.array(points)
    return points_FN2 + rng.normal(0, NOISE_PX, points_FN2.shape), tuple(subjects)


def blobs_of_flags(points_FN2: np.ndarray, seed: int = 0) -> np.ndarray:
    """Flags (F, N) of faces of which every second one has something before it that hides what is near one point."""
    rng = np.random.default_rng(seed)
    count = points_FN2.shape[1]
    centre_F2 = points_FN2[np.arange(len(points_FN2)), rng.integers(count, size=len(points_FN2))]
    size_F = points_FN2.std(axis=(1, 2)) * rng.uniform(0.4, 0.9, len(points_FN2))
    hidden_FN = np.linalg.norm(points_FN2 - centre_F2[:, None], axis=-1) < size_F[:, None]
    hidden_FN[::2] = False
    return hidden_FN.astype(np.int8)
