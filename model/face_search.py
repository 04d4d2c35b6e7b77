"""A face box for an image that has none: FPENet needs one, and is no detector.

The network is run on squares in the middle of the frame, from the whole of it down to less than half; the square of
the keypoints found becomes the next face box, twice. The one counts on which the network is surest in the end. That
finds one face that is not small and not far from the middle, as in portraits; it is a guess for a person to look at.

Legend: V squares that are tried, N keypoints, H W C rows, columns, channels.
"""

from __future__ import annotations

import numpy as np

from model.crop import crop_face
from model.evaluation import Predict
from schemas.geometry import Box, SquareCrop, tight_square

SHARES = (1.0, 0.8, 0.64, 0.5, 0.4)
"""Sides of the squares over the frame's shorter side."""

REFINEMENTS = 2
_SMALLEST_PX = 8


def find_face(predict: Predict, frame: np.ndarray, *, input_size: int, enlarge_ratio: float) -> Box:
    """The tight square of the keypoints of the face that the network is surest of, whole source pixels.

    Args:
        frame: (H, W) or (H, W, C), uint8.
        enlarge_ratio: by how much the network's crop is larger than a face box.
    """
    boxes = [_central(frame, share) for share in SHARES]
    for _ in range(REFINEMENTS):
        boxes, _ = _looked_at(predict, frame, boxes, input_size, enlarge_ratio)
    boxes, sure_V = _looked_at(predict, frame, boxes, input_size, enlarge_ratio)
    return boxes[int(np.argmax(sure_V))]


def _looked_at(
    predict: Predict, frame: np.ndarray, boxes: list[Box], input_size: int, enlarge_ratio: float
) -> tuple[list[Box], np.ndarray]:
    """The tight squares of what the network finds in these boxes, and how sure it is of each (V,)."""
    crops = [SquareCrop.of_box(box.enlarged(enlarge_ratio), input_size) for box in boxes]
    images = [crop_face(frame, crop).reshape(input_size, input_size, -1) for crop in crops]
    points_VN2, confidence_VN = predict(np.stack(images).astype(np.float32))
    found = [tight_square(crop.to_frame(p.astype(np.float64))) for crop, p in zip(crops, points_VN2, strict=True)]
    kept = [new if new.width >= _SMALLEST_PX else old for new, old in zip(found, boxes, strict=True)]
    return kept, np.asarray(confidence_VN).mean(axis=1)


def _central(frame: np.ndarray, share: float) -> Box:
    height, width = frame.shape[:2]
    side = max(_SMALLEST_PX, round(share * min(height, width)))
    return Box((width - side) // 2, (height - side) // 2, side, side)
