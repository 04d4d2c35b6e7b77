"""Square crops of a frame: the pixels that go into a record, and those that go into the network.

Legend: HW or HWC image in rows, columns (and channels); S side of the crop in pixels; K source pixels under one
crop pixel.
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
    rows_SK, row_weights_SK = _taps(crop.y0, crop, image.shape[0])
    columns_SK, column_weights_SK = _taps(crop.x0, crop, image.shape[1])
    top, left = rows_SK.min(), columns_SK.min()
    region = image[top : rows_SK.max() + 1, left : columns_SK.max() + 1]
    across = _weighted(region.swapaxes(0, 1), columns_SK - left, column_weights_SK)
    result = _weighted(across.swapaxes(0, 1), rows_SK - top, row_weights_SK)
    return np.rint(result).astype(np.uint8) if image.dtype == np.uint8 else result


def _taps(start: float, crop: SquareCrop, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: the K source pixels under every crop pixel's triangle, and their weights, both (S, K).

    A pixel beyond the frame is the pixel at its edge.
    """
    step = 1.0 / crop.scale
    centres_S1 = (start + (np.arange(crop.size) + 0.5) * step - 0.5)[:, None]
    reach = max(1.0, step)
    positions_SK = np.ceil(centres_S1 - reach) + np.arange(np.floor(2 * reach) + 1)
    weights_SK = np.maximum(0.0, 1.0 - np.abs(positions_SK - centres_S1) / reach)
    weights_SK /= weights_SK.sum(axis=1, keepdims=True)
    return np.clip(positions_SK, 0, length - 1).astype(int), weights_SK.astype(np.float32)


def _weighted(image: np.ndarray, taps_SK: np.ndarray, weights_SK: np.ndarray) -> np.ndarray:
    """Sum over K of the pixels at the taps along the first axis. Not a matrix product: its last bits differ between
    processors, and shards are to be the same bytes everywhere."""
    image = np.ascontiguousarray(image).astype(np.float32, copy=False)
    total = np.zeros((len(taps_SK), *image.shape[1:]), np.float32)
    taken = np.empty_like(total)
    shape = (-1, *[1] * (image.ndim - 1))
    for taps_S, weights_S in zip(taps_SK.T, weights_SK.T, strict=True):
        np.take(image, taps_S, axis=0, out=taken, mode="clip")  # else it goes through a copy
        taken *= weights_S.reshape(shape)
        total += taken
    return total
