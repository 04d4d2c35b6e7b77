"""Measure a model file on TFRecord sets: the command line's `evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ShardError
from schemas.experiment import ExperimentSpec
from schemas.sealed import Key
from schemas.storage import sha256_file, write_bytes
from tasks.pages import evaluation_values, render_page
from tasks.summary import EvaluationSummary, FaceSummary

if TYPE_CHECKING:
    from model.figures import FaceFigure

PAGE, FIGURES = "evaluation.html", "figures"
LISTED_SUBJECTS = 200


def evaluate_model(
    model: Path,
    spec: ExperimentSpec,
    files: Sequence[Path],
    results: Path,
    *,
    spec_file: Path,
    key: Key | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the reference's three files, `report.json`, `evaluation.html` and `figures/` into `results`.

    Args:
        files: TFRecord files of the KPI sets.
        spec_file: where `spec` was read from, for the page.
        key: opens an encrypted model.
        progress: told faces done and faces in all.

    Returns:
        The report (`model.evaluation_report`).

    Raises:
        ShardError: a file is missing or can't be read.
        ModelFileError: the model is missing, damaged, or does not fit the spec.
    """
    _require(files)
    from deploy.predictor import load_predictor
    from model.evaluation import evaluate
    from model.evaluation_files import write_reference_files
    from model.figures import write_figures
    from model.pipeline import evaluation_batches
    from model.tfrecords import count_records

    predictor = load_predictor(model, key=key)
    predictor.require(spec)
    total = count_records(files)
    evaluation = evaluate(
        predictor.predict,
        evaluation_batches(files, spec),
        progress=None if progress is None else lambda done: progress(done, total),
    )
    report = write_reference_files(evaluation, results)
    drawn = write_figures(evaluation, report, (), results / FIGURES)
    summary = EvaluationSummary(
        model=str(model),
        model_sha256=sha256_file(model),
        spec=str(spec_file),
        spec_sha256=sha256_file(spec_file),
        code_version=version("fpenet-workflow"),
        files=tuple(map(str, files)),
        report=report,
        best=_faces(drawn["best"], results),
        worst=_faces(drawn["worst"], results),
    )
    write_bytes(results / PAGE, render_evaluation(summary).encode())
    return report


def render_evaluation(summary: EvaluationSummary) -> str:
    """The page of an evaluation."""
    values = evaluation_values(summary.report)
    return render_page("evaluation.html", evaluated=summary, listed=LISTED_SUBJECTS, **values)


def _require(files: Sequence[Path]) -> None:
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise ShardError(
            f"{missing[0]}: no such TFRecord file; convert the set with `fpenet dataset_convert`, or check "
            "tfrecords_directory_path, tfrecord_folder_name, tfrecord_file_name and tfrecords_set_id_kpi in the spec"
        )


def _faces(drawn: Sequence[FaceFigure], results: Path) -> tuple[FaceSummary, ...]:
    return tuple(FaceSummary(str(results / FIGURES / face.file), *dataclasses.astuple(face)[1:]) for face in drawn)
