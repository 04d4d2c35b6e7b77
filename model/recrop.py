"""KPI faces as another model sees them: the same records, cropped by another ratio.

A record's face box is the tight square of its true points, enlarged by the conversion's ratio; the same square
enlarged by another ratio is what that model's own conversion would have written. It is cut out of the record's crop
with context, which reaches `model.crop.CONTEXT_RATIO` times as far as the record's box; beyond, edges are repeated.

Legend: B batch, N keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.crop import CONTEXT_SIZE
from model.pipeline import EvaluationBatch
from model.record_tensors import parse_faces
from model.shards import shard_errors
from model.warp import crop_to_context, warp
from schemas.experiment import ExperimentSpec
from schemas.geometry import tight_square


def recropped_batches(files: Sequence[Path], spec: ExperimentSpec, *, ratio: float) -> Iterator[EvaluationBatch]:
    """Every face of `files` once, in order, as `model.pipeline.evaluation_batches`, its box enlarged by `ratio`.

    Args:
        spec: whose input size and channels to crop for.

    Raises:
        ShardError, ImageError: on iterating, a file or an image in it can't be read.
    """
    records = tf.data.TFRecordDataset([str(path) for path in files]).batch(spec.dataloader.batch_size)
    size = spec.dataloader.image_info.image.height
    with shard_errors():
        for faces in records.map(lambda records_B: parse_faces(records_B, spec)).as_numpy_iterator():
            boxes_B4 = _boxes(faces["points_BN2"], ratio)
            matrix_B33 = crop_to_context(boxes_B4, faces["region_B3"], size=size, context_size=CONTEXT_SIZE)
            yield EvaluationBatch(
                images_BHWC=warp(faces["context_BSSC"], matrix_B33, size=size).numpy(),
                points_BN2=faces["points_BN2"],
                flags_BN=faces["flags_BN"],
                boxes_B4=boxes_B4,
                names=_texts(faces["name_B"]),
                subjects=_texts(faces["subject_B"]),
                sets=_texts(faces["set_B"]),
            )


def _boxes(points_BN2: np.ndarray, ratio: float) -> np.ndarray:
    return np.array([tight_square(points_N2).enlarged(ratio) for points_N2 in points_BN2], np.float32)


def _texts(values: np.ndarray) -> tuple[str, ...]:
    return tuple(value.decode() for value in values)
