import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from schemas.annotation import NOTED
from schemas.geometry import Box
from schemas.label_studio import has_flags, image_name, read
from schemas.label_studio_task import build_task
from schemas.records import Flag
from tests.label_studio_faces import FRAME, region, some_points, some_task


def codes(task, num_keypoints=5):
    return [problem.code for problem in read(task, num_keypoints=num_keypoints, flags_known=True)[1]]


def test_a_region_drawn_in_the_editor():
    """Numbers of a real annotation: 66.0288 % of 1280 pixels, from the left edge of the first pixel."""
    place = {
        "original_width": 1280,
        "original_height": 960,
        "image_rotation": 0,
        "origin": "manual",
        "to_name": "image",
    }
    at = {"x": 66.02879674587562, "y": 66.27891023183957, "width": 0.3}
    point = {
        "id": "fb",
        "from_name": "kp",
        "type": "keypointlabels",
        "value": at | {"keypointlabels": ["P1"]},
    } | place
    choice = {"id": "fb", "from_name": "occ", "type": "choices", "value": at | {"choices": ["occluded"]}} | place
    side = {"x": 35.546875, "y": 21.875, "width": 34.375, "height": 60.416666666666664, "rotation": 0}
    box = {
        "id": "1f",
        "from_name": "bbox",
        "type": "rectanglelabels",
        "value": side | {"rectanglelabels": ["FaceBbox"]},
    }
    annotation = {
        "id": 1222,
        "result": [box | place, point, choice],
        "completed_by": {"id": 1, "email": "a@example.test"},
        "was_cancelled": False,
        "ground_truth": True,
        "updated_at": "2026-11-21T22:57:52.198136Z",
    }
    task = {"id": 1212, "data": {"image": "/data/upload/3/89abcdef-img.png"}, "annotations": [annotation]}
    (face,), problems = read(task, num_keypoints=1, flags_known=True)
    assert problems == []
    assert face.points_N2 == pytest.approx(np.array([[844.66860, 635.77754]]), abs=1e-4)
    assert face.flags_N.tolist() == [Flag.OCCLUDED]
    assert face.tight_box == pytest.approx((455, 210, 440, 580))
    assert (face.frame_size, face.image_name) == ((1280, 960), "img.png")
    assert (face.annotator, face.annotation_id, face.key_suffix) == ("1", "1222", "/annotation/1222")
    assert (face.ground_truth, face.annotated_at) == (True, "2026-11-21T22:57:52.198136Z")


frames = st.tuples(st.integers(100, 8192), st.integers(100, 8192))
coordinates = st.floats(-0.5, 8191.5, width=32)
sides = st.floats(0.25, 4096, width=32)


@given(
    points_N2=st_numpy.arrays(np.float32, (7, 2), elements=coordinates),
    flags_N=st_numpy.arrays(np.int8, 7, elements=st.sampled_from([Flag.VISIBLE, Flag.OCCLUDED])),
    frame_size=frames,
    box=st.none() | st.builds(Box, coordinates, coordinates, sides, sides),
)
def test_round_trip(points_N2, flags_N, frame_size, box):
    """Percent and back costs rounding of a double: below 1e-9 px in a frame of 8192, so a float32 comes back."""
    task = build_task({"image": "a.png"}, points_N2, flags_N, frame_size=frame_size, tight_box=box)
    (face,), problems = read(task, num_keypoints=7, flags_known=True)
    assert problems == []
    np.testing.assert_allclose(face.points_N2, points_N2, rtol=0, atol=1e-9)
    assert face.flags_N.tolist() == flags_N.tolist()
    assert face.frame_size == frame_size
    assert (face.tight_box is None) if box is None else np.allclose(face.tight_box, box, rtol=0, atol=1e-9)


def test_the_face_box_lies_below_the_points_in_the_editor():
    """There the regions that come first are on top, and a box on top can't be clicked through."""
    kinds = [entry["type"] for entry in some_task()["annotations"][0]["result"]]
    assert kinds == ["keypointlabels"] * 5 + ["rectanglelabels"]


def test_unknown_flags_go_out_as_a_field_of_the_task():
    flags_N = np.array([Flag.UNKNOWN, Flag.OCCLUDED], np.int8)
    task = build_task({"image": "a.png"}, some_points(2), flags_N, frame_size=FRAME)
    assert task["data"]["occlusion"] == "unknown"
    (face,), _ = read(task, num_keypoints=2, flags_known=False)
    assert face.flags_N.tolist() == flags_N.tolist()


def test_an_imported_annotation_is_not_reviewed_yet():
    assert some_task()["annotations"][0]["ground_truth"] is False


def test_keypoints_above_n_serve_a_smaller_network():
    (face,), (problem,) = read(some_task(10, occluded=(2, 8)), num_keypoints=5, flags_known=True)
    assert (problem.code, problem.value) == ("keypoints-beyond-layout", "5 keypoints, P6 to P10")
    assert problem.code in NOTED
    assert face.flags_N.tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_allclose(face.points_N2, some_points(5), rtol=0, atol=1e-5)


def test_labels_of_80_points_left_in_a_project_of_68():
    """The first 68 points of both layouts are the same points."""
    (face,), (problem,) = read(some_task(80, occluded=(68, 69)), num_keypoints=68, flags_known=True)
    assert problem.value == "12 keypoints, P69 to P80"
    assert np.flatnonzero(face.flags_N).tolist() == [67]


def test_a_number_that_no_face_has_is_an_unknown_label():
    assert codes(broken(lambda t: region(t, "P2")["value"].update(keypointlabels=["P500"]))) == [
        "unknown-label",
        "wrong-keypoint-count",
    ]


def test_two_faces_in_one_annotation():
    """Drawn twice: every label is doubled, and so is the box."""
    task = some_task(occluded=(2,))
    again = [entry | {"id": f"second {entry['id']}"} for entry in copy.deepcopy(task["annotations"][0]["result"])]
    task["annotations"][0]["result"] += again
    assert codes(task) == [*["duplicate-label"] * 5, "several-face-boxes"]


@pytest.mark.parametrize(("user", "annotator"), [(None, None), (7, "7"), ({"id": 7, "email": "x"}, "7")])
def test_an_annotator_who_is_unknown_is_no_problem(user, annotator):
    (face,), problems = read(some_task(completed_by=user), num_keypoints=5, flags_known=True)
    assert problems == []
    assert face.annotator == annotator


def test_every_annotator_is_read_and_skips_are_named():
    task = some_task()
    second = copy.deepcopy(task["annotations"][0]) | {"id": 42, "completed_by": 2, "ground_truth": True}
    skipped = {"id": 43, "result": [], "was_cancelled": True}
    task["annotations"] += [second, skipped]
    task |= {"drafts": [{"result": [{"type": "junk"}]}], "predictions": [{"result": "junk"}]}
    faces, problems = read(task, num_keypoints=5, flags_known=True)
    assert [(face.key_suffix, face.annotator, face.ground_truth) for face in faces] == [
        ("/annotation/41", "1", False),
        ("/annotation/42", "2", True),
    ]
    assert [(problem.code, problem.face) for problem in problems] == [("annotation-cancelled", "/annotation/43")]


def test_one_broken_annotation_leaves_the_others_usable():
    task = some_task()
    task["annotations"].append({"id": 42, "result": [{"type": "keypointlabels", "value": {"x": "left"}}]})
    faces, problems = read(task, num_keypoints=5, flags_known=True)
    assert [face.annotation_id for face in faces] == ["41"]
    assert {(problem.code, problem.face) for problem in problems} == {("schema", "/annotation/42")}


def test_a_task_without_annotations():
    assert codes({"id": 1, "data": {}, "annotations": []}) == ["not-annotated"]


@pytest.mark.parametrize(
    "payload", [None, [], {}, {"data": {}}, {"data": 3, "annotations": []}, {"annotations": [7]}]
)
def test_what_is_no_task(payload):
    faces, problems = read(payload, num_keypoints=5, flags_known=True)
    assert faces == []
    assert {problem.code for problem in problems} == {"schema"}


def broken(change):
    task = some_task()
    change(task)
    return task


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: region(t, "P2")["value"].update(x=float("nan")), ["schema"]),
        (lambda t: region(t, "P2")["value"].update(x=None), ["schema"]),
        (lambda t: region(t, "P2")["value"].update(keypointlabels=[]), ["schema"]),
        (lambda t: region(t, "P2")["value"].update(x=1e308), ["schema"]),
        (lambda t: region(t, "P2").update(original_width=0), ["schema"]),
        (
            lambda t: region(t, "P2")["value"].update(keypointlabels=["P1"]),
            ["duplicate-label", "wrong-keypoint-count"],
        ),
        (lambda t: region(t, "P2")["value"].update(keypointlabels=["Q"]), ["unknown-label", "wrong-keypoint-count"]),
        (
            lambda t: region(t, "P2")["value"].update(keypointlabels=["FaceBbox"]),
            ["unknown-label", "wrong-keypoint-count"],
        ),
        (
            lambda t: region(t, "FaceBbox", "rectanglelabels")["value"].update(rectanglelabels=["P2"]),
            ["unknown-label"],
        ),
        (lambda t: region(t, "FaceBbox", "rectanglelabels")["value"].update(rotation=12.5), ["rotated-face-box"]),
        (lambda t: region(t, "FaceBbox", "rectanglelabels")["value"].update(rotation=-3), ["rotated-face-box"]),
        (lambda t: region(t, "FaceBbox", "rectanglelabels")["value"].update(rotation=360), []),
        (lambda t: region(t, "FaceBbox", "rectanglelabels")["value"].update(width=0), ["degenerate-face-box"]),
        (lambda t: region(t, "P2").update(image_rotation=90), ["rotated-image"]),
        (lambda t: region(t, "P2").update(image_rotation=180), ["rotated-image"]),
        (lambda t: region(t, "P2").update(original_width=640), ["frame-size-conflict"]),
        (lambda t: t["annotations"][0].update(result=[]), ["wrong-keypoint-count"]),
    ],
)
def test_bad_regions_become_problems(change, expected):
    assert codes(broken(change)) == expected


def test_a_frame_of_two_sizes_has_none():
    (face,), _ = read(broken(lambda t: region(t, "P2").update(original_width=640)), num_keypoints=5, flags_known=True)
    assert face.frame_size is None


def test_a_choice_that_was_taken_back_says_nothing():
    task = some_task(occluded=(2,))
    region(task, "P2", "choices")["value"]["choices"] = []
    (face,), problems = read(task, num_keypoints=5, flags_known=True)
    assert problems == [] and face.flags_N.tolist() == [0] * 5


@pytest.mark.parametrize("choices", [["occluded?"], ["occluded", "blurred"]])
def test_a_choice_that_is_not_ours(choices):
    task = some_task(occluded=(2,))
    region(task, "P2", "choices")["value"]["choices"] = choices
    (face,), (problem,) = read(task, num_keypoints=5, flags_known=True)
    assert (problem.code, problem.keypoint) == ("unknown-choice", "P2")
    assert face.flags_N.tolist() == [0] * 5


def test_occluded_on_the_face_box():
    task = some_task(occluded=(2,))
    region(task, "P2", "choices")["id"] = "FaceBbox"
    assert codes(task) == ["occluded-without-keypoint"]


def test_two_face_boxes():
    task = some_task()
    task["annotations"][0]["result"].append(dict(region(task, "FaceBbox", "rectanglelabels"), id="second"))
    (face,), (problem,) = read(task, num_keypoints=5, flags_known=True)
    assert (problem.code, problem.face) == ("several-face-boxes", "/annotation/41")
    assert face.tight_box is None


def test_a_point_outside_the_frame_is_read_as_it_is():
    """Rules about the frame are the validation's, which knows the image."""
    task = some_task()
    region(task, "P2")["value"]["x"] = 140.0
    (face,), problems = read(task, num_keypoints=5, flags_known=True)
    assert problems == []
    assert face.points_N2[1, 0] == pytest.approx(1.4 * FRAME[0] - 0.5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.sampled_from(["choices", "P1", "occluded"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "value", "id", "x", "result", "choices", "was_cancelled"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_junk_is_never_an_exception(junk):
    task = some_task()
    task["annotations"] += [
        junk,
        {"id": 5, "result": junk},
        {"id": 6, "result": [junk, {"type": "choices", "value": junk}]},
    ]
    read(task, num_keypoints=5, flags_known=True)
    has_flags(task)
    task["annotations"] = task["annotations"][:1]
    task["annotations"][0]["result"][0] = junk
    read(task, num_keypoints=5, flags_known=True)


@given(
    st.dictionaries(
        st.sampled_from(["image", "name", "x"]), st.text() | st.sampled_from(["http://[", "P" + "9" * 5000])
    )
)
def test_any_field_gives_a_name(data):
    assert isinstance(image_name(data), str)


def test_has_flags():
    assert has_flags(some_task(occluded=(3,)))
    assert not has_flags(some_task())
    assert not has_flags({"annotations": "none"})


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"image": "/data/upload/3/0a1b2c3d-a%20b.png"}, "a b.png"),
        ({"image": "/data/local-files/?d=set/a.jpg"}, "set/a.jpg"),
        ({"image": "/tasks/7/resolve/?fileuri=czM6Ly9mYWNlcy9zZXQvYS5wbmc="}, "set/a.png"),
        ({"image": "/tasks/7/resolve/?fileuri=%FF"}, ""),
        ({"image": "https://example.test/x/a.JPG?token=1"}, "a.JPG"),
        ({"image": "/data/upload/1/0a1b2c3d-5e.png", "name": "images/1003_01.jpg"}, "images/1003_01.jpg"),
        ({"title": "a face", "photo": "s3://bucket/a.png"}, "a.png"),
        ({"title": "a face", "number": 3}, ""),
        ({"reference": "001.png", "image": "https://example.test/pictures/4711"}, ""),
    ],
)
def test_image_name(data, name):
    assert image_name(data) == name


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"reference": "001.png", "image": "002.png", "photo": "/data/upload/3/0a1b2c3d-079.png"}, "079.png"),
        ({"reference": "001.png", "photo": "079.png", "name": "images/079.png"}, "images/079.png"),
        ({"reference": "001.png", "photo": "https://example.test/pictures/4711"}, ""),
        ({"reference": "001.png", "photo": None}, ""),
        ({"reference": "001.png"}, ""),
    ],
)
def test_image_name_in_another_field(data, name):
    assert image_name(data, "photo") == name
