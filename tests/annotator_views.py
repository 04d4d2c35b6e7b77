"""Faces that several made-up annotators have annotated, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.face_views import FaceViews

FACE_SIDE = 100.0


def some_views(
    faces: int = 6,
    *,
    annotators: Sequence[str] = ("a", "b"),
    num_keypoints: int = 68,
    noise_px: float = 0.0,
    seed: int = 0,
) -> list[FaceViews]:
    """Faces of `faces // 2` subjects; every annotator adds noise of their own to the same points and flags."""
    rng = np.random.default_rng(seed)
    views = []
    for number in range(faces):
        points_K2 = rng.uniform(20, 20 + FACE_SIDE, (num_keypoints, 2))
        flags_K = rng.permutation(np.arange(num_keypoints) % 4 == 0).astype(np.int8)
        points_AK2 = points_K2 + rng.normal(0, 1, (len(annotators), num_keypoints, 2)) * noise_px
        flags_AK = np.repeat(flags_K[None], len(annotators), axis=0)
        views.append(FaceViews(f"s:task/{number}", f"d/{number // 2}", tuple(annotators), points_AK2, flags_AK))
    return views
