"""Region error: how far predicted keypoints lie from the true ones, per point, per region and per subject.

A point's error is the mean over faces of its Euclidean distance; a region's is the unweighted mean over its points,
as the reference's evaluator has it (`tests/golden/eval_80.json`). Unlike the reference, a point without any sample
has no error (NaN) and takes no part in its region, where the reference counts it as 0.

Legend: B faces, K keypoints, S subjects, D bootstrap draws; `_px` in the unit that the name says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from schemas.geometry import CROP_SIZE, tight_square
from schemas.layouts import layout

DRAWS = 2000
SEED = 20260101
DRAWS_AT_ONCE = 250


class Unit(StrEnum):
    """`CROP` is source pixels * 80 / side of the true points' tight square, whatever crop the network saw."""

    SOURCE = "source_px"
    CROP = "crop_px"


class Points(StrEnum):
    """Which points count. `VISIBLE`: those that an annotator declared visible; unknown is not visible."""

    ALL = "all"
    VISIBLE = "visible"


@dataclass(frozen=True, eq=False)
class FaceErrors:
    """Errors of B faces, each face once.

    Attributes:
        source_px_BK: Euclidean distance in source pixels, float64.
        crop_px_BK: the same in crop pixels.
        visible_BK: bool; the point is declared visible.
        subjects: B subjects; '' where unknown.
    """

    source_px_BK: np.ndarray
    crop_px_BK: np.ndarray
    visible_BK: np.ndarray
    subjects: tuple[str, ...]

    def select(self, unit: Unit, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Errors (B, K) in `unit` and the mask (B, K) of those that count."""
        error_BK = self.source_px_BK if unit is Unit.SOURCE else self.crop_px_BK
        return error_BK, np.ones_like(self.visible_BK) if points is Points.ALL else self.visible_BK

    def of_faces(self, chosen_B: np.ndarray) -> FaceErrors:
        """The faces where `chosen_B` is true."""
        subjects = tuple(subject for subject, chosen in zip(self.subjects, chosen_B, strict=True) if chosen)
        return FaceErrors(self.source_px_BK[chosen_B], self.crop_px_BK[chosen_B], self.visible_BK[chosen_B], subjects)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a region's error, by bootstrap over subjects."""

    low: float
    high: float


def face_errors(
    true_BK2: np.ndarray, predicted_BK2: np.ndarray, visible_BK: np.ndarray, subjects: Sequence[str]
) -> FaceErrors:
    """Errors of faces whose points, true and predicted, are in source pixels.

    Raises:
        ValueError: the shapes differ, a prediction is not a number, or a face's true points all coincide.
    """
    true_BK2, predicted_BK2 = np.asarray(true_BK2, np.float64), np.asarray(predicted_BK2, np.float64)
    if true_BK2.shape != predicted_BK2.shape or true_BK2.shape[:2] != np.shape(visible_BK):
        raise ValueError(
            f"shapes differ: true {true_BK2.shape}, predicted {predicted_BK2.shape}, visible {np.shape(visible_BK)}"
        )
    if len(subjects) != len(true_BK2):
        raise ValueError(f"{len(true_BK2)} faces but {len(subjects)} subjects")
    if not np.isfinite(predicted_BK2).all():
        raise ValueError("a predicted coordinate is not a finite number")
    sides_B = np.array([tight_square(points_K2).width for points_K2 in true_BK2], np.float64)
    if (sides_B <= 0).any():
        raise ValueError(f"face {int(np.argmin(sides_B))}: all its true points coincide, so it has no crop pixels")
    source_px_BK = np.linalg.norm(true_BK2 - predicted_BK2, axis=-1)
    crop_px_BK = source_px_BK * (CROP_SIZE / sides_B)[:, None]
    return FaceErrors(source_px_BK, crop_px_BK, np.asarray(visible_BK, bool), tuple(subjects))


def join_faces(parts: Sequence[FaceErrors]) -> FaceErrors:
    """The faces of all parts, in order."""
    return FaceErrors(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("source_px_BK", "crop_px_BK", "visible_BK")
        ),
        tuple(subject for part in parts for subject in part.subjects),
    )


def point_means(error_BK: np.ndarray, counts_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over faces (K,), NaN where no face counts, and the number of faces that count (K,)."""
    number_K = counts_BK.sum(axis=0)
    total_K = np.where(counts_BK, error_BK, 0.0).sum(axis=0)
    return _divide(total_K, number_K), number_K


def region_means(point_error_K: np.ndarray, regions: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Region -> unweighted mean of its points that have an error, NaN where none has."""
    return {name: float(_mean_of_known(point_error_K[..., list(points)])) for name, points in regions.items()}


def region_errors(errors: FaceErrors, unit: Unit, points: Points) -> dict[str, float]:
    """Region -> error of the layout's regions, `All` first."""
    point_error_K, _ = point_means(*errors.select(unit, points))
    return region_means(point_error_K, layout(len(point_error_K)).regions)


def evaluate_regions(errors: FaceErrors) -> Iterator[tuple[str, float]]:
    """Yield `("crop_px/visible/Eyes", value)` for every unit, choice of points and region; NaN where undefined."""
    for unit in Unit:
        for points in Points:
            for region, value in region_errors(errors, unit, points).items():
                yield f"{unit}/{points}/{region}", value


def subject_errors(errors: FaceErrors, unit: Unit, points: Points) -> dict[str, dict[str, float]]:
    """Subject -> region -> error over that subject's faces, subjects sorted."""
    subjects = np.array(errors.subjects)
    result = {}
    for subject in sorted(set(errors.subjects)):
        mine = subjects == subject
        error_BK, counts_BK = errors.select(unit, points)
        mean_K, _ = point_means(error_BK[mine], counts_BK[mine])
        result[subject] = region_means(mean_K, layout(len(mean_K)).regions)
    return result


def intervals(errors: FaceErrors, unit: Unit, points: Points) -> dict[str, Interval | None]:
    """Region -> 95 % percentile interval of its error over 2000 resamples of the subjects, seed fixed.

    Whole subjects are drawn, because faces of one subject are alike. None where a subject is unknown, there are
    fewer than two, or the region has no samples.
    """
    error_BK, counts_BK = errors.select(unit, points)
    regions = layout(error_BK.shape[1]).regions
    subjects, of_face_B = np.unique(np.array(errors.subjects), return_inverse=True)
    if len(subjects) < 2 or "" in subjects:
        return dict.fromkeys(regions)
    total_SK = np.zeros((len(subjects), error_BK.shape[1]))
    number_SK = np.zeros_like(total_SK)
    np.add.at(total_SK, of_face_B, np.where(counts_BK, error_BK, 0.0))
    np.add.at(number_SK, of_face_B, counts_BK)
    means_DK = _resampled_means(total_SK, number_SK)
    return {name: _percentiles(_mean_of_known(means_DK[:, list(points)])) for name, points in regions.items()}


def _resampled_means(total_SK: np.ndarray, number_SK: np.ndarray) -> np.ndarray:
    """Point means (D, K) of D draws of S subjects with replacement, some draws at a time to bound memory."""
    random = np.random.default_rng(SEED)
    subjects = len(total_SK)
    parts = []
    for start in range(0, DRAWS, DRAWS_AT_ONCE):
        draws = min(DRAWS_AT_ONCE, DRAWS - start)
        times_DS = random.multinomial(subjects, np.full(subjects, 1 / subjects), size=draws).astype(np.float64)
        parts.append(_divide(times_DS @ total_SK, times_DS @ number_SK))
    return np.concatenate(parts)


def _percentiles(values_D: np.ndarray) -> Interval | None:
    known = values_D[~np.isnan(values_D)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))


def _divide(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=np.asarray(number) > 0)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
