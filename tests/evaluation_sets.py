"""Evaluation batches without TFRecords, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from model.evaluation import Evaluation, evaluate
from model.pipeline import EvaluationBatch
from schemas.geometry import Box, SquareCrop, tight_square


def made_up_faces(number: int, num_keypoints: int, *, seed: int = 0, size: int = 80) -> EvaluationBatch:
    """Faces with random points, two of each subject, whose first pixel holds the face's index."""
    rng = np.random.default_rng(seed)
    points_BN2 = rng.uniform(100, 300, (number, num_keypoints, 2)).astype(np.float32)
    images_BHWC = np.full((number, size, size, 1), 90, np.float32)
    images_BHWC[:, 0, 0, 0] = np.arange(number)
    return EvaluationBatch(
        images_BHWC=images_BHWC,
        points_BN2=points_BN2,
        flags_BN=rng.integers(-1, 2, (number, num_keypoints)).astype(np.int8),
        boxes_B4=np.array([tight_square(points).enlarged(1.2) for points in points_BN2], np.float32),
        names=tuple(f"images/{i:03d}.png" for i in range(number)),
        subjects=tuple(f"made-up/{i // 2:03d}" for i in range(number)),
        sets=("made-up",) * number,
    )


def split(batch: EvaluationBatch, *sizes: int) -> Iterator[EvaluationBatch]:
    """The same faces in batches of these sizes."""
    start = 0
    for size in sizes:
        yield EvaluationBatch(**{key: value[start : start + size] for key, value in vars(batch).items()})
        start += size


def oracle(batch: EvaluationBatch, *, error_px: float = 1.0, seed: int = 1) -> Callable[[np.ndarray], Any]:
    """A predictor that knows the truth of `batch` and misses it by about `error_px` input pixels."""
    rng = np.random.default_rng(seed)
    crops = [SquareCrop.of_box(Box(*map(float, box)), batch.images_BHWC.shape[1]) for box in batch.boxes_B4]
    true_BN2 = np.stack([crop.to_crop(points) for crop, points in zip(crops, batch.points_BN2, strict=True)])
    predicted_BN2 = true_BN2 + rng.normal(0, error_px, true_BN2.shape)
    confidence_BN = rng.uniform(0, 1, true_BN2.shape[:2])

    def predict(predicted_BN2: np.ndarray, images_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index_B = images_BHWC[:, 0, 0, 0].astype(int)
        return predicted_BN2[index_B], confidence_BN[index_B]

    return partial(predict, predicted_BN2)


def made_up_evaluation(
    number: int = 10,
    num_keypoints: int = 80,
    *,
    subjects: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
) -> Evaluation:
    batch = made_up_faces(number, num_keypoints)
    if subjects is not None:
        batch = replace(batch, subjects=tuple(subjects))
    if sets is not None:
        batch = replace(batch, sets=tuple(sets))
    return evaluate(oracle(batch), [batch])
