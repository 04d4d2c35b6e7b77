"""In which order faces are best labelled: by expected gain.

A label helps the faces that look like the labelled one, and it helps them the more the less the network knows about
them. So a face is worth the sum, over all unlabelled faces, of how uncertain the network is about that face, times
how much nearer to a labelled face this label brings it. Faces are taken one by one, each worth what those before it
left.
This is the facility-location function with weights (Wei, Iyer and Bilmes 2015; for the greedy choice Nemhauser et al.
1978): uncertainty as weight, diversity because a second label nearby gains nothing, density because one odd face
brings only itself. Faces of conditions (yaw, occlusion) that few labels have weigh more.

Legend: F unlabelled faces, L labelled faces, D features, N keypoints, R condition of a face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.labelling_signals import FaceSignals
from model.pose import yaw_degrees

YAW_EDGES = (-45.0, -25.0, -10.0, 10.0, 25.0, 45.0)
OCCLUDED_EDGES = (0.05, 0.25)
"""Bounds of the conditions: yaw in degrees, share of keypoints that are occluded."""

RARITY_LIMITS = (0.5, 2.0)
MOST_FACES = 4096
"""Of larger sets of unlabelled faces so many, drawn at random, are looked at: time grows with the square."""

_AT_A_TIME = 512
_SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Ranking:
    """The faces to label next, best first.

    Attributes:
        faces: indices into the unlabelled faces.
        gain: of each when it was taken: expected fall of the summed uncertainty, in input pixels times faces.
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
    seed: int = 0,
) -> Ranking:
    """The `count` faces whose labels are expected to help most, in the order to label them.

    The kernel that says how much a label helps another face is as wide as `count` labels need to reach every face
    once: its width is the median distance of a face to its F / `count`-th neighbour.

    Args:
        labelled: what the same network tells of faces that have labels; None if there are none.
        conditions_F, conditions_L: condition of every face (`conditions_of`); without them all weigh the same.
        seed: of the draw from more than `MOST_FACES` faces.
    """
    faces = len(unlabelled)
    rarity_F = np.ones(faces)
    if conditions_F is not None:
        rarity_F = rarity(conditions_F, np.empty(0, int) if conditions_L is None else conditions_L)
    looked_at = np.arange(faces)
    if faces > MOST_FACES:
        looked_at = np.sort(np.random.default_rng(seed).choice(faces, MOST_FACES, replace=False))
    count = min(count, len(looked_at))
    if not count:
        return Ranking(np.empty(0, int), np.empty(0), rarity_F)
    place_FD, place_LD = _places(unlabelled.of_faces(looked_at), labelled)
    squared_FF = _squared_distances(place_FD, place_FD)
    squared_width = _squared_width(squared_FF, count)
    helped_F = _helped(place_FD, place_LD, squared_width)
    weight_F = (unlabelled.disagreement_F * rarity_F)[looked_at]
    taken, gain = _greedy(np.exp(-squared_FF / (2 * squared_width)), helped_F, weight_F, count)
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


def rarity(conditions_F: np.ndarray, conditions_L: np.ndarray) -> np.ndarray:
    """What the condition of every unlabelled face multiplies its weight with, (F,): the root of the share of labels
    that each condition would have if all had as many, over the share that it has, within `RARITY_LIMITS`.

    Conditions that no unlabelled face has don't count; every condition is given one label more than it has.
    """
    known, of_face_F = np.unique(conditions_F, return_inverse=True)
    labels_R = np.array([(conditions_L == condition).sum() for condition in known]) + 1.0
    even = labels_R.sum() / len(known) if len(known) else 1.0
    return np.clip(np.sqrt(even / labels_R), *RARITY_LIMITS)[of_face_F]


def _places(unlabelled: FaceSignals, labelled: FaceSignals | None) -> tuple[np.ndarray, np.ndarray]:
    """Where faces are in the space in which likeness is measured: what the network's innermost maps show, and the
    shape it finds. Both parts have the same spread over the unlabelled faces."""
    parts_FD = (_scaled(unlabelled.features_FD), unlabelled.points_FN2.reshape(len(unlabelled), -1))
    centres_D = [part_FD.mean(axis=0) for part_FD in parts_FD]
    spreads = [np.sqrt(max(part_FD.var(axis=0).sum(), _SMALLEST)) for part_FD in parts_FD]

    def places(parts: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.hstack([(p - c) / s for p, c, s in zip(parts, centres_D, spreads, strict=True)])

    if labelled is None or not len(labelled):
        return places(parts_FD), np.empty((0, sum(part.shape[1] for part in parts_FD)))
    of_labelled = (
        _scaled(labelled.features_FD, like=unlabelled.features_FD),
        labelled.points_FN2.reshape(len(labelled), -1),
    )
    return places(parts_FD), places(of_labelled)


def _scaled(features_FD: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Every feature over its deviation (in `like`), and those that never change left alone."""
    deviation_D = (features_FD if like is None else like).std(axis=0)
    return features_FD / np.where(deviation_D > _SMALLEST, deviation_D, 1.0)


def _squared_distances(a_FD: np.ndarray, b_LD: np.ndarray) -> np.ndarray:
    squared_FL = (a_FD**2).sum(axis=1)[:, None] + (b_LD**2).sum(axis=1)[None] - 2 * (a_FD @ b_LD.T)
    return np.maximum(squared_FL, 0.0)


def _squared_width(squared_FF: np.ndarray, count: int) -> float:
    neighbour = min(max(1, len(squared_FF) // count), len(squared_FF) - 1)
    return max(float(np.median(np.partition(squared_FF, neighbour, axis=1)[:, neighbour])), _SMALLEST)


def _helped(place_FD: np.ndarray, place_LD: np.ndarray, squared_width: float) -> np.ndarray:
    """How near every face is to its nearest label (F,), 0 far from all to 1."""
    helped_F = np.zeros(len(place_FD))
    for start in range(0, len(place_LD), _AT_A_TIME):
        squared_FL = _squared_distances(place_FD, place_LD[start : start + _AT_A_TIME])
        helped_F = np.maximum(helped_F, np.exp(-squared_FL.min(axis=1) / (2 * squared_width)))
    return helped_F


def _greedy(
    likeness_FF: np.ndarray, helped_F: np.ndarray, weight_F: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices taken one by one, each the one that gains most, the first of equals; and what each gained.

    What a face gains only falls as others are taken, so a face whose gain, looked at again, is still above all that
    the others gained before is the best one (Minoux 1978).
    """
    helped_F = helped_F.copy()
    taken, gains = np.empty(count, int), np.empty(count)
    most_F = np.array([weight_F @ np.maximum(row_F - helped_F, 0.0) for row_F in likeness_FF])
    for number in range(count):
        fresh = -1
        while (best := int(np.argmax(most_F))) != fresh:
            most_F[best] = weight_F @ np.maximum(likeness_FF[best] - helped_F, 0.0)
            fresh = best
        taken[number], gains[number] = best, most_F[best]
        np.maximum(helped_F, likeness_FF[best], out=helped_F)
        most_F[best] = -np.inf
    return taken, gains
