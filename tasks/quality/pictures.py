"""Small pictures for the quality page: a face cut out of its frame, with the points that it is about.

Legend: N keypoints; S side of a picture in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from model.crop import crop_face
from model.figures import BGR, PREDICTION, TRUTH, draw_dot, draw_keypoints, draw_line, draw_ring, encode_image
from model.images import read_image
from schemas.geometry import SquareCrop, tight_square
from schemas.records import Face

SIDE = 300
CONTEXT = 1.25
"""Side of the picture over that of the tight square of all points in it."""

MARK: BGR = (60, 60, 255)
ANNOTATORS: tuple[BGR, ...] = (TRUTH, PREDICTION, (90, 220, 255), (255, 90, 230), (120, 230, 120), (255, 170, 60))
"""Colours of a face's annotators, in their order; from the seventh on they come again."""


def draw_suspect(face: Face, keypoint: str | None) -> bytes:
    """PNG of a face with its points, `keypoint` (such as `P7`) in a ring.

    Raises:
        ImageError: the image can't be read.
    """
    canvas, crop = _cut_out(face.image, face.points_N2)
    points_N2 = crop.to_crop(face.points_N2)
    draw_keypoints(canvas, points_N2, radius_px=2.0)
    if keypoint is not None:
        draw_ring(canvas, points_N2[int(keypoint[1:]) - 1].tolist(), 12, MARK)
    return encode_image(canvas)


def draw_dispute(faces: Sequence[Face]) -> bytes:
    """PNG of a face as its annotators have it, each in a colour of `ANNOTATORS`, joined to the first one's points.

    Raises:
        ImageError: the image can't be read.
    """
    canvas, crop = _cut_out(faces[0].image, np.concatenate([face.points_N2 for face in faces]))
    first_N2, *others = (crop.to_crop(face.points_N2) for face in faces)
    for points_N2 in others:
        for start, end in zip(first_N2.tolist(), points_N2.tolist(), strict=True):
            draw_line(canvas, start, end, (255, 255, 255))
    for number, points_N2 in enumerate([first_N2, *others]):
        for point in points_N2.tolist():
            draw_dot(canvas, point, 2.0, ANNOTATORS[number % len(ANNOTATORS)])
    return encode_image(canvas)


def _cut_out(image: str, points_N2: np.ndarray) -> tuple[np.ndarray, SquareCrop]:
    """The part of a frame that holds the points, (S, S, 3) BGR."""
    box = tight_square(points_N2)
    side = CONTEXT * max(box.width, 1)
    centre_x, centre_y = box.x + box.width / 2, box.y + box.height / 2
    crop = SquareCrop(centre_x - side / 2, centre_y - side / 2, side, SIDE)
    cut = crop_face(read_image(Path(image), channels=3), crop)
    return cv2.cvtColor(cut, cv2.COLOR_RGB2BGR), crop
