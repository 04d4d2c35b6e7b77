"""Things in front of held-out faces, of kinds and textures that no training here has: for `model_accuracy.py`.

Triangles, rings and stars of chequers, stripes and noise; training has turned ellipses, rectangles and hands, filled
with other faces or a shade (`model.occluders`), and the folder w300occ what was pasted there. They are synthetic. A
face gets the same one whatever crop a model takes, for it is placed in the tight square about the true points.

Legend: B faces, N keypoints, P places; units are sides of the tight square, from its top-left corner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from model.pipeline import EvaluationBatch
from schemas.geometry import tight_square
from schemas.records import Flag

SEED = 7
RADII = (0.12, 0.3)
CELLS = (0.03, 0.09)


def occluded(batches: Iterable[EvaluationBatch]) -> Iterator[EvaluationBatch]:
    """The batches with one occluder on every face. The points behind it are occluded, all others visible; those that
    something else hides already are neither: training has seen its kind."""
    number = 0
    for batch in batches:
        images_BHWC, flags_BN = batch.images_BHWC.copy(), batch.flags_BN.copy()
        flags_BN[:] = np.where(batch.flags_BN == Flag.OCCLUDED, Flag.UNKNOWN, Flag.VISIBLE)
        for index, crop in enumerate(batch.crops):
            box = tight_square(batch.points_BN2[index].astype(np.float64))
            corner, side = np.array([box.x, box.y]) - 0.5, box.width
            occluder = Occluder(np.random.default_rng([SEED, number + index]))
            size = images_BHWC.shape[1]
            columns, rows = np.meshgrid(np.arange(size), np.arange(size))
            pixels_P2 = (crop.to_frame(np.stack([columns.ravel(), rows.ravel()], axis=1)) - corner) / side
            covers_HW = occluder.covers(pixels_P2).reshape(size, size)
            images_BHWC[index][covers_HW] = occluder.grey(pixels_P2).reshape(size, size, 1)[covers_HW]
            hidden_N = occluder.covers((batch.points_BN2[index] - corner) / side)
            flags_BN[index][hidden_N] = Flag.OCCLUDED
        number += len(batch)
        yield replace(batch, images_BHWC=images_BHWC, flags_BN=flags_BN)


class Occluder:
    """One shape with one texture, drawn from `random`."""

    def __init__(self, random: np.random.Generator) -> None:
        self._shape = random.choice(["triangle", "ring", "star"])
        self._texture = random.choice(["chequers", "stripes", "noise"])
        self._centre_2 = random.uniform(0.1, 0.9, 2)
        self._radius, self._cell = random.uniform(*RADII), random.uniform(*CELLS)
        self._turn = random.uniform(0, 2 * np.pi)
        self._points = int(random.integers(4, 8))
        self._greys_2 = random.uniform(0, 255, 2)
        self._noise_HW = random.uniform(0, 255, (64, 64))

    def covers(self, places_P2: np.ndarray) -> np.ndarray:
        """(P,) bool."""
        radius_P, angle_P = self._polar(places_P2)
        if self._shape == "ring":
            return (radius_P < self._radius) & (radius_P > 0.55 * self._radius)
        if self._shape == "star":
            return radius_P < self._radius * (0.7 + 0.3 * np.cos(self._points * angle_P))
        third = 2 * np.pi / 3
        return radius_P * np.cos((angle_P % third) - third / 2) < 0.6 * self._radius

    def grey(self, places_P2: np.ndarray) -> np.ndarray:
        """(P,) float, 0..255."""
        radius_P, angle_P = self._polar(places_P2)
        turned_P2 = radius_P[:, None] * np.stack([np.cos(angle_P), np.sin(angle_P)], axis=1)
        cell_P2 = np.floor(turned_P2 / self._cell).astype(int)
        if self._texture == "noise":
            return self._noise_HW[cell_P2[:, 0] % 64, cell_P2[:, 1] % 64]
        odd_P = (cell_P2[:, 0] + (cell_P2[:, 1] if self._texture == "chequers" else 0)) % 2
        return self._greys_2[odd_P]

    def _polar(self, places_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance from the centre, and direction from that of the occluder."""
        away_P2 = places_P2 - self._centre_2
        return np.hypot(*away_P2.T), np.arctan2(away_P2[:, 1], away_P2[:, 0]) - self._turn
