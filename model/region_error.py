"""Region error: how far predicted keypoints lie from the true ones, per point, per region and per subject.

A point's error is the mean over faces of its Euclidean distance; a region's is the unweighted mean over its points,
as the reference's evaluator has it (`tests/golden/eval_80.json`). Unlike the reference, a point without any sample
has no error (NaN) and takes no part in its region, where the reference counts it as 0.

Legend: B faces, K keypoints, S subjects, D bootstrap draws; `_px` in the unit that the name says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np

from model.bootstrap import Interval, intervals_of, ratio
from schemas.geometry import CROP_SIZE, tight_square
from schemas.layouts import OUTER_EYE_CORNERS, layout
from schemas.records import Flag


class Unit(StrEnum):
    """What a distance is measured in.

    `CROP` is source pixels * 80 / side of the true points' tight square, whatever crop the network saw.
    `INTER_OCULAR` is per cent of the distance between the true outer corners of the eyes (`OUTER_EYE_CORNERS`), as
    the 300-W benchmark has it (Sagonas et al. 2016); a layout without eyes has none.
    """

    SOURCE = "source_px"
    CROP = "crop_px"
    INTER_OCULAR = "inter_ocular_percent"


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
        inter_ocular_BK: the same in per cent of the inter-ocular distance; NaN where a face has none.
        flags_BK: int8, `schemas.records.Flag`.
        subjects: B subjects; '' where unknown.
    """

    source_px_BK: np.ndarray
    crop_px_BK: np.ndarray
    inter_ocular_BK: np.ndarray
    flags_BK: np.ndarray
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def regions(self) -> Mapping[str, tuple[int, ...]]:
        """The layout's regions, `All` first."""
        return layout(self.flags_BK.shape[1]).regions

    @property
    def units(self) -> tuple[Unit, ...]:
        """Those that some face can be measured in."""
        return tuple(unit for unit in Unit if np.isfinite(self.in_unit(unit)).any())

    def in_unit(self, unit: Unit) -> np.ndarray:
        """Errors (B, K) in `unit`."""
        return {
            Unit.SOURCE: self.source_px_BK,
            Unit.CROP: self.crop_px_BK,
            Unit.INTER_OCULAR: self.inter_ocular_BK,
        }[unit]

    def select(self, unit: Unit, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Errors (B, K) in `unit` and the mask (B, K) of those that count."""
        error_BK = self.in_unit(unit)
        counts_BK = np.isfinite(error_BK)
        return error_BK, counts_BK if points is Points.ALL else counts_BK & (self.flags_BK == Flag.VISIBLE)

    def face_means(self, unit: Unit) -> np.ndarray:
        """Mean error over all points of each face (B,), NaN where a face has none in this unit."""
        return self.in_unit(unit).mean(axis=1)

    def of_faces(self, chosen_B: np.ndarray) -> FaceErrors:
        """The faces where `chosen_B` is true."""
        subjects = tuple(subject for subject, chosen in zip(self.subjects, chosen_B, strict=True) if chosen)
        return FaceErrors(*(getattr(self, name)[chosen_B] for name in _ARRAYS), subjects)


_ARRAYS = tuple(field.name for field in fields(FaceErrors))[:-1]


def face_errors(
    true_BK2: np.ndarray, predicted_BK2: np.ndarray, flags_BK: np.ndarray, subjects: Sequence[str]
) -> FaceErrors:
    """Errors of faces whose points, true and predicted, are in source pixels.

    Raises:
        ValueError: the shapes differ, a prediction is not a number, or a face's true points all coincide.
    """
    true_BK2, predicted_BK2 = np.asarray(true_BK2, np.float64), np.asarray(predicted_BK2, np.float64)
    if true_BK2.shape != predicted_BK2.shape or true_BK2.shape[:2] != np.shape(flags_BK):
        raise ValueError(
            f"shapes differ: true {true_BK2.shape}, predicted {predicted_BK2.shape}, flags {np.shape(flags_BK)}"
        )
    if len(subjects) != len(true_BK2):
        raise ValueError(f"{len(true_BK2)} faces but {len(subjects)} subjects")
    if not np.isfinite(predicted_BK2).all():
        raise ValueError("a predicted coordinate is not a finite number")
    sides_B = np.array([tight_square(points_K2).width for points_K2 in true_BK2], np.float64)
    if (sides_B <= 0).any():
        raise ValueError(f"face {int(np.argmin(sides_B))}: all its true points coincide, so it has no crop pixels")
    source_px_BK = np.linalg.norm(true_BK2 - predicted_BK2, axis=-1)
    return FaceErrors(
        source_px_BK=source_px_BK,
        crop_px_BK=source_px_BK * (CROP_SIZE / sides_B)[:, None],
        inter_ocular_BK=source_px_BK * ratio(np.array(100.0), inter_ocular_px(true_BK2))[:, None],
        flags_BK=np.asarray(flags_BK, np.int8),
        subjects=tuple(subjects),
    )


def inter_ocular_px(true_BK2: np.ndarray) -> np.ndarray:
    """Distance between the outer corners of the eyes (B,) of points (B, K, 2); 0 where the layout has no eyes."""
    if not layout(true_BK2.shape[1]).is_face:
        return np.zeros(len(true_BK2))
    right, left = OUTER_EYE_CORNERS
    return np.linalg.norm(true_BK2[:, right] - true_BK2[:, left], axis=-1)


def join_faces(parts: Sequence[FaceErrors]) -> FaceErrors:
    """The faces of all parts, in order."""
    arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS)
    return FaceErrors(*arrays, tuple(subject for part in parts for subject in part.subjects))


def point_means(error_BK: np.ndarray, counts_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over faces (K,), NaN where no face counts, and the number of faces that count (K,)."""
    number_K = counts_BK.sum(axis=0)
    total_K = np.where(counts_BK, error_BK, 0.0).sum(axis=0)
    return ratio(total_K, number_K), number_K


def region_means(point_error_K: np.ndarray, regions: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Region -> unweighted mean of its points that have an error, NaN where none has."""
    return {name: float(_mean_of_known(point_error_K[..., list(points)])) for name, points in regions.items()}


def region_errors(errors: FaceErrors, unit: Unit, points: Points) -> dict[str, float]:
    """Region -> error of the layout's regions, `All` first."""
    point_error_K, _ = point_means(*errors.select(unit, points))
    return region_means(point_error_K, errors.regions)


def subject_errors(errors: FaceErrors, unit: Unit, points: Points) -> dict[str, dict[str, float]]:
    """Subject -> region -> error over that subject's faces, subjects sorted."""
    subjects = np.array(errors.subjects)
    return {
        subject: region_errors(errors.of_faces(subjects == subject), unit, points)
        for subject in sorted(set(errors.subjects))
    }


def intervals(errors: FaceErrors) -> dict[tuple[Unit, Points], dict[str, Interval | None]]:
    """For every unit and choice of points: region -> 95 % interval of its error, by bootstrap over subjects.

    None where the subjects don't allow it (`model.bootstrap.can_resample`) or the region has no samples.
    """
    kinds = [(unit, points) for unit in errors.units for points in Points]
    regions = errors.regions
    sums_B2YK = np.stack([_sums(*errors.select(*kind)) for kind in kinds], axis=2)
    shape = sums_B2YK.shape[1:]

    def region_means_of(total_DX: np.ndarray) -> np.ndarray:
        total_D2YK = total_DX.reshape(-1, *shape)
        mean_DYK = ratio(total_D2YK[:, 0], total_D2YK[:, 1])
        by_region = [_mean_of_known(mean_DYK[..., list(points)]) for points in regions.values()]
        return np.stack(by_region, axis=-1).reshape(len(total_DX), -1)

    found = intervals_of(errors.subjects, sums_B2YK.reshape(len(errors), -1), region_means_of)
    cells = iter(found or [None] * (len(kinds) * len(regions)))
    return {kind: {region: next(cells) for region in regions} for kind in kinds}


def _sums(error_BK: np.ndarray, counts_BK: np.ndarray) -> np.ndarray:
    """What a mean is made of, (B, 2, K): the errors that count, and whether they do."""
    return np.stack([np.where(counts_BK, error_BK, 0.0), counts_BK], axis=1)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))
