"""Training faces that INT8 is calibrated on."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import sha256_of
from tasks.convert import Conversion

if TYPE_CHECKING:
    import numpy as np

CALIBRATION_FACES = 256
"""Enough for the scales of ADR 007, and few enough to be gone through in seconds."""


class CalibrationCrops:
    """Network inputs (B, S, S, C) of a random sample, the same each time, of the snapshot's training faces.

    KPI faces are left out on purpose: the gate is measured on them. Read when first called for.

    Attributes:
        id: names them: hashes of the training shards, their number and their side.
    """

    def __init__(self, conversion: Conversion, spec: ExperimentSpec, *, faces: int = CALIBRATION_FACES) -> None:
        self._files, self._spec = conversion.files[Split.TRAIN], spec
        self._faces = min(faces, conversion.result["splits"][Split.TRAIN]["records"])
        self.id = sha256_of([conversion.hashes(Split.TRAIN), self._faces, spec.dataloader.image_info.image.height])

    def __call__(self) -> np.ndarray:
        return self._crops

    @cached_property
    def _crops(self) -> np.ndarray:
        import numpy as np

        from deploy.calibration import record_faces

        return np.concatenate(list(record_faces(self._files, self._spec, batches=self._faces)))
