"""Batches for training and for evaluation, out of TFRecord files.

Legend: B batch, H W rows and columns of the network's input, C channels, N keypoints, S side of the context crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.augment import Covers, change_pixels, mirror_order, random_affine
from model.crop import CONTEXT_SIZE
from model.draws import Draws
from model.feed import counted_whole, face_batches
from model.record_tensors import parse_faces
from model.shards import shard_errors
from model.warp import crop_to_context, move_points, to_crop, warp
from schemas.augmentation import Augmentation
from schemas.experiment import ExperimentSpec
from schemas.geometry import Box, SquareCrop
from schemas.layouts import layout
from schemas.records import Flag

OtherBoxes = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True, eq=False)
class EvaluationBatch:
    """Faces as the network sees them, and what is known about them.

    Attributes:
        images_BHWC: float32, 0..255: the face boxes' crops.
        points_BN2: float32, true keypoints in source pixels.
        flags_BN: int8, `schemas.records.Flag`.
        boxes_B4: float32, x, y, width, height of the square face box (enlarged as converted) in the frame.
        names, subjects, sets: image name, subject ('' unknown) and set id ('' unknown) of every face.
    """

    images_BHWC: np.ndarray
    points_BN2: np.ndarray
    flags_BN: np.ndarray
    boxes_B4: np.ndarray
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    sets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images_BHWC)

    @property
    def not_occluded_BN(self) -> np.ndarray:
        """True unless an annotator said occluded."""
        return self.flags_BN != Flag.OCCLUDED

    @property
    def crops(self) -> list[SquareCrop]:
        """Maps between the frame and the network's input, one per face."""
        size = self.images_BHWC.shape[1]
        return [SquareCrop.of_box(Box(*map(float, box)), size) for box in self.boxes_B4]


class EvaluationBatches:
    """Every face of `files` once, in order, the last batch as small as it comes; nothing random.

    Can be iterated again and again; the pipeline is built once, which takes TensorFlow a second.

    Args:
        batch_size: the spec's by default.
        boxes: other face boxes for a batch, of its number and its own (B, 4): x, y, side, side in the frame.

    Raises:
        ShardError, ImageError: on iterating, a file or an image in it can't be read.
    """

    def __init__(
        self,
        files: Sequence[Path],
        spec: ExperimentSpec,
        *,
        batch_size: int | None = None,
        boxes: OtherBoxes | None = None,
    ) -> None:
        def crop(number: tf.Tensor, records_B: tf.Tensor) -> dict[str, tf.Tensor]:
            return _cropped(records_B, spec, partial(boxes, number) if boxes else tf.identity)

        self._files = tuple(files)
        records = tf.data.TFRecordDataset([str(path) for path in files])
        batches = records.batch(batch_size or spec.dataloader.batch_size).enumerate()
        self._dataset = batches.map(crop, num_parallel_calls=2).prefetch(1)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        with shard_errors(*self._files):
            for faces in self._dataset.as_numpy_iterator():
                yield EvaluationBatch(
                    images_BHWC=faces["image_BHWC"],
                    points_BN2=faces["points_BN2"],
                    flags_BN=faces["flags_BN"],
                    boxes_B4=faces["box_B4"],
                    names=_texts(faces["name_B"]),
                    subjects=_texts(faces["subject_B"]),
                    sets=_texts(faces["set_B"]),
                )


def evaluation_batches(
    files: Sequence[Path], spec: ExperimentSpec, *, batch_size: int | None = None
) -> Iterator[EvaluationBatch]:
    """One run through `EvaluationBatches`."""
    return iter(EvaluationBatches(files, spec, batch_size=batch_size))


def _cropped(
    records_B: tf.Tensor, spec: ExperimentSpec, boxes: Callable[[tf.Tensor], tf.Tensor]
) -> dict[str, tf.Tensor]:
    faces, size = parse_faces(records_B, spec), spec.dataloader.image_info.image.height
    faces["box_B4"] = boxes(faces["box_B4"])
    matrix_B33 = crop_to_context(faces["box_B4"], faces["region_B3"], size=size, context_size=CONTEXT_SIZE)
    return faces | {"image_BHWC": warp(faces.pop("context_BSSC"), matrix_B33, size=size)}


def _texts(values: np.ndarray) -> tuple[str, ...]:
    return tuple(value.decode() for value in values)


def training_batches(
    files: Sequence[Path],
    spec: ExperimentSpec,
    *,
    epochs: range,
    steps: int,
    unlabelled_files: Sequence[Path] = (),
) -> tf.data.Dataset:
    """The batches of all `epochs`, one after the other, in orders and with random changes that the seed decides.

    An epoch's order comes from (seed, epoch), the changes from (seed, step), so a training that stopped goes on as if
    it had not. What is left of the last batch waits for the next epoch's order, unless it is all there is.

    Args:
        epochs: 0-based.
        steps: batches per epoch.
        unlabelled_files: where the spec names unlabelled sets, theirs; `spec.unlabelled_in_batch` faces of a batch
            come from them, after the labelled ones.

    Returns:
        Dataset of dicts: `image_BHWC`, `points_BN2` in pixels of the image, `counted_BN` (1 takes part in the loss),
        `visible_BN` (1 is not occluded), `judged_BN` (1 where that is known); with ELT also `moved_BHWC` (the same
        faces through one more map), `move_B33` that map, `mirrored_B`.
    """
    seed, unlabelled = spec.random_seed % 2**31, spec.unlabelled_in_batch
    times = {"epochs": epochs, "steps": steps}
    faces = face_batches(files, spec, batch=spec.dataloader.batch_size - unlabelled, **times)
    if unlabelled:
        others = face_batches(unlabelled_files, spec, batch=unlabelled, labelled=False, **times)
        faces = tf.data.Dataset.zip(faces, others).map(_together)

    def augmented(step: tf.Tensor, faces: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return _augmented(faces, spec, tf.stack([tf.constant(seed, tf.int64), step]))

    return faces.enumerate(start=epochs.start * steps).map(augmented, num_parallel_calls=2).prefetch(2)


def steps_per_epoch(records: int, spec: ExperimentSpec) -> int:
    """Whole batches in `records` labelled faces, at least one."""
    return max(1, records // (spec.dataloader.batch_size - spec.unlabelled_in_batch))


def targets(batch: EvaluationBatch, spec: ExperimentSpec) -> dict[str, tf.Tensor]:
    """What the spec's loss compares predictions for `batch` with, by the names of `training_batches`."""
    flagged_BN = tf.constant(batch.flags_BN != Flag.UNKNOWN)
    whole_B = counted_whole(tf.constant(batch.names), tf.constant(batch.sets), spec)
    size = spec.dataloader.image_info.image.height
    return {
        "points_BN2": to_crop(tf.constant(batch.points_BN2), tf.constant(batch.boxes_B4), size=size),
        "counted_BN": tf.cast(whole_B[:, None] | batch.not_occluded_BN, tf.float32),
        "visible_BN": tf.cast(batch.not_occluded_BN, tf.float32),
        "judged_BN": _judged(flagged_BN, tf.ones(len(batch), tf.bool), spec),
    }


def _together(*parts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}


@tf.autograph.experimental.do_not_convert
def _augmented(faces: dict[str, tf.Tensor], spec: ExperimentSpec, seed_2: tf.Tensor) -> dict[str, tf.Tensor]:
    augmentation, elt = spec.dataloader.augmentation_info, spec.loss.elt_loss_info
    size, flip = spec.dataloader.image_info.image.height, layout(spec.num_keypoints).flip
    to_context_B33, points_BN2, occluded_BN, flagged_BN = (
        faces[name] for name in ("to_context_B33", "points_BN2", "occluded_BN", "flagged_BN")
    )
    draws = Draws(seed_2, tf.shape(points_BN2)[0])
    if augmentation.enable_online_augmentation:
        map_B33, mirrored_B = random_affine(augmentation.modulus_spatial_augmentation, draws, size=size)
        to_context_B33 = to_context_B33 @ tf.linalg.inv(map_B33)
        points_BN2 = mirror_order(move_points(map_B33, points_BN2), mirrored_B, flip)
        occluded_BN, flagged_BN = (mirror_order(flags, mirrored_B, flip) for flags in (occluded_BN, flagged_BN))
    image_BHWC, covers = _view(faces["context_BSSC"], to_context_B33, augmentation, draws, size)
    hidden_BN = occluded_BN | covers.hide(points_BN2)
    if augmentation.mask_augmentation_patch:
        occluded_BN = hidden_BN
    counted_BN = faces["labelled_B"][:, None] & (faces["whole_B"][:, None] | ~occluded_BN)
    batch = {
        "image_BHWC": image_BHWC,
        "points_BN2": points_BN2,
        "counted_BN": tf.cast(counted_BN, tf.float32),
        "visible_BN": tf.cast(~hidden_BN, tf.float32),
        "judged_BN": _judged(flagged_BN, faces["labelled_B"], spec),
    }
    if elt.enable_elt_loss:
        move_B33, mirrored_B = random_affine(elt.modulus_spatial_augmentation, draws, size=size)
        moved_BHWC, _ = _view(
            faces["context_BSSC"], to_context_B33 @ tf.linalg.inv(move_B33), augmentation, draws, size
        )
        batch |= {"moved_BHWC": moved_BHWC, "move_B33": move_B33, "mirrored_B": mirrored_B}
    return batch


def _judged(flagged_BN: tf.Tensor, labelled_B: tf.Tensor, spec: ExperimentSpec) -> tf.Tensor:
    """(B, N) float32: 1 where a point takes part in the loss of its visibility."""
    return tf.cast(labelled_B[:, None] & (flagged_BN | spec.loss.unflagged_are_visible), tf.float32)


def _view(
    context_BSSC: tf.Tensor, to_context_B33: tf.Tensor, augmentation: Augmentation, draws: Draws, size: int
) -> tuple[tf.Tensor, Covers]:
    image_BHWC = warp(context_BSSC, to_context_B33, size=size)
    if not augmentation.enable_online_augmentation:
        return image_BHWC, Covers()
    return change_pixels(image_BHWC, augmentation, draws, size=size)
