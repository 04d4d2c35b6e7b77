"""A z-buffer for small triangles, vectorised: pixels inside each triangle are found for all triangles at once.

Triangles are sorted into classes by the size of their bounding box; a class is tested against a square of pixel
offsets in one array operation. The nearest sample of each pixel wins; ties go to the triangle that comes first.
Coordinates as in `schemas.geometry` (pixel centres at integers).

Shape suffixes: V vertices, T triangles, S samples (triangle x pixel), P pixels that show something.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_SIDES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024, 4096])
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
    limit = np.array([[width - 1], [height - 1]])
    low_2T = np.maximum(np.ceil(np.minimum(np.minimum(p, q), r)), 0).astype(np.int32)
    high_2T = np.minimum(np.floor(np.maximum(np.maximum(p, q), r)), limit).astype(np.int32)
    room_2T = high_2T - low_2T
    drawn_D = np.flatnonzero((room_2T[0] >= 0) & (room_2T[1] >= 0))
    class_D = np.searchsorted(_SIDES, room_2T[:, drawn_D].max(0) + 1)
    planes_6T = _planes(p - low_2T, q - low_2T, r - low_2T)
    found = [_samples(drawn_D[class_D == one], _SIDES[one], planes_6T, low_2T, room_2T) for one in np.unique(class_D)]
    triangle_S, x_S, y_S, weights_S3 = (np.concatenate(column) for column in zip(*found, strict=True))
    corners = triangles_T3[triangle_S]
    depth_S = sum(depth_V[corners[:, k]] * weights_S3[:, k] for k in range(3))
    return _nearest(triangle_S, y_S * width + x_S, weights_S3, depth_S, size)


def _planes(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Weights of the second and third corner as planes over the screen: (6, T) float32, slopes x, y and offset."""
    area = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
    inverse = np.divide(1.0, area, out=np.full_like(area, np.nan), where=np.abs(area) > 1e-9)
    planes = []
    for start, end in ((r, p), (p, q)):
        x, y = (start[1] - end[1]) * inverse, (end[0] - start[0]) * inverse
        planes += [x, y, -(x * start[0] + y * start[1])]
    return np.stack(planes).astype(np.float32)


def _samples(
    chosen: np.ndarray, side: int, planes_6T: np.ndarray, low_2T: np.ndarray, room_2T: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels inside the chosen triangles: triangle, x, y, weights. Boxes are at most `side` pixels wide and high."""
    dy, dx = np.divmod(np.arange(side * side, dtype=np.int32), side)
    steps = np.stack([dx, dy, np.ones_like(dx)]).astype(np.float32)
    planes = np.take(planes_6T, chosen, axis=1)
    second, third = planes[:3].T @ steps, planes[3:].T @ steps
    inside = (second >= -1e-5) & (third >= -1e-5) & (second + third <= 1 + 1e-5)
    row, column = np.divmod(np.flatnonzero(inside), len(dx))
    triangle = chosen[row]
    across, down = dx[column], dy[column]
    kept = (across <= room_2T[0, triangle]) & (down <= room_2T[1, triangle])
    w1, w2 = second[row, column], third[row, column]
    weights = np.stack([1 - w1 - w2, w1, w2], axis=1)[kept]
    x, y = low_2T[0, triangle] + across, low_2T[1, triangle] + down
    return triangle[kept], x[kept], y[kept], weights


def _nearest(
    triangle_S: np.ndarray, pixel_S: np.ndarray, weights_S3: np.ndarray, depth_S: np.ndarray, size: tuple[int, int]
) -> Raster:
    """Keep the nearest sample of each pixel: depth and sample number share one integer key."""
    width, height = size
    near, far = depth_S.min(), depth_S.max()
    steps = ((depth_S - near) * ((_DEPTH_STEPS - 1) / max(far - near, 1e-9))).astype(np.int64)
    key_S = (steps << 32) | np.arange(len(depth_S))
    best = np.full(width * height, np.iinfo(np.int64).max)
    np.minimum.at(best, pixel_S, key_S)
    pixel_P = np.flatnonzero(best != np.iinfo(np.int64).max)
    sample_P = best[pixel_P] & 0xFFFFFFFF
    depth_HW = np.full(width * height, np.inf)
    depth_HW[pixel_P] = depth_S[sample_P]
    return Raster(depth_HW.reshape(height, width), pixel_P, triangle_S[sample_P], weights_S3[sample_P])
