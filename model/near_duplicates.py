"""The same picture of a face, found again: re-encoded, scaled, cropped otherwise, or partly covered.

A face is cut out in the frame that its keypoints give, so that the rest of the picture does not matter, and its parts
are hashed one by one (DCT hash, `imagehash.phash`), so that something pasted over one part leaves the others alike.
Faces with one like part are candidates; the correlation of most parts decides.

Legend: F faces, N keypoints, P pairs, H hashes (the whole face, then its parts), S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from schemas.layouts import layout

VIEW_SIZE = 64
REACH = 2.2
"""Half the side of a face's view over the root mean square distance of its points from their centre."""

THUMBNAIL_SIZE = VIEW_SIZE // 2
NUM_HASHES = 6
CELLS = 4
"""A side of the grid of parts that are correlated."""

ALIKE_CELLS = 6
"""Of the 16: as many must be alike. Half of a face may be covered, and a plain background says nothing."""

FLAT = 2.0
"""Standard deviation in gray levels below which a part has no hash: it is nothing but noise."""

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5))  # top left of the hashed parts, in thumbnails
_NOISE = FLAT**2
_ROWS, _COLUMNS = 128, 2048  # faces that are compared at a time: what a processor's cache holds
_CANDIDATES = 4096  # pairs that are correlated at a time: 16 MiB of pixels on each side
_APART = 64  # bits: more than any two hashes that are compared


def face_view(gray: np.ndarray, points_N2: np.ndarray) -> np.ndarray:
    """The face (S, S), uint8, upright by all its points where the layout has sides.

    Args:
        gray: (H, W), uint8.
        points_N2: keypoints in the pixels of `gray`; not all in one place.
    """
    points_N2 = np.asarray(points_N2, np.float64)
    centre_2 = points_N2.mean(axis=0)
    half = REACH * np.sqrt(((points_N2 - centre_2) ** 2).sum(axis=1).mean())
    scale = 2 * half / VIEW_SIZE
    gray, origin_2 = _around(gray, centre_2, 2 * half)
    turn_22 = scale * _upright(points_N2)
    matrix_23 = np.column_stack([turn_22, centre_2 - origin_2 - turn_22 @ np.full(2, (VIEW_SIZE - 1) / 2)])
    if scale > 1:  # else pixels would be skipped
        gray = cv2.GaussianBlur(gray, (0, 0), 0.5 * scale)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(gray, matrix_23, (VIEW_SIZE, VIEW_SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def thumbnail(view_SS: np.ndarray) -> np.ndarray:
    """A face's view at half its size, for `correlation`."""
    return cv2.resize(view_SS, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA)


def hashes_of(view_SS: np.ndarray) -> np.ndarray:
    """Hashes (H,), uint64, of a face's view: the whole, then its quarters and its middle; 0 where a part is flat."""
    size = THUMBNAIL_SIZE
    starts = [(round(y * size), round(x * size)) for y, x in _CORNERS]
    parts = [thumbnail(view_SS), *(view_SS[y : y + size, x : x + size] for y, x in starts)]
    return np.array([_hash(part) for part in parts], np.uint64)


def similar_pairs(
    hashes_FH: np.ndarray, thumbnails_FSS: np.ndarray, groups_F: np.ndarray, *, bits: int, correlation: float
) -> Iterator[tuple[int, int]]:
    """Pairs (smaller row first) of different groups that show the same picture of a face, each once.

    Every two faces' hashes are compared, a block at a time: 64 bits by one XOR and one population count.

    Args:
        hashes_FH, thumbnails_FSS: of `hashes_of` and `thumbnail`.
        groups_F: whole numbers; two faces of one group are never a pair.
        bits: in which the hashes of some part may differ.
        correlation: that `cell_correlation` must reach.
    """
    for rows, columns in _blocks(len(hashes_FH)):
        near = _nearest_part(hashes_FH[rows, 1:], hashes_FH[columns, 1:]) <= bits
        near &= groups_F[rows, None] != groups_F[None, columns]
        first_P, second_P = np.nonzero(near)
        first_P, second_P = first_P + rows.start, second_P + columns.start
        keep_P = first_P < second_P
        first_P, second_P = first_P[keep_P], second_P[keep_P]
        for start in range(0, len(first_P), _CANDIDATES):
            part = slice(start, start + _CANDIDATES)
            alike_P = cell_correlation(thumbnails_FSS[first_P[part]], thumbnails_FSS[second_P[part]]) >= correlation
            yield from zip(first_P[part][alike_P].tolist(), second_P[part][alike_P].tolist(), strict=True)


def cell_correlation(first_PSS: np.ndarray, second_PSS: np.ndarray) -> np.ndarray:
    """Correlation (P,) that the `ALIKE_CELLS` most alike cells of two thumbnails reach; a flat cell is like none."""
    first, second = _cells(first_PSS), _cells(second_PSS)
    power = ((first**2).mean(axis=-1) + _NOISE) * ((second**2).mean(axis=-1) + _NOISE)
    values = (first * second).mean(axis=-1) / np.sqrt(power)
    return np.sort(values, axis=-1)[:, -ALIKE_CELLS]


def whole_distance(first_H: np.ndarray, second_H: np.ndarray) -> int:
    """Bits in which the hashes of two whole faces differ."""
    return int(np.bitwise_count(first_H[0] ^ second_H[0]))


def _around(gray: np.ndarray, centre_2: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The pixels within `reach` of a point, and (x, y) of the first: a large frame is not blurred whole."""
    limit_2 = np.array(gray.shape[::-1]) - 1
    low_2 = np.clip(np.floor(centre_2 - reach), 0, limit_2).astype(int)
    high_2 = np.clip(np.ceil(centre_2 + reach), 0, limit_2).astype(int)
    return gray[low_2[1] : high_2[1] + 1, low_2[0] : high_2[0] + 1], low_2


def _upright(points_N2: np.ndarray) -> np.ndarray:
    """Rotation (2, 2) from a view in which the face's two sides are level to the frame."""
    flip = layout(len(points_N2)).flip
    if flip is None:
        return np.eye(2)
    sides = [(one, other) for one, other in enumerate(flip) if one < other]  # the image's left first
    x, y = np.sum([points_N2[other] - points_N2[one] for one, other in sides], axis=0)
    angle = np.arctan2(y, x)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _hash(part_SS: np.ndarray) -> int:
    import imagehash
    from PIL import Image

    if part_SS.std() < FLAT:
        return 0
    return int(str(imagehash.phash(Image.fromarray(np.ascontiguousarray(part_SS)))), 16)


def _blocks(count: int) -> Iterator[tuple[slice, slice]]:
    """Every two faces, the smaller row among the rows once."""
    for row in range(0, count, _ROWS):
        first = row - row % _COLUMNS
        for column in range(first, count, _COLUMNS):
            yield slice(row, min(row + _ROWS, count)), slice(column, min(column + _COLUMNS, count))


def _nearest_part(first_FH: np.ndarray, second_FH: np.ndarray) -> np.ndarray:
    """Bits (F, F) in which the most alike part differs."""
    nearest = np.full((len(first_FH), len(second_FH)), _APART, np.uint8)
    for first_F, second_F in zip(first_FH.T, second_FH.T, strict=True):
        bits = np.bitwise_count(first_F[:, None] ^ second_F[None, :])
        bits[first_F == 0] = _APART
        bits[:, second_F == 0] = _APART
        np.minimum(nearest, bits, out=nearest)
    return nearest


def _cells(thumbnails_PSS: np.ndarray) -> np.ndarray:
    """Pixels (P, cells, pixels of a cell) less their cell's mean."""
    size = THUMBNAIL_SIZE // CELLS
    grid = thumbnails_PSS.astype(np.float32).reshape(-1, CELLS, size, CELLS, size).swapaxes(2, 3)
    cells = grid.reshape(-1, CELLS**2, size**2)
    return cells - cells.mean(axis=-1, keepdims=True)
