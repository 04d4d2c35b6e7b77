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

import numpy as np
import pytest
import tensorflow as tf

from schemas.config import ConversionSettings, SplitPolicy
from schemas.errors import ShardError, SubjectLeakError
from schemas.geometry import Box, tight_square
from schemas.records import Face, Split
from schemas.storage import read_json
from tasks.convert import convert
from tasks.faceboxes import box_faces, unreachable_share
from tasks.snapshot import Snapshot
from tasks.splits import assign_splits
from tasks.workspace import Workspace
from tests.raw_records import HEIGHT, WIDTH, some_flags, some_points, write_image

SETTINGS = ConversionSettings(buckets=3)


def make_snapshot(folder: Path, count: int = 24) -> Snapshot:
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
    policy = SplitPolicy(kpi_subjects=["d/0", "d/1"], validation_share=0.3)
    return Snapshot("f" * 64, folder, 5, faces, assign_splits(faces, policy), [], [], frozenset({"d/0", "d/1"}))


@pytest.fixture
def snapshot(tmp_path):
    return make_snapshot(tmp_path / "images")


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
    assert seen == [(done, 24) for done in range(1, 25)]
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
    stamps = {path: path.stat().st_mtime_ns for path in workspace.shards.iterdir()}
    second = convert(snapshot, SETTINGS, workspace)
    assert (first.written, second.written, second.reused) == (first.written, 0, first.written)
    assert second.key == first.key and second.files == first.files
    assert {path: path.stat().st_mtime_ns for path in workspace.shards.iterdir()} == stamps


def test_one_changed_annotation_rewrites_one_shard(snapshot, workspace):
    first = convert(snapshot, SETTINGS, workspace)
    changed = [replace(snapshot.faces[0], flags_N=1 - snapshot.faces[0].flags_N), *snapshot.faces[1:]]
    second = convert(replace(snapshot, faces=changed, id="e" * 64), SETTINGS, workspace)
    assert second.written == 1 and second.reused == first.written - 1 and second.key != first.key


def test_order_of_faces_does_not_matter(snapshot, workspace, tmp_path):
    convert(snapshot, SETTINGS, workspace)
    turned = replace(snapshot, faces=snapshot.faces[::-1], splits=snapshot.splits[::-1])
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


@pytest.mark.parametrize("change", [{"color": "rgb"}, {"embed_crops": False}, {"bbox_enlarge_ratio": 1.3}])
def test_settings_change_every_shard(snapshot, workspace, change):
    first = convert(snapshot, SETTINGS, workspace)
    second = convert(snapshot, SETTINGS.model_copy(update=change), workspace)
    assert second.written == first.written


def test_without_embedding_no_image_is_needed(snapshot, workspace):
    moved = replace(snapshot, faces=[replace(face, image="nowhere.png") for face in snapshot.faces])
    conversion = convert(moved, SETTINGS.model_copy(update={"embed_crops": False}), workspace)
    assert all("image/encoded" not in record for record in records_of(conversion.files[Split.TRAIN]))


def test_image_that_is_gone_or_another_stops_the_conversion(snapshot, workspace):
    image = Path(snapshot.faces[5].image)
    write_image(image, seed=99)
    with pytest.raises(ShardError, match=r"5\.png: has changed since it was validated"):
        convert(snapshot, SETTINGS, workspace)
    image.unlink()
    with pytest.raises(ShardError, match=r"5\.png: can't be read: No such file"):
        convert(snapshot, SETTINGS, workspace)
    write_image(image, seed=5)
    assert convert(snapshot, SETTINGS, workspace).result["splits"]["train"]["records"]


def test_kpi_subject_in_training_is_refused_before_anything_is_written(snapshot, workspace):
    leaky = replace(snapshot, splits=[Split.TRAIN, *snapshot.splits[1:]])
    with pytest.raises(SubjectLeakError, match="snapshot ffffffffffff, split train: KPI subject d/0 must"):
        convert(leaky, SETTINGS, workspace)
    assert not workspace.shards.exists()


def test_dropped_faces_are_listed(snapshot, workspace):
    low = snapshot.faces[7].points_N2 * [1, 1.3] - [8, 0]
    faces = [*snapshot.faces[:7], replace(snapshot.faces[7], points_N2=np.float32(low)), *snapshot.faces[8:]]
    outside = [f.source_key for f in faces if not tight_square(f.points_N2).inside(WIDTH, HEIGHT)]
    assert outside
    conversion = convert(
        replace(snapshot, faces=faces), SETTINGS.model_copy(update={"box_outside_frame": "drop"}), workspace
    )
    assert [row["record"] for row in conversion.result["dropped"]] == outside
    assert {row["code"] for row in conversion.result["dropped"]} == {"box-outside-frame"}
    kept = sum(split["records"] for split in conversion.result["splits"].values())
    assert kept == len(faces) - len(outside)
    padded = convert(replace(snapshot, faces=faces), SETTINGS, workspace)
    assert padded.result["dropped"] == []


def test_boxes_and_drops_are_the_references(golden, snapshot):
    compared = 0
    for case in golden("bbox_cases"):
        if case["ratio"] < 1:
            continue
        width, height = case["img_size"]
        points_N2 = np.float32(case["kpts"])
        face = replace(snapshot.faces[0], points_N2=points_N2, frame_width=width, frame_height=height)
        boxed = box_faces([face], enlarge_ratio=case["ratio"], outside_frame="drop")
        boxes = [list(box) for _, box in boxed.faces]
        assert boxes == ([case["result"]] if case["result"] else []) and len(boxed.dropped) == 1 - len(boxes)
        compared += 1
    assert compared > 10


def test_unreachable_points_are_those_beyond_the_outer_pixel_centres(snapshot):
    points_N2 = np.float32([[0, 0], [80, 80], [0.5, 40], [79, 40], [79.1, 40]])
    face = replace(snapshot.faces[0], points_N2=points_N2)
    assert unreachable_share([(face, Box(0, 0, 80, 80))]) == pytest.approx(2 / 5)
    assert unreachable_share([]) == 0


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
