"""One face as several annotations have it, and the units that differences between them are measured in.

Legend: F faces, A annotations of a face, K keypoints, U units (`model.region_error.Unit`, in its order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.bootstrap import can_resample
from model.region_error import inter_ocular_px
from schemas.geometry import CROP_SIZE, SquareCrop, tight_square


@dataclass(frozen=True, eq=False)
class FaceViews:
    """Two annotations or more of one face.

    Attributes:
        key: of the record that they are of.
        subject: '' where unknown.
        annotators: A names, one for each annotation.
        points_AK2: float64, source pixels.
        flags_AK: int8, `schemas.records.Flag`.
    """

    key: str
    subject: str
    annotators: tuple[str, ...]
    points_AK2: np.ndarray
    flags_AK: np.ndarray

    def of(self, *annotators: str) -> FaceViews:
        """The annotations of these annotators only, in this order; each has one."""
        rows = [self.annotators.index(name) for name in annotators]
        return FaceViews(self.key, self.subject, annotators, self.points_AK2[rows], self.flags_AK[rows])


def unit_scales(views: Sequence[FaceViews]) -> np.ndarray:
    """What a source pixel is in every unit, for every face (F, U); NaN where a face has no such unit.

    A face's size is the mean of what its annotations say. (That of their mean points would be wrong where they
    differ most: a face whose sides one annotator has swapped has its eyes in the middle on average.)
    """
    return np.array([_scales(view.points_AK2) for view in views])


def resampling_units(views: Sequence[FaceViews]) -> list[str]:
    """What a bootstrap draws whole: subjects if they are known and differ, else each face by itself."""
    subjects = [view.subject for view in views]
    return subjects if can_resample(subjects) else [view.key for view in views]


def mean_face(views: Sequence[FaceViews]) -> np.ndarray:
    """The mean of all annotations (K, 2), each in the crop of its own tight square, in crop pixels."""
    return np.mean([_in_crop(points_K2) for view in views for points_K2 in view.points_AK2], axis=0)


def _scales(points_AK2: np.ndarray) -> tuple[float, float, float]:
    side = np.mean([tight_square(points_K2).width for points_K2 in points_AK2])
    eyes = inter_ocular_px(points_AK2).mean()
    return 1.0, CROP_SIZE / side, 100.0 / eyes if eyes > 0 else np.nan


def _in_crop(points_K2: np.ndarray) -> np.ndarray:
    return SquareCrop.of_box(tight_square(points_K2)).to_crop(points_K2)
