"""TAO's commands: `fpenet dataset_convert`, `train`, `evaluate`, `inference`, `export`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from flows.entry.terminal import console, say, warn
from schemas.errors import InputError, ModelFileError, SpecError
from schemas.experiment import DatasetInfo, ExperimentSpec
from schemas.sealed import Key, existing
from schemas.storage import read_json
from schemas.yamlspec import dump_spec, load_spec, place_in

SPEC_FILE, MODEL_FILE = "experiment_spec.yaml", "model.keras"
KEY_VARIABLE = "FPENET_KEY"
KPI_TESTING = "kpi_testing"
RATIO_TOLERANCE = 0.05
"""Boxes are whole pixels: of a face of 40 pixels the ratio is known to so much."""


def dataset_convert(arguments: argparse.Namespace) -> int:
    from schemas.config import DatasetConvertSpec
    from tasks.dataset_convert import dataset_convert as convert

    spec = load_spec(DatasetConvertSpec, arguments.experiment_spec)
    with _counting("images") as progress:
        sets = convert(spec, _path(arguments.results_dir), progress=progress)
    for done in sets:
        left_out = done.counts.annotations - done.records
        say(f"{done.set_id}: {done.records:,} faces in {done.file}, {left_out:,} left out")
        for violation in done.violations[:5]:
            say(f"  {violation}")
        if len(done.violations) > 5:
            say(f"  ... and {len(done.violations) - 5:,} more; the report lists them all")
    return 0


def train(arguments: argparse.Namespace) -> int:
    spec = load_spec(ExperimentSpec, arguments.experiment_spec)
    results = _path(arguments.results_dir or spec.checkpoint_dir)
    if results is None:
        raise SpecError(f"{arguments.experiment_spec}: checkpoint_dir", "is not set; set it, or give -r")
    _check_pretrained(spec, arguments.experiment_spec)
    kpi_files = _kpi_files(spec, arguments.experiment_spec, shared_allowed=arguments.allow_unknown_subjects)
    from model.devices import use_gpus
    from model.progress import AtBegin, TerminalProgress, Watchers
    from model.shards import named_subjects
    from model.training import train as train_network
    from schemas.config import SplitPolicy
    from schemas.storage import write_bytes

    use_gpus(arguments.gpus, arguments.gpu_index)
    train_files, validation_files = _training_files(spec, arguments.experiment_spec, results)
    _warn_of_other_ratio(spec, train_files)
    kept = dump_spec(spec.model_copy(update={"checkpoint_dir": str(results)}))
    keeps_spec = AtBegin(lambda: write_bytes(results / SPEC_FILE, kept.encode()))
    result = train_network(
        spec,
        train_files=train_files,
        validation_files=validation_files,
        unlabelled_files=_set_files(spec, arguments.experiment_spec, spec.loss.elt_loss_info.unlabelled_sets or ""),
        directory=results,
        kpi_subjects={*SplitPolicy().kpi_subjects, *named_subjects(kpi_files)},
        allow_unknown_subjects=arguments.allow_unknown_subjects,
        progress=Watchers([keeps_spec, TerminalProgress(console)]),
        key=_key(arguments),
    )
    error = result.best.validation_error_px
    say(
        f"{result.model_path}: epoch {result.best.epoch} of {len(result.history)}"
        + (f", validation {error:.2f} crop px" if error is not None else ""),
    )
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    if arguments.type != KPI_TESTING:
        raise InputError(
            f"-type {arguments.type}: only {KPI_TESTING} can be evaluated; training and validation sets are measured "
            "while training, to measure one of them name it in dataloader.kpiset_info.tfrecords_set_id_kpi"
        )
    _use_gpu(arguments.gpu_index)
    place = Path(arguments.model)
    if not place.exists():
        raise InputError(f"{place}: no such model or results folder")
    folder = place if place.is_dir() else place.parent
    spec_file = _spec_path(arguments.experiment_spec, folder)
    spec = load_spec(ExperimentSpec, spec_file)
    if spec.dataloader.kpiset_info is None:
        raise SpecError(str(spec_file), "dataloader.kpiset_info is missing: there is no set to measure on")
    files = _set_files(spec, str(spec_file), spec.dataloader.kpiset_info.tfrecords_set_id_kpi)
    from tasks.evaluate_model import PAGE, evaluate_model
    from tasks.report import print_evaluation

    model = existing(place / MODEL_FILE) if place.is_dir() else place
    results = _path(arguments.results_dir) or folder
    with _counting("faces") as progress:
        report = evaluate_model(
            model, spec, files, results, spec_file=spec_file, key=_key(arguments), progress=progress
        )
    print_evaluation(report, console)
    say(f"spec: {spec_file}\ntables: {results}\npage: {results / PAGE}")
    return 0


def inference(arguments: argparse.Namespace) -> int:
    _use_gpu(arguments.gpu_index)
    spec = load_spec(ExperimentSpec, arguments.experiment_spec)
    from deploy.predictor import load_predictor
    from model.inference import RESULT_JSON, run_inference

    predictor = load_predictor(arguments.model, key=_key(arguments))
    predictor.require(spec)
    with _counting("images") as progress:
        summary = run_inference(
            predictor.predict,
            Path(arguments.input),
            Path(arguments.output),
            root=arguments.root,
            input_size=predictor.input_size,
            channels=predictor.channels,
            enlarge_ratio=spec.dataloader.bbox_enlarge_ratio,
            draw=not arguments.no_images,
            progress=progress,
        )
    if not summary.faces:
        first = read_json(Path(arguments.output, RESULT_JSON))["skipped"][0]
        raise InputError(
            f"{arguments.input}: none of {summary.entries:,} images could be used; the first: {first['image']}: "
            f"{first['reason']}; check -r, the folder that image names are relative to, and the face boxes"
        )
    say(
        f"{summary.faces:,} faces in {summary.images:,} images, {summary.skipped:,} skipped: {arguments.output}",
    )
    return 0


def export(arguments: argparse.Namespace) -> int:
    _use_gpu(arguments.gpu_index)
    from flows.entry.export import run_export

    def training_files(spec: ExperimentSpec, name: str) -> list[Path]:
        return _set_files(spec, name, _dataset_info(spec, name).tfrecords_set_id_train)

    return run_export(arguments, key=_key(arguments), training_files=training_files)


def _check_pretrained(spec: ExperimentSpec, name: str) -> None:
    """Tell of a pretrained model that can't be read where the spec names it."""
    path = spec.model.model_parameters.pretrained_model_path
    if not path:
        return
    from model.pretrained import check_pretrained

    try:
        check_pretrained(Path(path))
    except ModelFileError as error:
        raise SpecError(place_in(name, "model.model_parameters.pretrained_model_path"), str(error)) from error


def _training_files(spec: ExperimentSpec, name: str, results: Path) -> tuple[list[Path], list[Path]]:
    """Files of the training and validation sets; sets named for both are divided by subject."""
    info = _dataset_info(spec, name)
    train_sets, validation_sets = info.tfrecords_set_id_train.split(), info.tfrecords_set_id_val.split()
    both = [set_id for set_id in train_sets if set_id in validation_sets]
    train_files = _set_files(spec, name, " ".join(s for s in train_sets if s not in both))
    validation_files = _set_files(spec, name, " ".join(s for s in validation_sets if s not in both))
    if both:
        from schemas.records import Split
        from tasks.shared_sets import divide

        warn(
            f"{', '.join(both)}: named for training and for validation; a tenth of the subjects is held out for "
            "validation"
        )
        divided = divide(_set_files(spec, name, " ".join(both)), results / "divided")
        train_files += divided[Split.TRAIN]
        validation_files += divided[Split.VALIDATION]
    return train_files, validation_files


def _warn_of_other_ratio(spec: ExperimentSpec, files: list[Path]) -> None:
    """Training crops by the boxes in the records, inference by the spec; TAO's specs know no ratio."""
    from model.shards import box_ratio

    told = spec.dataloader.bbox_enlarge_ratio
    for path in files:
        ratio = box_ratio(path, spec.num_keypoints)
        if ratio is not None and abs(ratio - told) > RATIO_TOLERANCE:
            warn(
                f"{path}: its faces were converted with a bbox_enlarge_ratio of about {ratio:.2f}, inference will "
                f"crop with {told:g}: set dataloader.bbox_enlarge_ratio to that of the dataset spec"
            )


def _kpi_files(spec: ExperimentSpec, name: str, *, shared_allowed: bool) -> list[Path]:
    """Files of KPI sets, whose subjects may not be learnt from or validated on; not all need be here while training.

    Args:
        shared_allowed: a set may be for training and for the KPI; that is told, and it is not among the files.
    """
    if spec.dataloader.kpiset_info is None:
        return []
    info, kpi_sets = _dataset_info(spec, name), spec.dataloader.kpiset_info.tfrecords_set_id_kpi.split()
    held_out = list(kpi_sets)
    for place, sets in (
        ("dataset_info.tfrecords_set_id_train", info.tfrecords_set_id_train),
        ("dataset_info.tfrecords_set_id_val", info.tfrecords_set_id_val),
        ("loss.elt_loss_info.unlabelled_sets", spec.loss.elt_loss_info.unlabelled_sets or ""),
    ):
        if shared := set(kpi_sets).intersection(sets.split()):
            where = place_in(name, "dataloader.kpiset_info.tfrecords_set_id_kpi")
            named = ", ".join(sorted(shared))
            problem = f"{named} is in {place} too: an error on faces that training has seen says nothing"
            if not shared_allowed:
                raise SpecError(
                    where, f"{problem}; name other sets here, or train all the same with --allow-unknown-subjects"
                )
            warn(f"{where}: {problem}")
            held_out = [one for one in held_out if one not in shared]
    return info.files(" ".join(held_out))


def _set_files(spec: ExperimentSpec, name: str, sets: str) -> list[Path]:
    return _dataset_info(spec, name).files(sets)


def _dataset_info(spec: ExperimentSpec, name: str) -> DatasetInfo:
    if spec.dataloader.dataset_info is None:
        raise SpecError(str(name), "dataloader.dataset_info is missing: it says where the TFRecords are")
    return spec.dataloader.dataset_info


def _spec_path(name: str | None, folder: Path) -> Path:
    """A spec given as a path, or else by its name inside the results folder; None is the one of the training."""
    if name is None:
        if not (folder / SPEC_FILE).is_file():
            raise InputError(f"{folder}: the training's {SPEC_FILE} is not there; give a spec with -e")
        return folder / SPEC_FILE
    found = next((place for place in (Path(name), folder / name) if place.is_file()), None)
    if found is None:
        raise InputError(f"{name}: no such spec, neither here nor in {folder}; give its path with -e")
    return found


def _use_gpu(index: int | None) -> None:
    """Hide the other GPUs from TensorFlow and TensorRT. To be called before either is asked for one."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # nvidia-smi's, which says what an engine is built for
    if index is None:
        return
    from deploy.gpus import VISIBLE, find_gpu, visible_gpus

    found = find_gpu()
    if index not in range(len(found.devices)):
        here = found.reason or f"GPUs here: {len(found.devices)}, counted from 0"
        raise InputError(f"--gpu_index {index}: {here}")
    names = visible_gpus()
    os.environ[VISIBLE] = str(index) if names is None else names[index]


def _key(arguments: argparse.Namespace) -> Key | None:
    """The key given with `-k`, or else in the environment; an empty one is none."""
    key = Key(os.environ.get(KEY_VARIABLE, "")) if arguments.key is None else arguments.key
    return key or None


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar while something is counted; nothing where the output is no terminal."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
