"""From confidences to proposed occlusion flags: below which confidence a point is proposed as occluded.

The confidence need not be a probability and means something else in every model (`model.confidence`), so the bound is
found on labelled faces: per region, the one with which a labeller has the fewest flags to correct, a flag too many
counting as much as one too few. Where no bound saves work, nothing is proposed.

Legend: F labelled faces, N keypoints, P points of one region whose flag is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from schemas.layouts import OVERLAPPING_REGIONS, layout
from schemas.records import Flag

FEWEST_OCCLUDED = 20
"""With fewer occluded points a region's bound would be chance."""


def occlusion_thresholds(confidence_FN: np.ndarray, flags_FN: np.ndarray) -> np.ndarray:
    """The bound of every point (N,): occluded is proposed below it. NaN, which nothing is below, where none helps."""
    num_keypoints = confidence_FN.shape[1]
    thresholds_N = np.full(num_keypoints, np.nan)
    for points in _parts(num_keypoints).values():
        chosen = list(points)
        confidence, flags = confidence_FN[:, chosen], flags_FN[:, chosen]
        known = flags != Flag.UNKNOWN
        thresholds_N[chosen] = _threshold(confidence[known], flags[known] == Flag.OCCLUDED)
    return thresholds_N


def proposed_flags(confidence_FN: np.ndarray, thresholds_N: np.ndarray) -> np.ndarray:
    """`Flag` values (..., N), occluded below the thresholds and visible elsewhere."""
    return np.where(confidence_FN < thresholds_N, int(Flag.OCCLUDED), int(Flag.VISIBLE)).astype(np.int8)


def _parts(num_keypoints: int) -> Mapping[str, tuple[int, ...]]:
    regions = layout(num_keypoints).regions
    return {name: points for name, points in regions.items() if name not in OVERLAPPING_REGIONS} or regions


def _threshold(confidence_P: np.ndarray, occluded_P: np.ndarray) -> float:
    """The bound between two confidences with the fewest wrong flags, NaN if none is better than no flag at all."""
    occluded = int(occluded_P.sum())
    if occluded < FEWEST_OCCLUDED:
        return float("nan")
    order_P = np.argsort(confidence_P, kind="stable")
    sorted_P, hidden_P = confidence_P[order_P].astype(np.float64), occluded_P[order_P]
    wrong_P = occluded + np.cumsum(np.where(hidden_P, -1, 1))  # if all up to this point are flagged
    wrong_P[:-1][sorted_P[:-1] == sorted_P[1:]] = len(wrong_P)  # equal ones go together
    best = int(np.argmin(wrong_P))
    if wrong_P[best] >= occluded:
        return float("nan")
    above = sorted_P[best + 1] if best + 1 < len(sorted_P) else sorted_P[best] + 1.0
    return float((sorted_P[best] + above) / 2)
