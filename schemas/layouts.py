"""Keypoint layouts: which index is which part of the face.

Indices are 0-based; labels are 1-based (`P1` is index 0). Sources: FPENet's model card (chin 1-17,
eyebrows 18-27, nose 28-36, eyes 37-48, mouth 49-61, inner lips 62-68, pupil 69-76, ears 77-80, additional
eye landmarks 81-104) and the index tables of the reference evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

MAX_KEYPOINTS = 1000
"""Of a face. The densest layouts that faces are labelled with have some hundreds; more is a slip of the hand."""

HEAD_POSE = (8, 17, 21, 22, 26, 31, 35, 36, 39, 42, 45, 48, 54, 57)
"""Points that a head-pose solver uses; the reference's region `HP`."""

OUTER_EYE_CORNERS = (36, 45)
"""Their distance is the inter-ocular distance of the literature (300-W)."""

_FLIP_68 = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip
_FLIP_80 = (*_FLIP_68, 74, 73, 72, 75, 70, 69, 68, 71, 78, 79, 76, 77)
_FLIP_104 = (
    *_FLIP_80, 91, 92, 93, *range(100, 93, -1), 101, 80, 81, 82, *range(89, 82, -1), 90, 103, 102,
)  # fmt: skip
_CONTOUR_STARTS = (0, 17, 22, 27, 31, 36, 42, 48, 60, 68, 72, 76, 78, 80, 91, 102)
"""Chin, eyebrows, bridge, nostrils, eyes, lips, inner lips, pupils, ears, more of the eyes; then single points."""
_FLIPS = {68: _FLIP_68, 80: _FLIP_80, 104: _FLIP_104}
FACE_SIZES = tuple(_FLIPS)
"""Numbers of keypoints of the known faces."""

OVERLAPPING_REGIONS = ("All", "HP")
"""Evaluation regions whose points are in other regions too."""


@dataclass(frozen=True)
class KeypointLayout:
    """N keypoints and what they mean.

    Attributes:
        num_keypoints: N.
        regions: evaluation region -> indices, in the reference's order, `All` first.
        loss_regions: `face`, `eyes`, `mouth` (and `pupil` where there are pupils) -> indices. They are
            disjoint and cover every point. Empty where the layout is not a known face.
        flip: `flipped[i] = points[flip[i]]` mirrors a face, an involution; None for an unknown layout.
        contours: runs of points that are drawn one after the other, such as an eye. They are disjoint and cover every
            point but single ones. Empty where the layout is not a known face.
    """

    num_keypoints: int
    regions: Mapping[str, tuple[int, ...]]
    loss_regions: Mapping[str, tuple[int, ...]]
    flip: tuple[int, ...] | None
    contours: tuple[tuple[int, ...], ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """`P1` to `PN`, as the labelling tools name them."""
        return tuple(f"P{i + 1}" for i in range(self.num_keypoints))

    @property
    def is_face(self) -> bool:
        return self.flip is not None


@lru_cache
def layout(num_keypoints: int) -> KeypointLayout:
    """The layout with `num_keypoints` points: a face for 68, 80 and 104, else only the region `All`.

    Raises:
        ValueError: `num_keypoints` is not positive.
    """
    n = num_keypoints
    if n < 1:
        raise ValueError(f"num_keypoints must be positive, not {n}")
    everything = tuple(range(n))
    if n not in _FLIPS:
        return KeypointLayout(n, {"All": everything}, {}, None)

    pupils = tuple(range(68, 76)) if n >= 80 else ()
    ears = tuple(range(76, 80)) if n >= 80 else ()
    more_eyes = tuple(range(80, n))
    eyes = (*range(36, 48), *more_eyes)
    regions = {
        "All": everything,
        "Eyes": eyes,
        "Nose": tuple(range(27, 36)),
        "Mouth": tuple(range(48, 68)),
        "Eyebrows": tuple(range(17, 27)),
        "Chin": tuple(range(17)),
        "HP": HEAD_POSE,
    }
    loss_regions = {"face": (*range(36), *ears), "eyes": eyes, "mouth": tuple(range(48, 68))}
    if pupils:
        regions |= {"Pupil": pupils, "Ears": ears}
        loss_regions["pupil"] = pupils
    starts = [start for start in _CONTOUR_STARTS if start <= n]
    contours = tuple(tuple(range(*run)) for run in pairwise(starts))
    return KeypointLayout(n, regions, loss_regions, _FLIPS[n], contours)
