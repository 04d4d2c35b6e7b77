"""Cumulative error distribution: the share of faces whose mean error is at most so large.

Legend: B faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.bootstrap import Interval, intervals_of, ratio
from model.region_error import FaceErrors, Unit

BOUNDS = {Unit.CROP: 4.0, Unit.INTER_OCULAR: 8.0}
"""Up to where the area is taken, and beyond which a face counts as failed: a twentieth of the face's side in crop
pixels; 8 % of the inter-ocular distance as for 300-W (Sagonas et al. 2016)."""

STEPS = 100
SHOWN_BOUNDS = 2.0
"""The curve is written up to so many times the bound."""


@dataclass(frozen=True)
class ErrorCurve:
    """The distribution of the faces' mean errors over all points, in one unit.

    Attributes:
        bound: in the unit.
        faces: that have an error in this unit.
        auc: area under the curve from 0 to the bound, divided by the bound: 1 if all errors are 0.
        failure_rate: share of faces with an error beyond the bound.
        auc_interval, failure_interval: 95 % over subjects; None where the subjects don't allow it.
        points: (error, share of faces with at most that error), errors increasing.
    """

    bound: float
    faces: int
    auc: float
    auc_interval: Interval | None
    failure_rate: float
    failure_interval: Interval | None
    points: tuple[tuple[float, float], ...]


def error_curve(errors: FaceErrors, unit: Unit) -> ErrorCurve | None:
    """The curve of a set in a unit of `BOUNDS`; None where no face has an error in it.

    The area is exact, the mean over faces of max(0, 1 - error / bound), not a sum over the curve's points.
    """
    bound = BOUNDS[unit]
    mean_B = errors.face_means(unit)
    known_B = np.isfinite(mean_B)
    if not known_B.any():
        return None
    error_B = np.where(known_B, mean_B, 0.0)
    parts_B3 = np.stack([np.clip(1 - error_B / bound, 0, None), error_B > bound, np.ones_like(error_B)], axis=1)
    parts_B3 *= known_B[:, None]
    total_3 = parts_B3.sum(axis=0)
    area, failure = intervals_of(errors.subjects, parts_B3, _shares) or (None, None)
    at = np.linspace(0, SHOWN_BOUNDS * bound, STEPS + 1)
    share = np.searchsorted(np.sort(mean_B[known_B]), at, side="right") / known_B.sum()
    return ErrorCurve(
        bound=bound,
        faces=int(known_B.sum()),
        auc=float(total_3[0] / total_3[2]),
        auc_interval=area,
        failure_rate=float(total_3[1] / total_3[2]),
        failure_interval=failure,
        points=tuple(zip(at.tolist(), share.tolist(), strict=True)),
    )


def _shares(total_D3: np.ndarray) -> np.ndarray:
    return ratio(total_D3[:, :2], total_D3[:, 2:])
