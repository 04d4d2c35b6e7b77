"""How well a confidence tells visible points from occluded ones.

A confidence of the kind `peak` is the maximum of the soft-argmax map, as the reference has it, and no probability:
where it lies between 0 and 1 depends on `beta` and on the loss; one of the kind `visibility` is meant as one. So the
ROC curve, which only asks for the order, is the measure; the reliability curve shows what a value means for this
model.

Legend: F faces, N keypoints, P points whose flag is known, Q quantile bins, C bins of equal width, D bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.bootstrap import Interval, intervals_of, ratio
from schemas.records import Flag

RELIABILITY_BINS = 10
CALIBRATION_BINS = 15
CURVE_STEPS = 100
BOOTSTRAP_BINS = 100
"""Into so many classes of equal number confidences are rounded for the interval of the area, and only for it."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Points of similar confidence: their mean, the share that is visible, and how many they are."""

    confidence: float
    visible_share: float
    points: int


@dataclass(frozen=True)
class ConfidenceQuality:
    """What the confidences of one region are worth.

    Attributes:
        visible, occluded: how many points were declared so; others don't count.
        auc: area under the ROC curve: chance that a visible point has a higher confidence than an occluded one.
        interval, calibration_interval: of the area and of the calibration error, 95 % over subjects; None where the
            subjects don't allow it.
        roc: (share of visible points below a threshold, share of occluded points below it): false and true alarms.
        bins: of equal number of points, confidence increasing.
        calibration_error: expected calibration error (Guo et al. 2017): over 15 bins of equal width, each weighted
            with its points, the mean of |mean confidence - share visible|.
    """

    visible: int
    occluded: int
    auc: float
    interval: Interval | None
    calibration_interval: Interval | None
    roc: tuple[tuple[float, float], ...]
    bins: tuple[ReliabilityBin, ...]
    calibration_error: float


def confidence_by_region(
    confidence_FN: np.ndarray, flags_FN: np.ndarray, subjects: Sequence[str], regions: Mapping[str, Sequence[int]]
) -> dict[str, ConfidenceQuality]:
    """Region -> quality, for regions that have both visible and occluded points."""
    found = {}
    for region, points in regions.items():
        chosen = list(points)
        flags = flags_FN[:, chosen]
        if (flags == Flag.VISIBLE).any() and (flags == Flag.OCCLUDED).any():
            found[region] = confidence_quality(confidence_FN[:, chosen], flags, subjects)
    return found


def confidence_quality(confidence_FN: np.ndarray, flags_FN: np.ndarray, subjects: Sequence[str]) -> ConfidenceQuality:
    """Quality over all points with a known flag, among which both kinds must be.

    Raises:
        ValueError: there is no visible or no occluded point.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    known_FN = flags_FN != Flag.UNKNOWN
    confidence_P, occluded_P = confidence_FN[known_FN].astype(np.float64), flags_FN[known_FN] == Flag.OCCLUDED
    if occluded_P.all() or not occluded_P.any():
        raise ValueError("there must be visible and occluded points")
    false_alarms, hits, _ = roc_curve(occluded_P, -confidence_P)
    at = np.linspace(0, 1, CURVE_STEPS + 1)
    excess_FX = _excesses(confidence_FN, flags_FN)
    sums_FX = np.hstack([_histograms(confidence_FN, flags_FN), excess_FX])
    interval, calibration_interval = intervals_of(subjects, sums_FX, _area_and_calibration) or (None, None)
    return ConfidenceQuality(
        visible=int((~occluded_P).sum()),
        occluded=int(occluded_P.sum()),
        auc=float(roc_auc_score(occluded_P, -confidence_P)),
        interval=interval,
        calibration_interval=calibration_interval,
        roc=((0.0, 0.0), *zip(at.tolist(), np.interp(at, false_alarms, hits).tolist(), strict=True)),
        bins=reliability_bins(confidence_P, ~occluded_P),
        calibration_error=float(_calibration_errors(excess_FX.sum(axis=0, keepdims=True))[0, 0]),
    )


def reliability_bins(confidence_P: np.ndarray, visible_P: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Up to ten bins of equal number, fewer where there are fewer points."""
    parts = np.array_split(np.argsort(confidence_P, kind="stable"), min(RELIABILITY_BINS, len(confidence_P)))
    return tuple(
        ReliabilityBin(float(confidence_P[part].mean()), float(visible_P[part].mean()), len(part)) for part in parts
    )


def _histograms(confidence_FN: np.ndarray, flags_FN: np.ndarray) -> np.ndarray:
    """Of each face, how many visible, then how many occluded points have a confidence of each class, (F, 2 Q)."""
    known_FN = flags_FN != Flag.UNKNOWN
    edges = np.quantile(confidence_FN[known_FN], np.linspace(0, 1, BOOTSTRAP_BINS + 1)[1:-1])
    class_FN = np.searchsorted(edges, confidence_FN, side="right") + BOOTSTRAP_BINS * (flags_FN == Flag.OCCLUDED)
    column_FN = np.arange(len(flags_FN))[:, None] * 2 * BOOTSTRAP_BINS + class_FN
    counts = np.bincount(column_FN[known_FN], minlength=len(flags_FN) * 2 * BOOTSTRAP_BINS)
    return counts.reshape(len(flags_FN), 2 * BOOTSTRAP_BINS)


def _areas(histogram_DX: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each draw (D, 1), equal classes counting half; NaN where a kind is missing."""
    visible_DQ, occluded_DQ = np.split(histogram_DX, 2, axis=1)
    below_DQ = np.cumsum(occluded_DQ, axis=1) - occluded_DQ / 2
    pairs_D = visible_DQ.sum(axis=1) * occluded_DQ.sum(axis=1)
    ordered_D = (visible_DQ * below_DQ).sum(axis=1)
    return ratio(ordered_D, pairs_D)[:, None]


def _excesses(confidence_FN: np.ndarray, flags_FN: np.ndarray) -> np.ndarray:
    """Of each face and bin by how much its confidences are above how many are visible, then how many points it has,
    (F, C + 1)."""
    known_FN = flags_FN != Flag.UNKNOWN
    bin_FN = np.clip((confidence_FN * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    excess_FN = np.where(known_FN, confidence_FN.astype(np.float64) - (flags_FN == Flag.VISIBLE), 0.0)
    column_FN = np.arange(len(flags_FN))[:, None] * CALIBRATION_BINS + bin_FN
    sums = np.bincount(column_FN.ravel(), excess_FN.ravel(), minlength=len(flags_FN) * CALIBRATION_BINS)
    return np.column_stack([sums.reshape(len(flags_FN), CALIBRATION_BINS), known_FN.sum(axis=1)])


def _calibration_errors(excess_DX: np.ndarray) -> np.ndarray:
    """(D, 1); NaN of a draw without points."""
    points_D = excess_DX[:, -1]
    apart_D = np.abs(excess_DX[:, :-1]).sum(axis=1)
    return ratio(apart_D, points_D)[:, None]


def _area_and_calibration(sums_DX: np.ndarray) -> np.ndarray:
    histogram_DX, excess_DX = np.split(sums_DX, [2 * BOOTSTRAP_BINS], axis=1)
    return np.hstack([_areas(histogram_DX), _calibration_errors(excess_DX)])
