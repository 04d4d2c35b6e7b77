"""Faces that several made-up annotators have annotated, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.face_views import FaceViews
from schemas.records import Face

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


def some_face(record: str, annotation: int, annotator: str | None, points_N2: np.ndarray, **changes: Any) -> Face:
    """A face as validation leaves it: annotation `annotation` of a record such as `team:task/7`."""
    fields = {
        "source_key": f"{record}/annotation/{annotation}",
        "image": "images/a.png",
        "image_name": "a.png",
        "image_sha256": "0" * 64,
        "frame_width": 200,
        "frame_height": 200,
        "subject": "d/1",
        "set_id": "team",
        "points_N2": np.asarray(points_N2, np.float32),
        "flags_N": np.zeros(len(points_N2), np.int8),
        "annotator": annotator,
        "annotation_id": str(annotation),
        "annotated_at": f"2026-11-21T09:00:{annotation % 60:02d}Z",
    }
    return Face(**(fields | changes))
