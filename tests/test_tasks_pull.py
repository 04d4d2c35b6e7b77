import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import ValidationRules
from schemas.errors import AnnotationFileError, SourceEmptyError, SpecError
from schemas.geometry import Box
from schemas.raw import read_raw
from schemas.records import Flag
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import LabelStudioExportSource, RenderedSource, SlothSource, SubjectRule
from schemas.storage import read_json
from tasks.images import ImageIndex
from tasks.pull import PullResult, pull
from tasks.pull_files import image_finder
from tasks.tombstones import Tombstones
from tasks.validate import validate
from tasks.workspace import Workspace
from tests.label_studio_faces import some_points, some_task
from tests.raw_records import write_image


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def entry(name, *, occluded=(), num_keypoints=3):
    flags_N = np.zeros(num_keypoints, np.int8)
    flags_N[list(occluded)] = Flag.OCCLUDED
    return image_entry(name, [face_to_sloth(some_points(num_keypoints), flags_N)])


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "team"
    write(root / "gt/train.json", [entry("images/1_a.png"), entry("images/2_a.png")])
    write(root / "gt/kpi/b.json", [entry("images/3_a.png")])
    write(root / "gt/kpi/a.json", [entry("images/4_a.png"), "junk"])
    return root


def sloth_source(root, **settings):
    return SlothSource(kind="sloth", name="team", root=str(root), **settings)


def records_of(result):
    return list(read_raw(result.raw))


def test_a_folder_of_ground_truth(folder, workspace):
    rule = SubjectRule(dataset="team", pattern=r"(?P<subject>\d+)_")
    result = pull(sloth_source(folder, subject=rule), workspace, num_keypoints=3)
    records = records_of(result)
    assert [(r.key, r.set_id, r.subject) for r in records] == [
        ("gt/kpi/a.json#0", "kpi", "team/4"),
        ("gt/kpi/a.json#1", "kpi", None),
        ("gt/kpi/b.json#0", "kpi", "team/3"),
        ("gt/train.json#0", "train", "team/1"),
        ("gt/train.json#1", "train", "team/2"),
    ]
    assert records[3].image == str(folder / "images/1_a.png")
    assert (records[1].payload, records[1].image) == ("junk", None)
    assert records[0].payload == entry("images/4_a.png")
    assert (result.records, result.sets) == (5, {"kpi": 3, "train": 2})


def test_entries_say_whose_face_it_is_where_no_rule_does(folder, workspace):
    write(folder / "gt/train.json", [entry("images/1_a.png") | {"subject": "team/17"}, entry("images/2_a.png")])
    subjects = [r.subject for r in records_of(pull(sloth_source(folder), workspace, num_keypoints=3))]
    assert subjects == [None, None, None, "team/17", None]


def test_forgotten_subjects_are_left_out(folder, workspace):
    Tombstones.of(workspace.root).with_grave("team/2", by="test", why="asked")
    rule = SubjectRule(dataset="team", pattern=r"(?P<subject>\d+)_")
    result = pull(sloth_source(folder, subject=rule), workspace, num_keypoints=3)
    assert [record.subject for record in records_of(result)] == ["team/4", None, "team/3", "team/1"]
    assert (result.records, result.details["forgotten"]) == (4, 1)
    assert b"2_a.png" not in result.raw.read_bytes()


def test_a_source_of_forgotten_subjects_alone_says_so(folder, workspace):
    Tombstones.of(workspace.root).with_grave("team/2", by="test", why="asked")
    write(folder / "gt/train.json", [entry("images/2_a.png")])
    rule = SubjectRule(dataset="team", pattern=r"(?P<subject>\d+)_")
    source = sloth_source(folder, subject=rule, gt=["gt/train.json"])
    with pytest.raises(SourceEmptyError, match="holds no record but 1 of subjects that were forgotten"):
        pull(source, workspace, num_keypoints=3)


def test_the_same_annotations_give_the_same_bytes(folder, workspace, tmp_path):
    first = pull(sloth_source(folder), workspace, num_keypoints=3)
    again = pull(sloth_source(folder), Workspace(tmp_path / "other"), num_keypoints=3)
    assert again.raw.read_bytes() == first.raw.read_bytes()
    moved = folder.rename(folder.with_name("moved"))
    elsewhere = pull(sloth_source(moved), workspace, num_keypoints=3)
    assert elsewhere.content_hash == first.content_hash
    write(moved / "gt/kpi/b.json", [entry("images/3_a.png", occluded=[1])])
    assert pull(sloth_source(moved), workspace, num_keypoints=3).content_hash != first.content_hash


def test_pull_json_says_what_came(folder, workspace):
    result = pull(sloth_source(folder), workspace, num_keypoints=3)
    noted = read_json(result.raw.with_name("pull.json"))
    assert (noted["source"], noted["kind"], noted["records"], noted["raw"]) == ("team", "sloth", 5, "raw.jsonl")
    assert noted["content_hash"] == result.content_hash
    assert str(folder) not in json.dumps(noted)


@pytest.mark.parametrize(
    ("occlusion", "flagged", "known"),
    [("auto", False, False), ("auto", True, True), ("flagged", False, True), ("none", True, False)],
)
def test_what_a_missing_flag_means(folder, workspace, occlusion, flagged, known):
    if flagged:
        write(folder / "gt/train.json", [entry("images/1_a.png", occluded=[2])])
    result = pull(sloth_source(folder, occlusion=occlusion), workspace, num_keypoints=3)
    assert {record.flags_known for record in records_of(result)} == {known}


@pytest.mark.parametrize("origin", [0.0, 0.5, 1.0])
def test_files_that_count_from_elsewhere(tmp_path, workspace, origin):
    points_N2, box = some_points(3), Box(100, 120, 90, 95)
    face = face_to_sloth(points_N2 + origin, np.zeros(3), tight_box=box._replace(x=100 + origin, y=120 + origin))
    root = tmp_path / "team"
    write_image(root / "images/1_a.png", seed=1, width=640, height=480)
    write(root / "gt/train.json", [image_entry("images/1_a.png", [face])])
    rule = SubjectRule(dataset="team", pattern=r"(?P<subject>\d+)_")
    pulled = pull(sloth_source(root, subject=rule, origin=origin), workspace, num_keypoints=3)
    index = ImageIndex(workspace.image_index)
    (read,) = validate(read_raw(pulled.raw), num_keypoints=3, rules=ValidationRules(), index=index).faces
    np.testing.assert_allclose(read.points_N2, points_N2, rtol=0, atol=1e-5)
    assert read.tight_box == box


def test_image_root(folder, workspace, tmp_path):
    result = pull(sloth_source(folder, image_root=str(tmp_path / "nas")), workspace, num_keypoints=3)
    assert records_of(result)[0].image == str(tmp_path / "nas/images/4_a.png")


def test_a_pattern_that_matches_nothing_is_named(folder, workspace):
    source = sloth_source(folder, gt=["gt/train.json", "labels/*.json"])
    with pytest.raises(AnnotationFileError, match=r"labels/\*.json: no file matches; .*team holds gt/"):
        pull(source, workspace, num_keypoints=3)


def test_hidden_files_hold_no_annotations(folder, workspace, tmp_path):
    write(folder / "gt/.train.json", [entry("images/9_a.png")])
    assert pull(sloth_source(folder), workspace, num_keypoints=3).records == 5
    write(tmp_path / "a.json", [some_task()])
    write(tmp_path / "._a.json", "what macOS knows of a.json")
    (tmp_path / "media").mkdir()
    assert pull(export_source(tmp_path, "*.json"), workspace, num_keypoints=5).records == 1


def test_a_folder_that_is_not_there(tmp_path, workspace):
    with pytest.raises(AnnotationFileError, match="nowhere: no such folder"):
        pull(sloth_source(tmp_path / "nowhere"), workspace, num_keypoints=3)


def test_broken_json_is_located(folder, workspace):
    write(folder / "gt/train.json", '[\n  {"filename": "a.png",}\n]')
    with pytest.raises(AnnotationFileError, match=r"train.json:2:\d+: not JSON"):
        pull(sloth_source(folder), workspace, num_keypoints=3)


def test_an_empty_source_leaves_the_last_pull_alone(folder, workspace):
    before = pull(sloth_source(folder), workspace, num_keypoints=3).raw.read_bytes()
    for path in folder.rglob("*.json"):
        write(path, [])
    with pytest.raises(SourceEmptyError, match=r"source team: .*team \(gt/\*\*/\*.json\) holds no record"):
        pull(sloth_source(folder), workspace, num_keypoints=3)
    assert (workspace.raw("team") / "raw.jsonl").read_bytes() == before


def export_source(tmp_path, *files, **settings):
    return LabelStudioExportSource(
        kind="label_studio_export",
        name="export",
        files=[str(tmp_path / file) for file in files],
        image_root=str(tmp_path / "media"),
        **settings,
    )


def test_an_export(tmp_path, workspace):
    unflagged = some_task() | {"id": 18}
    unflagged["data"] |= {"occlusion": "unknown", "image": "/data/local-files/?d=set/face2.png"}
    lost = {"id": 19, "data": {"image": "nowhere.png"}, "annotations": []}
    write(tmp_path / "a.json", [some_task(occluded=(1,)), unflagged, lost, 7])
    write(tmp_path / "media/3/0a1b2c3d-face.png", "")
    write(tmp_path / "media/set/face2.png", "")
    source = export_source(tmp_path, "*.json", subject=SubjectRule(field="subject"))
    records = records_of(pull(source, workspace, num_keypoints=5))
    media = tmp_path / "media"
    assert [(r.key, r.image, r.flags_known, r.subject) for r in records] == [
        ("a.json#0/task/17", str(media / "3/0a1b2c3d-face.png"), True, "set/7"),
        ("a.json#1/task/18", str(media / "set/face2.png"), False, "set/7"),
        ("a.json#2/task/19", None, True, None),
        ("a.json#3", None, True, None),
    ]
    assert records[0].payload == some_task(occluded=(1,))


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("rule", ["pattern", "csv", "multipie"])
def test_an_export_whose_image_is_in_another_field(tmp_path, workspace, rule, plain):
    """Whosever picture the other fields show; read quickly and as a whole."""
    mine, other = "079_02_01_051_07.png", "001_01_01_240_00.png"
    task = some_task()
    if not plain:
        task["annotations"][0]["result"].append({"id": "r", "type": "choices", "value": {"choices": []}})
    task["data"] = {"reference": f"0a1b2c3d-{other}", "image": other, "photo": f"/data/upload/3/0a1b2c3d-{mine}"}
    write(tmp_path / "a.json", [task])
    for number, name in enumerate([mine, other]):
        write_image(tmp_path / "media" / name, seed=number, width=120, height=90)
    write(tmp_path / "people.csv", f"file,subject_id\n{mine},079\n{other},001\n")
    settings = {
        "pattern": {"subject": SubjectRule(dataset="multipie", pattern=r"(?P<subject>\d{3})_")},
        "csv": {"subject": SubjectRule(dataset="multipie", csv=str(tmp_path / "people.csv"))},
        "multipie": {"name_format": "multipie"},
    }
    source = export_source(tmp_path, "a.json", image_field="photo", **settings[rule])
    pulled = pull(source, workspace, num_keypoints=5)
    index = ImageIndex(workspace.image_index)
    outcome = validate(read_raw(pulled.raw), num_keypoints=5, rules=ValidationRules(), index=index)
    (face,) = outcome.faces
    assert (face.subject, face.image_name, face.image) == ("multipie/079", mine, str(tmp_path / "media" / mine))
    conditions = ("02", "05_1", "07") if rule == "multipie" else (None, None, None)
    assert (face.session, face.camera, face.illumination) == conditions


def test_an_image_that_is_missing_is_not_replaced_by_another_field_s(tmp_path, workspace):
    task = some_task()
    task["data"] = {"reference": "001_x.png", "photo": "079_x.png"}
    write(tmp_path / "a.json", [task])
    write(tmp_path / "media/001_x.png", "")
    rule = SubjectRule(dataset="team", pattern=r"(?P<subject>\d{3})_")
    source = export_source(tmp_path, "a.json", image_field="photo", subject=rule)
    (record,) = records_of(pull(source, workspace, num_keypoints=5))
    assert (record.image, record.subject) == (None, "team/079")


def test_a_pull_tells_why_images_are_missing_and_not_which(tmp_path):
    missing = {"079_a.png": "HTTP 404", "079_b.png": "can't be read: redirected to '079_c.png'", "d.png": "HTTP 404"}
    details = {"images": {"wanted": 9, "downloaded": 0, "missing": missing}}
    result = PullResult("server", "label_studio", tmp_path, 9, {"faces": 9}, "hash", details)
    told = "3 images can't be had: HTTP 404 2, can't be read 1 (pull.json names them)"
    assert str(result) == f"9 records from label_studio; {told}"


def test_a_text_that_is_no_file_s_name_finds_none(tmp_path, workspace):
    tasks = [some_task(), some_task()]
    tasks[1]["data"] = {"image": "a" * 300}
    write(tmp_path / "a.json", tasks)
    write(tmp_path / "media/face.png", "")
    records = records_of(pull(export_source(tmp_path, "a.json"), workspace, num_keypoints=5))
    assert [record.image for record in records] == [str(tmp_path / "media/face.png"), None]


@pytest.mark.parametrize(
    ("stored", "file"),
    [
        ("/data/upload/3/0a1b2c3d-j%C3%B6rg.png?token=a/b", "3/0a1b2c3d-jörg.png"),
        ("/data/local-files/?d=set/face.png", "another/face.png"),
    ],
)
def test_an_image_in_another_folder_is_found_by_its_name(tmp_path, workspace, stored, file):
    write(tmp_path / "a.json", [some_task() | {"data": {"image": stored}}])
    write(tmp_path / "media" / file, "")
    (record,) = records_of(pull(export_source(tmp_path, "a.json"), workspace, num_keypoints=5))
    assert record.image == str(tmp_path / "media" / file)


def test_files_of_several_patterns_come_together(tmp_path, workspace):
    for name in ("a.json", "b.json"):
        write(tmp_path / name, [some_task()])
    (tmp_path / "media").mkdir()
    records = records_of(pull(export_source(tmp_path, "b.json", "a*.json"), workspace, num_keypoints=5))
    assert [record.key for record in records] == ["a.json#0/task/17", "b.json#0/task/17"]


def test_a_name_that_two_images_have_finds_neither(tmp_path, workspace):
    write(tmp_path / "a.json", [some_task()])
    write(tmp_path / "media/1/face.png", "")
    write(tmp_path / "media/2/face.png", "")
    (record,) = records_of(pull(export_source(tmp_path, "a.json"), workspace, num_keypoints=5))
    assert record.image is None


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"id": 1}', "holds a JSON dict, not a list of tasks"), ("[1,\n2", r"a.json:2:\d+: not JSON")],
)
def test_an_export_that_is_broken(tmp_path, workspace, content, message):
    write(tmp_path / "a.json", content)
    write(tmp_path / "media/x.png", "")
    with pytest.raises(AnnotationFileError, match=message):
        pull(export_source(tmp_path, "a.json"), workspace, num_keypoints=5)


def test_an_export_that_is_not_there(tmp_path, workspace):
    with pytest.raises(AnnotationFileError, match=r"b-\*.json: no file matches"):
        pull(export_source(tmp_path, "b-*.json"), workspace, num_keypoints=5)


def test_rendered_faces(workspace):
    source = RenderedSource(kind="rendered", name="demo", subjects=60, images_per_subject=1)
    seen = []
    result = pull(source, workspace, num_keypoints=68, progress=lambda *step: seen.append(step))
    records = records_of(result)
    assert len(records) == 60
    assert seen[-1] == ("images", 60, 60)
    assert all(record.flags_known and record.subject.startswith("multipie-like/") for record in records)
    again = pull(source, workspace, num_keypoints=68)
    assert again.details["reused"]
    assert again.content_hash == result.content_hash
    picture = Path(records[7].image)
    picture.unlink()
    mended = pull(source, workspace, num_keypoints=68)
    assert not mended.details["reused"] and picture.is_file()
    assert mended.content_hash == result.content_hash


def test_rendered_faces_have_a_face_s_layout(workspace):
    source = RenderedSource(kind="rendered", name="demo")
    with pytest.raises(SpecError, match="source demo: rendered faces have 68, 80, 104 keypoints, not 10"):
        pull(source, workspace, num_keypoints=10)


@given(st.text(st.sampled_from("a./"), max_size=6), st.sampled_from(["", ".", "/r", "r/s", "../r"]))
def test_image_paths_are_those_of_pathlib(name, root):
    assert image_finder(Path(root))(name) == str(Path(root) / name)
