"""The square face box that goes into a record, and what it costs: faces dropped, points out of reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schemas.geometry import CROP_SIZE, Box, SquareCrop, tight_square
from schemas.records import Face, Violation


@dataclass(frozen=True)
class BoxedFaces:
    """Faces with their boxes, in order, and the faces that were left out with the reason."""

    faces: list[tuple[Face, Box]]
    dropped: list[Violation]


def box_faces(faces: Iterable[Face], *, enlarge_ratio: float, outside_frame: Literal["pad", "drop"]) -> BoxedFaces:
    """The reference's box of every face: the tight square of all its keypoints, enlarged.

    With `drop`, as by the reference, a face is left out whose square leaves the frame before it is enlarged.
    """
    boxed, dropped = [], []
    for face in faces:
        square = tight_square(face.points_N2)
        if outside_frame == "drop" and not square.inside(face.frame_width, face.frame_height):
            dropped.append(_outside(face, square))
        else:
            boxed.append((face, square.enlarged(enlarge_ratio)))
    return BoxedFaces(boxed, dropped)


def unreachable_share(boxed: Sequence[tuple[Face, Box]]) -> float:
    """Share of the keypoints outside [0, 79] of the network's input, where a soft-argmax over its pixels can't go."""
    if not boxed:
        return 0.0
    outside = [
        (crop < 0) | (crop > CROP_SIZE - 1)
        for crop in (SquareCrop.of_box(box).to_crop(face.points_N2) for face, box in boxed)
    ]
    return float(np.concatenate(outside).any(axis=1).mean())


def _outside(face: Face, square: Box) -> Violation:
    return Violation(
        code="box-outside-frame",
        record=face.source_key,
        image=face.image_name,
        keypoint=None,
        value=f"x {square.x}, y {square.y}, side {square.width} in {face.frame_width} x {face.frame_height}",
        rule="the square around the keypoints lies inside the frame (box_outside_frame: drop)",
        hint="use box_outside_frame: pad, which repeats the frame's edge pixels",
    )
