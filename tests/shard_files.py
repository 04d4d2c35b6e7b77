"""TFRecord files of made-up faces, for tests: N bright blobs on a dark, uneven ground, one per keypoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from model.crop import context_crop, crop_face
from schemas.experiment import ExperimentSpec
from schemas.geometry import Box, tight_square
from schemas.yamlspec import parse_spec


@dataclass(frozen=True, eq=False)
class BlobFace:
    name: str
    subject: str
    set_id: str
    image: np.ndarray
    points_N2: np.ndarray
    flags_N: np.ndarray
    box: Box


def blob_face(
    index: int, *, num_keypoints: int = 5, frame: tuple[int, int] = (200, 180), ratio: float = 1.3
) -> BlobFace:
    rng = np.random.default_rng(index)
    width, height = frame
    points_N2 = (rng.uniform(-32, 32, (num_keypoints, 2)) + np.array([width / 2, height / 2])).astype(np.float32)
    rows, columns = np.mgrid[:height, :width]
    image = 20.0 + 10 * np.sin(columns / 17) + 10 * np.cos(rows / 23)
    for order, (x, y) in enumerate(points_N2):
        image += (120 + 100 * order / num_keypoints) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
    return BlobFace(
        name=f"images/{index:04d}.png",
        subject=f"blobs/{index // 2:03d}",
        set_id="blobs",
        image=np.clip(image, 0, 255).astype(np.uint8),
        points_N2=points_N2,
        flags_N=rng.integers(-1, 2, num_keypoints).astype(np.int8),
        box=tight_square(points_N2).enlarged(ratio),
    )


def face_record(face: BlobFace, *, embed: bool = True, tao_only: bool = False) -> bytes:
    features = _tao_features(face)
    if not tao_only:
        features |= _our_features(face)
        if embed:
            features |= _embedded(face)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_shard(path: Path, faces: list[BlobFace], *, embed: bool = True, tao_only: bool = False) -> Path:
    """`tao_only` leaves out all features of ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for face in faces:
            writer.write(face_record(face, embed=embed, tao_only=tao_only))
    return path


def write_images(folder: Path, faces: list[BlobFace]) -> None:
    for face in faces:
        (folder / face.name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / face.name), face.image)


def small_spec(changes: str = "", *, num_keypoints: int = 5, root_path: str = "") -> ExperimentSpec:
    """A spec for a tiny network; `changes` is YAML for further top-level keys, which replace these."""
    base = f"""
num_keypoints: {num_keypoints}
num_epoch: 2
model: {{model_parameters: {{type: ResidualUNet, width: 8}}}}
optimizer: {{learning_rate_schedule: {{soft_start: 0.1, annealing: 0.5, base_learning_rate: 0.002}}}}
loss: {{loss_type: wing_loss}}
dataloader:
  batch_size: 8
  num_keypoints: {num_keypoints}
  dataset_info:
    root_path: "{root_path}"
    tfrecords_directory_path: .
    tfrecord_folder_name: records
    tfrecord_file_name: data.tfrecords
    tfrecords_set_id_train: a
    tfrecords_set_id_val: b
  kpiset_info: {{tfrecords_set_id_kpi: c}}
"""
    replaced = {line.split(":")[0] for line in changes.splitlines() if line and line[0].isalpha()}
    kept, keep = [], True
    for line in base.splitlines():
        if line and line[0].isalpha():
            keep = line.split(":")[0] not in replaced
        if keep:
            kept.append(line)
    return parse_spec(ExperimentSpec, "\n".join(kept) + "\n" + changes, "small spec")


def _tao_features(face: BlobFace) -> dict[str, tf.train.Feature]:
    height, width = face.image.shape
    x, y, w, h = map(int, face.box)
    return {
        "train/image_frame_name": _bytes(face.name.encode()),
        "train/image_frame_width": _ints([width]),
        "train/image_frame_height": _ints([height]),
        "train/facebbx_x": _ints([x]),
        "train/facebbx_y": _ints([y]),
        "train/facebbx_w": _ints([w]),
        "train/facebbx_h": _ints([h]),
        "train/landmarks": _floats(face.points_N2.reshape(-1)),
        "train/landmarks_occ": _ints((face.flags_N == 1).astype(int)),
    }


def _our_features(face: BlobFace) -> dict[str, tf.train.Feature]:
    return {
        "image/occ_known": _ints((face.flags_N >= 0).astype(int)),
        "image/subject": _bytes(face.subject.encode()),
        "image/set": _bytes(face.set_id.encode()),
    }


def _embedded(face: BlobFace) -> dict[str, tf.train.Feature]:
    crop = context_crop(face.box)
    png = cv2.imencode(".png", crop_face(face.image, crop))[1].tobytes()
    return {"image/encoded": _bytes(png), "image/region": _floats([crop.x0, crop.y0, crop.side])}


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
