"""Which faces' labels are wrong, and how: faults that people make are undone one at a time, and judged.

Undoing a fault that is there makes a face far more likely (`model.shape_model`); undoing one that is not makes it
less so. What was undone names the fault. The models know nothing of the face's own subject, so nobody explains
himself, and nothing of the image, so the model that was trained on these labels has no say.

Legend: F faces, N keypoints, H changes of the order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from model.flag_model import flag_doubts
from model.shape_model import complex_shapes, evidence_of
from schemas.layouts import OVERLAPPING_REGIONS, KeypointLayout, layout

FOLDS = 5
MIN_FACES = 40
MIN_KEYPOINTS = 5
"""With fewer, what a similarity leaves of a shape tells too little of a single point."""

_SWAPPED_TOGETHER = (("Eyes", "Pupil"), ("Eyes", "Eyebrows"), ("Eyes", "Eyebrows", "Pupil"))
_WHOLE_FACE_STEPS = (-2, -1, 1, 2)


class Kind(StrEnum):
    SWAPPED_SIDES = "swapped-sides"
    SHIFTED_ORDER = "shifted-order"
    POINT_OFF = "point-off"
    WRONG_FLAG = "wrong-flag"


@dataclass(frozen=True, eq=False)
class Change:
    """A change of the order of the points that undoes a fault.

    Attributes:
        part: what of the face, such as `Eyes` or `P37-P42`.
        order_N: the right points are `points[order_N]`.
    """

    kind: Kind
    part: str
    order_N: np.ndarray


@dataclass(frozen=True)
class Finding:
    """A label that looks wrong.

    Attributes:
        face: its row.
        part: what of the face is wrong; for a single point its label.
        point: index of a single point, or None.
        gain: nats by which the labels would be more likely without the fault.
        score: what kinds are compared by. Of a change of the order it is the gain: sound points are seldom
            likelier in another one. Of a point or a flag it is `surprise`: some sound faces are unusual.
    """

    face: int
    kind: Kind
    part: str
    point: int | None
    gain: float
    score: float


@dataclass(frozen=True)
class Ranking:
    """Findings, the most suspicious first, at most one of the order or place of points and one of the flags per face;
    `notes` say what could not be looked for."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def rank_label_errors(points_FN2: np.ndarray, flags_FN: np.ndarray, subjects: Sequence[str]) -> Ranking:
    """Rank all faces whose labels would be likelier without a fault.

    Turning, moving or scaling an image with its points changes nothing. Time grows with the number of faces: models
    are fitted to `shape_model.MAX_FITTED` faces at most.

    Args:
        points_FN2: pixels, finite.
        flags_FN: `schemas.records.Flag`.
        subjects: F names; a face without a known subject has one of its own.
    """
    people = len(set(subjects))
    if len(points_FN2) < MIN_FACES or people < FOLDS:
        return Ranking((), (f"{len(points_FN2)} faces of {people} subjects: {MIN_FACES} of {FOLDS} are needed",))
    fold_F = folds(subjects)
    found = [*_misplaced(points_FN2, fold_F), *_wrongly_flagged(flags_FN, fold_F)]
    found.sort(key=lambda finding: (-finding.score, finding.face, finding.kind))
    return Ranking(tuple(found), _notes(points_FN2.shape[1], flags_FN))


def folds(subjects: Sequence[str]) -> np.ndarray:
    """The fold (F,) of every face: subjects in the order of a checksum of their names, dealt out in turn."""
    ordered = sorted(set(subjects), key=lambda subject: (zlib.crc32(subject.encode()), subject))
    fold_of = {subject: number % FOLDS for number, subject in enumerate(ordered)}
    return np.array([fold_of[subject] for subject in subjects])


@lru_cache
def changes(num_keypoints: int) -> tuple[Change, ...]:
    """Swaps of left and right, and shifts along a contour, a region or the whole face; none for an unknown layout."""
    face = layout(num_keypoints)
    return (*_swaps(face), *_shifts(face))


def surprise(gain_F: np.ndarray) -> np.ndarray:
    """-ln of the share of faces (F,) that would have such a gain by chance.

    Chance is told from the faces between the median and the 95 % quantile, which few faults reach, by an exponential
    tail.
    """
    middle, high = np.quantile(gain_F, [0.5, 0.95])
    scale = max((high - middle) / np.log(10), _SMALLEST_SCALE)
    return np.log(2) + (gain_F - middle) / scale


_SMALLEST_SCALE = 0.1  # nats; where all faces are alike, a hair's breadth is no evidence


def _misplaced(points_FN2: np.ndarray, fold_F: np.ndarray) -> Iterator[Finding]:
    """The likeliest fault of order or place of every face that has one."""
    count = points_FN2.shape[1]
    if count < MIN_KEYPOINTS:
        return
    candidates = changes(count)
    evidence = evidence_of(complex_shapes(points_FN2), fold_F, [change.order_N for change in candidates])
    kinds = [Kind.POINT_OFF] * count + [change.kind for change in candidates]
    parts = [*layout(count).labels, *(change.part for change in candidates)]
    gain_FX = np.concatenate([evidence.point_gain_FN, evidence.order_gain_FH], axis=1)
    best_F = gain_FX.argmax(axis=1)
    point_score_F = surprise(evidence.point_gain_FN.max(axis=1))
    for face, best in enumerate(best_F.tolist()):
        gain = float(gain_FX[face, best])
        if gain > 0:
            one = best < count
            score = float(point_score_F[face]) if one else gain
            yield Finding(face, kinds[best], parts[best], best if one else None, gain, score)


def _wrongly_flagged(flags_FN: np.ndarray, fold_F: np.ndarray) -> Iterator[Finding]:
    """The most doubtful flag of every face that has a doubtful one."""
    doubts_FN = flag_doubts(flags_FN, fold_F)
    worst_F = doubts_FN.argmax(axis=1)
    doubt_F = doubts_FN.max(axis=1)
    judged = np.flatnonzero(np.isfinite(doubt_F))
    if not len(judged):
        return
    labels = layout(flags_FN.shape[1]).labels
    for face, score in zip(judged.tolist(), surprise(doubt_F[judged]).tolist(), strict=True):
        if doubt_F[face] > 0:
            point = int(worst_F[face])
            yield Finding(face, Kind.WRONG_FLAG, labels[point], point, float(doubt_F[face]), score)


def _swaps(face: KeypointLayout) -> Iterator[Change]:
    if face.flip is None:
        return
    parts = [(name,) for name in face.regions if name not in OVERLAPPING_REGIONS]
    joined = [names for names in _SWAPPED_TOGETHER if set(names) <= set(face.regions)]
    for names in (("All",), *parts, *joined):
        order_N = np.arange(face.num_keypoints)
        for name in names:
            points = list(face.regions[name])
            order_N[points] = np.array(face.flip)[points]
        yield Change(Kind.SWAPPED_SIDES, " and ".join(names), order_N)


def _shifts(face: KeypointLayout) -> Iterator[Change]:
    if not face.contours:
        return
    runs = {f"P{run[0] + 1}-P{run[-1] + 1}": run for run in face.contours}
    for name, points in face.regions.items():
        if name not in OVERLAPPING_REGIONS and points not in face.contours:
            runs[name] = points
    for part, run in runs.items():
        yield from (_shift(face, part, run, step) for step in range(1, len(run)))
    yield from (_shift(face, "All", face.regions["All"], step) for step in _WHOLE_FACE_STEPS)


def _shift(face: KeypointLayout, part: str, run: Sequence[int], step: int) -> Change:
    order_N = np.arange(face.num_keypoints)
    order_N[list(run)] = np.roll(run, step)
    return Change(Kind.SHIFTED_ORDER, part, order_N)


def _notes(num_keypoints: int, flags_FN: np.ndarray) -> tuple[str, ...]:
    notes = []
    if num_keypoints < MIN_KEYPOINTS:
        notes.append(f"with {num_keypoints} keypoints the place of a point can't be judged, only its flag")
    if not changes(num_keypoints):
        notes.append(
            f"which points of {num_keypoints} are left and right is not known: swaps and shifts can't be found"
        )
    unknown = float((flags_FN < 0).mean())
    if unknown > 0:
        notes.append(f"{unknown:.0%} of the occlusion flags are unknown and were not judged")
    return tuple(notes)
