"""Faces and Label Studio tasks for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.geometry import Box
from schemas.label_studio_task import build_task
from schemas.records import Flag

FRAME = (120, 90)


def some_points(num_keypoints: int = 5) -> np.ndarray:
    steps = np.arange(num_keypoints, dtype=np.float32)
    return np.stack([20 + 7.3 * steps, 30 + 2.7 * steps], axis=1)


def some_task(num_keypoints: int = 5, *, occluded: tuple[int, ...] = (), **annotation: Any) -> dict[str, Any]:
    """A task as the API returns it; `occluded` are keypoint numbers, `annotation` overrides its fields."""
    flags_N = np.full(num_keypoints, Flag.VISIBLE, np.int8)
    flags_N[[number - 1 for number in occluded]] = Flag.OCCLUDED
    task = build_task(
        {"image": "/data/upload/3/0a1b2c3d-face.png", "subject": "set/7"},
        some_points(num_keypoints),
        flags_N,
        frame_size=FRAME,
        tight_box=Box(18, 28, 40, 20),
    )
    stored = {"id": 41, "completed_by": 1, "created_at": "2026-11-20T08:00:00Z", "updated_at": "2026-11-21T09:00:00Z"}
    task["annotations"][0] |= stored | annotation
    return task | {"id": 17}


def region(task: dict[str, Any], label: str, kind: str = "keypointlabels") -> dict[str, Any]:
    """The region of a keypoint or the face box in the first annotation."""
    result = task["annotations"][0]["result"]
    return next(entry for entry in result if entry["id"] == label and entry["type"] == kind)
