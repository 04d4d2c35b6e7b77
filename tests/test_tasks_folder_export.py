"""Face records to a folder and back, and the whole circle with Label Studio's tasks."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from schemas.config import ValidationRules
from schemas.errors import AnnotationFileError, SourceEmptyError, SpecError, ViolationsError
from schemas.geometry import Box
from schemas.label_studio_task import build_task
from schemas.raw import RawRecord, read_raw
from schemas.records import Flag
from schemas.sloth import face_to_sloth, image_entry, read
from schemas.sources import CocoSource, CofwSource, LabelStudioExportSource, PtsSource, SlothSource, SubjectRule
from schemas.storage import atomic_path
from tasks.folder_export import export_source, sloth_entry, write_folder
from tasks.images import ImageIndex
from tasks.pull import pull
from tasks.pull_files import image_finder, sloth_record, task_record
from tasks.subjects import subject_finder
from tasks.tombstones import Tombstones
from tasks.validate import validate
from tasks.workspace import Workspace
from tests.killed import killed_at_fsync
from tests.landmark_files import made_faces, write_coco, write_cofw, write_images, write_pts
from tests.raw_records import sloth_records, write_image

N = 5
FRAMES = [(64, 48), (101, 37), (1280, 721)]
BY_FIELD = SubjectRule(field="subject")


def faces_of(records, num_keypoints=N):
    return validate(
        records,
        num_keypoints=num_keypoints,
        rules=ValidationRules(max_rejected_share=1.0, require_subject=False),
        index=ImageIndex(),
    )


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def from_folder(folder, workspace, **changes):
    source = SlothSource(kind="sloth", name="again", root=str(folder), subject=BY_FIELD, **changes)
    return faces_of(read_raw(pull(source, workspace, num_keypoints=N).raw)).faces


percent = st.floats(0, 100)
annotations = st.fixed_dictionaries(
    {
        "points": st.lists(st.tuples(percent, percent), min_size=N, max_size=N),
        "occluded": st.lists(st.booleans(), min_size=N, max_size=N),
        "box": st.none() | st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(1, 50), st.floats(1, 50)),
        "ground_truth": st.booleans(),
        "day": st.integers(1, 28),
    }
)
tasks = st.fixed_dictionaries(
    {
        "frame": st.sampled_from(FRAMES),
        "annotations": st.lists(annotations, min_size=1, max_size=3),
        "unknown": st.booleans(),
        "subject": st.none() | st.sampled_from(["team/001", "team/1", "other/größe"]),
        "camera": st.none() | st.sampled_from(["05_1", "11_0"]),
    }
)


def task_of(drawn):
    """A task as the server gives it, its percents as drawn: not those of any float32 pixel."""
    frame, found = drawn["frame"], []
    for identity, annotation in enumerate(drawn["annotations"], start=40):
        flags_N = np.array(annotation["occluded"], np.int8)
        box = Box(*annotation["box"]) if annotation["box"] else None
        (built,) = build_task({}, np.zeros((N, 2)), flags_N, frame_size=frame, tight_box=box)["annotations"]
        points = {f"P{i}": point for i, point in enumerate(annotation["points"], start=1)}
        for region in built["result"]:
            if region["id"] in points:
                region["value"] |= dict(zip("xy", points[region["id"]], strict=True))
        found.append(
            built
            | {"id": identity, "completed_by": identity % 2, "ground_truth": annotation["ground_truth"]}
            | {"updated_at": f"2026-11-{annotation['day']:02d}T08:00:00Z"}
        )
    told = {"occlusion": "unknown" if drawn["unknown"] else None}
    fields = told | {name: drawn[name] for name in ("subject", "camera")}
    data = {"image": "/data/upload/3/0a1b2c3d-face.png", "name": "images/face.png", "set": "train"}
    return {"id": 17, "data": data | {k: v for k, v in fields.items() if v is not None}, "annotations": found}


def record_of(task, image):
    find = subject_finder(BY_FIELD)
    return task_record(
        task,
        source="s",
        set_id="p",
        key="task/17",
        image=str(image),
        image_field="image",
        flags_are_known=True,
        subject_of=find,
    )


def imported(entry, image, frame):
    """The task that `fpenet label-studio import` makes of an entry."""
    found = sloth_record(
        entry,
        source="s",
        set_id="train",
        key="gt/train.json#0",
        find_image=image_finder(image.parent),
        flags_are_known=entry["filename"] == "",
        subject_of=subject_finder(BY_FIELD),
    )
    (face,), problems = read(found.payload, num_keypoints=N, flags_known=found.flags_known)
    assert problems == []
    data = {"image": "/data/upload/4/ffffffff-hash.png", "name": entry["filename"], "set": found.set_id}
    fields = {"subject": found.subject, "camera": face.camera}
    task = build_task(
        data | {name: value for name, value in fields.items() if value is not None},
        face.points_N2,
        face.flags_N,
        frame_size=frame,
        tight_box=face.tight_box,
    )
    task["annotations"][0] |= {"id": 1, "completed_by": 1, "updated_at": "2026-12-01T08:00:00Z"}
    return task | {"id": 17}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return {
        size: write_image(folder / f"{size[0]}.png", seed=size[0], width=size[0], height=size[1]) for size in FRAMES
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(tasks)
def test_label_studio_to_sloth_to_label_studio_gives_the_same_records(pictures, drawn):
    image = pictures[drawn["frame"]]
    first = faces_of([record_of(task_of(drawn), image)]).faces
    assume(len(first) == 1)  # all points in one place are no face
    (before,) = first
    entry = json.loads(json.dumps(sloth_entry(before, before.image_name)))
    outcome = faces_of([record_of(imported(entry, image, drawn["frame"]), image)])
    assert outcome.violations == []
    (after,) = outcome.faces
    assert after.points_N2.tobytes() == before.points_N2.tobytes()  # 0 ulp
    assert after.flags_N.tolist() == before.flags_N.tolist()
    assert after.occlusion_known is (before.occlusion_known)
    assert (after.subject, after.camera, after.image_name) == (before.subject, before.camera, before.image_name)
    if before.tight_box is None:
        assert after.tight_box is None
    else:
        assert after.tight_box == pytest.approx(before.tight_box, rel=0, abs=2e-12)
    unboxed = [replace(face, tight_box=None).content_hash() for face in (before, after)]
    assert unboxed[0] == unboxed[1]


def test_the_used_one_of_several_annotators_goes_out(pictures):
    frame = FRAMES[0]
    points = [(10.0 + 3 * i, 20.0 + 5 * i) for i in range(N)]
    one = {"points": points, "occluded": [True] * N, "box": None, "ground_truth": True, "day": 1}
    later = one | {"occluded": [False] * N, "ground_truth": False, "day": 9}
    drawn = {"frame": frame, "annotations": [one, later], "unknown": False, "subject": None, "camera": None}
    outcome = faces_of([record_of(task_of(drawn), pictures[frame])])
    entry = sloth_entry(outcome.faces[0], "images/face.png")
    assert len(outcome.superseded) == 1
    assert (entry["annotator"], entry["annotated_at"]) == ("0", "2026-11-01T08:00:00Z")
    assert all(entry["annotations"][0][f"P{i}occluded"] is True for i in range(1, N + 1))


def test_flags_come_back_whatever_the_source_says(tmp_path, workspace):
    records = sloth_records(tmp_path, 3)
    faces = list(faces_of(records).faces)
    flags = [np.zeros(N), np.full(N, Flag.UNKNOWN), [Flag.UNKNOWN, 0, 1, 0, Flag.UNKNOWN]]
    faces = [replace(face, flags_N=np.array(told, np.int8)) for face, told in zip(faces, flags, strict=True)]
    assert write_folder(faces, tmp_path / "out", source="s") == ({"all": 3}, 3)
    for occlusion in ("auto", "none", "flagged"):
        again = from_folder(tmp_path / "out", workspace, occlusion=occlusion)
        assert [face.flags_N.tolist() for face in again] == [face.flags_N.tolist() for face in faces]


def test_a_folder_of_several_faces_and_sets(tmp_path, workspace):
    made = made_faces(4, N)
    made[1] = made[1]._replace(name=made[0].name)
    images = write_images(tmp_path / "pictures", made)
    write_coco(tmp_path / "a.json", made)
    rule = SubjectRule(dataset="team", pattern=r"^(?P<subject>\d+)")
    source = CocoSource(kind="coco", name="c", files=[str(tmp_path / "a.json")], image_root=str(images), subject=rule)
    out = tmp_path / "out"
    done = export_source(source, out, workspace, num_keypoints=N)
    assert (done.sets, done.images, done.left_out, done.skipped) == ({"a": 4}, 3, [], 0)
    with (out / "manifest.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["file", "subject"],
            ["images/000_0.png", "team/000"],
            ["images/001_2.png", "team/001"],
            ["images/001_3.png", "team/001"],
        ]
    direct = faces_of(read_raw(pull(source, workspace, num_keypoints=N).raw)).faces
    again = from_folder(out, workspace)
    assert sorted(face.content_hash() for face in again) == sorted(face.content_hash() for face in direct)
    assert {face.set_id for face in again} == {"a"}

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    texts = [path.read_bytes() for path in sorted(out.rglob("*.json"))]
    assert export_source(source, out, workspace, num_keypoints=N) == done
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before
    assert [path.read_bytes() for path in sorted(out.rglob("*.json"))] == texts


def test_what_is_wrong_is_left_out_and_named(tmp_path, workspace):
    made = made_faces(3, N)
    write_pts(write_images(tmp_path / "s", made), made)
    (tmp_path / "s/000_1.pts").write_text("junk")
    done = export_source(
        PtsSource(kind="pts", name="p", root=str(tmp_path / "s")), tmp_path / "out", workspace, num_keypoints=N
    )
    assert [(v.code, v.record) for v in done.left_out] == [("malformed", "p:000_1.pts")]
    assert done.sets == {"p": 2}
    assert not (tmp_path / "out/images/000_1.png").exists()
    named = "file,subject\nimages/000_0.png,\nimages/001_2.png,\n"
    assert (tmp_path / "out/manifest.csv").read_text() == named


NAMES = {
    "face.png": "images/face.png",
    "images/a/face.png": "images/a/face.png",
    "/abs/face.png": "images/abs/face.png",
    "../../face.png": "images/face.png",
    "gt/train.json": "images/gt/train.json",
    "task 17": "images/task 17.png",
    "": "images/0000.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_pictures_stay_in_the_folder(tmp_path, name):
    (face,) = faces_of(sloth_records(tmp_path, 1)).faces
    write_folder([replace(face, image_name=name, set_id="../up")], tmp_path / "out", source="s")
    written = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")]
    assert NAMES[name] in written
    assert [name for name in written if name.startswith("gt/")] == ["gt/-.-up.json"]


def test_two_pictures_of_one_name(tmp_path, workspace):
    faces = [replace(face, image_name="a.png") for face in faces_of(sloth_records(tmp_path, 2)).faces]
    write_folder(faces, tmp_path / "out", source="s")
    again = from_folder(tmp_path / "out", workspace)
    assert sorted(face.content_hash() for face in again) == sorted(face.content_hash() for face in faces)
    assert sorted(face.image_name for face in again) == sorted(
        ["images/a.png", f"images/a-{faces[1].image_sha256[:12]}.png"]
    )


@pytest.mark.parametrize("manifest", [None, "file,subject\nimages/a.png,d/7\n", ""])
def test_a_folder_of_somebody_s_own_is_left_alone(tmp_path, manifest):
    faces = faces_of(sloth_records(tmp_path, 1)).faces
    (tmp_path / "out/gt").mkdir(parents=True)
    (tmp_path / "out/gt/all.json").write_text("[]")
    if manifest is not None:
        (tmp_path / "out/manifest.csv").write_text(manifest)
    with pytest.raises(SpecError, match=r"out: holds something else \(there is no fpenet-export.json"):
        write_folder(faces, tmp_path / "out", source="s")
    assert (tmp_path / "out/gt/all.json").read_text() == "[]"
    assert not (tmp_path / "out/images").exists()


def test_who_is_gone_from_the_source_goes_from_the_folder(tmp_path, workspace):
    faces = list(faces_of(sloth_records(tmp_path, 3)).faces)
    faces[2] = replace(faces[2], set_id="kpi", subject=None)
    out = tmp_path / "out"
    write_folder(faces, out, source="s")
    for own in ("images/notes.txt", "gt/mine.json"):
        (out / own).write_text("a reader's own")
    write_folder(faces[:1], out, source="s")
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    ours = ["fpenet-export.json", "gt/all.json", "images/0000.png", "manifest.csv"]
    assert left == sorted([*ours, "gt/mine.json", "images/notes.txt"])
    assert (out / "manifest.csv").read_text() == "file,subject\nimages/0000.png,d/000\n"


@pytest.mark.parametrize(("others", "error"), [(1, ViolationsError), (0, SourceEmptyError)])
def test_who_was_forgotten_goes_from_the_folder_where_nobody_else_can_be_written(tmp_path, workspace, others, error):
    """Of the others, no face is sound, or there are none."""
    made, root, out = made_faces(2 + others, N), tmp_path / "s", tmp_path / "out"
    write_pts(write_images(root, made), made)
    for face in made[2:]:
        (root / face.name).with_suffix(".pts").write_text("junk")
    rule = SubjectRule(dataset="team", pattern=r"^(?P<subject>\d+)_")
    source = PtsSource(kind="pts", name="p", root=str(root), subject=rule)
    export_source(source, out, workspace, num_keypoints=N)
    assert "images/000_0.png,team/000" in (out / "manifest.csv").read_text()
    Tombstones.of(workspace.root).with_grave("team/000", by="test", why="asked to")
    for folder, told in ((out, "the folder is empty now"), (tmp_path / "new", "nothing was written")):
        with pytest.raises(error, match=told):
            export_source(source, folder, workspace, num_keypoints=N)
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["fpenet-export.json", "manifest.csv"]
    assert (out / "manifest.csv").read_text() == "file,subject\n"
    assert not (tmp_path / "new").exists()


def sloth_entries(root, annotated):
    face = [face_to_sloth(np.array([(3.0 * i, 40.0 - i) for i in range(N)]), np.zeros(N))] if annotated else []
    (root / "gt").mkdir(parents=True, exist_ok=True)
    (root / "gt/all.json").write_text(json.dumps([image_entry("a.png", face)]))
    return SlothSource(kind="sloth", name="s", root=str(root))


def export_tasks(root, annotated):
    points_N2 = np.array([(3.0 * i, 40.0 - i) for i in range(N)])
    task = build_task({"image": "a.png"}, points_N2, np.zeros(N), frame_size=(64, 48)) | {"id": 1}
    task["annotations"][0]["was_cancelled"] = not annotated
    (root / "tasks.json").write_text(json.dumps([task]))
    return LabelStudioExportSource(
        kind="label_studio_export", name="e", files=[str(root / "tasks.json")], image_root=str(root)
    )


@pytest.mark.parametrize("source_with", [sloth_entries, export_tasks])
def test_a_source_in_which_nothing_is_annotated_any_more_says_what_became_of_the_folder(
    tmp_path, workspace, source_with
):
    out, root = tmp_path / "out", tmp_path / "s"
    write_image(root / "a.png", seed=1, width=64, height=48)
    assert export_source(source_with(root, True), out, workspace, num_keypoints=N).images == 1
    source = source_with(root, False)
    for folder, told in ((out, "the folder is empty now"), (tmp_path / "new", "nothing was written")):
        with pytest.raises(SourceEmptyError, match=f"^source {source.name}: nothing in it is annotated; {told}$"):
            export_source(source, folder, workspace, num_keypoints=N)
    assert not (out / "images/a.png").exists() and not (tmp_path / "new").exists()


def test_an_export_leaves_alone_what_a_training_reads(tmp_path, workspace):
    """Its pull takes away images that the source has no more; so it has images of its own."""
    path = write_cofw(tmp_path / "COFW_train_color.mat", made_faces(3, 29))
    source = CofwSource(kind="cofw", name="c", files=[str(path)])
    pull(source, workspace, num_keypoints=29)
    before = {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}
    write_cofw(path, made_faces(2, 29))
    done = export_source(source, tmp_path / "out", workspace, num_keypoints=29)
    assert (done.sets, done.images) == ({"COFW_train_color": 2}, 2)
    assert {path: path.read_bytes() for path in before} == before


def test_one_source_does_not_replace_another(tmp_path):
    faces = list(faces_of(sloth_records(tmp_path, 2)).faces)
    out = tmp_path / "out"
    write_folder(faces[:1], out, source="s")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(SpecError, match=r"out: holds the source 's', which 'other' would replace"):
        write_folder(faces[1:], out, source="other")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_next_export_removes_the_sets_of_one_that_was_broken_off(tmp_path):
    faces = list(faces_of(sloth_records(tmp_path, 2)).faces)
    out = tmp_path / "out"
    gone = replace(faces[1], set_id="zzz", image=str(tmp_path / "gone.png"))
    write_folder([faces[0], replace(faces[1], set_id="kpi")], out, source="s")
    with pytest.raises(FileNotFoundError):
        write_folder([faces[0], replace(gone, image_name="another.png")], out, source="s")
    write_folder(faces[:1], out, source="s")
    assert sorted(path.name for path in (out / "gt").iterdir()) == ["all.json"]


def test_an_export_that_was_broken_off_goes_on(tmp_path, workspace):
    faces = list(faces_of(sloth_records(tmp_path, 3)).faces)
    image = Path(faces[1].image)
    content = image.read_bytes()
    image.write_bytes(b"another")
    with pytest.raises(AnnotationFileError):
        write_folder(faces, tmp_path / "out", source="s")
    image.write_bytes(content)
    assert write_folder(faces, tmp_path / "out", source="s") == ({"all": 3}, 3)
    assert len(from_folder(tmp_path / "out", workspace)) == 3


_EXPORT = """
import sys
from pathlib import Path
from tasks.folder_export import write_folder
from tests.raw_records import sloth_records
from tests.test_tasks_folder_export import faces_of
folder = Path(sys.argv[1])
write_folder(list(faces_of(sloth_records(folder, 2)).faces), folder / "out", source="s")
"""
_SYNCS_OF_EXPORT = 2 * 7  # of each file and of its folder: notes, manifest, two pictures, a set, manifest, notes


@pytest.mark.parametrize("at", [1, 2 * 4 + 1, _SYNCS_OF_EXPORT])
def test_an_export_that_was_killed_goes_on(at, tmp_path, workspace):
    """Before the first file is there, at the set, and at the end."""
    assert killed_at_fsync(at, _EXPORT, tmp_path)
    out = tmp_path / "out"
    write_folder(list(faces_of(sloth_records(tmp_path, 2)).faces), out, source="s")
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    assert len(from_folder(out, workspace)) == 2


def test_half_a_file_is_no_set(tmp_path, workspace):
    """A pull looks into the folder while a process writes there, or was killed."""
    out = tmp_path / "out"
    write_folder(list(faces_of(sloth_records(tmp_path, 2)).faces), out, source="s")
    with atomic_path(out / "gt/kpi.json") as half:
        half.write_bytes((out / "gt/all.json").read_bytes()[:100])
        assert len(from_folder(out, workspace)) == 2
        half.write_bytes(b"[]")


def test_a_picture_that_changed_meanwhile(tmp_path):
    faces = faces_of(sloth_records(tmp_path, 1)).faces
    Path(faces[0].image).write_bytes(b"another")
    with pytest.raises(AnnotationFileError, match=r"0000.png: has changed since it was looked at"):
        write_folder(faces, tmp_path / "out", source="s")


@pytest.mark.parametrize("told", ["maybe", None, 1])
def test_an_entry_s_occlusion_is_flagged_or_unknown(told, tmp_path):
    (record,) = sloth_records(tmp_path, 1)
    broken: RawRecord = replace(record, payload=record.payload | {"occlusion": told})
    assert [v.code for v in faces_of([broken]).violations] == ["schema"]
