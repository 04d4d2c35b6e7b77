"""Batches of training faces, out of memory where they fit, in an order that the seed decides.

Legend: B batch, F faces of all files, N keypoints, S side of the context crop in pixels, C channels; P files,
T stretches of files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.crop import CONTEXT_SIZE
from model.record_tensors import parse_faces
from model.shards import shard_errors
from model.tfrecords import record_offsets
from model.warp import crop_to_context, to_crop
from schemas.experiment import ExperimentSpec
from schemas.records import Flag

_SHUFFLED_TOGETHER = 8192
_READ_TOGETHER = 64
_STRETCHES = 64  # of a set, read in turn
_BUFFER = 1 << 18  # bytes of each


def face_batches(
    files: Sequence[Path],
    spec: ExperimentSpec,
    *,
    batch: int,
    epochs: range,
    steps: int,
    labelled: bool = True,
) -> tf.data.Dataset:
    """`steps` batches for each of `epochs`, as `training_faces` says.

    An epoch's order comes from (seed, epoch). Labelled faces come at most once an epoch, and the last batch may be
    smaller; unlabelled ones start again where they end early.

    Args:
        batch: faces.
        epochs: 0-based.
        labelled: False leaves keypoints unread.

    Raises:
        ShardError, ImageError: a face that is to be kept in memory can't be read.
    """
    seed = tf.constant(spec.random_seed % 2**31, tf.int64)
    read = [_File(str(path), np.fromiter(record_offsets(Path(path)), np.int64)) for path in files]
    source = (_kept if _fits(read, spec) else _streamed)(read, spec, labelled=labelled)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        items = source.items(tf.stack([seed, epoch]))
        return (items if labelled else items.repeat()).batch(batch).take(steps)

    items = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch)
    as_written = tf.data.Options()
    as_written.experimental_optimization.apply_default_optimizations = False  # they copy the faces that are kept
    return items.map(source.faces, num_parallel_calls=2).with_options(as_written)


@tf.autograph.experimental.do_not_convert
def training_faces(faces: dict[str, tf.Tensor], spec: ExperimentSpec) -> dict[str, tf.Tensor]:
    """What training needs of `parse_faces`, before anything random.

    Returns:
        `context_BSSC` uint8, `to_context_B33` from pixels of the face box's crop to those of the context crop,
        `points_BN2` in pixels of the face box's crop, `occluded_BN` bool, `flagged_BN` bool: somebody said whether it
        is occluded, `labelled_B` bool, `whole_B` bool: its occluded points take part in the loss too. Without labels,
        points are 0.
    """
    size, n = spec.dataloader.image_info.image.height, spec.num_keypoints
    labelled_B = tf.fill(tf.shape(faces["name_B"]), "points_BN2" in faces)
    nowhere_BN2 = tf.zeros((tf.size(labelled_B), n, 2))
    points_BN2 = to_crop(faces["points_BN2"], faces["box_B4"], size=size) if "points_BN2" in faces else nowhere_BN2
    unknown_BN = tf.fill(tf.shape(nowhere_BN2)[:2], tf.constant(Flag.UNKNOWN, tf.int8))
    flags_BN = faces.get("flags_BN", unknown_BN)
    return {
        "context_BSSC": faces["context_BSSC"],
        "to_context_B33": crop_to_context(faces["box_B4"], faces["region_B3"], size=size, context_size=CONTEXT_SIZE),
        "points_BN2": points_BN2,
        "occluded_BN": flags_BN == Flag.OCCLUDED,
        "flagged_BN": flags_BN != Flag.UNKNOWN,
        "labelled_B": labelled_B,
        "whole_B": counted_whole(faces["name_B"], faces["set_B"], spec),
    }


def counted_whole(names_B: tf.Tensor, sets_B: tf.Tensor, spec: ExperimentSpec) -> tf.Tensor:
    """(B,) bool: occluded points take part in the loss too: without `mask_occ`, and in `no_occlusion_masking_sets`.

    A set is named by its id or by a part of the image's name.
    """
    whole_B = tf.fill(tf.shape(names_B), not spec.loss.mask_occ)
    for token in spec.dataloader.sets_without_masking:
        whole_B |= tf.strings.regex_full_match(names_B, f".*{re.escape(token)}.*") | (sets_B == token)
    return whole_B


@dataclass(frozen=True, eq=False)
class _File:
    """`offsets`: bytes of the file before each of its records."""

    path: str
    offsets: np.ndarray


@dataclass(frozen=True)
class _Source:
    """`items`: a seed -> dataset of scalars that stand for one face each; `faces`: a batch of those -> tensors."""

    items: Callable[[tf.Tensor], tf.data.Dataset]
    faces: Callable[[tf.Tensor], dict[str, tf.Tensor]]


def _kept(files: Sequence[_File], spec: ExperimentSpec, *, labelled: bool) -> _Source:
    """Every face decoded once; an item is its index."""
    batches = (
        tf.data.TFRecordDataset([file.path for file in files])
        .batch(_READ_TOGETHER)
        .map(
            lambda records_B: training_faces(parse_faces(records_B, spec, labelled=labelled), spec),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )
    number, done = sum(len(file.offsets) for file in files), 0
    kept: dict[str, tf.Tensor] = {}
    with shard_errors(), tf.device("CPU"):
        for part in batches:  # each into its place: put together at the end, all would be there twice
            kept = kept or {
                name: tf.raw_ops.Empty(shape=(number, *values.shape[1:]), dtype=values.dtype)
                for name, values in part.items()
            }
            rows_B = done + tf.range(len(part["labelled_B"]))
            kept = {name: tf.raw_ops.InplaceUpdate(x=kept[name], i=rows_B, v=part[name]) for name in kept}
            done += len(rows_B)

    def items(seed_2: tf.Tensor) -> tf.data.Dataset:
        order_F = tf.random.experimental.stateless_shuffle(tf.range(number), seed_2)
        return tf.data.Dataset.from_tensor_slices(order_F)

    return _Source(items, lambda index_B: {name: tf.gather(values, index_B) for name, values in kept.items()})


def _streamed(files: Sequence[_File], spec: ExperimentSpec, *, labelled: bool) -> _Source:
    """Records of 64 stretches in turn, shuffled some thousands at a time; an item is a serialised record.

    A file often has its faces person by person, so a large one is read at many places at once, and at others in the
    next epoch: its first stretch begins anywhere, and what is before that comes last.
    """
    counts = [len(file.offsets) for file in files]
    length = max(1, math.ceil(sum(counts) / _STRETCHES))
    stretches = [
        (number, first, min(length, count - first))
        for number, count in enumerate(counts)
        for first in range(0, count, length)
    ]
    stretches_T3 = np.array(stretches, np.int64).reshape(-1, 3)
    paths_P, counts_P = tf.constant([file.path for file in files]), tf.constant(counts, tf.int64)
    offsets_F, before_P = tf.constant(np.concatenate([f.offsets for f in files])), tf.cumsum(counts_P, exclusive=True)

    def records(number: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
        """`count` records of a file, from the one numbered `first` on."""
        variant = tf.raw_ops.TFRecordDatasetV2(  # `skip` would read all that comes before
            filenames=paths_P[number][None],
            compression_type="",
            buffer_size=_BUFFER,
            byte_offsets=offsets_F[before_P[number] + first][None],
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(count)

    def items(seed_2: tf.Tensor) -> tf.data.Dataset:
        turn_seed_2, order_seed_2, block_seed_2 = tf.unstack(tf.random.split(seed_2, 3))
        turn_P = tf.random.stateless_uniform(counts_P.shape, turn_seed_2, dtype=tf.float64)
        turn_P = tf.cast(turn_P * tf.cast(counts_P, tf.float64), tf.int64)

        def stretch(row_3: tf.Tensor) -> tf.data.Dataset:
            number, first, count = tf.unstack(row_3)
            first = (first + turn_P[number]) % counts_P[number]
            beyond = tf.maximum(first + count - counts_P[number], 0)
            return records(number, first, count - beyond).concatenate(records(number, tf.zeros_like(first), beyond))

        def shuffled(number: tf.Tensor, together: tf.Tensor) -> tf.Tensor:
            own_seed_2 = tf.random.experimental.stateless_fold_in(block_seed_2, number)
            return tf.random.experimental.stateless_shuffle(together, own_seed_2)

        order_T3 = tf.random.experimental.stateless_shuffle(stretches_T3, order_seed_2)
        in_turn = tf.data.Dataset.from_tensor_slices(order_T3).interleave(stretch, cycle_length=_STRETCHES)
        return in_turn.batch(_SHUFFLED_TOGETHER).enumerate().map(shuffled).prefetch(1).unbatch()

    def faces(records_B: tf.Tensor) -> dict[str, tf.Tensor]:
        return training_faces(parse_faces(records_B, spec, labelled=labelled), spec)

    return _Source(items, faces)


def _fits(files: Sequence[_File], spec: ExperimentSpec) -> bool:
    face_bytes = CONTEXT_SIZE**2 * spec.dataloader.image_info.image.channel
    return sum(len(file.offsets) for file in files) * face_bytes <= spec.dataloader.memory_mib * 2**20
