"""Measure a trained network on the KPI shards, and draw the faces it sees best and worst."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import sha256_of
from tasks.convert import Conversion
from tasks.reuse import StepOutput, reuse_or_run, step_key
from tasks.train import MODEL

if TYPE_CHECKING:
    import numpy as np

FILES, FIGURES = "files", "figures"
PARITY_FACES = 64


def evaluate_network(
    trained: StepOutput, spec: ExperimentSpec, conversion: Conversion, *, parent: Path
) -> StepOutput:
    """Region errors of a trained network on the KPI faces, or what an earlier run measured.

    Returns:
        Directory with `files/` (the reference's three and `report.json`) and `figures/`; `result` has `report` and
        `faces` (`best` and `worst`, each a list of drawn faces).
    """
    key = step_key(
        "evaluate",
        code="tasks.evaluate",
        trained=trained.key,
        shards=conversion.hashes(Split.KPI),
        size=spec.dataloader.image_info.image.height,
    )

    def run(directory: Path) -> dict[str, Any]:
        from model.evaluation import evaluate, keras_predict
        from model.evaluation_files import write_reference_files
        from model.figures import write_figures
        from model.pipeline import evaluation_batches
        from model.weights import load_network

        network = load_network(trained.directory / MODEL)
        evaluation = evaluate(keras_predict(network), evaluation_batches(conversion.files[Split.KPI], spec))
        report = write_reference_files(evaluation, directory / FILES)
        figures = write_figures(evaluation, report, trained.result["history"], directory / FIGURES)
        faces = {kind: [dataclasses.asdict(face) for face in drawn] for kind, drawn in figures.items()}
        return {"report": report, "faces": faces}

    return reuse_or_run(parent, key, run)


class KpiCrops:
    """Network inputs (B, S, S, C) of the first KPI faces, to compare models on; read when first called for.

    Attributes:
        id: names them: hashes of the KPI shards, their number and their side.
    """

    def __init__(self, conversion: Conversion, spec: ExperimentSpec) -> None:
        self._files, self._spec = conversion.files[Split.KPI], spec
        size = spec.dataloader.image_info.image.height
        self.id = sha256_of([conversion.hashes(Split.KPI), PARITY_FACES, size])

    def __call__(self) -> np.ndarray:
        return self._crops

    @cached_property
    def _crops(self) -> np.ndarray:
        from model.pipeline import evaluation_batches

        batches = iter(evaluation_batches(self._files, self._spec, batch_size=PARITY_FACES))
        return next(batches).images_BHWC
