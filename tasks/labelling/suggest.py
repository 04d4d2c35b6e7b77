"""Which tasks to label next, and what the current model proposes for them.

Legend: F faces of tasks that nobody has touched, L labelled faces, N keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from model.labelling_order import MOST_FACES, Ranking, conditions_of, labelling_order
from model.labelling_signals import Describe, FaceSignals, describer, predicting, read_signals
from model.occlusion_threshold import occlusion_thresholds, proposed_flags
from schemas.config import WorkflowConfig
from schemas.errors import ModelFileError, TrackingError
from schemas.geometry import tight_square
from schemas.label_studio_task import face_regions
from schemas.records import Face, Flag, Split
from schemas.storage import read_json
from tasks.champion import CurrentModel, current_model, fetch_keras_model, fetch_spec
from tasks.label_studio.predictions import Prediction, version_name
from tasks.labelling.faces import ModelInput, OpenFace, labelled_crops
from tasks.snapshot import PROVENANCE, Snapshot, load_snapshot
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from model.evaluation import Predict

Thing = TypeVar("Thing")

BATCH = 64
DECIMALS_PX = 2
"""Of proposed keypoints: finer than anyone can see, and the same whichever faces were in the batch."""

DECIMALS_SCORE = 6


@dataclass(frozen=True, eq=False)
class CurrentNetwork:
    """The current model, opened."""

    model: CurrentModel
    describe: Describe
    input: ModelInput
    num_keypoints: int

    @property
    def predict(self) -> Predict:
        return predicting(self.describe)

    @property
    def model_version(self) -> str:
        """What its predictions are marked with."""
        return version_name(self.model.name, self.model.version)


@dataclass(frozen=True, eq=False)
class Known:
    """What the current model tells of faces that are labelled.

    Attributes:
        signals: of training faces; None where there are none.
        points_LN2: as annotated, source pixels.
        thresholds_N: see `model.occlusion_threshold`; of all labelled faces with flags that were not trained on.
        flagged: how many those are.
    """

    signals: FaceSignals | None
    points_LN2: np.ndarray
    thresholds_N: np.ndarray
    flagged: int

    @property
    def proposes_occlusion(self) -> bool:
        return bool(np.isfinite(self.thresholds_N).any())


def open_network(config: WorkflowConfig, workspace: Workspace) -> CurrentNetwork:
    """The champion, else the newest version of the registered model, with the crop that it was trained with.

    Raises:
        TrackingError: there is none, or it can't be fetched.
        SpecError: the spec that it was trained with can't be used.
        ModelFileError: it has another number of keypoints than the configuration.
    """
    from model.weights import load_network

    model = current_model(config.tracking, workspace)
    if model is None:
        raise TrackingError(
            f"no version of the model '{config.tracking.registered_model}' is registered, so nothing can predict; "
            "run the flow retrain first"
        )
    network = load_network(fetch_keras_model(model, config.tracking, workspace))
    _, size, _, channels = network.inputs[0].shape
    num_keypoints = network.outputs[0].shape[1]
    if num_keypoints != config.num_keypoints:
        raise ModelFileError(
            f"{model} has {num_keypoints} keypoints, the configuration {config.num_keypoints}; train one with as many"
        )
    own = fetch_spec(model, config.tracking, workspace)
    wanted = ModelInput(size, channels, own.dataloader.bbox_enlarge_ratio)
    return CurrentNetwork(model, describer(network), wanted, num_keypoints)


def labelled_snapshot(workspace: Workspace, identity: str | None, num_keypoints: int) -> Snapshot | None:
    """The labelled faces that a model knows: the snapshot it was trained on; where that is not here, or not known,
    the one that was taken last. None if that has another number of keypoints, or there is none.

    Args:
        identity: `CurrentModel.snapshot_id`.
    """
    taken = {path.parent.name: path.parent for path in workspace.snapshots.glob("*/manifest.json")}
    if not taken:
        return None
    chosen = identity if identity in taken else max(taken, key=lambda name: (_taken_at(taken[name]), name))
    snapshot = load_snapshot(taken[chosen])
    return snapshot if snapshot.num_keypoints == num_keypoints else None


def _taken_at(directory: Path) -> datetime:
    return datetime.fromisoformat(read_json(directory / PROVENANCE)["taken_at"])


def look_at_labelled(network: CurrentNetwork, snapshot: Snapshot | None) -> Known:
    """Signals of the snapshot's training faces, and thresholds from its other faces.

    Of more than `MOST_FACES` training faces so many are drawn.
    """
    faces = list(zip(snapshot.faces, snapshot.splits, strict=True)) if snapshot else []
    training = _drawn([face for face, split in faces if split is Split.TRAIN])
    others = [face for face, split in faces if split is not Split.TRAIN and (face.flags_N != Flag.UNKNOWN).any()]
    seen, signals = _signals(network, labelled_crops(training, network.input))
    flagged, of_flagged = _signals(network, labelled_crops(_drawn(others), network.input))
    thresholds_N = np.full(network.num_keypoints, np.nan)
    if of_flagged is not None:
        thresholds_N = occlusion_thresholds(of_flagged.confidence_FN, np.stack([face.flags_N for face in flagged]))
    return Known(
        signals=signals,
        points_LN2=np.array([face.points_N2 for face in seen]).reshape(-1, network.num_keypoints, 2),
        thresholds_N=thresholds_N,
        flagged=len(flagged),
    )


def signals_of(network: CurrentNetwork, faces: Sequence[OpenFace]) -> FaceSignals | None:
    """What the current model tells of open faces; None if there is none."""
    return _signals(network, ((face, face.pixels_HWC) for face in faces))[1]


def rank(open_signals: FaceSignals, known: Known, *, count: int) -> Ranking:
    """The `count` open faces to label next, best first.

    How much of a face is occluded is taken from the model for labelled faces too, whatever flags they have: points
    without a threshold are never marked, so its share of one face and a labeller's of another do not compare.
    """
    return labelling_order(
        open_signals,
        known.signals,
        count=count,
        conditions_F=conditions_of(open_signals.points_FN2, _occluded_shares(open_signals, known)),
        conditions_L=conditions_of(known.points_LN2, _occluded_shares(known.signals, known)),
    )


def _occluded_shares(signals: FaceSignals | None, known: Known) -> np.ndarray | None:
    """Share (F,) of a face's keypoints that the model proposes as occluded; None without faces, or where it proposes
    none at all."""
    if signals is None or not known.proposes_occlusion:
        return None
    return (proposed_flags(signals.confidence_FN, known.thresholds_N) == Flag.OCCLUDED).mean(axis=1)


def predictions(
    faces: Sequence[OpenFace], signals: FaceSignals, scores: Sequence[float], known: Known, model_version: str
) -> Callable[[int], Prediction | None]:
    """The function that makes a Label Studio prediction of a task: keypoints, proposed occlusion, face box, score. It
    gives None for tasks that show none of the faces."""
    flags_FN = proposed_flags(signals.confidence_FN, known.thresholds_N)
    number_of = {face.task: number for number, face in enumerate(faces)}

    def of_task(task: int) -> Prediction | None:
        number = number_of.get(task)
        if number is None:
            return None
        return _prediction(faces[number], signals.points_FN2[number], flags_FN[number], scores[number], model_version)

    return of_task


def scores_of(faces: int, ranked: Sequence[int]) -> list[float]:
    """Scores by place: the best face has the lowest, faces that are not ranked have 1."""
    scores = [1.0] * faces
    for place, face in enumerate(ranked, start=1):
        scores[face] = round(place / (len(ranked) + 1), DECIMALS_SCORE)
    return scores


def _prediction(
    face: OpenFace, points_N2: np.ndarray, flags_N: np.ndarray, score: float, model_version: str
) -> Prediction:
    points_px_N2 = np.round(face.crop.to_frame(points_N2.astype(np.float64)), DECIMALS_PX)
    box = face.box if face.origin == "task" else tight_square(points_px_N2)
    result = face_regions(points_px_N2, flags_N, frame_size=face.frame_size, tight_box=box, origin="prediction")
    return Prediction(face.task, model_version, score, result)


def _drawn(faces: list[Face]) -> list[Face]:
    if len(faces) <= MOST_FACES:
        return faces
    chosen = np.random.default_rng(0).choice(len(faces), MOST_FACES, replace=False)
    return [faces[i] for i in np.sort(chosen).tolist()]


def _signals(
    network: CurrentNetwork, crops: Iterable[tuple[Thing, np.ndarray]]
) -> tuple[list[Thing], FaceSignals | None]:
    """Things in order, and the signals of their faces."""
    seen: list[Thing] = []

    def batches() -> Iterator[np.ndarray]:
        remaining = iter(crops)
        while batch := list(islice(remaining, BATCH)):
            seen.extend(thing for thing, _ in batch)
            yield np.stack([pixels for _, pixels in batch])

    waiting = batches()
    first = next(waiting, None)
    if first is None:
        return [], None
    return seen, read_signals(network.describe, chain([first], waiting))
