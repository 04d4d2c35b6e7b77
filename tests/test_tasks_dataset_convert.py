"""TAO's dataset_convert: paths joined as TAO joins them, one file a set, and a report of what was left out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from filelock import FileLock, Timeout

from model.crop import context_crop, crop_face
from model.images import decode_image, read_image
from schemas.config import DatasetConvertSpec
from schemas.errors import AnnotationFileError, InputError, SourceEmptyError, StorageError, ViolationsError
from schemas.geometry import Box, tight_square
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import SubjectRule
from schemas.storage import read_json
from tasks.dataset_convert import INDEX, LOCK, REPORT, dataset_convert
from tasks.images import ImageIndex
from tests.raw_records import HEIGHT, NUM_KEYPOINTS, WIDTH, some_flags, some_points, write_image


def write_set(root: Path, set_id: str, numbers: range, file: str = "gt.json", points=some_points) -> list[dict]:
    entries = []
    for number in numbers:
        name = f"{set_id}/{number:03d}_x.png"
        write_image(root / "images" / name, seed=number)
        entries.append(image_entry(name, [face_to_sloth(points(number), some_flags(number))]))
    folder = root / "gt" / set_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(entries))
    return entries


def make_spec(root: Path, *sets: str, **changes) -> DatasetConvertSpec:
    fields = {
        "sets": list(sets),
        "gt_root_path": str(root),
        "gt_path": "gt",
        "image_root_path": str(root / "images"),
        "save_root_path": str(root),
        "save_path": "out",
        "tfrecord_folder": "FpeTfRecords",
        "tfrecord_name": "data.tfrecords",
        "num_keypoints": NUM_KEYPOINTS,
    }
    return DatasetConvertSpec(**{**fields, **changes})


def records_of(path):
    return [
        tf.train.Example.FromString(record).features.feature
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def name_of(record):
    return record["train/image_frame_name"].bytes_list.value[0].decode()


def test_one_file_per_set_where_tao_puts_it(tmp_path):
    write_set(tmp_path, "afw", range(3))
    write_set(tmp_path, "bioid", range(10, 12))
    first, second = dataset_convert(make_spec(tmp_path, "afw", "bioid"))
    assert first.file == tmp_path / "out" / "afw" / "FpeTfRecords" / "data.tfrecords"
    records = records_of(first.file)
    assert [name_of(record) for record in records] == ["afw/000_x.png", "afw/001_x.png", "afw/002_x.png"]
    np.testing.assert_array_equal(records[1]["train/landmarks"].float_list.value, some_points(1).reshape(-1))
    assert list(records[1]["train/landmarks_occ"].int64_list.value) == some_flags(1).tolist()
    assert [records[1][f"train/facebbx_{k}"].int64_list.value[0] for k in "xywh"] == list(
        tight_square(some_points(1))
    )
    assert records[1]["image/set"].bytes_list.value[0] == b"afw" and "image/encoded" not in records[1]
    assert len(records_of(second.file)) == second.records == 2
    assert (tmp_path / "out" / REPORT).is_file()


def test_all_json_files_of_a_set_are_read_in_the_order_of_their_names(tmp_path):
    for file, start in (("b.json", 0), ("a.json.old", 5), ("c.txt", 8)):
        write_set(tmp_path, "afw", range(start, start + 2), file)
    (done,) = dataset_convert(make_spec(tmp_path, "afw"))
    assert [name_of(record)[4:7] for record in records_of(done.file)] == ["005", "006", "000", "001"]


def test_later_absolute_path_wins_and_empty_roots_mean_none(tmp_path, monkeypatch):
    write_set(tmp_path, "afw", range(2))
    monkeypatch.chdir(tmp_path)
    spec = make_spec(
        tmp_path,
        "afw",
        gt_root_path="/elsewhere",
        gt_path=str(tmp_path / "gt"),
        save_root_path=None,
        image_root_path="images",
    )
    (done,) = dataset_convert(spec)
    assert done.file == Path("out/afw/FpeTfRecords/data.tfrecords") and done.file.is_file()


def test_subjects_come_from_the_rule(tmp_path):
    write_set(tmp_path, "afw", range(2))
    rule = SubjectRule(dataset="afw", pattern=r"(?P<subject>\d{3})_x")
    (done,) = dataset_convert(make_spec(tmp_path, "afw", subject=rule))
    assert [r["image/subject"].bytes_list.value[0] for r in records_of(done.file)] == [b"afw/000", b"afw/001"]
    (done,) = dataset_convert(make_spec(tmp_path, "afw"))
    assert [r["image/subject"].bytes_list.value[0] for r in records_of(done.file)] == [b"", b""]


def test_subjects_come_from_the_entries_where_there_is_no_rule(tmp_path):
    entries = write_set(tmp_path, "afw", range(2))
    entries[1]["subject"] = "afw/17"
    (tmp_path / "gt" / "afw" / "gt.json").write_text(json.dumps(entries))
    (done,) = dataset_convert(make_spec(tmp_path, "afw"))
    assert [r["image/subject"].bytes_list.value[0] for r in records_of(done.file)] == [b"", b"afw/17"]


@pytest.mark.parametrize("foreign", ["17", 17, 1.5, True])
def test_an_entry_s_subject_of_another_form_is_told_with_what_to_write(tmp_path, foreign):
    entries = write_set(tmp_path, "afw", range(2))
    entries[1]["subject"] = foreign
    (tmp_path / "gt" / "afw" / "gt.json").write_text(json.dumps(entries))
    (done,) = dataset_convert(make_spec(tmp_path, "afw"))
    assert [(v.code, v.value) for v in done.violations] == [("subject-malformed", str(foreign))]
    assert "its own key `subject`" in done.violations[0].hint and "write it <dataset>/<id>" in done.violations[0].hint
    rule = SubjectRule(dataset="afw", pattern=r"(?P<subject>\d{3})_x")
    (done,) = dataset_convert(make_spec(tmp_path, "afw", subject=rule))
    assert (done.records, done.violations) == (2, [])


def test_report_lists_everything_that_was_left_out(tmp_path):
    entries = write_set(tmp_path, "afw", range(6))
    entries[1]["annotations"][0]["P1x"] = None
    entries[2]["filename"] = "afw/nowhere.png"
    entries[3]["annotations"] = []
    wide = np.float32([[1, 2], [WIDTH - 2, 3], [20, 4], [30, 5], [40, HEIGHT - 30]])
    entries[4]["annotations"] = face_to_sloth(wide, some_flags(4))
    (tmp_path / "gt" / "afw" / "gt.json").write_text(json.dumps(entries))
    (done,) = dataset_convert(make_spec(tmp_path, "afw"), tmp_path / "results")
    assert [name_of(record) for record in records_of(done.file)] == ["afw/000_x.png", "afw/005_x.png"]
    (row,) = read_json(tmp_path / "results" / REPORT)["sets"]
    assert row["reasons"] == {"box-outside-frame": 1, "image-missing": 1, "not-annotated": 1, "schema": 1}
    assert row["records"] + len(row["violations"]) == len(entries)
    assert row["counts"] == {"records": 6, "accepted": 3, "rejected": 2, "skipped": 1, "superseded": 0}
    assert row["violations"][0]["record"].endswith("afw/gt.json#0000001")


WIDE = np.float32([[1, 2], [WIDTH - 2, 3], [20, 4], [30, 5], [40, HEIGHT - 30]])
"""Points whose square reaches out of the frame."""


def test_pad_keeps_what_drop_leaves_out(tmp_path):
    write_set(tmp_path, "afw", range(2), points=lambda number: WIDE if number else some_points(0))
    assert dataset_convert(make_spec(tmp_path, "afw"))[0].records == 1
    assert dataset_convert(make_spec(tmp_path, "afw", box_outside_frame="pad"))[0].records == 2


def test_same_set_gives_the_same_bytes(tmp_path):
    write_set(tmp_path, "afw", range(4))
    (first,) = dataset_convert(make_spec(tmp_path, "afw", embed_crops=True))
    before = first.file.read_bytes()
    (second,) = dataset_convert(make_spec(tmp_path, "afw", embed_crops=True))
    assert second.sha256 == first.sha256 and second.file.read_bytes() == before
    assert all(record["image/encoded"].bytes_list.value[0] for record in records_of(second.file))


def test_one_at_a_time_writes_to_a_place(tmp_path):
    write_set(tmp_path, "afw", range(2))
    locks = []

    def look(done, of):
        with pytest.raises(Timeout):
            FileLock(tmp_path / "out" / LOCK, timeout=0).acquire()
        locks.append(done)

    dataset_convert(make_spec(tmp_path, "afw"), progress=look)
    assert locks
    with FileLock(tmp_path / "out" / LOCK, timeout=0):
        pass


def test_second_run_reads_no_image_that_is_known(tmp_path, monkeypatch):
    write_set(tmp_path, "afw", range(4))
    for folder in (None, tmp_path / "results"):
        (first,) = dataset_convert(make_spec(tmp_path, "afw"), folder)
        assert ((folder or tmp_path / "out") / INDEX).is_file()
        with monkeypatch.context() as patched:
            patched.setattr(ImageIndex, "_save", None)  # where what was read goes
            (second,) = dataset_convert(make_spec(tmp_path, "afw"), folder)
        assert second == first


def test_crops_of_an_image_with_several_faces(tmp_path):
    entries = write_set(tmp_path, "afw", range(3))
    entries[1]["annotations"] += face_to_sloth(some_points(7), some_flags(7))
    (tmp_path / "gt" / "afw" / "gt.json").write_text(json.dumps(entries))
    (done,) = dataset_convert(make_spec(tmp_path, "afw", embed_crops=True))
    records = records_of(done.file)
    assert [name_of(record)[4:7] for record in records] == ["000", "001", "001", "002"]
    for record in records:
        image = read_image(tmp_path / "images" / name_of(record), channels=1)
        box = Box(*(record[f"train/facebbx_{side}"].int64_list.value[0] for side in "xywh"))
        crop = decode_image(record["image/encoded"].bytes_list.value[0], channels=1, name="crop")
        np.testing.assert_array_equal(crop, crop_face(image, context_crop(box)))


def test_killed_run_leaves_what_was_there_and_a_rerun_gives_the_same(tmp_path):
    write_set(tmp_path, "afw", range(8))
    spec = make_spec(tmp_path, "afw", embed_crops=True)
    (done,) = dataset_convert(spec)
    before = done.file.read_bytes()
    write_set(tmp_path, "afw", range(100, 340))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], input=spec.model_dump_json().encode(), cwd=Path(__file__).parent.parent
    )
    assert killed.returncode == -signal.SIGKILL and done.file.read_bytes() == before
    assert len(list(done.file.parent.iterdir())) == 2  # and what had been written
    (resumed,) = dataset_convert(spec)
    (again,) = dataset_convert(spec.model_copy(update={"save_path": "elsewhere"}))
    assert resumed.records > 200 and resumed.sha256 == again.sha256 != done.sha256
    assert [path.name for path in done.file.parent.iterdir()] == ["data.tfrecords"]


KILLED = """
import os, signal, sys
import tasks.dataset_convert
from schemas.config import DatasetConvertSpec

def dying(records):
    for number, record in enumerate(records):
        if number == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        yield record

embedded = tasks.dataset_convert.embedded_records
tasks.dataset_convert.embedded_records = lambda *a, **k: dying(embedded(*a, **k))
tasks.dataset_convert.dataset_convert(DatasetConvertSpec.model_validate_json(sys.stdin.read()))
"""


def test_tensorflow_is_not_needed(tmp_path):
    write_set(tmp_path, "afw", range(2))
    spec = make_spec(tmp_path, "afw", embed_crops=True).model_dump_json()
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from schemas.config import DatasetConvertSpec; from tasks.dataset_convert import dataset_convert\n"
        "dataset_convert(DatasetConvertSpec.model_validate_json(sys.stdin.read()))"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], input=spec.encode(), cwd=root, check=True)


def test_place_that_cannot_be_made_is_named(tmp_path):
    write_set(tmp_path, "afw", range(1))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file: can't be made: File exists"):
        dataset_convert(make_spec(tmp_path, "afw"), tmp_path / "file")
    (tmp_path / "out").rename(tmp_path / "before")
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StorageError, match="out: can't be made: File exists"):
        dataset_convert(make_spec(tmp_path, "afw"))


def test_broken_json_leaves_the_earlier_file_alone(tmp_path):
    write_set(tmp_path, "afw", range(2))
    (done,) = dataset_convert(make_spec(tmp_path, "afw"))
    before = done.file.read_bytes()
    (tmp_path / "gt" / "afw" / "more.json").write_text("[{]")
    with pytest.raises(AnnotationFileError, match=r"more\.json:1:3: not JSON"):
        dataset_convert(make_spec(tmp_path, "afw"))
    assert done.file.read_bytes() == before


def test_a_run_that_is_stopped_lets_go_of_its_index(tmp_path):
    def stop(done, of):
        raise KeyboardInterrupt

    write_set(tmp_path, "afw", range(1))
    with pytest.raises(KeyboardInterrupt) as stopped:
        dataset_convert(make_spec(tmp_path, "afw"), progress=stop)
    opened = {file.resolve() for file in Path("/proc/self/fd").iterdir()}
    assert (tmp_path / "out" / INDEX).is_file() and tmp_path / "out" / INDEX not in opened, stopped


def test_sets_that_give_nothing(tmp_path):
    with pytest.raises(AnnotationFileError, match="no such folder for the set afw"):
        dataset_convert(make_spec(tmp_path, "afw"))
    write_set(tmp_path, "afw", range(0))
    with pytest.raises(SourceEmptyError, match="no annotation in 1 JSON files"):
        dataset_convert(make_spec(tmp_path, "afw"))
    entries = write_set(tmp_path, "afw", range(2))
    for entry in entries:
        entry["filename"] = "nowhere.png"
    (tmp_path / "gt" / "afw" / "gt.json").write_text(json.dumps(entries))
    with pytest.raises(
        ViolationsError, match=r"set afw: none of 2 annotations can be used: image-missing 2\. The first"
    ):
        dataset_convert(make_spec(tmp_path, "afw"))


def test_what_keeps_no_face_from_being_used_is_no_reason(tmp_path):
    entries = write_set(tmp_path, "afw", range(1), points=lambda number: WIDE)
    sides = {f"face_tight_bbox{side}": 0 for side in ("x", "y", "width", "height")}
    entries[0]["annotations"].insert(0, {"class": "FaceBbox", **sides})
    (tmp_path / "gt" / "afw" / "gt.json").write_text(json.dumps(entries))
    with pytest.raises(ViolationsError, match=r"none of 1 annotations can be used: (\S+) 1\. The first: .*\1"):
        dataset_convert(make_spec(tmp_path, "afw"))


def test_a_set_that_fails_keeps_no_other_from_its_file(tmp_path):
    write_set(tmp_path, "afw", range(2))
    for entry in (entries := write_set(tmp_path, "lost", range(3))):
        entry["filename"] = "nowhere.png"
    (tmp_path / "gt" / "lost" / "gt.json").write_text(json.dumps(entries))
    write_set(tmp_path, "bioid", range(10, 12))
    with pytest.raises(InputError) as raised:
        dataset_convert(make_spec(tmp_path, "afw", "lost", "absent", "bioid"))
    first, second = str(raised.value).splitlines()
    assert "set lost: none of 3 annotations can be used" in first and "no such folder for the set absent" in second
    afw, lost, absent, bioid = read_json(tmp_path / "out" / REPORT)["sets"]
    for row in (afw, bioid):
        assert len(records_of(row["file"])) == row["records"] == 2
    assert lost["reasons"] == {"image-missing": 3} and len(lost["violations"]) == 3 and "file" not in lost
    assert absent["error"] == second


def test_what_the_reference_does_not_read_costs_no_face(tmp_path):
    """A face box that was never drawn is listed; a camera that is a number, or null, is one."""
    entries = write_set(tmp_path, "afw", range(2))
    sides = {f"face_tight_bbox{side}": 0 for side in ("x", "y", "width", "height")}
    entries[0]["annotations"].insert(0, {"class": "FaceBbox", **sides})
    entries[1] |= {"camera": 3, "session": None, "annotator": 7}
    (tmp_path / "gt" / "afw" / "gt.json").write_text(json.dumps(entries))
    (done,) = dataset_convert(make_spec(tmp_path, "afw"))
    assert done.records == 2 and [(v.code, v.record) for v in done.violations] == [
        ("degenerate-face-box", "dataset_convert:afw/gt.json#0000000")
    ]
