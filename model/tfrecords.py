"""Writing TFRecord files of faces: TAO's nine features, and ours beside them. `model.shards` reads them.

Legend: N keypoints, S side of the context crop in pixels, C channels.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.crop import context_crop, crop_face
from model.images import encode_png
from schemas.geometry import Box
from schemas.records import Face, Flag
from schemas.storage import atomic_path

_ERRNO = {
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
    tf.errors.OutOfRangeError: errno.EFBIG,  # what TensorFlow makes of "File too large"
    tf.errors.PermissionDeniedError: errno.EACCES,
}


def serialize_face(face: Face, face_box: Box, frame: np.ndarray | None = None) -> bytes:
    """One face as a `tf.train.Example`; equal arguments give equal bytes.

    Args:
        face_box: square, whole pixels, in the frame or partly outside.
        frame: uint8, (H, W) or (H, W, C); with it the crop with context is embedded.
    """
    features = {
        "train/image_frame_name": _bytes(face.image_name.encode()),
        "train/image_frame_width": _ints([face.frame_width]),
        "train/image_frame_height": _ints([face.frame_height]),
        **{f"train/facebbx_{side}": _ints([int(value)]) for side, value in zip("xywh", face_box, strict=True)},
        "train/landmarks": _floats(face.points_N2.reshape(-1)),
        "train/landmarks_occ": _ints(face.flags_N == Flag.OCCLUDED),
        "image/occ_known": _ints(face.flags_N != Flag.UNKNOWN),
        "image/subject": _bytes((face.subject or "").encode()),
        "image/set": _bytes(face.set_id.encode()),
    }
    if frame is not None:
        crop = context_crop(face_box)
        features["image/encoded"] = _bytes(encode_png(crop_face(frame, crop)))
        features["image/region"] = _floats([crop.x0, crop.y0, crop.side])
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Replace `path` by a TFRecord file of `records`, atomically; return their number.

    Raises:
        StorageError: the disk is full or the place can't be written; nothing half-written is left.
    """
    count = 0
    with atomic_path(path) as temporary:
        try:
            with tf.io.TFRecordWriter(str(temporary)) as writer:
                for record in records:
                    writer.write(record)
                    count += 1
        except tuple(_ERRNO) as error:
            code = _ERRNO[type(error)]
            raise OSError(code, os.strerror(code)) from error
    return count


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values: Sequence[int] | np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.asarray(values, np.int64)))


def _floats(values: Sequence[float] | np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=np.asarray(values, np.float32)))
