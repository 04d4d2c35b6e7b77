"""The square face box that goes into a record, and what it costs: faces dropped, points out of reach.

Legend: B faces, N keypoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from schemas.geometry import CROP_SIZE, Box, beyond_pixel_centres
from schemas.records import Face, Violation

OutsideFrame = Literal["pad", "drop"]
_AT_A_TIME = 1024


@dataclass(frozen=True)
class Boxes:
    """Boxes of some faces.

    Attributes:
        boxes_B4: the tight square of all keypoints, enlarged: x, y, width, height in source pixels, int64.
        squares_B4: the same before it was enlarged.
        inside_B: whether that lies inside the frame.
        unreachable_B: how many keypoints are outside the pixel centres of the box scaled to the network's input
            (`schemas.geometry.beyond_pixel_centres`).
    """

    boxes_B4: np.ndarray
    squares_B4: np.ndarray
    inside_B: np.ndarray
    unreachable_B: np.ndarray


class FaceBoxer:
    """Puts boxes around the faces of a stream, and keeps account.

    Attributes:
        dropped: the faces that were left out, with the reason.
        faces: how many got a box.

    Args:
        outside_frame: with `drop`, as by the reference, a face is left out whose square leaves the frame before it
            is enlarged.
    """

    def __init__(self, *, enlarge_ratio: float, outside_frame: OutsideFrame) -> None:
        self._ratio, self._outside_frame = enlarge_ratio, outside_frame
        self.dropped: list[Violation] = []
        self.faces, self._keypoints, self._unreachable = 0, 0, 0

    def box(self, faces: Iterable[Face]) -> Iterator[tuple[Face, Box]]:
        """The faces that stay, in order, with their boxes. All have the same number of keypoints."""
        remaining = iter(faces)
        while batch := list(islice(remaining, _AT_A_TIME)):
            found = boxes_of(
                np.stack([face.points_N2 for face in batch]),
                np.array([(face.frame_width, face.frame_height) for face in batch]),
                enlarge_ratio=self._ratio,
            )
            for face, box, square, inside, unreachable in zip(
                batch, found.boxes_B4.tolist(), found.squares_B4.tolist(), found.inside_B.tolist(),
                found.unreachable_B.tolist(), strict=True,
            ):  # fmt: skip
                if self._outside_frame == "drop" and not inside:
                    self.dropped.append(
                        outside_frame(face.source_key, face.image_name, square, face.frame_width, face.frame_height)
                    )
                    continue
                self.faces += 1
                self._keypoints += face.num_keypoints
                self._unreachable += unreachable
                yield face, Box(*box)

    @property
    def unreachable_share(self) -> float:
        """Share of the boxed faces' keypoints, see `Boxes`."""
        return self._unreachable / max(1, self._keypoints)


def boxes_of(points_BN2: np.ndarray, frames_B2: np.ndarray, *, enlarge_ratio: float) -> Boxes:
    """The boxes of B faces: `schemas.geometry.tight_square`, `Box.inside` and `Box.enlarged` for all at once."""
    squares_B4 = _tight_squares(points_BN2)
    ends_B2 = squares_B4[:, :2] + squares_B4[:, 2:]
    inside_B = (squares_B4[:, :2] >= 0).all(axis=1) & (ends_B2 <= frames_B2).all(axis=1)
    shift_B1 = ((enlarge_ratio - 1.0) / 2.0 * squares_B4[:, 2:3]).astype(np.int64)
    boxes_B4 = np.concatenate([squares_B4[:, :2] - shift_B1, squares_B4[:, 2:] + 2 * shift_B1], axis=1)
    return Boxes(boxes_B4, squares_B4, inside_B, _unreachable(points_BN2, boxes_B4))


def outside_frame(record: str, image: str, square: Iterable[int], frame_width: int, frame_height: int) -> Violation:
    """Why a face was dropped."""
    x, y, side, _ = square
    return Violation(
        code="box-outside-frame",
        record=record,
        image=image,
        keypoint=None,
        value=f"x {x}, y {y}, side {side} in {frame_width} x {frame_height}",
        rule="the square around the keypoints lies inside the frame (box_outside_frame: drop)",
        hint="use box_outside_frame: pad, which repeats the frame's edge pixels",
    )


def _tight_squares(points_BN2: np.ndarray) -> np.ndarray:
    x_BN, y_BN = points_BN2[..., 0], points_BN2[..., 1]  # NumPy reduces these faster than both together
    low_B2 = np.floor(np.stack([x_BN.min(axis=1), y_BN.min(axis=1)], axis=1)).astype(np.int64)
    high_B2 = np.ceil(np.stack([x_BN.max(axis=1), y_BN.max(axis=1)], axis=1)).astype(np.int64)
    sides_B2 = high_B2 - low_B2
    missing_B2 = sides_B2.max(axis=1, keepdims=True) - sides_B2
    low_B2 -= -(-missing_B2 // 2)
    high_B2 += missing_B2 // 2
    return np.concatenate([low_B2, high_B2 - low_B2], axis=1)


def _unreachable(points_BN2: np.ndarray, boxes_B4: np.ndarray) -> np.ndarray:
    """See `Boxes`."""
    crop_BN2 = points_BN2.astype(np.float64)
    crop_BN2 -= boxes_B4[:, None, :2]
    crop_BN2 += 0.5
    crop_BN2 *= CROP_SIZE / boxes_B4[:, None, 2:3]
    crop_BN2 -= 0.5
    crop_BN2 = crop_BN2.astype(np.float32)  # as `SquareCrop.to_crop` rounds
    return beyond_pixel_centres(crop_BN2).sum(axis=1)
