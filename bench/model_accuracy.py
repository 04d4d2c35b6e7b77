"""Error of models on the same held-out faces, paired by subject: sets, slices, moved boxes, and what a confidence is
worth.

    python bench/model_accuracy.py train --data FACES --spec spec.yaml --out runs/a
    python bench/model_accuracy.py compare --data FACES --spec runs/reference/spec.yaml runs/a/spec.yaml
    python bench/model_accuracy.py compare ... --graphs graphs/FP16.onnx graphs/INT8.onnx

`--data` holds folders of faces (`face_folders.py`): w300, ytf68 and w300occ, of which w300 and w300occ share their
subjects. `train` trains the spec's network on all the training subjects, keeps the last epoch, and goes on where it
was stopped. `compare` measures every model on the held-out subjects, and compares the others with the first;
`--graphs` are the last spec's model in other precisions, as `quantisation.py --keep` writes them. Told is the mean
error in crop pixels (1/80 of the tight square about the true points, whatever crop a model takes), with 95 %
intervals by bootstrap over subjects. "moved" is with face boxes shifted by 4 % and scaled by 6 % (standard
deviations), the same for all models; "covered" has something in front of every face that no training has
(`unseen_occluders.py`). Those and the occluders of w300occ are synthetic.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from face_folders import converted, folder_source
from hardware import hardware
from unseen_occluders import occluded

from deploy.parity import graph_predictions
from deploy.predictor import load_predictor
from model.bootstrap import Estimate, estimates_of
from model.confidence import confidence_quality
from model.evaluation import Evaluation, Predict, evaluate
from model.near_duplicates import face_view, hashes_of, similar_pairs, thumbnail
from model.network import network_cost
from model.pipeline import EvaluationBatches
from model.slices import all_slices
from model.training import MODEL_FILE, train
from model.weights import load_network
from schemas.config import QualitySettings
from schemas.experiment import ExperimentSpec
from schemas.records import Flag, Split
from schemas.yamlspec import dump_spec, load_spec
from tasks.convert import Conversion
from tasks.workspace import Workspace

SETS = {"w300": ("w300", 0.5), "ytf68": ("ytf68", 1.0), "w300occ": ("w300", 0.5)}
"""Folder -> whose subjects its faces are of, for copies of a photo stay on one side; and where its labels count from
(`label_origin.py` measures it)."""

BATCH = 64
SHIFT, SCALE = 0.04, 0.06
SPEC = "spec.yaml"
TURNED = "most turned fifth"


@dataclass(frozen=True, eq=False)
class Measure:
    """A mean over points: of each face, the sum of its errors and how many points it has."""

    name: str
    subjects: tuple[str, ...]
    sums_F: np.ndarray
    points_F: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "compare"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, required=True, help="folder of the folders of faces")
        command.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="(default: all)")
        command.add_argument("--workspace", type=Path, default=Path("workspace/bench"), help="(default: %(default)s)")
    training, comparison = commands.choices["train"], commands.choices["compare"]
    training.add_argument("--spec", type=Path, required=True, help="experiment spec")
    training.add_argument("--out", type=Path, required=True, help="folder of the training")
    training.add_argument("--epochs", type=int, metavar="N", help="instead of the spec's num_epoch")
    training.add_argument("--as-they-are", action="store_true", help="labels, wherever they count from (ADR 027)")
    comparison.add_argument("--spec", type=Path, required=True, nargs="+", help="in the folders of their trainings")
    comparison.add_argument(
        "--graphs", type=Path, nargs="+", default=[], metavar="ONNX", help="of the last spec's model"
    )
    given = parser.parse_args()
    print(hardware(), flush=True)
    if given.command == "train":
        train_spec(given)
    else:
        compare(given)


def bring_in(
    data: Path, workspace: Path, spec: ExperimentSpec, *, sets: Iterable[str] = tuple(SETS), shifted: bool = True
) -> Iterator[tuple[str, Conversion]]:
    """Each set, converted as the spec's network wants its crops; `shifted`: with labels from where they count."""
    for name in sets:
        dataset, origin = SETS[name]
        source, policy = folder_source(data / name, dataset, origin=origin if shifted else 0.0)
        ratio, points = spec.dataloader.bbox_enlarge_ratio, spec.num_keypoints
        yield name, converted(source, policy, Workspace(workspace), num_keypoints=points, ratio=ratio)


def train_spec(given: argparse.Namespace) -> None:
    spec = load_spec(ExperimentSpec, given.spec)
    if given.epochs:
        spec = spec.model_copy(update={"num_epoch": given.epochs})
    files = [
        file
        for _, found in bring_in(given.data, given.workspace, spec, sets=given.sets, shifted=not given.as_they_are)
        for file in found.files[Split.TRAIN]
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / SPEC).write_text(dump_spec(spec))

    def tell(result) -> None:
        print(f"epoch {result.epoch} of {spec.num_epoch}: loss {result.loss:.3f}, {result.seconds:.0f} s", flush=True)

    result = train(spec, train_files=files, validation_files=[], directory=given.out, on_epoch=tell)
    seconds = sum(epoch.seconds for epoch in result.history)
    faces = result.history[-1].step * (spec.dataloader.batch_size - spec.unlabelled_in_batch)
    print(f"{faces:,} faces in {seconds / 60:.1f} min, {faces / seconds:.0f}/s")


def compare(given: argparse.Namespace) -> None:
    models = [(path.parent.name, path, path.parent / MODEL_FILE) for path in given.spec]
    models += [(path.stem, given.spec[-1], path) for path in given.graphs]
    last = load_spec(ExperimentSpec, given.spec[-1])
    copies = copies_of_training_faces(dict(bring_in(given.data, given.workspace, last, sets=given.sets)), last)
    for name, faces in copies.items():
        print(f"{name}: {len(faces)} held-out faces are also in training: {', '.join(sorted(faces))}")
    measured = [measures(given, *model, copies) for model in models]
    names = [name for name, _, _ in models]
    print(f"\n| crop px | faces | subjects | {' | '.join(names)} |\n|---|---|---|{'---|' * len(names)}")
    for row in zip(*measured, strict=True):
        print(f"| {row[0].name} | {len(row[0].subjects)} | {len(set(row[0].subjects))} | {' | '.join(cells(row))} |")


def copies_of_training_faces(sets: Mapping[str, Conversion], spec: ExperimentSpec) -> dict[str, set[str]]:
    """Set -> names of its held-out faces whose picture, or another one of its sitting, is in training under another
    subject, as `model.near_duplicates` finds them."""
    places, views, subjects = [], [], []
    for name, conversion in sets.items():
        for split in (Split.TRAIN, Split.KPI):
            for batch in EvaluationBatches(conversion.files[split], spec, batch_size=BATCH):
                points = [crop.to_crop(own) for crop, own in zip(batch.crops, batch.points_BN2, strict=True)]
                views += map(face_view, batch.images_BHWC[..., 0].astype(np.uint8), points)
                places += [(name, split, image) for image in batch.names]
                subjects += batch.subjects
    _, groups_F = np.unique(subjects, return_inverse=True)
    hashes_FH, thumbnails_FSS = np.stack([*map(hashes_of, views)]), np.stack([*map(thumbnail, views)])
    bounds = QualitySettings()
    pairs = similar_pairs(
        hashes_FH,
        thumbnails_FSS,
        groups_F,
        bits=bounds.duplicate_bits,
        correlation=bounds.min_duplicate_correlation,
    )
    found: dict[str, set[str]] = {name: set() for name in sets}
    for pair in pairs:
        if {places[face][1] for face in pair} == {Split.TRAIN, Split.KPI}:
            name, _, image = next(places[face] for face in pair if places[face][1] is Split.KPI)
            found[name].add(image)
    return found


def measures(
    given: argparse.Namespace, name: str, spec_file: Path, model: Path, copies: Mapping[str, Collection[str]]
) -> list[Measure]:
    """What one model's errors are, in the same order for every model."""
    spec = load_spec(ExperimentSpec, spec_file)
    print(f"{name}:", size_of(model), flush=True)
    predict, found = predictor_of(model), []
    for set_name, conversion in bring_in(given.data, given.workspace, spec, sets=given.sets):
        files, size = conversion.files[Split.KPI], {"batch_size": BATCH}
        still = evaluate(predict, EvaluationBatches(files, spec, **size), examples=0)
        moves = partial(moved_boxes, spec.dataloader.bbox_enlarge_ratio)
        moved = evaluate(predict, EvaluationBatches(files, spec, **size, boxes=moves), examples=0)
        covered = evaluate(predict, occluded(EvaluationBatches(files, spec, **size)), examples=0)
        found += _of_set(set_name, still)
        if copies[set_name]:
            kept_F = ~np.isin(still.names, list(copies[set_name]))
            found.append(_measure(f"{set_name}, without copies of training faces", still, faces_F=kept_F))
        hidden_FN = covered.flags_FN == Flag.OCCLUDED
        found.append(_measure(f"{set_name}, moved", moved))
        found.append(_measure(f"{set_name}, covered: hidden points", covered, points_N=hidden_FN))
        for told, one in ((set_name, still), (f"{set_name}, covered", covered)):
            if (one.flags_FN == Flag.OCCLUDED).any():
                tell_confidence(told, one)
    return found


def predictor_of(model: Path) -> Predict:
    """A graph says what it would on a GPU, which rounds what is FP16."""
    if model.suffix == ".keras":
        return load_predictor(model).predict
    return partial(graph_predictions, model.read_bytes())


def size_of(model: Path) -> str:
    if model.suffix != ".keras":
        return f"{model.stat().st_size / 2**20:.1f} MiB"
    cost = network_cost(load_network(model))
    return f"{cost.macs / 1e9:.3f} GMAC, {cost.parameters:,} parameters"


def tell_confidence(name: str, found: Evaluation) -> None:
    quality = confidence_quality(found.confidence_FN, found.flags_FN, found.subjects)
    area, error = quality.interval, quality.calibration_interval
    print(
        f"  {name}: ROC AUC {quality.auc:.3f} ({area.low:.3f}-{area.high:.3f}), "
        f"calibration error {quality.calibration_error:.3f} ({error.low:.3f}-{error.high:.3f})",
        flush=True,
    )


def moved_boxes(ratio: float, number: tf.Tensor, box_B4: tf.Tensor) -> tf.Tensor:
    """Face boxes as a detector might give them; the same moves for the same faces, whatever a model's crop.

    Args:
        ratio: by which the boxes were enlarged before: a detector errs by a share of the face, not of the crop.
    """
    seed_2 = tf.stack([tf.constant(1, tf.int64), number])
    noise_B3 = tf.random.stateless_normal((tf.shape(box_B4)[0], 3), seed_2)
    side_B1 = box_B4[:, 2:3]
    scaled_B1 = side_B1 * (1 + SCALE * noise_B3[:, 2:])
    corner_B2 = box_B4[:, :2] + (side_B1 - scaled_B1) / 2 + SHIFT / ratio * side_B1 * noise_B3[:, :2]
    return tf.concat([corner_B2, scaled_B1, scaled_B1], axis=1)


def _of_set(name: str, found: Evaluation) -> Iterator[Measure]:
    for region, points in found.errors.regions.items():
        yield _measure(f"{name} {region}", found, points_N=np.isin(np.arange(found.num_keypoints), list(points)))
    hidden_FN = found.flags_FN == Flag.OCCLUDED
    if hidden_FN.any():
        yield _measure(f"{name}, occluded points", found, points_N=hidden_FN)
    for part in all_slices(found.true_FN2, found.flags_FN, found.subjects, found.sets).get("yaw", []):
        if part.name == TURNED:
            yield _measure(f"{name}, {TURNED}", found, faces_F=part.faces_F)


def _measure(name: str, found: Evaluation, *, points_N=True, faces_F=True) -> Measure:
    counts_FN = np.broadcast_to(points_N, found.flags_FN.shape) & np.broadcast_to(faces_F, len(found))[:, None]
    kept_F = counts_FN.any(axis=1)
    sums_F = np.where(counts_FN, found.errors.crop_px_BK, 0.0).sum(axis=1)
    subjects = tuple(subject for subject, kept in zip(found.subjects, kept_F, strict=True) if kept)
    return Measure(name, subjects, sums_F[kept_F], counts_FN.sum(axis=1)[kept_F])


def cells(row: Sequence[Measure]) -> list[str]:
    """The first model's error; the others' with how much less it is, which is paired by subject."""
    reference, texts = row[0], []
    for number, one in enumerate(row):
        values = np.stack([reference.sums_F, one.sums_F, one.points_F], axis=1)
        error, less = estimates_of(one.subjects, values, _statistics)
        texts.append(_shown(error) if number == 0 else f"{_shown(error)}; {_share(less)} less")
    return texts


def _statistics(sums_DX: np.ndarray) -> np.ndarray:
    reference_D, own_D, points_D = sums_DX.T
    return np.stack([own_D / points_D, 1 - own_D / reference_D], axis=1)


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"


if __name__ == "__main__":
    main()
