"""Records as written: TAO's nine features and ours, the same bytes every time, read back by the input pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.crop import context_crop, crop_face
from model.images import decode_image, encode_png
from model.record_tensors import parse_faces
from model.tfrecords import count_records, serialize_face, write_records
from schemas.errors import ShardError
from schemas.geometry import tight_square
from schemas.records import Face, Flag
from tests.shard_files import small_spec

POINTS = np.float32([[10.25, 12.5], [30, 11], [20.75, 40], [15, 22], [28, 33]])


def face(points_N2=POINTS, flags_N=(0, 1, -1, 0, 1), **more):
    fields = {
        "source_key": "s:1", "image": "nowhere", "image_name": "images/ä.png", "image_sha256": "0" * 64,
        "frame_width": 64, "frame_height": 48, "subject": "d/001", "set_id": "train",
    }  # fmt: skip
    return Face(**{**fields, **more}, points_N2=points_N2, flags_N=np.array(flags_N, np.int8))


def frame(channels, seed=0):
    shape = (48, 64) if channels == 1 else (48, 64, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def features(record):
    return tf.train.Example.FromString(record).features.feature


def test_taos_nine_features_and_ours():
    found = features(serialize_face(face(), tight_square(POINTS).enlarged(1.3)))
    values = {
        name: list(feature.bytes_list.value or feature.int64_list.value or feature.float_list.value)
        for name, feature in found.items()
    }
    assert values == {
        "train/image_frame_name": ["images/ä.png".encode()],
        "train/image_frame_width": [64],
        "train/image_frame_height": [48],
        "train/facebbx_x": [1],
        "train/facebbx_y": [7],
        "train/facebbx_w": [37],
        "train/facebbx_h": [37],
        "train/landmarks": POINTS.reshape(-1).tolist(),
        "train/landmarks_occ": [0, 1, 0, 0, 1],
        "image/occ_known": [1, 1, 0, 1, 1],
        "image/subject": [b"d/001"],
        "image/set": [b"train"],
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_embedded_crop_is_the_context_of_the_box(channels):
    box = tight_square(POINTS)
    found = features(serialize_face(face(), box, frame(channels)))
    crop = context_crop(box)
    assert list(found["image/region"].float_list.value) == pytest.approx([crop.x0, crop.y0, crop.side])
    pixels = decode_image(found["image/encoded"].bytes_list.value[0], channels=channels, name="x")
    np.testing.assert_array_equal(pixels, crop_face(frame(channels), crop))


def test_png_keeps_colours():
    image = frame(3)
    np.testing.assert_array_equal(decode_image(encode_png(image), channels=3, name="x"), image)


faces = st.builds(
    face,
    hnp.arrays(np.float32, (5, 2), elements=st.floats(-500, 5000, width=32)).filter(lambda p: np.ptp(p) > 0),
    st.lists(st.sampled_from(list(Flag)), min_size=5, max_size=5),
    subject=st.none() | st.text(min_size=1, max_size=8),
)


@settings(max_examples=5)
@given(written=st.lists(faces, min_size=5, max_size=10), ratio=st.sampled_from([1.0, 1.3, 2.0]))
def test_records_round_trip_through_the_input_pipeline(tmp_path_factory, written, ratio):
    boxes = [tight_square(face.points_N2).enlarged(ratio) for face in written]
    path = tmp_path_factory.mktemp("shard") / "a.tfrecords"
    records = (serialize_face(face, box, frame(1)) for face, box in zip(written, boxes, strict=True))
    assert write_records(path, records) == len(written)
    spec = small_spec()
    dataset = tf.data.TFRecordDataset(str(path)).batch(16).map(lambda records_B: parse_faces(records_B, spec))
    (read,) = dataset.as_numpy_iterator()
    for index, (face, box) in enumerate(zip(written, boxes, strict=True)):
        np.testing.assert_array_equal(read["points_BN2"][index], face.points_N2)
        np.testing.assert_array_equal(read["flags_BN"][index], face.flags_N)
        np.testing.assert_array_equal(read["box_B4"][index], np.float32(box))
        assert read["name_B"][index].decode() == face.image_name
        assert (read["subject_B"][index].decode(), read["set_B"][index]) == (face.subject or "", b"train")


@given(faces, st.none() | st.just(frame(1)), st.sampled_from([1.0, 3.0]))
def test_bytes_are_those_of_protocol_buffers(written, image, ratio):
    record = serialize_face(written, tight_square(written.points_N2).enlarged(ratio), image)
    assert tf.train.Example.FromString(record).SerializeToString(deterministic=True) == record


@settings(max_examples=20)
@given(records=st.lists(st.integers(4, 3000).map(lambda n: bytes(i * n % 251 for i in range(n))), max_size=12))
def test_files_are_those_of_tensorflow(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("shard")
    assert write_records(folder / "ours", iter(records)) == len(records)
    with tf.io.TFRecordWriter(str(folder / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


def test_records_of_many_batches_come_in_order(tmp_path):
    records = [f"record {number:06d}".encode() for number in range(1300)]
    assert write_records(tmp_path / "a", iter(records)) == 1300
    assert list(tf.data.TFRecordDataset(str(tmp_path / "a")).as_numpy_iterator()) == records


FULL_DISK = """
import resource
from pathlib import Path
from model.tfrecords import write_records
from schemas.errors import StorageError

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_records(Path("shards/a.tfrecords"), (bytes(10_000) for _ in range(100)))
except StorageError as error:
    print(error)
"""


def test_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tfrecords").write_bytes(b"old")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    told = subprocess.run(
        [sys.executable, "-c", FULL_DISK], cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
    )
    assert "shards/a.tfrecords: can't be written: File too large. Nothing half-written is left" in told.stdout
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["a.tfrecords"]
    assert (tmp_path / "shards" / "a.tfrecords").read_bytes() == b"old"


@pytest.mark.parametrize("sizes", [[], [4], [5, 70_000, 4, 12]])
def test_records_are_counted_whatever_their_length(tmp_path, sizes):
    files = [tmp_path / "a.tfrecords", tmp_path / "b.tfrecords"]
    for file in files:
        write_records(file, (b"x" * size for size in sizes))
    assert count_records(files) == 2 * len(sizes)


def test_a_damaged_length_is_an_error_of_that_file(tmp_path):
    file = tmp_path / "a.tfrecords"
    write_records(file, [b"record"] * 3)
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
    with pytest.raises(ShardError, match=r"a\.tfrecords: ends within a record"):
        count_records([file])


@pytest.mark.parametrize("lost", [1, 4, 5, 13])
def test_a_file_that_lost_its_end_is_an_error_of_that_file(tmp_path, lost):
    file = tmp_path / "a.tfrecords"
    write_records(file, [b"record"] * 3)
    file.write_bytes(file.read_bytes()[:-lost])
    with pytest.raises(ShardError, match=r"a\.tfrecords: ends within a record"):
        count_records([file])
