"""Landmark datasets as sources: the same faces whatever they come as, and what is wrong with its place."""

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from schemas.config import ConversionSettings, SplitPolicy, ValidationRules, WorkflowConfig
from schemas.errors import AnnotationFileError, SourceEmptyError, SpecError
from schemas.raw import read_raw
from schemas.records import Flag
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import CocoSource, CofwSource, PtsSource, SlothSource, SubjectRule, WflwSource
from schemas.wflw import AS_68
from schemas.yamlspec import parse_spec
from tasks.convert import convert
from tasks.images import ImageIndex
from tasks.pull import pull
from tasks.snapshot import load_snapshot, take_snapshot
from tasks.tombstones import Tombstones
from tasks.validate import validate
from tasks.workspace import Workspace
from tests.landmark_files import (
    made_faces,
    pts_text,
    wflw_line,
    write_coco,
    write_cofw,
    write_images,
    write_pts,
)
from tests.raw_records import write_image

SUBJECT = SubjectRule(dataset="team", pattern=r"(?:^|/)(?P<subject>\d+)[^/]*$")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def faces_of(workspace):
    def run(source, num_keypoints, **rules):
        raw = pull(source, workspace, num_keypoints=num_keypoints).raw
        settings = {"max_rejected_share": 1.0} | rules
        return validate(
            read_raw(raw),
            num_keypoints=num_keypoints,
            rules=ValidationRules(**settings),
            index=ImageIndex(workspace.image_index),
        )

    return run


def found(outcome):
    return [(violation.code, violation.record, violation.keypoint) for violation in outcome.violations]


def settings(kind, **more):
    return {"kind": kind, "name": "s", "subject": SUBJECT} | more


def pts(root, **more):
    return PtsSource(**settings("pts", root=str(root), **more))


def wflw(path, images, **more):
    return WflwSource(**settings("wflw", files=[str(path)], image_root=str(images), **more))


def coco(path, images, **more):
    return CocoSource(**settings("coco", files=[str(path)], image_root=str(images), **more))


def cofw(path, **more):
    return CofwSource(**settings("cofw", files=[str(path)], **more))


def test_the_same_faces_whatever_they_come_as(tmp_path, faces_of):
    made = made_faces(4, 29)
    images = write_images(tmp_path / "images", made)
    write_pts(images, made)
    sources = [
        pts(images),
        coco(write_coco(tmp_path / "a.json", made), images),
        cofw(write_cofw(tmp_path / "COFW_train_color.mat", made)),
    ]
    for source in sources:
        outcome = faces_of(source, 29)
        assert outcome.violations == []
        for face, expected in zip(outcome.faces, made, strict=True):
            np.testing.assert_array_equal(face.points_N2, expected.points_N2)
            np.testing.assert_array_equal(face.flags_N, expected.occluded_N)
            assert face.tight_box in (None, (4, 5, 40, 40.5))
    assert [face.subject for face in faces_of(sources[0], 29).faces] == ["team/000"] * 2 + ["team/001"] * 2


def test_pts_without_flags_in_folders(tmp_path, faces_of):
    made = made_faces(3, 68)
    write_images(tmp_path / "pictures/helen/train", made[:2])
    write_images(tmp_path / "pictures", made[2:])
    write_pts(tmp_path / "points/helen/train", made[:2], flags=False)
    write_pts(tmp_path / "points", made[2:], flags=False)
    source = pts(tmp_path / "points", image_root=str(tmp_path / "pictures"))
    outcome = faces_of(source, 68)
    assert [(face.source_key, face.image_name, face.set_id) for face in outcome.faces] == [
        ("s:001_2.pts", "001_2.png", "s"),
        ("s:helen/train/000_0.pts", "helen/train/000_0.png", "helen/train"),
        ("s:helen/train/000_1.pts", "helen/train/000_1.png", "helen/train"),
    ]
    assert {flag for face in outcome.faces for flag in face.flags_N} == {Flag.UNKNOWN}
    flagged = faces_of(pts(tmp_path / "points", image_root=str(tmp_path / "pictures"), occlusion="flagged"), 68)
    assert {flag for face in flagged.faces for flag in face.flags_N} == {Flag.VISIBLE}


def test_one_file_with_flags_makes_points_without_one_visible(tmp_path, faces_of):
    made = made_faces(2, 5)
    write_pts(write_images(tmp_path, made), made[:1])
    write_pts(tmp_path, made[1:], flags=False)
    assert [set(face.flags_N) for face in faces_of(pts(tmp_path), 5).faces][1] == {Flag.VISIBLE}


def test_an_image_s_suffix_may_be_in_capitals(tmp_path, faces_of):
    made = made_faces(1, 5)
    write_pts(write_images(tmp_path, made), made)
    (tmp_path / "000_0.png").rename(tmp_path / "000_0.PNG")
    assert [face.image_name for face in faces_of(pts(tmp_path), 5).faces] == ["000_0.PNG"]


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, faces_of):
    made = made_faces(1, 98)
    images = write_images(tmp_path, made)
    (tmp_path / "000_0.pts").write_text(pts_text(made[0].points_N2), encoding="utf-8-sig")
    (tmp_path / "list.txt").write_text(wflw_line(made[0]), encoding="utf-8-sig")
    for source in (pts(images), wflw(tmp_path / "list.txt", images)):
        outcome = faces_of(source, 98)
        assert (len(outcome.faces), outcome.violations) == (1, [])


def test_origin_is_a_setting(tmp_path, faces_of):
    made = made_faces(1, 5)
    write_pts(write_images(tmp_path, made), made)
    (face,) = faces_of(pts(tmp_path, origin=0.5), 5).faces
    np.testing.assert_array_equal(face.points_N2, made[0].points_N2 + 0.5)


def test_broken_pts_files_are_violations_each(tmp_path, faces_of):
    made = made_faces(8, 5)
    write_pts(write_images(tmp_path, made), made)
    good = pts_text(made[0].points_N2)
    broken = {
        "000_0": good.replace("\n}", ""),
        "000_1": good.replace("n_points:  5", "n_points:  6"),
        "001_2": pts_text(made[0].points_N2[:4]),
        "001_3": good.replace(good.splitlines()[4], "nan 7.0"),
        "002_4": good.replace(good.splitlines()[5], "12,5 7.0"),
        "002_5": good.replace(good.splitlines()[5], "12.5"),
    }
    for stem, text in broken.items():
        (tmp_path / f"{stem}.pts").write_text(text)
    (tmp_path / "003_6.pts").write_bytes(good.replace("\n", "\xff\n").encode("latin-1"))
    (tmp_path / "003_7.png").unlink()
    outcome = faces_of(pts(tmp_path), 5)
    assert found(outcome) == [
        ("malformed", "s:000_0.pts", None),
        ("malformed", "s:000_1.pts", None),
        ("wrong-keypoint-count", "s:001_2.pts", None),
        ("keypoint-not-finite", "s:001_3.pts", "P2"),
        ("not-a-number", "s:002_4.pts", "P3"),
        ("malformed", "s:002_5.pts", None),
        ("malformed", "s:003_6.pts", None),
        ("image-missing", "s:003_7.pts", None),
    ]
    assert outcome.counts.accepted == 0
    values = [violation.value for violation in outcome.violations]
    assert values[0] == "no closing brace; the file ends after line 8"
    assert values[3:6] == ["line 5: (nan, 7.0)", "line 6: '12,5', '7.0'", "line 6: '12.5'"]
    assert values[6] == r"line 3: '{\xff' and 1 more"


def test_two_images_for_one_pts_file(tmp_path, faces_of):
    made = made_faces(1, 5)
    write_pts(write_images(tmp_path, made), made)
    write_image(tmp_path / "000_0.jpg", seed=4)
    with pytest.raises(AnnotationFileError, match=r"000_0.pts: has two images, 000_0.png and 000_0.jpg"):
        faces_of(pts(tmp_path), 5)
    assert faces_of(pts(tmp_path, image_suffixes=[".jpg"]), 5).faces[0].image_name == "000_0.jpg"


def test_wflw(tmp_path, faces_of):
    made = made_faces(3, 98)
    images = write_images(tmp_path / "WFLW_images", made)
    lines = [wflw_line(face, occluded=int(i == 1)) for i, face in enumerate(made)]
    (tmp_path / "train.txt").write_text("\n".join([*lines[:2], "", lines[2]]) + "\n")
    outcome = faces_of(wflw(tmp_path / "train.txt", images), 98)
    assert outcome.violations == []
    assert [(face.source_key, face.set_id, face.tight_box) for face in outcome.faces] == [
        (f"s:train.txt:{number}", "train", (4, 5, 40, 40)) for number in (1, 2, 4)
    ]
    np.testing.assert_array_equal(outcome.faces[2].points_N2, made[2].points_N2)
    assert not any(face.occlusion_known for face in outcome.faces)

    told = faces_of(wflw(tmp_path / "train.txt", images, occlusion="flagged"), 98)
    assert [face.occlusion_known for face in told.faces] == [True, False, True]

    as_68 = faces_of(wflw(tmp_path / "train.txt", images), 68)
    np.testing.assert_array_equal(as_68.faces[0].points_N2, made[0].points_N2[list(AS_68)])

    other = faces_of(wflw(tmp_path / "train.txt", images), 80)
    assert {violation.code for violation in other.violations} == {"wrong-keypoint-count"}
    assert other.violations[0].value == "98 points"


def test_wflw_lists_without_rectangles(tmp_path, faces_of):
    made = made_faces(1, 98)
    fields = wflw_line(made[0]).split()
    (tmp_path / "list.txt").write_text(" ".join(fields[:196] + fields[-1:]))
    images = write_images(tmp_path, made)
    (face,) = faces_of(wflw(tmp_path / "list.txt", images, occlusion="flagged"), 98).faces
    assert face.tight_box is None and face.occlusion_known


def test_broken_wflw_lines(tmp_path, faces_of):
    made = made_faces(1, 98)
    images = write_images(tmp_path, made)
    good = wflw_line(made[0])
    others = good.split()[1:]
    lines = [
        good,
        " ".join(others),
        good.replace(made[0].name, "nowhere/1_1.png"),
        " ".join(["inf", *others]),
        " ".join(["1_0", *others]),
        wflw_line(made[0], occluded=2),
        wflw_line(made[0], corners="4 5 4 45"),
        wflw_line(made[0], corners="4 5 x 45"),
        good,
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    outcome = faces_of(wflw(tmp_path / "list.txt", images), 98)
    assert found(outcome) == [
        ("malformed", "s:list.txt:2", None),
        ("image-missing", "s:list.txt:3", None),
        ("keypoint-not-finite", "s:list.txt:4", "P1"),
        ("not-a-number", "s:list.txt:5", "P1"),
        ("malformed", "s:list.txt:6", None),
        ("degenerate-face-box", "s:list.txt:7", None),
        ("not-a-number", "s:list.txt:8", None),
        ("duplicate-face", "s:list.txt:9", None),
    ]
    assert outcome.violations[0].value == "206 fields"


def test_a_list_that_is_no_text(tmp_path, faces_of):
    (tmp_path / "list.txt").write_bytes(b"1 2 a.png\n\n1 2 \xff.png\n")
    with pytest.raises(AnnotationFileError, match=r"list.txt:3:5: no text in UTF-8"):
        faces_of(wflw(tmp_path / "list.txt", tmp_path), 98)


def test_several_faces_in_a_coco_image(tmp_path, faces_of):
    made = made_faces(3, 5)
    made[1] = made[1]._replace(name=made[0].name)
    content = json.loads(write_coco(tmp_path / "a.json", made).read_text())
    content["images"].append({"id": "empty", "file_name": "empty.png"})
    content["annotations"].append({"image_id": 100, "keypoints": [0] * 15})
    content["annotations"].append({"image_id": 101, "bbox": [1, 2, 3, 4]})
    (tmp_path / "a.json").write_text(json.dumps(content))
    outcome = faces_of(coco(tmp_path / "a.json", write_images(tmp_path, made)), 5)
    assert [(face.source_key, face.annotation_id) for face in outcome.faces] == [
        ("s:a.json#images[0]/annotations[0]", "7"),
        ("s:a.json#images[0]/annotations[1]", "8"),
        ("s:a.json#images[1]/annotations[2]", "9"),
    ]
    assert found(outcome) == [
        ("not-annotated", "s:a.json#images[0]/annotations[3]", None),
        ("not-annotated", "s:a.json#images[1]/annotations[4]", None),
        ("not-annotated", "s:a.json#images[2]", None),
    ]
    assert (outcome.counts.accepted, outcome.counts.skipped) == (3, 3)


def test_a_coco_image_says_whose_face_it_shows(tmp_path, faces_of):
    made = made_faces(1, 5)
    content = json.loads(write_coco(tmp_path / "a.json", made).read_text())
    content["images"][0]["subject"] = "team/7"
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = coco(tmp_path / "a.json", write_images(tmp_path, made), subject=SubjectRule(field="subject"))
    assert [face.subject for face in faces_of(source, 5).faces] == ["team/7"]


def test_faces_of_coco_wholebody(tmp_path, faces_of):
    made = made_faces(2, 68)
    content = json.loads(write_coco(tmp_path / "a.json", made, field="face_kpts", box="face_box").read_text())
    content["annotations"][0]["face_kpts"][2] = 0.37  # how reliable the point is
    content["annotations"][1]["face_valid"] = False  # whatever its keypoints say
    (tmp_path / "a.json").write_text(json.dumps(content))
    outcome = faces_of(coco(tmp_path / "a.json", write_images(tmp_path, made), field="face_kpts"), 68)
    (face,) = outcome.faces
    assert face.flags_N[0] == Flag.UNKNOWN
    np.testing.assert_array_equal(face.flags_N[1:], made[0].occluded_N[1:])
    assert face.tight_box == (4, 5, 40, 40.5)
    assert [v.code for v in outcome.violations] == ["not-annotated"]


def test_broken_coco_annotations(tmp_path, faces_of):
    made = made_faces(8, 5)
    content = json.loads(write_coco(tmp_path / "a.json", made).read_text())
    annotations, images = content["annotations"], content["images"]
    annotations[0]["image_id"] = 99
    annotations[1]["keypoints"].pop()
    annotations[2]["keypoints"] = annotations[2]["keypoints"][:12]
    annotations[3]["keypoints"][3] = "left"
    annotations[4]["keypoints"][5] = 0
    annotations[5]["keypoints"][2] = "visible"
    annotations[6]["bbox"] = [1, 2, 3]
    images[7]["width"] += 1
    annotations.append("junk")
    images.append({"id": 900, "file_name": 7})
    (tmp_path / "a.json").write_text(json.dumps(content))
    outcome = faces_of(coco(tmp_path / "a.json", write_images(tmp_path, made)), 5)
    assert found(outcome) == [
        ("unknown-image", "s:a.json#annotations[0]", None),
        ("unknown-image", "s:a.json#annotations[8]", None),
        ("not-annotated", "s:a.json#images[0]", None),
        ("malformed", "s:a.json#images[1]/annotations[1]", None),
        ("wrong-keypoint-count", "s:a.json#images[2]/annotations[2]", None),
        ("not-a-number", "s:a.json#images[3]/annotations[3]", "P2"),
        ("keypoint-not-labelled", "s:a.json#images[4]/annotations[4]", "P2"),
        ("unknown-flag", "s:a.json#images[5]/annotations[5]", "P1"),
        ("not-a-number", "s:a.json#images[6]/annotations[6]", None),
        ("image-size-mismatch", "s:a.json#images[7]/annotations[7]", None),
        ("malformed", "s:a.json#images[8]", None),
    ]
    assert outcome.violations[0].value == "image_id 99"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "annotations": [NaN]}', r"a.json:2:\d+: not JSON"),
        ('{"images": [{"id": 1}', r"a.json:1:\d+: not JSON"),
        ("[]", r"\$.images is no list: this is not a COCO annotation file"),
        ('{"images": []}', r"\$.annotations is no list"),
        ('{"images": [{"id": 1}, {"file_name": "a"}], "annotations": []}', r"\$.images\[1\] is no object with an id"),
        ('{"images": [{"id": true}], "annotations": []}', r"\$.images\[0\] is no object with an id"),
        ('{"images": [{"id": 1}, {"id": 1}], "annotations": []}', r"\$.images\[1\].id 1 is that of \$.images\[0\]"),
    ],
)
def test_files_that_are_no_coco_file(tmp_path, faces_of, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(AnnotationFileError, match=message):
        faces_of(coco(tmp_path / "a.json", tmp_path), 5)


def test_images_of_cofw(tmp_path, faces_of, workspace):
    made = made_faces(2, 29)
    path = write_cofw(tmp_path / "COFW_test_color.mat", made, suffix="T")
    outcome = faces_of(cofw(path), 29)
    assert [(face.source_key, face.image_name) for face in outcome.faces] == [
        (f"s:COFW_test_color.mat#{i}", f"COFW_test_color/000{i}.png") for i in (1, 2)
    ]
    colour, gray = (cv2.imread(face.image, cv2.IMREAD_UNCHANGED) for face in outcome.faces)
    expected = np.random.default_rng(0).integers(0, 256, colour.shape, np.uint8)
    np.testing.assert_array_equal(colour[..., ::-1], expected)
    assert gray.ndim == 2
    before = [face.image for face in outcome.faces]
    times = [Path(image).stat().st_mtime_ns for image in before]
    assert [face.image for face in faces_of(cofw(path), 29).faces] == before
    assert times == [Path(image).stat().st_mtime_ns for image in before]


def pictures(outcome):
    """First point of a face -> hash of its picture."""
    return {tuple(face.points_N2[0]): face.image_sha256 for face in outcome.faces}


def turn_round(path):
    """The rows of a file in the other order."""
    with h5py.File(path, "r+") as file:
        for name in ("IsTr", "phisTr", "bboxesTr"):
            file[name][...] = file[name][...][:, ::-1]


def test_another_file_of_the_name_brings_its_own_images(tmp_path, faces_of, workspace):
    path = write_cofw(tmp_path / "COFW_train_color.mat", made_faces(3, 29))
    before = pictures(faces_of(cofw(path), 29))
    turn_round(path)
    assert pictures(faces_of(cofw(path), 29)) == before and len(set(before.values())) == 3
    assert len(list(workspace.raw("s").rglob("*.png"))) == 3


def test_files_of_one_name_in_two_folders_keep_their_images_apart(tmp_path, workspace):
    for folder in ("color", "gray"):
        (tmp_path / folder).mkdir()
        path = write_cofw(tmp_path / folder / "COFW_train.mat", made_faces(2, 29))
    turn_round(path)
    records = list(read_raw(pull(cofw(tmp_path / "*/COFW_train.mat"), workspace, num_keypoints=29).raw))
    names = [f"{folder}/COFW_train/000{number}.png" for folder in ("color", "gray") for number in (1, 2)]
    assert [record.payload["image"] for record in records] == names
    first, second, third, fourth = (Path(record.image).read_bytes() for record in records)
    assert (first, second) == (fourth, third) and first != second


def test_forgotten_people_do_not_come_back_out_of_a_file(tmp_path, workspace):
    path = write_cofw(tmp_path / "COFW_test_color.mat", made_faces(3, 29), suffix="T")
    Tombstones.of(workspace.root).with_grave("team/0002", by="test", why="asked")
    result = pull(cofw(path), workspace, num_keypoints=29)
    assert [record.subject for record in read_raw(result.raw)] == ["team/0001", "team/0003"]
    kept = sorted(image.name for image in (workspace.raw("s") / "images").rglob("*.png"))
    assert kept == ["0001.png", "0003.png"]


def test_cofw_68(tmp_path, faces_of):
    path = write_cofw(tmp_path / "COFW_test_color.mat", made_faces(3, 29), suffix="T")
    (face_68,) = made_faces(1, 68, seed=9)
    (tmp_path / "points").mkdir()
    content = {"Points": face_68.points_N2 + 1, "Occ": face_68.occluded_N[:, None]}
    scipy.io.savemat(tmp_path / "points/2_points.mat", content)
    outcome = faces_of(cofw(path, points_68=str(tmp_path / "points")), 68)
    (face,) = outcome.faces
    assert face.source_key == "s:COFW_test_color.mat#2"
    np.testing.assert_array_equal(face.points_N2, face_68.points_N2)
    np.testing.assert_array_equal(face.flags_N, face_68.occluded_N)

    scipy.io.savemat(tmp_path / "points/2_points.mat", content | {"Occ": face_68.occluded_N[:67, None]})
    with pytest.raises(
        AnnotationFileError, match=r"2_points.mat: Points is \(68, 2\), Occ \(67, 1\), not N x 2 and N"
    ):
        faces_of(cofw(path, points_68=str(tmp_path / "points")), 68)
    (tmp_path / "points/2_points.mat").write_bytes(b"MATLAB")
    with pytest.raises(AnnotationFileError, match=r"2_points.mat: is no MATLAB file with Points and Occ"):
        faces_of(cofw(path, points_68=str(tmp_path / "points")), 68)
    with pytest.raises(AnnotationFileError, match=r"holds no files such as 1_points.mat"):
        faces_of(cofw(path, points_68=str(tmp_path)), 68)
    write_cofw(tmp_path / "COFW_train_color.mat", made_faces(1, 29))
    with pytest.raises(AnnotationFileError, match=r"belongs to the images of one file; name one in `files`"):
        faces_of(cofw(tmp_path / "*.mat", points_68=str(tmp_path / "points")), 68)


def test_cofw_without_boxes(tmp_path, faces_of):
    path = write_cofw(tmp_path / "COFW_train_color.mat", made_faces(2, 29))
    with h5py.File(path, "r+") as file:
        del file["bboxesTr"]
    outcome = faces_of(cofw(path), 29)
    assert ([face.tight_box for face in outcome.faces], outcome.violations) == ([None, None], [])


def test_broken_rows_of_cofw(tmp_path, faces_of):
    path = write_cofw(tmp_path / "COFW_train_color.mat", made_faces(3, 29))
    with h5py.File(path, "r+") as file:
        file["phisTr"][3, 0] = np.nan
        file["phisTr"][60, 1] = 0.5
        file["bboxesTr"][2, 2] = 0
    outcome = faces_of(cofw(path), 29)
    assert found(outcome) == [
        ("keypoint-not-finite", "s:COFW_train_color.mat#1", "P4"),
        ("unknown-flag", "s:COFW_train_color.mat#2", "P3"),
        ("degenerate-face-box", "s:COFW_train_color.mat#3", None),
    ]
    assert {v.code for v in faces_of(cofw(path), 68).violations} >= {"wrong-keypoint-count"}


def other_arrays(path):
    with h5py.File(path, "w") as file:
        file["pr"] = np.zeros(3)


def too_few_images(path):
    with h5py.File(path, "r+") as file:
        del file["phisTr"]
        file["phisTr"] = np.zeros((87, 5))


def no_references(path):
    with h5py.File(path, "r+") as file:
        del file["IsTr"]
        file["IsTr"] = np.zeros((1, 2))


def instead_of_a_picture(values):
    def spoil(path):
        with h5py.File(path, "r+") as file:
            file["IsTr"][0, 0] = file.create_dataset("#refs#/other", data=values).ref

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is no whole MATLAB 7.3 file"),
        (lambda path: path.write_text("text"), "is no whole MATLAB 7.3 file"),
        (other_arrays, "has no arrays IsTr and phisTr, or IsT and phisT; it has pr"),
        (too_few_images, "Is, phis and bboxes are .*, not images and a row for each"),
        (no_references, "Is, phis and bboxes are .*, not images and a row for each"),
        (instead_of_a_picture(np.zeros((4, 4))), r"image 1 is float64 of \(4, 4\), not a picture"),
        (instead_of_a_picture(np.zeros((4, 8, 8), np.uint8)), r"image 1 is uint8 of \(4, 8, 8\), not a picture"),
    ],
)
def test_files_that_are_no_cofw_file(tmp_path, faces_of, spoil, message):
    path = write_cofw(tmp_path / "a.mat", made_faces(2, 29))
    spoil(path)
    with pytest.raises(AnnotationFileError, match=f"a.mat: {message}"):
        faces_of(cofw(path), 29)


def test_files_that_are_not_there(tmp_path, faces_of):
    for source in (coco(tmp_path / "*.json", tmp_path), wflw(tmp_path / "a.txt", tmp_path), cofw(tmp_path / "a.mat")):
        with pytest.raises(AnnotationFileError, match="no file matches"):
            faces_of(source, 29)
    with pytest.raises(AnnotationFileError, match="nowhere: no such folder"):
        faces_of(pts(tmp_path / "nowhere"), 29)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SourceEmptyError, match=r"empty.txt holds no record"):
        faces_of(wflw(tmp_path / "empty.txt", tmp_path), 98)


def test_multipie_s_folders(tmp_path, faces_of):
    (made,) = made_faces(1, 68)
    name = "session02/multiview/001/01/05_1/001_02_01_051_07.png"
    write_pts(write_images(tmp_path, [made._replace(name=name)]), [])
    (tmp_path / name).with_suffix(".pts").write_text(pts_text(made.points_N2))
    other = tmp_path / "session01/highres/1.png"
    write_image(other, seed=3)
    other.with_suffix(".pts").write_text(pts_text(made.points_N2))
    outcome = faces_of(PtsSource(kind="pts", name="s", root=str(tmp_path), name_format="multipie"), 68)
    (face,) = outcome.faces
    assert (face.subject, face.session, face.camera, face.illumination) == ("multipie/001", "02", "05_1", "07")
    assert found(outcome) == [("subject-unknown", "s:session01/highres/1.pts", None)]


def test_an_annotation_s_own_conditions_stay(tmp_path, faces_of):
    """Also for entries that the quick reader takes."""
    entries = []
    for number, conditions in enumerate([{}, {"camera": "19_1", "session": "04"}], start=1):
        (made,) = made_faces(1, 5, seed=number)
        name = f"00{number}_02_01_051_07.png"
        write_image(tmp_path / name, seed=number)
        entries.append(image_entry(name, [face_to_sloth(made.points_N2, made.occluded_N)], **conditions))
    (tmp_path / "gt.json").write_text(json.dumps(entries))
    source = SlothSource(kind="sloth", name="s", root=str(tmp_path), gt=["gt.json"], name_format="multipie")
    assert [(f.subject, f.session, f.camera, f.illumination) for f in faces_of(source, 5).faces] == [
        ("multipie/001", "02", "05_1", "07"),
        ("multipie/002", "04", "19_1", "07"),
    ]


def test_sources_in_a_configuration():
    text = """
experiment_spec: spec.yaml
sources:
  - {kind: pts, name: a, root: 300w, origin: 1, subject: {dataset: w300, pattern: '(?P<subject>[^/]+)$'}}
  - {kind: wflw, name: b, files: [list.txt], image_root: WFLW_images}
  - {kind: cofw, name: c, files: [COFW_train_color.mat]}
  - {kind: coco, name: d, files: [coco.json], image_root: images, field: face_kpts}
  - {kind: sloth, name: e, root: pie, name_format: multipie}
"""
    sources = parse_spec(WorkflowConfig, text, "config.yaml").sources
    assert [source.kind for source in sources] == ["pts", "wflw", "cofw", "coco", "sloth"]
    assert sources[0].origin == 1 and sources[4].subject.dataset == "multipie"
    with pytest.raises(SpecError, match=r"config.yaml:5: sources.1.wflw.image_roots: unknown key .*image_root"):
        parse_spec(WorkflowConfig, text.replace("image_root: WFLW", "image_roots: WFLW"), "config.yaml")


@pytest.mark.parametrize("num_keypoints", [29, 98])
def test_layouts_without_regions_become_shards(tmp_path, faces_of, workspace, num_keypoints):
    made = made_faces(8, num_keypoints)
    write_pts(write_images(tmp_path / "s", made), made)
    outcome = faces_of(pts(tmp_path / "s"), num_keypoints)
    policy = SplitPolicy(kpi_subjects=["team/000"], validation_share=0.4)
    snapshot = take_snapshot(
        outcome, policy=policy, num_keypoints=num_keypoints, snapshots=workspace.snapshots, provenance={}
    )
    converted = convert(load_snapshot(snapshot.directory), ConversionSettings(buckets=1), workspace)
    assert sum(split["records"] for split in converted.result["splits"].values()) == 8
