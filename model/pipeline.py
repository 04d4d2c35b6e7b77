"""Batches for training and for evaluation, out of TFRecord files.

Legend: B batch, H W rows and columns of the network's input, C channels, N keypoints, S side of the context crop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.crop import CONTEXT_SIZE
from model.shards import face_dataset, shard_errors
from model.warp import crop_to_context, warp
from schemas.experiment import ExperimentSpec
from schemas.geometry import Box, SquareCrop
from schemas.records import Flag


@dataclass(frozen=True, eq=False)
class EvaluationBatch:
    """Faces as the network sees them, and what is known about them.

    Attributes:
        images_BHWC: float32, 0..255: the face boxes' crops.
        points_BN2: float32, true keypoints in source pixels.
        flags_BN: int8, `schemas.records.Flag`.
        boxes_B4: float32, x, y, width, height of the square face box (enlarged as converted) in the frame.
        frame_sizes_B2: int64, width and height of the frame.
        names, subjects, sets: image name, subject ('' unknown) and set id ('' unknown) of every face.
    """

    images_BHWC: np.ndarray
    points_BN2: np.ndarray
    flags_BN: np.ndarray
    boxes_B4: np.ndarray
    frame_sizes_B2: np.ndarray
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    sets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images_BHWC)

    @property
    def visible_BN(self) -> np.ndarray:
        """True unless an annotator said occluded."""
        return self.flags_BN != Flag.OCCLUDED

    @property
    def crops(self) -> list[SquareCrop]:
        """Maps between the frame and the network's input, one per face."""
        size = self.images_BHWC.shape[1]
        return [SquareCrop.of_box(Box(*map(float, box)), size) for box in self.boxes_B4]


def evaluation_batches(
    files: Sequence[Path], spec: ExperimentSpec, *, batch_size: int | None = None
) -> Iterator[EvaluationBatch]:
    """Every face of `files` once, in order, the last batch as small as it comes; nothing random.

    Args:
        batch_size: the spec's by default.

    Raises:
        ShardError: a file or an image in it can't be read.
    """
    names = tf.data.Dataset.from_tensor_slices([str(path) for path in files])
    batches = face_dataset(names, spec).batch(batch_size or spec.dataloader.batch_size)
    batches = batches.map(lambda faces: _with_crops(faces, spec.dataloader.image_info.image.height)).prefetch(1)
    with shard_errors():
        for faces in batches.as_numpy_iterator():
            yield EvaluationBatch(
                images_BHWC=faces["image"],
                points_BN2=faces["points_N2"],
                flags_BN=faces["flags_N"],
                boxes_B4=faces["box_4"],
                frame_sizes_B2=faces["frame_2"],
                names=_texts(faces["name"]),
                subjects=_texts(faces["subject"]),
                sets=_texts(faces["set"]),
            )


def _with_crops(faces: dict[str, tf.Tensor], size: int) -> dict[str, tf.Tensor]:
    matrix_B33 = crop_to_context(faces["box_4"], faces["region_3"], size=size, context_size=CONTEXT_SIZE)
    rest = {key: value for key, value in faces.items() if key != "context_SSC"}
    return rest | {"image": warp(faces["context_SSC"], matrix_B33, size=size)}


def _texts(values: np.ndarray) -> tuple[str, ...]:
    return tuple(value.decode() for value in values)
