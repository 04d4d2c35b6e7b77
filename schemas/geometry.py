"""Coordinates, in one place.

Pixel centres are at integers, x to the right, y down: pixel k covers [k - 0.5, k + 0.5). A frame of
W x H pixels therefore covers [-0.5, W - 0.5] x [-0.5, H - 0.5]. Everything in this project (crop, resize,
heatmap, engine) uses this convention; readers convert into it and writers out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import numpy as np

CROP_SIZE = 80
"""Side of the network's input in pixels."""


class Box(NamedTuple):
    """`x`, `y`: the top-left pixel (its centre); `width`, `height`: in pixels. Covers [x - 0.5, x + width - 0.5]."""

    x: float
    y: float
    width: float
    height: float

    @property
    def has_area(self) -> bool:
        return self.width > 0 and self.height > 0

    def inside(self, frame_width: int, frame_height: int) -> bool:
        """True if no pixel of the box is outside the frame, by the reference's test."""
        return (
            self.x >= 0
            and self.y >= 0
            and self.x + self.width <= frame_width
            and self.y + self.height <= frame_height
        )

    def enlarged(self, ratio: float) -> Box:
        """Grown about its centre by the reference's integer rule: shift = int((ratio - 1) / 2 * width)."""
        shift = int((ratio - 1.0) / 2.0 * self.width)
        return Box(self.x - shift, self.y - shift, self.width + 2 * shift, self.height + 2 * shift)


def tight_square(points_N2: np.ndarray) -> Box:
    """The smallest integer box around the points, its short side grown to a square (reference: `bbox_cases.json`).

    start = floor(min), end = ceil(max); the short side grows by d: start -= ceil(d / 2), end += floor(d / 2).
    The points at its border lie on its edge, so it is `max - min` wide, not `max - min + 1`.
    """
    lo, hi = np.min(points_N2, axis=0), np.max(points_N2, axis=0)
    x0, y0, x1, y1 = floor(lo[0]), floor(lo[1]), ceil(hi[0]), ceil(hi[1])
    difference = (x1 - x0) - (y1 - y0)
    half_up, half_down = ceil(abs(difference) / 2), floor(abs(difference) / 2)
    if difference > 0:
        y0, y1 = y0 - half_up, y1 + half_down
    else:
        x0, x1 = x0 - half_up, x1 + half_down
    return Box(x0, y0, x1 - x0, y1 - y0)


@dataclass(frozen=True)
class SquareCrop:
    """A square of the frame, `side` pixels wide with its top-left pixel at (x0, y0), scaled to `size` pixels.

    u = (x - x0 + 0.5) * size / side - 0.5, and the same for v.
    """

    x0: float
    y0: float
    side: float
    size: int = CROP_SIZE

    @classmethod
    def of_box(cls, box: Box, size: int = CROP_SIZE) -> SquareCrop:
        """The crop of a square box.

        Raises:
            ValueError: the box is not square or has no area.
        """
        if box.width != box.height or box.width <= 0:
            raise ValueError(f"a crop needs a square box with an area, not {box.width} x {box.height}")
        return cls(box.x, box.y, box.width, size)

    @property
    def scale(self) -> float:
        """Crop pixels per source pixel."""
        return self.size / self.side

    def to_crop(self, points_N2: np.ndarray) -> np.ndarray:
        """Frame coordinates (..., 2) to crop coordinates, the dtype kept."""
        points_N2 = np.asarray(points_N2)
        return ((points_N2 - (self.x0, self.y0) + 0.5) * self.scale - 0.5).astype(points_N2.dtype)

    def to_frame(self, points_N2: np.ndarray) -> np.ndarray:
        """Crop coordinates (..., 2) to frame coordinates, the dtype kept."""
        points_N2 = np.asarray(points_N2)
        return ((points_N2 + 0.5) / self.scale - 0.5 + (self.x0, self.y0)).astype(points_N2.dtype)


def beyond_pixel_centres(crop_N2: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Which of the crop coordinates (..., 2) lie outside the outermost pixel centres of a crop of `size` pixels.

    No soft-argmax goes there: it stays between the outermost centres of its map, which is as fine as the crop or
    coarser.
    """
    x_N, y_N = crop_N2[..., 0], crop_N2[..., 1]
    return (x_N < 0) | (x_N > size - 1) | (y_N < 0) | (y_N > size - 1)


def percent_to_pixels(percent: np.ndarray, frame_size: np.ndarray) -> np.ndarray:
    """Label Studio's percent of the frame (edge-based) to pixels: x = percent * W / 100 - 0.5."""
    return np.asarray(percent, np.float64) * frame_size / 100.0 - 0.5


def pixels_to_percent(pixels: np.ndarray, frame_size: np.ndarray) -> np.ndarray:
    """The inverse of `percent_to_pixels`."""
    return (np.asarray(pixels, np.float64) + 0.5) * 100.0 / frame_size
