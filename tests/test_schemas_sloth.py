"""Sloth/TAO ground truth: what is read, what is refused, and how it differs from the reference on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import AnnotationFileError
from schemas.geometry import Box
from schemas.records import Flag
from schemas.sloth import (
    face_to_sloth,
    flags_known_in,
    has_flags,
    image_entry,
    load_sloth_file,
    read,
    read_face_boxes,
)

QUIRKS = json.loads((Path(__file__).parent / "golden" / "json_parse_quirks.json").read_text())


def entry(*chunks, **more):
    return {"filename": "a.png", "class": "image", "annotations": list(chunks), **more}


def keypoints(points, **more):
    chunk = {"class": "FiducialPoints"}
    for number, (x, y) in enumerate(points, start=1):
        chunk |= {f"P{number}x": x, f"P{number}y": y}
    return chunk | more


def read_points(payload, num_keypoints=4):
    faces, problems = read(payload, num_keypoints=num_keypoints, flags_known=True)
    return faces, [problem.code for problem in problems]


def quirk(name):
    return read_points(entry(*QUIRKS[name]["annotations"]), QUIRKS[name]["num_keypoints"])


FOUR = [(1.5, 2.5), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0)]
coordinates = st.floats(-1e4, 1e4, width=32)
boxes = st.none() | st.builds(Box, coordinates, coordinates, st.floats(1, 500), st.floats(1, 500))


@given(
    faces=st.lists(
        st.tuples(
            hnp.arrays(np.float32, (4, 2), elements=coordinates),
            hnp.arrays(np.int8, 4, elements=st.sampled_from([-1, 0, 1])),
            boxes,
            boxes,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_faces_round_trip(faces):
    chunks = [face_to_sloth(p, f, tight_box=tight, outer_box=outer) for p, f, tight, outer in faces]
    same_boxes = len({len(chunk) for chunk in chunks}) == 1
    entry = json.loads(json.dumps(image_entry("a.png", chunks, camera="05_1")))
    for index, (points_N2, flags_N, tight, outer) in enumerate(faces):
        known = not (flags_N == Flag.UNKNOWN).any()
        read_back, problems = read(entry, num_keypoints=4, flags_known=bool(known))
        assert not problems
        face = read_back[index]
        np.testing.assert_array_equal(face.points_N2, points_N2)
        np.testing.assert_array_equal(face.flags_N, flags_N)
        assert face.face_index == index and face.camera == "05_1"
        if same_boxes:
            assert (face.tight_box, face.outer_box) == (tight, outer)


def test_reads_class_in_any_case_prefixes_and_numeric_strings():
    chunk = {
        "class": "myFIDUCIALPOINTSv2", "tool-version": "1.0", "p1X": " 1.5", "LANDMARK_1_Y": "2e0", "2x": 3,
        "P2y": -0.9, "P1Occ": 0, "P2occlusion": 1,
    }  # fmt: skip
    (face,), codes = read_points(entry({"class": "Other", "x": 1}, chunk), 2)
    assert codes == []
    np.testing.assert_array_equal(face.points_N2, np.float32([[1.5, 2], [3, -0.9]]))
    assert face.flags_N.tolist() == [Flag.VISIBLE, Flag.OCCLUDED]


def test_sub_pixel_positions_survive_where_the_reference_truncates():
    (face,), _ = quirk("truncate")
    np.testing.assert_array_equal(face.points_N2[:2], np.float32([[1.9, -0.9], [3.7, 4]]))


def test_text_false_is_not_occluded_where_the_reference_says_it_is():
    (face,), _ = read_points(entry(keypoints(FOUR, P2occluded="1", P3occluded="False", P4occluded="True")))
    assert face.flags_N.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["missing_points_zero", "number_over_N_ignored", "tool_version_skipped_Version_not"])
def test_missing_point_is_a_problem_and_not_the_origin(name):
    (face,), codes = quirk(name)
    assert codes == ["wrong-keypoint-count"]
    assert np.isnan(face.points_N2).any()


def test_what_is_missing_is_named():
    for number, keypoint, value in (
        (5, "P5", "4 of 5; missing P5"),
        (13, None, "4 of 13; missing P5, P6, P7, P8, P9, P10, P11, P12 and 1 more"),
    ):
        _, (problem,) = read(entry(keypoints(FOUR)), num_keypoints=number, flags_known=True)
        assert (problem.keypoint, problem.value) == (keypoint, value)


def test_what_float32_does_not_hold_is_no_coordinate():
    (face,), problems = read(entry(keypoints(FOUR, P1x=1e39, P3y="-4e38")), num_keypoints=4, flags_known=True)
    assert [(problem.code, problem.keypoint) for problem in problems] == [
        ("keypoint-not-finite", "P1"),
        ("keypoint-not-finite", "P3"),
    ]
    assert np.isnan(face.points_N2[[0, 2]]).all() and np.isfinite(face.points_N2[[1, 3]]).all()


def test_points_above_n_are_ignored_as_by_the_reference():
    (face,), codes = read_points(entry(keypoints([*FOUR, (9, 9)], P5occluded=True)))
    assert codes == [] and face.points_N2.tolist() == [list(p) for p in FOUR]


def test_faces_of_an_image_do_not_inherit_from_each_other():
    faces, codes = quirk("two_faces_carry_over")
    assert codes == ["wrong-keypoint-count"] * 2
    assert np.isnan(faces[1].points_N2[1]).all() and faces[1].flags_N.tolist() == [0, 0, 0, 0]
    assert [face.key_suffix for face in faces] == ["/face1", "/face2"]


def test_number_zero_is_an_unknown_label_and_not_the_last_point():
    (face,), codes = read_points(entry(keypoints(FOUR, P0x=6, P0y=6, P0occluded=True)))
    assert codes == ["unknown-label"] and face.points_N2[3].tolist() == [7, 8] and face.flags_N[3] == Flag.VISIBLE


@pytest.mark.parametrize("key", ["P1x_2", "P1xy", "P1ocluded"])
def test_misspelt_key_is_reported(key):
    _, codes = read_points(entry(keypoints(FOUR, **{key: 5})))
    assert codes == ["unknown-key"]


@pytest.mark.parametrize("key", ["note", "Version", "tool-version2"])
def test_keys_about_something_else_are_left_alone(key):
    assert read_points(entry(keypoints(FOUR, **{key: "v"})))[1] == []


@pytest.mark.parametrize(
    "again", [{"p1X": 3, "p1Y": 4}, {"p1X": 3}, {"p1Y": 4}, {"P1occluded": True, "P1occ": False}]
)
def test_two_spellings_of_one_key_are_a_duplicate(again):
    (face,), codes = read_points(entry(keypoints(FOUR) | again))
    assert codes == ["duplicate-label"] and face.points_N2[0].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"filename": "a"}, '"annotations" is a required property'),
        ({"annotations": []}, '"filename" is a required property'),
        (3, '3 is not of type "object"'),
        (entry({"P1x": 9}), '"class" is a required property'),
        (entry({"class": "FiducialPoints", "P1x": None}), "$.annotations[0].P1x: null"),
        (entry({"class": "FiducialPoints", "P1x": "wide"}), '$.annotations[0].P1x: "wide"'),
        (entry({"class": "FiducialPoints", "P1occluded": "maybe"}), '$.annotations[0].P1occluded: "maybe"'),
        (entry({"class": "FaceBbox", "face_tight_bboxx": 1}), '"face_tight_bboxwidth" is a required'),
    ],
)
def test_schema_problem_says_where(payload, place):
    faces, problems = read(payload, num_keypoints=4, flags_known=True)
    assert faces == [] and {problem.code for problem in problems} == {"schema"}
    assert any(place in problem.value for problem in problems)


def test_image_without_keypoints_is_skipped():
    assert read_points(entry())[1] == ["not-annotated"]


def test_face_boxes_without_keypoints_for_inference():
    sides = dict(zip(("x", "y", "width", "height"), (4.5, 5, 60, "70"), strict=True))
    chunk = {"class": "FaceBbox"} | {f"face_tight_bbox{side}": value for side, value in sides.items()}
    name, found, problems = read_face_boxes(entry(chunk, chunk | {"face_tight_bboxwidth": 0}))
    assert name == "a.png" and found == [Box(4.5, 5, 60, 70)]
    assert [problem.code for problem in problems] == ["degenerate-face-box"]


def test_inference_looks_at_the_face_boxes_alone():
    sides = {f"face_tight_bbox{side}": 9 for side in ("x", "y", "width", "height")}
    box, points = {"class": "FaceBbox", **sides}, {"class": "FiducialPoints", "P1x": None}
    assert read_face_boxes(entry(points, box, {"P1x": 3}) | {"camera": []}) == ("a.png", [Box(9, 9, 9, 9)], [])
    name, found, problems = read_face_boxes(entry(box | {"face_tight_bboxx": None}))
    assert (name, found) == ("a.png", []) and [problem.code for problem in problems] == ["schema"]


def test_box_goes_to_the_face_inside_it_when_boxes_and_faces_differ_in_number():
    far = face_to_sloth(np.float32(FOUR) + 100, np.zeros(4), tight_box=Box(100, 100, 20, 20))
    near = face_to_sloth(np.float32(FOUR), np.zeros(4))
    first, second = read_points(image_entry("a", [near, far]))[0]
    assert first.tight_box is None and second.tight_box == Box(100, 100, 20, 20)


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([Box(100, 100, 20, 20)], Box(0, 0, 20, 9)),
        ([Box(2, 3, 9, 9)], None),  # around it, too
        ([Box(0, 0, 20, 4.5)], Box(0, 0, 20, 9)),  # ends above its centre
    ],
)
def test_a_face_that_has_more_boxes_than_it_takes_the_one_around_it(others, found):
    (around, chunk), *more = (
        face_to_sloth(np.float32(FOUR), np.zeros(4), tight_box=box) for box in (Box(0, 0, 20, 9), *others)
    )
    (face,), codes = read_points(entry(*(boxes for boxes, _ in more), around, chunk))
    assert codes == [] and face.tight_box == found


def test_coordinates_are_written_as_short_as_they_read_back():
    (chunk,) = face_to_sloth(np.float32([[0.1, 1e-7]]), np.zeros(1))
    assert (chunk["P1x"], chunk["P1y"]) == (0.1, 1e-7)


@pytest.mark.parametrize(("key", "says"), [("p2OCC", True), ("P2occluded", True), ("P2X", False), ("note", False)])
def test_has_flags_where_a_key_says_so(key, says):
    assert has_flags(entry(keypoints(FOUR[:1], **{key: 0}))) is says


@pytest.mark.parametrize("otherwise", [True, False])
def test_an_entry_says_what_a_missing_flag_means(otherwise):
    entries = [entry(), entry(occlusion="flagged"), entry(occlusion="unknown"), entry(occlusion=[])]
    assert [flags_known_in(e, otherwise) for e in entries] == [otherwise, True, False, otherwise]


def test_broken_json_has_line_and_column(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text('[\n {"filename": "a.png",, }]')
    with pytest.raises(AnnotationFileError, match=r"gt\.json:2:23: not JSON") as caught:
        load_sloth_file(path)
    assert (caught.value.line, caught.value.column) == (2, 23)


@pytest.mark.parametrize(("text", "kind"), [("{}", "dict"), ("3", "int")])
def test_file_that_is_no_list_is_refused(tmp_path, text, kind):
    path = tmp_path / "gt.json"
    path.write_text(text)
    with pytest.raises(AnnotationFileError, match=f"JSON {kind}, not a list of images"):
        load_sloth_file(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(AnnotationFileError, match="can't be read: No such file"):
        load_sloth_file(tmp_path / "gt.json")


def test_key_given_twice_is_not_lost(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text('[{"filename":"a","annotations":[{"class":"FiducialPoints","P1x":1,"P1y":2,"P1x":3}]}]')
    _, problems = read(load_sloth_file(path)[0], num_keypoints=1, flags_known=True)
    assert [(problem.code, problem.keypoint) for problem in problems] == [("duplicate-label", "P1")]


@given(doubled=st.booleans(), where=st.integers(0, 2), note=st.sampled_from(["x", "a:b", "a\\u003ab", 'a\\": 1']))
def test_keys_given_twice_are_found_whatever_else_the_text_holds(tmp_path_factory, doubled, where, note):
    """Colons in texts are no reason to miss one: a text with a colon may hide behind the second key."""
    again = [f'"P1x": 3, "note": "{note}", ' if doubled and where == place else "" for place in range(3)]
    chunk = f'{{"class": "FiducialPoints", {again[0]} "P1x": 1, {again[1]} "P1y": 2, "tool": "{note}"}}'
    path = tmp_path_factory.mktemp("gt") / "gt.json"
    path.write_text(f'[{{"filename": "{note}", "annotations": [{chunk}]}}]')
    _, problems = read(load_sloth_file(path)[0], num_keypoints=1, flags_known=True)
    found = [problem.code for problem in problems]
    assert found == (["duplicate-label"] if doubled and where < 2 else [])
