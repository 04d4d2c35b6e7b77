"""Shards: complete, reused by content, the same whatever interrupted them, and closed to KPI subjects."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from filelock import FileLock, Timeout

from schemas.config import ConversionSettings, SplitPolicy
from schemas.errors import ImageError, StorageError, SubjectLeakError
from schemas.geometry import tight_square
from schemas.records import Face, Split, faces_to_table
from schemas.storage import read_json
from tasks.convert import convert
from tasks.snapshot import FACES, Snapshot
from tasks.splits import assign_splits
from tasks.workspace import Workspace
from tests.raw_records import HEIGHT, WIDTH, some_flags, some_points, write_image

SETTINGS = ConversionSettings(buckets=3)


def make_faces(folder: Path, count: int = 24) -> list[Face]:
    faces = []
    for number in range(count):
        image = write_image(folder / f"{number}.png", seed=number)
        faces.append(
            Face(
                source_key=f"s:{number}",
                image=str(image),
                image_name=image.name,
                image_sha256=sha256(image.read_bytes()).hexdigest(),
                frame_width=WIDTH,
                frame_height=HEIGHT,
                subject=f"d/{number // 2}",
                set_id="all",
                points_N2=some_points(number),
                flags_N=some_flags(number),
            )
        )
    return faces


def make_snapshot(directory: Path, faces: list[Face], splits: list[Split] | None = None) -> Snapshot:
    policy = SplitPolicy(kpi_subjects=["d/0", "d/1"], validation_share=0.3)
    directory.mkdir(parents=True)
    table = faces_to_table(faces, splits or assign_splits(faces, policy), faces[0].num_keypoints)
    pq.write_table(table, directory / FACES, row_group_size=7)
    return Snapshot("f" * 64, directory, faces[0].num_keypoints, frozenset({"d/0", "d/1"}))


@pytest.fixture
def snapshot(tmp_path):
    return make_snapshot(tmp_path / "snapshot", make_faces(tmp_path / "images"))


@pytest.fixture
def altered(snapshot, tmp_path):
    """Makes the snapshot that differs in some faces, given by position."""

    def alter(faces: dict[int, dict]) -> Snapshot:
        changed = [replace(face, **faces.get(number, {})) for number, face in enumerate(snapshot.faces)]
        return make_snapshot(tmp_path / f"altered-{len(list(tmp_path.iterdir()))}", changed, snapshot.splits)

    return alter


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def records_of(files):
    for path in files:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield tf.train.Example.FromString(record).features.feature


def shard_bytes(workspace):
    return {path.name: path.read_bytes() for path in workspace.shards.glob("*.tfrecords")}


def test_every_face_is_in_one_shard_of_its_split(snapshot, workspace):
    seen = []
    conversion = convert(snapshot, SETTINGS, workspace, progress=lambda *counts: seen.append(counts))
    for split in Split:
        names = [
            record["train/image_frame_name"].bytes_list.value[0] for record in records_of(conversion.files[split])
        ]
        expected = [f.image_name.encode() for f, s in zip(snapshot.faces, snapshot.splits, strict=True) if s is split]
        assert sorted(names) == sorted(expected) and names
        assert conversion.result["splits"][split]["records"] == len(names)
    assert conversion.result["splits"]["kpi"]["subjects"] == ["d/0", "d/1"]
    assert seen == [(done, 24) for done in range(25)]
    manifest = read_json(workspace.conversions / conversion.key / "manifest.json")
    assert manifest["result"] == conversion.result


def test_records_hold_the_crop_and_the_floats(snapshot, workspace):
    conversion = convert(snapshot, SETTINGS, workspace)
    by_name = {face.image_name: face for face in snapshot.faces}
    for record in records_of(path for files in conversion.files.values() for path in files):
        face = by_name[record["train/image_frame_name"].bytes_list.value[0].decode()]
        np.testing.assert_array_equal(record["train/landmarks"].float_list.value, face.points_N2.reshape(-1))
        box = [record[f"train/facebbx_{side}"].int64_list.value[0] for side in "xywh"]
        assert box == list(tight_square(face.points_N2))
        assert tf.io.decode_png(record["image/encoded"].bytes_list.value[0]).shape == (160, 160, 1)


def test_second_conversion_writes_nothing(snapshot, workspace):
    first = convert(snapshot, SETTINGS, workspace)
    stamps = {path: path.stat().st_mtime_ns for path in workspace.shards.iterdir() if path.name != ".lock"}
    seen = []
    second = convert(snapshot, SETTINGS, workspace, progress=lambda *counts: seen.append(counts))
    assert (first.written, second.written, second.reused) == (first.written, 0, first.written)
    assert seen == [(24, 24)]
    assert second.key == first.key and second.files == first.files
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_one_changed_annotation_rewrites_one_shard(snapshot, altered, workspace, tmp_path):
    convert(snapshot, SETTINGS.model_copy(update={"bbox_enlarge_ratio": 1.5}), workspace)  # older, of other crops
    first = convert(snapshot, SETTINGS, workspace)
    changed = altered({0: {"flags_N": 1 - snapshot.faces[0].flags_N}})
    images = tmp_path / "images"
    for face in changed.faces[1:]:
        (images / face.image_name).unlink()  # only the changed face's is read
    second = convert(changed, SETTINGS, workspace)
    assert second.written == 1 and second.reused == first.written - 1 and second.key != first.key
    for face in changed.faces:
        write_image(images / face.image_name, seed=int(Path(face.image_name).stem))
    other = Workspace(tmp_path / "other")
    assert convert(changed, SETTINGS, other).result == second.result


def test_face_that_is_gone_needs_no_image(snapshot, workspace, tmp_path):
    first = convert(snapshot, SETTINGS, workspace)
    for face in snapshot.faces:
        Path(face.image).unlink()
    last = max(number for number, split in enumerate(snapshot.splits) if split is Split.TRAIN)
    faces, splits = list(snapshot.faces), list(snapshot.splits)
    del faces[last], splits[last]
    second = convert(make_snapshot(tmp_path / "smaller", faces, splits), SETTINGS, workspace)
    assert second.written <= 1
    assert second.result["splits"]["train"]["records"] == first.result["splits"]["train"]["records"] - 1


def test_order_of_faces_does_not_matter(snapshot, workspace, tmp_path):
    convert(snapshot, SETTINGS, workspace)
    turned = make_snapshot(tmp_path / "turned", snapshot.faces[::-1], snapshot.splits[::-1])
    other = Workspace(tmp_path / "other")
    convert(turned, SETTINGS, other)
    assert shard_bytes(workspace) == shard_bytes(other)


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:-9]), lambda p: p.unlink()])
def test_damaged_shard_is_made_again(snapshot, workspace, damage):
    convert(snapshot, SETTINGS, workspace)
    before = shard_bytes(workspace)
    damage(workspace.shards / sorted(before)[0])
    assert convert(snapshot, SETTINGS, workspace).written == 1
    assert shard_bytes(workspace) == before


def test_shard_whose_description_is_damaged_is_made_again(snapshot, workspace):
    convert(snapshot, SETTINGS, workspace)
    description = sorted(workspace.shards.glob("*.json"))[0]
    description.write_bytes(description.read_bytes()[:-9])
    assert convert(snapshot, SETTINGS, workspace).written == 1


def test_shard_that_is_not_the_file_that_was_hashed_is_hashed_again(snapshot, workspace):
    convert(snapshot, SETTINGS, workspace)
    damaged, sound = sorted(workspace.shards.glob("*.tfrecords"))[:2]
    before = shard_bytes(workspace)
    for path in (damaged, sound):
        stamp = path.stat()
        path.write_bytes(before[path.name] if path is sound else bytes(reversed(before[path.name])))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert convert(snapshot, SETTINGS, workspace).written == 1
    assert shard_bytes(workspace) == before


@pytest.mark.parametrize("change", [{"color": "rgb"}, {"embed_crops": False}, {"bbox_enlarge_ratio": 1.3}])
def test_settings_change_every_shard(snapshot, workspace, change):
    first = convert(snapshot, SETTINGS, workspace)
    second = convert(snapshot, SETTINGS.model_copy(update=change), workspace)
    assert second.written == first.written


def test_without_embedding_no_image_is_needed(altered, workspace):
    moved = altered({number: {"image": "nowhere.png"} for number in range(24)})
    conversion = convert(moved, SETTINGS.model_copy(update={"embed_crops": False}), workspace)
    assert all("image/encoded" not in record for record in records_of(conversion.files[Split.TRAIN]))


def test_image_that_is_gone_or_another_stops_the_conversion(snapshot, workspace):
    image = Path(snapshot.faces[5].image)
    write_image(image, seed=99)
    with pytest.raises(ImageError, match=r"5\.png: has changed since it was validated"):
        convert(snapshot, SETTINGS, workspace)
    image.unlink()
    with pytest.raises(ImageError, match=r"5\.png does not exist: it was there, and whole, when it was validated"):
        convert(snapshot, SETTINGS, workspace)
    write_image(image, seed=5)
    assert convert(snapshot, SETTINGS, workspace).result["splits"]["train"]["records"]


def test_image_whose_pixels_cannot_be_decoded_is_named(snapshot, altered, workspace, tmp_path):
    header = b"IHDR" + (64).to_bytes(4, "big") + (48).to_bytes(4, "big") + b"\x08\0\0\0\0"
    chunks = [header, b"IDAT" + b"no compressed data", b"IEND"]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(chunk) - 4).to_bytes(4, "big") + chunk + crc32(chunk).to_bytes(4, "big") for chunk in chunks
    )
    image = tmp_path / "sound-outside.png"
    image.write_bytes(data)
    broken = altered({3: {"image": str(image), "image_sha256": sha256(data).hexdigest()}})
    with pytest.raises(ImageError, match=r"sound-outside\.png: not an image that can be decoded"):
        convert(broken, SETTINGS, workspace)


def test_kpi_subject_in_training_is_refused_before_anything_is_written(snapshot, workspace, tmp_path):
    leaky = make_snapshot(tmp_path / "leaky", snapshot.faces, [Split.TRAIN, *snapshot.splits[1:]])
    with pytest.raises(SubjectLeakError, match="snapshot ffffffffffff, split train: KPI subject d/0 must"):
        convert(leaky, SETTINGS, workspace)
    assert not workspace.shards.exists()


def test_dropped_faces_are_listed(snapshot, altered, workspace):
    low = np.float32(snapshot.faces[7].points_N2 * [1, 1.3] - [8, 0])
    lowered = altered({7: {"points_N2": low}})
    outside = [f.source_key for f in lowered.faces if not tight_square(f.points_N2).inside(WIDTH, HEIGHT)]
    assert outside
    conversion = convert(lowered, SETTINGS.model_copy(update={"box_outside_frame": "drop"}), workspace)
    assert [row["record"] for row in conversion.result["dropped"]] == outside
    assert {row["code"] for row in conversion.result["dropped"]} == {"box-outside-frame"}
    kept = sum(split["records"] for split in conversion.result["splits"].values())
    assert kept == 24 - len(outside)
    assert convert(lowered, SETTINGS, workspace).result["dropped"] == []


INTERRUPTED = """
import os, pickle, signal, sys
from schemas.config import ConversionSettings
from tasks.convert import convert

snapshot, settings, workspace, stop_after = pickle.load(sys.stdin.buffer)

def die(done, of):
    if done == stop_after:
        os.kill(os.getpid(), signal.SIGKILL)

convert(snapshot, settings, workspace, progress=die)
"""


def test_killed_conversion_is_completed_with_the_same_bytes(snapshot, workspace, tmp_path):
    root = Path(__file__).parent.parent
    given = pickle.dumps((snapshot, SETTINGS, workspace, 17))
    killed = subprocess.run([sys.executable, "-c", INTERRUPTED], input=given, cwd=root, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert list(workspace.shards.glob(".*.tmp*")) and not workspace.conversions.exists()
    finished = len(list(workspace.shards.glob("*.json")))
    assert finished > 0
    resumed = convert(snapshot, SETTINGS, workspace)
    undisturbed_place = Workspace(tmp_path / "undisturbed")
    undisturbed = convert(snapshot, SETTINGS, undisturbed_place)
    assert resumed.reused == finished and resumed.key == undisturbed.key
    assert shard_bytes(workspace) == shard_bytes(undisturbed_place)
    assert not list(workspace.shards.glob(".*.tmp*"))


def test_a_place_where_no_shard_can_be_kept_is_named(snapshot, workspace):
    workspace.root.write_text("no folder")
    with pytest.raises(StorageError, match="shards: can't be made"):
        convert(snapshot, SETTINGS, workspace)


def test_one_conversion_at_a_time(snapshot, workspace):
    held = []

    def look(done, of):
        if done:
            with pytest.raises(Timeout), FileLock(workspace.shards / ".lock", timeout=0):
                pass
            held.append(done)

    convert(snapshot, SETTINGS, workspace, progress=look)
    assert held == list(range(1, 25))
