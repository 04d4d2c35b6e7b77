"""A z-buffer for small triangles, vectorised: pixels inside each triangle are found for all triangles at once.

The nearest sample of each pixel wins; ties go to the triangle that comes first.
Coordinates as in `schemas.geometry` (pixel centres at integers).

Shape suffixes: V vertices, T triangles, D those with a box on the screen, R rows of their boxes, S samples (triangle
x pixel), P pixels that show something.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_EDGE = 1e-5
"""Weights may be this much below zero, so that neighbours leave no gap."""

_DEPTH_STEPS = 1 << 30


@dataclass(frozen=True, eq=False)
class Raster:
    """What each covered pixel shows.

    Attributes:
        depth_HW: distance of the nearest surface, infinite where there is none.
        pixel_P: flat indices of the covered pixels.
        triangle_P: the triangle that is nearest there.
        weights_P3: barycentric weights of its three corners.
    """

    depth_HW: np.ndarray
    pixel_P: np.ndarray
    triangle_P: np.ndarray
    weights_P3: np.ndarray

    def interpolate(self, values_VC: np.ndarray, triangles_T3: np.ndarray) -> np.ndarray:
        """Values (P, C) of the covered pixels."""
        corners_P3 = np.take(triangles_T3, self.triangle_P, axis=0)
        weighted = (np.take(values_VC, corners_P3[:, k], axis=0) * self.weights_P3[:, k : k + 1] for k in range(3))
        return sum(weighted, start=np.float32(0))


@lru_cache(maxsize=64)
def grid_triangles(rows: int, columns: int, step: int = 1) -> np.ndarray:
    """Triangles (T, 3) of a grid of rows x columns vertices, two per cell, all of one winding.

    With a larger `step` only every step-th row and column is used, and the last ones.
    """
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    index = index[np.unique([*range(0, rows, step), rows - 1])][:, np.unique([*range(0, columns, step), columns - 1])]
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def signed_areas(xy_V2: np.ndarray, triangles_T3: np.ndarray) -> np.ndarray:
    """Twice the area (T,) of each triangle on the screen, positive where its outer side is seen.

    The outer side is the one from which the grid's columns run to the right and its rows downwards.
    """
    p, q, r = _corners(xy_V2, triangles_T3)
    return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])


def _corners(xy_V2: np.ndarray, triangles_T3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (2, T) of the first, second and third corners."""
    xy_2V = np.ascontiguousarray(xy_V2.T)
    first, second, third = (np.take(xy_2V, triangles_T3[:, k], axis=1) for k in range(3))
    return first, second, third


def rasterise(xy_V2: np.ndarray, depth_V: np.ndarray, triangles_T3: np.ndarray, size: tuple[int, int]) -> Raster:
    """Find the nearest triangle of every pixel centre.

    Args:
        xy_V2: screen coordinates, pixels.
        depth_V: distance from the camera, any unit, finite.
        size: (width, height) of the screen.
    """
    width, height = size
    p, q, r = _corners(xy_V2, triangles_T3)
    limit = np.array([[width - 1], [height - 1]], p.dtype)
    low_2T = np.maximum(np.ceil(np.minimum(np.minimum(p, q), r)), 0)
    high_2T = np.minimum(np.floor(np.maximum(np.maximum(p, q), r)), limit)
    room_2T = (high_2T - low_2T).astype(np.int32)
    drawn_D = np.flatnonzero((room_2T[0] >= 0) & (room_2T[1] >= 0))
    planes_33T = _planes(p - low_2T, q - low_2T, r - low_2T)
    triangle_S, x_S, y_S = _inside(drawn_D, planes_33T, room_2T)
    weights_S3 = _weights(planes_33T, triangle_S, x_S, y_S)
    corners = triangles_T3[triangle_S]
    depth_S = sum(depth_V[corners[:, k]] * weights_S3[:, k] for k in range(3))
    left_S, top_S = low_2T[:, triangle_S].astype(np.int32)
    return _nearest(triangle_S, (y_S + top_S) * width + x_S + left_S, weights_S3, depth_S, size)


def _planes(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Each corner's weight as a plane over the screen: (corner, slope in x | slope in y | offset, T) float32.

    A triangle without area has weights of -1 everywhere.
    """
    area = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
    flat = np.abs(area) < 1e-9
    inverse = 1.0 / np.where(flat, 1.0, area)
    planes = np.empty((3, 3, area.size), np.float32)
    for plane, start, end in ((planes[1], r, p), (planes[2], p, q)):
        plane[0], plane[1] = (start[1] - end[1]) * inverse, (end[0] - start[0]) * inverse
        plane[2] = -(plane[0] * start[0] + plane[1] * start[1])
    planes[0] = np.array([[0.0], [0.0], [1.0]]) - planes[1] - planes[2]
    planes[:, :, flat] = np.array([[0.0], [0.0], [-1.0]])
    return planes


def _inside(
    drawn_D: np.ndarray, planes_33T: np.ndarray, room_2T: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels inside the drawn triangles: triangle, and x and y from the corner of its box, (S,) each.

    In each row of a triangle's box the pixels inside are those between the crossings of its sides with the row.
    """
    triangle_R, y_R = _counted(drawn_D, room_2T[1, drawn_D] + 1)
    first_R, last_R = np.zeros(len(y_R), np.float32), room_2T[0, triangle_R].astype(np.float32)
    for slope_x, slope_y, offset in planes_33T:
        slope_R = slope_x[triangle_R]
        rest_R = slope_y[triangle_R] * y_R.astype(np.float32) + offset[triangle_R] + _EDGE
        level = slope_R == 0
        crossing_R = -rest_R / np.where(level, 1, slope_R)
        first_R = np.where(slope_R > 0, np.maximum(first_R, crossing_R), first_R)
        last_R = np.where(slope_R < 0, np.minimum(last_R, crossing_R), last_R)
        last_R[level & (rest_R < 0)] = -1
    start_R = np.ceil(first_R).astype(np.int32)
    count_R = np.maximum(np.floor(last_R).astype(np.int32) - start_R + 1, 0)
    row_S, step_S = _counted(np.arange(len(y_R), dtype=np.int32), count_R)
    return triangle_R[row_S], start_R[row_S] + step_S, y_R[row_S]


def _counted(items: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each item as often as its count says, and which repetition it is."""
    before = np.cumsum(counts, dtype=np.int32) - counts
    repeated = np.repeat(items, counts)
    return repeated, np.arange(len(repeated), dtype=np.int32) - np.repeat(before, counts).astype(np.int32)


def _weights(planes_33T: np.ndarray, triangle_S: np.ndarray, x_S: np.ndarray, y_S: np.ndarray) -> np.ndarray:
    """Barycentric weights (S, 3) float32."""
    x, y = x_S.astype(np.float32), y_S.astype(np.float32)
    second, third = (
        plane[0, triangle_S] * x + plane[1, triangle_S] * y + plane[2, triangle_S] for plane in planes_33T[1:]
    )
    return np.stack([1 - second - third, second, third], axis=1)


def _nearest(
    triangle_S: np.ndarray, pixel_S: np.ndarray, weights_S3: np.ndarray, depth_S: np.ndarray, size: tuple[int, int]
) -> Raster:
    """Keep the nearest sample of each pixel: depth and sample number share one integer key."""
    width, height = size
    near, far = depth_S.min(initial=np.inf), depth_S.max(initial=-np.inf)
    steps = ((depth_S - near) * ((_DEPTH_STEPS - 1) / max(far - near, 1e-9))).astype(np.int64)
    key_S = (steps << 32) | np.arange(len(depth_S))
    best = np.full(width * height, np.iinfo(np.int64).max)
    np.minimum.at(best, pixel_S, key_S)
    pixel_P = np.flatnonzero(best != np.iinfo(np.int64).max)
    sample_P = best[pixel_P] & 0xFFFFFFFF
    depth_HW = np.full(width * height, np.inf)
    depth_HW[pixel_P] = depth_S[sample_P]
    return Raster(depth_HW.reshape(height, width), pixel_P, triangle_S[sample_P], weights_S3[sample_P])
