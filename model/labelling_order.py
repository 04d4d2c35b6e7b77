"""In which order faces are best labelled: by expected gain.

The labelled faces should be spread as all faces are, but for two tilts: more of those that the network is unsure of,
and more of those conditions (yaw, occlusion) that few labels have. The tilt is bounded, because a network that is
trained on odd faces alone gets worse on all others. So every face has a weight, and the next one to label is the one
that brings the labelled faces nearest to the weighted ones, in the maximum mean discrepancy of a Gaussian kernel:
kernel herding (Chen, Welling and Smola 2010), begun with the faces that have labels already. A face gains by standing
for many heavy ones, and loses by likeness to labelled ones: the weight is uncertainty, the loss is diversity, and one
odd face stands for itself alone.

Legend: F unlabelled faces, L labelled faces, A all of them, unlabelled first; D features, N keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.labelling_signals import FaceSignals
from model.pose import yaw_degrees

YAW_EDGES = (-45.0, -25.0, -10.0, 10.0, 25.0, 45.0)
OCCLUDED_EDGES = (0.05, 0.25)
"""Bounds of the conditions: yaw in degrees, share of keypoints that are occluded."""

TILT = 2.0
"""A face weighs at most so many times as much as a usual one, and at least 1 / `TILT`."""

GENTLE = 0.25
"""Power of the ratios that tilt. With 1, and with the root, more odd faces were taken than a model could learn from:
it got worse than with a random order from some hundred labels on (`docs/adr/012-order-of-labelling.md`)."""

MOST_FACES = 4096
"""Of larger sets of faces so many, drawn at random, are looked at: time grows with the square."""

_AT_A_TIME = 512
_SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Ranking:
    """The faces to label next, best first.

    Attributes:
        faces: indices into the unlabelled faces.
        gain: of each when it was taken: what it stands for less what is labelled of that; its place among the others
            taken at that time, no unit.
        rarity_F: of all unlabelled faces, what their condition multiplies their weight with.
    """

    faces: np.ndarray
    gain: np.ndarray
    rarity_F: np.ndarray


def labelling_order(
    unlabelled: FaceSignals,
    labelled: FaceSignals | None,
    *,
    count: int,
    conditions_F: np.ndarray | None = None,
    conditions_L: np.ndarray | None = None,
) -> Ranking:
    """The `count` faces whose labels are expected to help most, in the order to label them. Of more than `MOST_FACES`
    faces so many are drawn, the same each time.

    Args:
        labelled: what the same network tells of faces that have labels; None if there are none.
        conditions_F, conditions_L: condition of every face (`conditions_of`); without them all weigh the same.
    """
    faces, labels = len(unlabelled), 0 if labelled is None else len(labelled)
    if conditions_F is None or conditions_L is None:
        conditions_F, conditions_L = np.zeros(faces, int), np.zeros(labels, int)
    rarity_F, rarity_L = rarity(conditions_F, conditions_L)
    looked_at = np.arange(faces)
    if faces > MOST_FACES:
        looked_at = np.sort(np.random.default_rng(0).choice(faces, MOST_FACES, replace=False))
    count = min(count, len(looked_at))
    if not count:
        return Ranking(np.empty(0, int), np.empty(0), rarity_F)
    place_FD, place_LD = _places(unlabelled.of_faces(looked_at), labelled)
    doubt_F = unlabelled.disagreement_F[looked_at]
    doubt_L = np.empty(0) if labelled is None else labelled.disagreement_F
    weight_A = _weights(np.concatenate([doubt_F, doubt_L]), np.concatenate([rarity_F[looked_at], rarity_L]))
    taken, gain = _herded(place_FD, place_LD, weight_A / weight_A.sum(), count)
    return Ranking(looked_at[taken], gain, rarity_F)


def conditions_of(points_FN2: np.ndarray, occluded_share_F: np.ndarray | None = None) -> np.ndarray:
    """A number for each combination of yaw and occlusion classes (F,); all 0 where a layout has no yaw and no share
    is known.

    Args:
        points_FN2: keypoints in pixels.
        occluded_share_F: share of a face's keypoints that are occluded, where that is known.
    """
    yaw_F = yaw_degrees(points_FN2) if len(points_FN2) else None
    of_yaw_F = np.zeros(len(points_FN2), int) if yaw_F is None else np.digitize(yaw_F, YAW_EDGES)
    if occluded_share_F is None:
        return of_yaw_F
    return of_yaw_F + (len(YAW_EDGES) + 1) * np.digitize(occluded_share_F, OCCLUDED_EDGES)


def rarity(conditions_F: np.ndarray, conditions_L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the condition of every face multiplies its weight with, (F,) and (L,): the share of labels that each
    condition would have if all had as many, over the share that it has, gently, within the bounds of `TILT`.

    Conditions that no face has don't count; every condition is given one label more than it has.
    """
    known, of_face_A = np.unique(np.concatenate([conditions_F, conditions_L]), return_inverse=True)
    labels = np.array([(conditions_L == condition).sum() for condition in known]) + 1.0
    factor_A = np.clip((labels.mean() / labels) ** GENTLE, 1 / TILT, TILT)[of_face_A] if len(known) else np.empty(0)
    return factor_A[: len(conditions_F)], factor_A[len(conditions_F) :]


def _weights(doubt_A: np.ndarray, rarity_A: np.ndarray) -> np.ndarray:
    """Doubt over the usual doubt, gently, times the rarity, within the bounds."""
    usual = max(float(np.median(doubt_A)), _SMALLEST)
    return np.clip((doubt_A / usual) ** GENTLE * rarity_A, 1 / TILT, TILT)


def _places(unlabelled: FaceSignals, labelled: FaceSignals | None) -> tuple[np.ndarray, np.ndarray]:
    """Where faces are in the space in which likeness is measured: what the network's innermost maps show, and the
    shape it finds. Both parts have the same spread over the unlabelled faces."""
    parts_FD = (unlabelled.features_FD, unlabelled.points_FN2.reshape(len(unlabelled), -1))
    centres_D = [part_FD.mean(axis=0) for part_FD in parts_FD]
    spreads = [np.sqrt(max(float(part_FD.var(axis=0).sum()), _SMALLEST)) for part_FD in parts_FD]

    def places(*parts: np.ndarray) -> np.ndarray:
        return np.hstack([(p - c) / s for p, c, s in zip(parts, centres_D, spreads, strict=True)]).astype(np.float64)

    if labelled is None:
        return places(*parts_FD), np.empty((0, sum(part.shape[1] for part in parts_FD)))
    return places(*parts_FD), places(labelled.features_FD, labelled.points_FN2.reshape(len(labelled), -1))


def _herded(
    place_FD: np.ndarray, place_LD: np.ndarray, weight_A: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of unlabelled faces taken one by one, the first of equals, and what each gained."""
    labels = len(place_LD)
    squared_FF = _squared_distances(place_FD, place_FD)
    squared_width = _squared_width(squared_FF, labels + count)
    likeness_FF = np.exp(-squared_FF / (2 * squared_width))
    stands_for_F, labelled_F = likeness_FF @ weight_A[: len(place_FD)], np.zeros(len(place_FD))
    for start in range(0, labels, _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        likeness_FL = np.exp(-_squared_distances(place_FD, place_LD[part]) / (2 * squared_width))
        stands_for_F += likeness_FL @ weight_A[len(place_FD) :][part]
        labelled_F += likeness_FL.sum(axis=1)
    taken, gains = np.empty(count, int), np.empty(count)
    for number in range(count):
        gain_F = stands_for_F - labelled_F / (labels + number + 1)
        gain_F[taken[:number]] = -np.inf
        best = int(np.argmax(gain_F))
        taken[number], gains[number] = best, gain_F[best]
        labelled_F += likeness_FF[best]
    return taken, gains


def _squared_distances(a_FD: np.ndarray, b_LD: np.ndarray) -> np.ndarray:
    squared_FL = (a_FD**2).sum(axis=1)[:, None] + (b_LD**2).sum(axis=1)[None] - 2 * (a_FD @ b_LD.T)
    return np.maximum(squared_FL, 0.0)


def _squared_width(squared_FF: np.ndarray, labels: int) -> float:
    """Of the kernel: so wide that as many labels reach every face about once: the median squared distance of a face
    to its F / `labels`-th neighbour."""
    neighbour = min(max(1, len(squared_FF) // labels), len(squared_FF) - 1)
    return max(float(np.median(np.partition(squared_FF, neighbour, axis=1)[:, neighbour])), _SMALLEST)
