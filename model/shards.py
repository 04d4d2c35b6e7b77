"""TFRecord files of faces: what is in them, and tensors out of them.

Legend: B batch, N keypoints, S side of the context crop in pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.crop import CONTEXT_SIZE, context_crop, crop_face
from model.images import read_image
from schemas.errors import ShardError, SubjectLeakError, UnknownSubjectError
from schemas.experiment import ExperimentSpec
from schemas.geometry import Box

_ANY_INT = tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)
_ANY_FLOAT = tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True)
_TEXT = tf.io.FixedLenFeature([], tf.string, "")
_BOX = [f"train/facebbx_{side}" for side in "xywh"]
_FRAME = ["train/image_frame_width", "train/image_frame_height"]

FEATURES = {
    "train/image_frame_name": tf.io.FixedLenFeature([], tf.string),
    **{key: tf.io.FixedLenFeature([], tf.int64) for key in (*_FRAME, *_BOX)},
    "train/landmarks": _ANY_FLOAT,
    "train/landmarks_occ": _ANY_INT,
    "image/occ_known": _ANY_INT,
    "image/subject": _TEXT,
    "image/set": _TEXT,
    "image/encoded": _TEXT,
    "image/region": _ANY_FLOAT,
}
"""TAO's nine features, and ours, which may be missing."""


@dataclass(frozen=True)
class ShardSurvey:
    """What one file holds: number of records, and subjects sorted ('' where a record names none)."""

    path: Path
    records: int
    subjects: tuple[str, ...]


def survey(files: Sequence[Path], spec: ExperimentSpec) -> list[ShardSurvey]:
    """Read every record once, checking what training and evaluation rely on.

    Raises:
        ShardError: a file is missing or damaged, holds fewer keypoints than the spec says, a box that is not a
            square, or names an image that isn't there.
    """
    return [_survey_file(Path(path), spec) for path in files]


def refuse_leaks(surveys: Iterable[ShardSurvey], kpi_subjects: Iterable[str], *, allow_unknown: bool) -> None:
    """Stop before a model learns from a subject it will be measured on.

    Raises:
        SubjectLeakError: a file holds a KPI subject.
        UnknownSubjectError: a file holds records without a subject, and that was not allowed.
    """
    kpi = set(kpi_subjects)
    for shard in surveys:
        if leaked := kpi.intersection(shard.subjects):
            raise SubjectLeakError(leaked, str(shard.path))
        if "" in shard.subjects and not allow_unknown:
            raise UnknownSubjectError(
                f"{shard.path}: has records without a subject, so nobody can tell whether KPI subjects are among "
                "them; convert the annotations again with subjects, or allow unknown subjects"
            )


def face_dataset(
    files: tf.data.Dataset, spec: ExperimentSpec, *, shuffle_seed: tf.Tensor | None = None
) -> tf.data.Dataset:
    """Single faces out of a dataset of file names, as `_parse` says.

    Args:
        shuffle_seed: None reads file by file, in order; else records of up to 16 files are interleaved and shuffled
            through a buffer of 8192 serialised records, the same way for the same seed.
    """
    if shuffle_seed is None:
        records = files.flat_map(tf.data.TFRecordDataset)
    else:
        records = files.interleave(tf.data.TFRecordDataset, cycle_length=16, block_length=1)
        records = records.shuffle(8192, seed=shuffle_seed, reshuffle_each_iteration=False)
    return records.map(lambda record: _parse(record, spec), num_parallel_calls=tf.data.AUTOTUNE)


def read_records(files: Sequence[Path]) -> Iterator[bytes]:
    """Every serialised record of `files`, in order.

    Raises:
        ShardError: a file is missing or damaged.
    """
    with shard_errors():
        yield from tf.data.TFRecordDataset([str(path) for path in files]).as_numpy_iterator()


@contextmanager
def shard_errors() -> Iterator[None]:
    """Turn what TensorFlow raises while it reads into a `ShardError`."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
        raise ShardError(f"{error.message}; convert the annotations of this set again") from error
    except tf.errors.NotFoundError as error:
        raise ShardError(f"{error.message}; check the paths in the spec") from error


def _survey_file(path: Path, spec: ExperimentSpec) -> ShardSurvey:
    if not path.is_file():
        raise ShardError(f"{path}: no such TFRecord file; check the paths and set ids in the spec")
    records, subjects = 0, set()
    batches = tf.data.TFRecordDataset(str(path)).batch(256).map(_inspect)
    with shard_errors():
        for names, owners, values, sides, embedded in batches.as_numpy_iterator():
            _check_records(path, names, values, sides, embedded, spec)
            records += len(names)
            subjects.update(owner.decode() for owner in owners)
    return ShardSurvey(path, records, tuple(sorted(subjects)))


def _inspect(serialized_B: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Names, subjects, number of landmark values, box width and height, whether a crop is embedded."""
    features = dict(FEATURES)
    features["train/landmarks"] = tf.io.RaggedFeature(tf.float32)
    wanted = ("train/image_frame_name", "train/landmarks", "image/subject", "image/encoded", *_BOX)
    faces = tf.io.parse_example(serialized_B, {key: features[key] for key in wanted})
    return (
        faces["train/image_frame_name"],
        faces["image/subject"],
        faces["train/landmarks"].row_lengths(),
        tf.stack([faces["train/facebbx_w"], faces["train/facebbx_h"]], axis=1),
        tf.strings.length(faces["image/encoded"]) > 0,
    )


def _check_records(
    path: Path, names: np.ndarray, values: np.ndarray, sides: np.ndarray, embedded: np.ndarray, spec: ExperimentSpec
) -> None:
    if (short := values < 2 * spec.num_keypoints).any():
        raise ShardError(
            f"{path}: {names[short][0].decode()} has {values[short][0] // 2} keypoints, the spec {spec.num_keypoints}"
        )
    if (odd := (sides[:, 0] != sides[:, 1]) | (sides[:, 0] <= 0)).any():
        width, height = sides[odd][0]
        raise ShardError(f"{path}: {names[odd][0].decode()} has a face box of {width} x {height}, not a square")
    for name in names[~embedded]:
        image = Path(image_path(name.decode(), spec))
        if not image.is_file():
            raise ShardError(f"{path}: image {image} is not there; check root_path in the spec, or embed the crops")


def image_path(name: str, spec: ExperimentSpec) -> str:
    """Where a record's image is: `root_path` and the name put together as they stand, as TAO does it."""
    return spec.dataloader.root_path + name


def _parse(serialized: tf.Tensor, spec: ExperimentSpec) -> dict[str, tf.Tensor]:
    """One record as tensors.

    `context_SSC` uint8 and `region_3` (x0, y0, side in the frame), `box_4` (x, y, w, h) float32, `points_N2` float32
    in source pixels, `flags_N` int8 (`schemas.records.Flag`), `frame_2` (width, height), `name`, `subject`, `set`.
    """
    n, channels = spec.num_keypoints, spec.dataloader.image_info.image.channel
    face = tf.io.parse_single_example(serialized, FEATURES)
    name = face["train/image_frame_name"]
    box_4 = tf.cast(tf.stack([face[key] for key in _BOX]), tf.float32)
    context_SSC, region_3 = tf.cond(
        tf.strings.length(face["image/encoded"]) > 0,
        lambda: (tf.io.decode_png(face["image/encoded"], channels=channels), face["image/region"]),
        lambda: _read_context(spec.dataloader.root_path + name, box_4, channels),
    )
    occluded_N = tf.ensure_shape(face["train/landmarks_occ"][:n], (n,))
    known_N = face["image/occ_known"][:n]
    known_N = tf.ensure_shape(tf.cond(tf.size(known_N) > 0, lambda: known_N, lambda: tf.ones_like(occluded_N)), (n,))
    return {
        "context_SSC": tf.ensure_shape(context_SSC, (CONTEXT_SIZE, CONTEXT_SIZE, channels)),
        "region_3": tf.ensure_shape(region_3, (3,)),
        "box_4": box_4,
        "points_N2": tf.reshape(face["train/landmarks"][: 2 * n], (n, 2)),
        "flags_N": tf.cast(tf.where(known_N > 0, tf.minimum(occluded_N, 1), -1), tf.int8),
        "frame_2": tf.stack([face[key] for key in _FRAME]),
        "name": name,
        "subject": face["image/subject"],
        "set": face["image/set"],
    }


def _read_context(path: tf.Tensor, box_4: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The crop that a record without one would have embedded, from its image file."""

    def read(path: bytes, box_4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        crop = context_crop(Box(*map(float, box_4)))
        context = crop_face(read_image(Path(path.decode()), channels=channels), crop)
        region_3 = np.array([crop.x0, crop.y0, crop.side], np.float32)
        return context.reshape(CONTEXT_SIZE, CONTEXT_SIZE, channels), region_3

    return tuple(tf.numpy_function(read, [path, box_4], (tf.uint8, tf.float32), stateful=False))
