"""Serialised face records into tensors, a batch at a time.

Legend: B batch, N keypoints, S side of the context crop in pixels, C channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from model.crop import CONTEXT_SIZE, context_crop, crop_face
from model.images import read_image
from schemas.experiment import ExperimentSpec
from schemas.geometry import Box

BOX = [f"train/facebbx_{side}" for side in "xywh"]
_TEXT = tf.io.FixedLenFeature([], tf.string, "")
_OURS = {
    "image/subject": _TEXT,
    "image/set": _TEXT,
    "image/encoded": _TEXT,
    "image/region": tf.io.FixedLenFeature([3], tf.float32, [0.0, 0.0, 0.0]),
}
FEATURES = {
    "train/image_frame_name": tf.io.FixedLenFeature([], tf.string),
    **{key: tf.io.FixedLenFeature([], tf.int64) for key in BOX},
    **_OURS,
}
"""TAO's features without the labels and the frame's size, and ours, which may be missing."""

LABELS = {
    "train/landmarks": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True, default_value=np.nan),
    "train/landmarks_occ": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True, default_value=-1),
    "image/occ_known": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True, default_value=1),
}


@tf.autograph.experimental.do_not_convert
def parse_faces(records_B: tf.Tensor, spec: ExperimentSpec, *, labelled: bool = True) -> dict[str, tf.Tensor]:
    """Records as tensors. What is wrong with one is TensorFlow's error (`model.shards.shard_errors`).

    Args:
        labelled: False leaves keypoints and flags unread; the records need none.

    Returns:
        `context_BSSC` uint8 and `region_B3` (x0, y0, side in the frame), `box_B4` (x, y, w, h) float32, `name_B`,
        `subject_B`, `set_B`; with labels `points_BN2` float32 in source pixels and `flags_BN` int8
        (`schemas.records.Flag`).
    """
    features = tf.io.parse_example(records_B, FEATURES | (LABELS if labelled else {}))
    name_B = features["train/image_frame_name"]
    box_B4 = tf.cast(tf.stack([features[key] for key in BOX], axis=1), tf.float32)
    context_BSSC, region_B3 = _contexts(features, spec.dataloader.root_path + name_B, box_B4, spec)
    faces = {
        "context_BSSC": context_BSSC,
        "region_B3": region_B3,
        "box_B4": box_B4,
        "name_B": name_B,
        "subject_B": features["image/subject"],
        "set_B": features["image/set"],
    }
    return faces | (_labels(features, spec.num_keypoints) if labelled else {})


def _labels(features: dict[str, tf.Tensor], n: int) -> dict[str, tf.Tensor]:
    """A record with too few values has been filled up with what no record holds."""
    faces = tf.shape(features["train/landmarks"])[0]
    points_BN2 = tf.reshape(features["train/landmarks"][:, : 2 * n], (faces, n, 2))
    occluded_BN = tf.reshape(features["train/landmarks_occ"][:, :n], (faces, n))
    few = f"a record has fewer than {n} keypoints, or one that is not a number"
    tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(points_BN2)) & tf.reduce_all(occluded_BN >= 0), [few])
    known_BN = features["image/occ_known"][:, :n]
    known_BN = tf.pad(known_BN, [[0, 0], [0, n - tf.shape(known_BN)[1]]], constant_values=1)
    flags_BN = tf.cast(tf.where(known_BN > 0, tf.minimum(occluded_BN, 1), -1), tf.int8)
    return {"points_BN2": points_BN2, "flags_BN": tf.ensure_shape(flags_BN, (None, n))}


def _contexts(
    features: dict[str, tf.Tensor], path_B: tf.Tensor, box_B4: tf.Tensor, spec: ExperimentSpec
) -> tuple[tf.Tensor, tf.Tensor]:
    """The embedded crops with context and where they lie, or those that would have been embedded."""
    channels = spec.dataloader.image_info.image.channel
    shape = (CONTEXT_SIZE, CONTEXT_SIZE, channels)

    def context(face: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, region_3, path, box_4 = face
        context_SSC, region_3 = tf.cond(
            tf.strings.length(encoded) > 0,
            lambda: (tf.io.decode_png(encoded, channels=channels), region_3),
            lambda: _read_context(path, box_4, channels),
        )
        return tf.ensure_shape(context_SSC, shape), tf.ensure_shape(region_3, (3,))

    faces = (features["image/encoded"], features["image/region"], path_B, box_B4)
    kinds = tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((3,), tf.float32)
    return tf.map_fn(context, faces, fn_output_signature=kinds)


def _read_context(path: tf.Tensor, box_4: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The crop that a record without one would have embedded, from its image file."""

    def read(path: bytes, box_4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        crop = context_crop(Box(*map(float, box_4)))
        context = crop_face(read_image(Path(path.decode()), channels=channels), crop)
        region_3 = np.array([crop.x0, crop.y0, crop.side], np.float32)
        return context.reshape(CONTEXT_SIZE, CONTEXT_SIZE, channels), region_3

    return tuple(tf.numpy_function(read, [path, box_4], (tf.uint8, tf.float32), stateful=False))
