"""Crops as a run hands them over, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.storage import sha256_of


@dataclass(frozen=True, eq=False)
class FixedCrops:
    images_BSSC: np.ndarray

    @property
    def id(self) -> str:
        return sha256_of([str(self.images_BSSC.shape), float(self.images_BSSC.sum())])

    def __call__(self) -> np.ndarray:
        return self.images_BSSC
