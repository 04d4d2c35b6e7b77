"""TFRecord files of faces: what is in them, and whether training may have it. Legend: B batch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from model.record_tensors import BOX, FEATURES
from schemas.errors import ImageError, ShardError, SubjectLeakError, UnknownSubjectError
from schemas.experiment import ExperimentSpec
from schemas.geometry import tight_square
from schemas.texts import composed

T = TypeVar("T")

_INTERNALS = re.compile(
    "|".join(
        (
            r"\{\{.*?\}\} ?",
            r"Graph execution error:\s*",
            r"Detected at node .*? defined at \(most recent call last\):(\s*(File|<stack)[^\n]*\n)*\s*",
            r"Error in user-defined function .*?: Iterator::\S+: ",
            r"\s*\[\[.*?\]\]",
            r"\s*\[Op:.*",
        )
    ),
    re.DOTALL,
)
_OWN = re.compile(rf"{ImageError.__name__}: (.+?)\nTraceback", re.DOTALL)
"""Our own error, raised where a pipeline calls Python (`model.record_tensors`)."""


@dataclass(frozen=True)
class ShardSurvey:
    """What one file holds.

    Attributes:
        records: their number.
        subjects: sorted, composed; '' where a record names none.
        sha256: of its serialised records in their order.
    """

    path: Path
    records: int
    subjects: tuple[str, ...]
    sha256: str


def survey(files: Sequence[Path], spec: ExperimentSpec, *, labelled: bool = True) -> list[ShardSurvey]:
    """Read every record once, checking what training and evaluation rely on.

    Args:
        labelled: False leaves keypoints unread.

    Raises:
        ShardError: a file is missing or damaged, holds fewer keypoints or flags than the spec says, a box that is
            not a square, or names an image that isn't there.
    """
    return [_survey_file(Path(path), spec, labelled=labelled) for path in files]


def refuse_leaks(surveys: Iterable[ShardSurvey], kpi_subjects: Iterable[str], *, allow_unknown: bool) -> None:
    """Stop before a model learns from a subject it will be measured on.

    Raises:
        SubjectLeakError: a file holds a KPI subject.
        UnknownSubjectError: a file holds records without a subject, and that was not allowed.
    """
    kpi = set(map(composed, kpi_subjects))
    for shard in surveys:
        if leaked := kpi.intersection(shard.subjects):
            raise SubjectLeakError(leaked, str(shard.path))
        if "" in shard.subjects and not allow_unknown:
            raise UnknownSubjectError(
                f"{shard.path}: has records without a subject, so nobody can tell whether KPI subjects are among "
                "them; convert the annotations again with subjects, or give --allow-unknown-subjects"
            )


def named_subjects(files: Sequence[Path]) -> set[str]:
    """Subjects that the records of `files` name; nothing else is looked at. A file that is not there names none.

    Raises:
        ShardError: a file is damaged.
    """
    wanted = {"image/subject": FEATURES["image/subject"]}
    named = set()
    for path in (Path(file) for file in files if Path(file).is_file()):
        records = tf.data.TFRecordDataset(str(path)).batch(256)
        with shard_errors(path):
            for faces in records.map(lambda records_B: tf.io.parse_example(records_B, wanted)).as_numpy_iterator():
                named.update(name for name in faces["image/subject"] if name)
    return {composed(name.decode()) for name in named}


def box_ratio(path: Path, num_keypoints: int) -> float | None:
    """How much larger the face boxes of a file are than the squares around their first keypoints: what they were
    converted with. The median of its first 256 faces; None where it is not there, or no face has as many keypoints.

    Raises:
        ShardError: the file is damaged.
    """
    ratios = []
    with shard_errors(path):
        for record in tf.data.TFRecordDataset([str(path)] if path.is_file() else []).take(256).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            values = np.array(features["train/landmarks"].float_list.value[: 2 * num_keypoints])
            if len(values) < 2 * num_keypoints or not np.isfinite(values).all():
                continue
            side = tight_square(values.reshape(-1, 2)).width
            ratios += [width / side for width in features["train/facebbx_w"].int64_list.value if side]
    return float(np.median(ratios)) if ratios else None


def read_records(files: Sequence[Path]) -> Iterator[bytes]:
    """Every serialised record of `files`, in order.

    Raises:
        ShardError: a file is missing or damaged.
    """
    for path in files:
        with shard_errors(path):
            yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()


@contextmanager
def shard_errors(*files: Path) -> Iterator[None]:
    """Turn what TensorFlow raises while it reads into a `ShardError`, or the `ImageError` that it was.

    Args:
        files: what is read, for the message: TensorFlow does not say in which file a record is damaged.
    """
    where = f"{', '.join(map(str, files))}: " if files else ""
    try:
        yield
    except DecodeError as error:
        raise ShardError(f"{where}has a record that is no face; convert the annotations of this set again") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
        if own := _OWN.search(error.message):
            raise ImageError(own[1]) from error
        raise ShardError(f"{where}{plain_message(error)}; convert the annotations of this set again") from error
    except tf.errors.NotFoundError as error:
        raise ShardError(f"{where}{plain_message(error)}; check the paths in the spec") from error


def readable(batches: Iterable[T]) -> Iterator[T]:
    """What a dataset gives.

    Raises:
        ShardError, ImageError: it can't be read.
    """
    with shard_errors():
        yield from batches


def plain_message(error: tf.errors.OpError) -> str:
    """What TensorFlow says, without its nodes and the lines of code that made them."""
    return _INTERNALS.sub("", error.message).strip()


def _survey_file(path: Path, spec: ExperimentSpec, *, labelled: bool) -> ShardSurvey:
    if not path.is_file():
        raise ShardError(f"{path}: no such TFRecord file; check the paths and set ids in the spec")
    records, subjects, content = 0, set(), hashlib.sha256()
    batches = (
        tf.data.TFRecordDataset(str(path))
        .batch(256)
        .map(lambda records_B: (records_B, *_inspect(records_B, labelled)))
    )
    with shard_errors(path):
        for serialised, names, owners, sides, embedded, *counts in batches.as_numpy_iterator():
            _check_boxes(path, names, sides)
            _check_images(path, names[~embedded], spec)
            for what, counts_B in zip(("keypoints", "occluded flags"), counts, strict=False):
                _check_keypoints(path, names, counts_B, what, spec)
            for record in serialised:
                content.update(hashlib.sha256(record).digest())
            records += len(names)
            subjects.update(composed(owner.decode()) for owner in owners)
    return ShardSurvey(path, records, tuple(sorted(subjects)), content.hexdigest())


def _inspect(records_B: tf.Tensor, labelled: bool) -> tuple[tf.Tensor, ...]:
    """Names, subjects, box width and height, whether a crop is embedded; with labels numbers of points and flags."""
    wanted = ("train/image_frame_name", "image/subject", "image/encoded", *BOX)
    features = {key: FEATURES[key] for key in wanted}
    if labelled:
        features["train/landmarks"] = tf.io.RaggedFeature(tf.float32)
        features["train/landmarks_occ"] = tf.io.RaggedFeature(tf.int64)
    faces = tf.io.parse_example(records_B, features)
    inspected = (
        faces["train/image_frame_name"],
        faces["image/subject"],
        tf.stack([faces["train/facebbx_w"], faces["train/facebbx_h"]], axis=1),
        tf.strings.length(faces["image/encoded"]) > 0,
    )
    if not labelled:
        return inspected
    points_B, flags_B = (faces[key].row_lengths() for key in ("train/landmarks", "train/landmarks_occ"))
    return (*inspected, points_B // 2, flags_B)


def _check_keypoints(path: Path, names: np.ndarray, counts_B: np.ndarray, what: str, spec: ExperimentSpec) -> None:
    if (short_B := counts_B < spec.num_keypoints).any():
        raise ShardError(
            f"{path}: {names[short_B][0].decode()} has {counts_B[short_B][0]} {what}, "
            f"the spec {spec.num_keypoints} keypoints"
        )


def _check_boxes(path: Path, names: np.ndarray, sides: np.ndarray) -> None:
    if (odd := (sides[:, 0] != sides[:, 1]) | (sides[:, 0] <= 0)).any():
        width, height = sides[odd][0]
        raise ShardError(f"{path}: {names[odd][0].decode()} has a face box of {width} x {height}, not a square")


def _check_images(path: Path, names: np.ndarray, spec: ExperimentSpec) -> None:
    for name in names:
        image = Path(image_path(name.decode(), spec))
        if not image.is_file():
            raise ShardError(f"{path}: image {image} is not there; check root_path in the spec, or embed the crops")


def image_path(name: str, spec: ExperimentSpec) -> str:
    """Where a record's image is: `root_path` and the name put together as they stand, as TAO does it."""
    return spec.dataloader.root_path + name
