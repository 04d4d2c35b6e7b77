"""Trainings that take a given time, on the training subjects of all sets, and what comes of them: for files here."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hardware import hardware

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
from schemas.storage import read_json, write_json
from tasks.convert import Conversion

WARM_UP, ROUNDS, STEPS_OF_ROUND = 4, 10, 4


@dataclass(frozen=True)
class Work:
    """What to train on what; `unlabelled` takes part by equivariance alone."""

    spec: ExperimentSpec
    files: Sequence[Path]
    unlabelled: Sequence[Path] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of faces")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/bench"), help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="of each training (default: %(default)s)")
    parser.add_argument("--record", type=Path, help="JSON file of what was measured (default: record.json in --out)")


class Record:
    """What was measured, in one file: what is in it is not done again, on another machine either. So that a training
    is the same wherever it is done, epochs are as many as fit into the minutes where the file was begun."""

    def __init__(self, given: argparse.Namespace, works: Callable[[], Mapping[str, Work]]) -> None:
        print(f"{hardware()}, {given.minutes:g} minutes each", flush=True)
        self._path = given.record or given.out / "record.json"
        if not self._path.exists():
            epochs = epochs_in(given.minutes, works())
            write_json(self._path, {"minutes": given.minutes, "on": hardware(), "epochs": epochs, "results": {}})
        self._content = read_json(self._path)
        if self._content["minutes"] != given.minutes:
            raise SystemExit(
                f"{self._path} is of trainings of {self._content['minutes']:g} minutes: name another file"
            )
        self.epochs: Mapping[str, int] = self._content["epochs"]
        self.results: dict[str, dict[str, float]] = self._content["results"]
        print(f"as many epochs as on {self._content['on']}: {self.epochs}", flush=True)

    def result(self, name: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        if name not in self.results:
            self.results[name] = measure()
            write_json(self._path, self._content)
        print(name, self.results[name], flush=True)
        return self.results[name]


def epochs_in(minutes: float, works: Mapping[str, Work]) -> dict[str, int]:
    """How many epochs of each fit into the minutes. Their steps take turns, and the fastest of the rounds counts:
    other work beside it only adds to a time."""
    steppers = {name: _stepper(work) for name, work in works.items()}
    seconds = dict.fromkeys(works, math.inf)
    for _ in range(ROUNDS):
        for name, step in steppers.items():
            started = time.monotonic()
            for _ in range(STEPS_OF_ROUND):
                step()
            seconds[name] = min(seconds[name], (time.monotonic() - started) / STEPS_OF_ROUND)
    return {name: max(1, round(60 * minutes / (_steps(work) * seconds[name]))) for name, work in works.items()}


def trained_for(epochs: int, work: Work, folder: Path) -> dict[str, float]:
    """Train, and tell what that saw and what the network costs."""
    spec = work.spec.model_copy(update={"num_epoch": epochs})
    result = train(
        spec, train_files=work.files, validation_files=[], unlabelled_files=work.unlabelled, directory=folder
    )
    gmac = network_cost(load_network(folder / MODEL_FILE)).macs / 1e9
    labelled = spec.dataloader.batch_size - spec.unlabelled_in_batch
    return {"labelled faces seen": result.history[-1].step * labelled, "GMAC": gmac}


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


def _steps(work: Work) -> int:
    """Of an epoch."""
    return steps_per_epoch(sum(shard.records for shard in survey(work.files, work.spec)), work.spec)


def _stepper(work: Work) -> Callable[[], None]:
    """Trains a network, that nobody keeps, by a batch at each call; warm already."""
    rounds = range(WARM_UP + ROUNDS * STEPS_OF_ROUND)
    learner = Learner(work.spec)
    batches = iter(
        training_batches(work.files, work.spec, epochs=rounds, steps=_steps(work), unlabelled_files=work.unlabelled)
    )

    def step() -> None:
        float(learner.step(next(batches), number=0, learning_rate=1e-6)["loss"])

    for _ in range(WARM_UP):
        step()
    return step
