"""Training: from TFRecord files and a spec to a network, with validation, checkpoints and resume.

Left in the directory: `model.keras` (the best network), `checkpoint.npz` (to go on from), `history.csv`,
`status.json` and, with `enable_visualization`, TensorBoard's `events/`.

Every epoch is validated, and the best network is kept whenever it is found. `checkpoint_n_epoch` says how often the
checkpoint is written, which a stopped training goes on from: after that many epochs, again and again, and at the end.
(The reference validates only when it writes a checkpoint, so that with `checkpoint_n_epoch: 10` it would pass over
nine epochs that may have been the best.)
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from model.checkpoint import EpochResult, restore_checkpoint, save_checkpoint
from model.devices import visible_strategy
from model.learner import Learner
from model.pipeline import EvaluationBatch, EvaluationBatches, steps_per_epoch, targets, training_batches
from model.progress import Plan, Watcher, Watchers
from model.region_error import face_errors
from model.schedule import learning_rate
from model.shards import ShardSurvey, plain_message, readable, refuse_leaks, survey
from model.status import STATUS_FILE, StatusFile
from model.summaries import EVENTS, Summaries
from model.weights import save_network
from schemas.errors import DivergedError, ShardError, SpecError, TrainingError
from schemas.experiment import DatasetInfo, ExperimentSpec
from schemas.sealed import SUFFIX, Key, sealed_path
from schemas.storage import sha256_file, sha256_of, write_bytes

log = logging.getLogger(__name__)

MODEL_FILE = "model.keras"
CHECKPOINT_FILE = "checkpoint.npz"
HISTORY_FILE = "history.csv"


@dataclass(frozen=True)
class TrainingResult:
    """A finished training.

    Attributes:
        model_path: `.keras` file of the best network: lowest validation error, the first of equals; the last epoch's
            where there are no validation faces. In float32; with a key sealed.
        history: every epoch's result, those before a resume included.
        best: the epoch that `model_path` comes from.
        training_faces, validation_faces: number of records.
        resumed_after: epochs that an earlier run had done; 0 for a fresh start.
    """

    model_path: Path
    history: tuple[EpochResult, ...]
    best: EpochResult
    training_faces: int
    validation_faces: int
    resumed_after: int


def train(
    spec: ExperimentSpec,
    *,
    train_files: Sequence[Path],
    validation_files: Sequence[Path],
    unlabelled_files: Sequence[Path] = (),
    directory: Path,
    kpi_subjects: Collection[str] = (),
    allow_unknown_subjects: bool = False,
    on_epoch: Callable[[EpochResult], None] | None = None,
    progress: Watcher | None = None,
    key: Key | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> TrainingResult:
    """Train the spec's network, or go on where an earlier call in the same directory was stopped.

    On the processors of one machine the result depends on spec and files alone, stopped and resumed or not.

    With several GPUs `batch_size` is that of each, as in the reference, and an epoch has as many times fewer steps:
    two GPUs with batches of 32 learn as one with a batch of 64.

    Args:
        unlabelled_files: those of the spec's `unlabelled_sets`; their keypoints are not read.
        kpi_subjects: subjects that must not be in any of the files.
        on_epoch: called after every epoch of this run, once its files are written.
        progress: is told what happens.
        strategy: the devices; by default all visible GPUs.
        key: encrypts model and checkpoint, and opens a sealed checkpoint or pretrained model.

    Raises:
        SubjectLeakError, UnknownSubjectError: see `model.shards.refuse_leaks`.
        ShardError: a file can't be read, or there is nothing to train on.
        SpecError, ModelFileError: the network can't be built as the spec says.
        TrainingError: the loss is no longer finite, the device fails or lacks memory, or the directory belongs to
            another training.
        SealedFileError: a sealed file can't be opened with this key.
        StorageError: a file can't be written.
    """
    if spec.dataloader.augmentation_info.mask_augmentation_patch and not spec.loss.mask_occ:
        log.warning("mask_augmentation_patch does nothing without mask_occ: points behind patches count in the loss")
    _refuse_mixed(directory, key)
    train_files, validation_files = [Path(p) for p in train_files], [Path(p) for p in validation_files]
    unlabelled_files = [Path(p) for p in unlabelled_files]
    shards = survey(train_files, spec), survey(validation_files, spec), survey(unlabelled_files, spec, labelled=False)
    refuse_leaks(chain(*shards), kpi_subjects, allow_unknown=allow_unknown_subjects)
    _tell_of_shared(*shards)
    faces, validation_faces, unlabelled_faces = (sum(shard.records for shard in part) for part in shards)
    if bool(unlabelled_faces) != bool(spec.unlabelled_in_batch):
        raise SpecError("loss.elt_loss_info.unlabelled_sets", f"{unlabelled_faces} faces were given for them")
    if not faces:
        raise ShardError(f"no faces to train on in {', '.join(map(str, train_files)) or 'no file'}")
    tf.random.set_seed(spec.random_seed % 2**31)
    learner = Learner(spec, key=key, strategy=strategy or visible_strategy())
    replicas = learner.strategy.num_replicas_in_sync
    wide, fingerprint = _widened(spec, replicas, faces), _fingerprint(spec, *shards, replicas=replicas)
    history = restore_checkpoint(directory / CHECKPOINT_FILE, learner.variables(), fingerprint, key=key)
    model_path = sealed_path(directory / MODEL_FILE, key)
    if history:
        _refuse_without_model(model_path, sealed_path(directory / CHECKPOINT_FILE, key))
    learner.spread_dropout()
    resumed_after, steps = len(history), steps_per_epoch(faces, wide)
    epochs = range(resumed_after, spec.num_epoch)
    batches = readable(
        training_batches(train_files, wide, epochs=epochs, steps=steps, unlabelled_files=unlabelled_files)
    )
    checks = EvaluationBatches(validation_files, spec) if validation_faces else None
    with Watchers(_watchers(learner, directory, progress)) as watcher:
        size = wide.dataloader.batch_size
        watcher.begin(Plan(spec.num_epoch, resumed_after, steps, size, log_every_s=spec.log_every_n_secs))
        started = time.monotonic()
        for epoch in epochs:
            means = _train_epoch(learner, batches, epoch, steps, watcher)
            validation = _validate(learner, checks, watcher) if checks else (None, None)
            ended = time.monotonic()
            history.append(_result(spec, epoch, steps, means, validation, history, ended - started))
            started = ended
            watcher.epoch(history[-1])
            _write(learner, directory, history, fingerprint, key)
            if on_epoch:
                on_epoch(history[-1])
    best = next(result for result in reversed(history) if result.best)
    return TrainingResult(model_path, tuple(history), best, faces, validation_faces, resumed_after)


def _tell_of_shared(training: list[ShardSurvey], validation: list[ShardSurvey], other: list[ShardSurvey]) -> None:
    """Validation picks the best epoch: on subjects that are learnt from, it picks the one that knows them best."""
    learnt = {subject for shard in (*training, *other) for subject in shard.subjects if subject}
    if shared := sorted(learnt.intersection(chain.from_iterable(shard.subjects for shard in validation))):
        more = f" and {len(shared) - 5:,} more" if len(shared) > 5 else ""
        log.warning(
            "subjects for training are among those for validation (%s%s): the validation error says little about "
            "others, and picks the best epoch all the same; name sets of other subjects for one of the two",
            ", ".join(shared[:5]),
            more,
        )


def _watchers(learner: Learner, directory: Path, progress: Watcher | None) -> list[Watcher]:
    spec, watchers = learner.spec, [progress] if progress else []
    if spec.enable_visualization:
        watchers.append(Summaries(directory / EVENTS, spec, predict=learner.predict))
    return [*watchers, StatusFile(directory / STATUS_FILE)]


def _widened(spec: ExperimentSpec, replicas: int, faces: int) -> ExperimentSpec:
    """The spec with a batch size for all replicas together."""
    if faces < replicas:
        raise TrainingError(f"{faces} faces can't be shared among {replicas} GPUs; use fewer with --gpus")
    size = spec.dataloader.batch_size * replicas
    return spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update={"batch_size": size})})


def _refuse_mixed(directory: Path, key: Key | None) -> None:
    """With a key, nothing readable of an earlier training may stay; without one, nothing sealed be passed over."""
    for name in (MODEL_FILE, CHECKPOINT_FILE):
        found = directory / (name if key else name + SUFFIX)
        if found.exists():
            way = "was trained without a key" if key else "is encrypted: give the key it was written with"
            raise TrainingError(f"{found}: {way}; or choose another results directory, or remove it to start anew")


def _refuse_without_model(model: Path, checkpoint: Path) -> None:
    """To go on from a checkpoint whose model was taken away."""
    if not model.exists():
        raise TrainingError(
            f"{model}: is not there, and the checkpoint beside it does not hold the best network: put the model "
            f"back, or remove {checkpoint} to start anew"
        )


def _train_epoch(
    learner: Learner, batches: Iterator[dict[str, tf.Tensor]], epoch: int, steps: int, watcher: Watcher
) -> dict[str, float]:
    """Means over the epoch of the loss and its terms."""
    sums: dict[str, float] = {}
    for number, batch in enumerate(islice(batches, steps), start=epoch * steps):
        rate = _learning_rate(learner.spec, number, steps)
        with _device_errors(f"step {number + 1}"):
            terms = learner.step(batch, number=number, learning_rate=rate)
            values = {name: float(value) for name, value in terms.items()}
        if not math.isfinite(values["loss"]):
            raise DivergedError(f"the loss is {values['loss']} after step {number + 1}; lower base_learning_rate")
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value / steps
        watcher.step(number + 1, values, rate)
    watcher.trained_on(batch)
    return sums


@contextmanager
def _device_errors(doing: str) -> Iterator[None]:
    """Turn what TensorFlow raises while a device computes into a `TrainingError`."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        first = plain_message(error).partition("\n")[0]
        raise TrainingError(f"{doing}: the device has too little memory: {first}; lower batch_size") from error
    except tf.errors.OpError as error:
        raise TrainingError(
            f"{doing}: the device failed: {plain_message(error)}; train again to go on from the last checkpoint"
        ) from error


def _validate(learner: Learner, batches: Iterable[EvaluationBatch], watcher: Watcher) -> tuple[float, float]:
    """Loss and mean error in crop pixels of the kept network, every face once."""
    losses, errors = [], []
    for number, batch in enumerate(batches):
        truth = targets(batch, learner.spec)
        with _device_errors("validation"):
            loss, keypoints_BN2 = learner.assess(batch.images_BHWC, truth)
            losses += [float(loss)] * len(batch)
        if not np.isfinite(keypoints_BN2).all():
            raise DivergedError("validation: the network's keypoints are no numbers; lower base_learning_rate")
        if number == 0:
            watcher.validated_on(batch.images_BHWC, truth["points_BN2"], keypoints_BN2)
        predicted = [crop.to_frame(k) for crop, k in zip(batch.crops, keypoints_BN2.numpy(), strict=True)]
        errors.append(face_errors(batch.points_BN2, np.array(predicted), batch.flags_BN, batch.subjects).crop_px_BK)
    return float(np.mean(losses)), float(np.concatenate(errors).mean())


def _result(
    spec: ExperimentSpec,
    epoch: int,
    steps: int,
    means: dict[str, float],
    validation: tuple[float | None, float | None],
    history: Sequence[EpochResult],
    seconds: float,
) -> EpochResult:
    loss, error = validation
    return EpochResult(
        epoch=epoch + 1,
        step=(epoch + 1) * steps,
        loss=means["loss"],
        terms={name: value for name, value in means.items() if name != "loss"},
        validation_loss=loss,
        validation_error_px=error,
        learning_rate=_learning_rate(spec, (epoch + 1) * steps - 1, steps),
        seconds=seconds,
        best=error is None or all(error < past.validation_error_px for past in history),
    )


def _learning_rate(spec: ExperimentSpec, step: int, steps: int) -> float:
    return learning_rate(spec.optimizer.learning_rate_schedule, step=step, steps=steps * spec.num_epoch)


def _write(
    learner: Learner, directory: Path, history: Sequence[EpochResult], fingerprint: str, key: Key | None
) -> None:
    """The best model first: a checkpoint never tells of a model that isn't there. And with each that was chosen a
    checkpoint: an epoch that is done again comes out otherwise on a GPU, and may not be the best then."""
    result, spec = history[-1], learner.spec
    chosen = result.best and result.validation_error_px is not None
    if result.best:
        save_network(learner.kept, directory / MODEL_FILE, key=key)
    if chosen or result.epoch % spec.checkpoint_n_epoch == 0 or result.epoch == spec.num_epoch:
        save_checkpoint(directory / CHECKPOINT_FILE, learner.variables(), history, fingerprint, key=key)
    write_bytes(directory / HISTORY_FILE, _history_csv(history).encode())


def _history_csv(history: Sequence[EpochResult]) -> str:
    text = io.StringIO()
    columns = ["epoch", "step", "loss", "validation_loss", "validation_error_px", "learning_rate", "seconds", "best"]
    terms = sorted(history[0].terms)
    writer = csv.writer(text)
    writer.writerow([*columns, *terms])
    for result in history:
        writer.writerow([*(getattr(result, name) for name in columns), *(result.terms[name] for name in terms)])
    return text.getvalue()


def _fingerprint(spec: ExperimentSpec, *shards: Sequence[ShardSurvey], replicas: int) -> str:
    """Of all that decides what a training does, but not of where things are and what is shown of it.

    Of the data that is every record's content, and of a pretrained model its file's. Pictures that records only name
    are not read for it.
    """
    exempt = {"no_occlusion_masking_sets"}
    shown = (
        "checkpoint_dir",
        "checkpoint_n_epoch",
        "enable_visualization",
        "log_every_n_secs",
        "visualize_num_images",
    )
    places = dict.fromkeys(shown, True) | {
        "dataloader": {"dataset_info": set(DatasetInfo.model_fields) - exempt},
        "model": {"model_parameters": {"pretrained_model_path"}, "visualization_parameters": True},
    }
    settings = spec.model_dump(mode="json", exclude=places)
    pretrained = spec.model.model_parameters.pretrained_model_path
    contents = [[[s.sha256 for s in part] for part in shards], pretrained and sha256_file(Path(pretrained))]
    return sha256_of([settings, contents, replicas, keras.__version__, tf.__version__])
