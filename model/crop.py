"""Square crops of a frame: the pixels that go into a record, and those that go into the network.

Legend: HW or HWC image in rows, columns (and channels); S side of the crop in pixels; R source pixels.
"""

from __future__ import annotations

import numpy as np

from schemas.geometry import Box, SquareCrop

CONTEXT_SIZE = 160
"""Side in pixels of the crop that records embed."""

CONTEXT_RATIO = 1.6
"""Side of that crop over the side of the face box: room for augmentation to rotate, shift and zoom out."""


def context_crop(face_box: Box) -> SquareCrop:
    """The crop that a record embeds: about the face box's centre, `CONTEXT_RATIO` times its side.

    Raises:
        ValueError: the box is not square or has no area.
    """
    inner = SquareCrop.of_box(face_box)
    margin = (CONTEXT_RATIO - 1) / 2 * inner.side
    return SquareCrop(inner.x0 - margin, inner.y0 - margin, inner.side + 2 * margin, CONTEXT_SIZE)


def crop_face(image: np.ndarray, crop: SquareCrop) -> np.ndarray:
    """Resample a square of a frame to `crop.size` pixels.

    Linear interpolation where the crop enlarges; where it shrinks, the triangle widens by the same factor, so that
    no source pixel is skipped (anti-aliasing). Outside the frame its edge pixels are repeated.

    Args:
        image: HW or HWC, any numeric dtype.
        crop: where, in frame coordinates, and how large.

    Returns:
        (S, S) or (S, S, C): uint8, rounded, for a uint8 image; else float32.
    """
    rows, row_weights_SR = _triangle_weights(crop.y0, crop, image.shape[0])
    columns, column_weights_SR = _triangle_weights(crop.x0, crop, image.shape[1])
    region = image[rows][:, columns].astype(np.float32)
    across = np.tensordot(column_weights_SR, region, axes=(1, 1))  # S(columns), rows[, C]
    result = np.tensordot(row_weights_SR, across, axes=(1, 1))
    return np.rint(result).astype(np.uint8) if image.dtype == np.uint8 else result


def _triangle_weights(start: float, crop: SquareCrop, length: int) -> tuple[slice, np.ndarray]:
    """Source pixels along one axis that the crop touches, and the (S, R) weight of each in every crop pixel.

    Weights of pixels beyond the frame are added to the pixel at its edge.
    """
    step = 1.0 / crop.scale
    centres_S = start + (np.arange(crop.size) + 0.5) * step - 0.5
    reach = max(1.0, step)
    positions = np.arange(np.floor(centres_S[0] - reach), np.ceil(centres_S[-1] + reach) + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(positions - centres_S[:, None]) / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    inside = np.clip(positions, 0, length - 1).astype(int)
    first, last = inside[0], inside[-1]
    folded_SR = np.zeros((crop.size, last - first + 1), np.float32)
    np.add.at(folded_SR, (slice(None), inside - first), weights)
    return slice(first, last + 1), folded_SR
