"""Trainings that take a given time, on the training subjects of all sets, and what comes of them: for files here."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from deploy.predictor import load_predictor
from model.confidence import confidence_quality
from model.evaluation import evaluate
from model.learner import Learner
from model.network import network_cost
from model.pipeline import EvaluationBatches, steps_per_epoch, training_batches
from model.shards import survey
from model.training import MODEL_FILE, train
from model.weights import load_network
from schemas.experiment import ExperimentSpec
from schemas.records import Flag, Split
from tasks.convert import Conversion

TIMED_STEPS, WARM_UP = 12, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of faces")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/bench"), help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="of each training (default: %(default)s)")


def trained_for(
    minutes: float, spec: ExperimentSpec, files: Sequence[Path], folder: Path, unlabelled: Sequence[Path] = ()
) -> dict[str, float]:
    """Train as many epochs as fit into the minutes at the speed of the first steps; tell what it took."""
    faces = sum(shard.records for shard in survey(files, spec))
    epochs = max(1, round(60 * minutes / _seconds_per_epoch(spec, files, faces, unlabelled)))
    spec = spec.model_copy(update={"num_epoch": epochs})
    result = train(spec, train_files=files, validation_files=[], unlabelled_files=unlabelled, directory=folder)
    taken = sum(epoch.seconds for epoch in result.history) / 60
    gmac = network_cost(load_network(folder / MODEL_FILE)).macs / 1e9
    return {"labelled faces seen": faces * epochs, "minutes": taken, "GMAC": gmac}


def measured(folder: Path, spec: ExperimentSpec, sets: Mapping[str, Conversion]) -> dict[str, float]:
    """Error in crop pixels of the held-out faces of every set; of hidden points, and the ROC area of the confidence,
    where flags tell."""
    predict, told = load_predictor(folder / MODEL_FILE).predict, {}
    for name, conversion in sets.items():
        found = evaluate(predict, EvaluationBatches(conversion.files[Split.KPI], spec), examples=0)
        told[name] = found.error()
        hidden_FN = found.flags_FN == Flag.OCCLUDED
        if hidden_FN.any():
            told["hidden points"] = float(found.errors.crop_px_BK[hidden_FN].mean())
            told["ROC AUC"] = confidence_quality(found.confidence_FN, found.flags_FN, found.subjects).auc
    return told


def _seconds_per_epoch(spec: ExperimentSpec, files: Sequence[Path], faces: int, unlabelled: Sequence[Path]) -> float:
    learner, steps = Learner(spec), steps_per_epoch(faces, spec)
    count = WARM_UP + TIMED_STEPS
    batches = iter(training_batches(files, spec, epochs=range(count), steps=steps, unlabelled_files=unlabelled))
    step = partial(learner.step, learning_rate=1e-6)
    for number in range(WARM_UP):
        float(step(next(batches), number=number)["loss"])
    started = time.monotonic()
    for number in range(TIMED_STEPS):
        float(step(next(batches), number=number)["loss"])
    return steps * (time.monotonic() - started) / TIMED_STEPS
