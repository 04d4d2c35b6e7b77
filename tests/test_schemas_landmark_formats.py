"""The readers of landmark datasets, payload by payload; `test_tasks_pull_landmarks` has them in sources."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas import coco_keypoints, cofw, pts, wflw
from schemas.landmarks import number
from schemas.layouts import OUTER_EYE_CORNERS, layout
from schemas.records import Flag
from schemas.wflw import AS_68

coordinates = hnp.arrays(np.float32, (5, 2), elements=st.floats(-1e4, 1e4, width=32))
flags = hnp.arrays(np.int8, 5, elements=st.sampled_from([0, 1]))


def written(value):
    """Shortest decimal of a double, as tools write it."""
    return repr(float(value))


@given(coordinates, flags)
def test_what_is_written_is_read(points_N2, flags_N):
    exact = points_N2.astype(np.float64)
    rows = [f"{written(x)} {written(y)} {flag}" for (x, y), flag in zip(exact, flags_N, strict=True)]
    from_pts = {"image": "a.png", "text": "\n".join(["n_points: 5", "{", *rows, "}"])}
    bare = from_pts | {"text": "\n".join(rows)}
    phis = [float(v) for v in (*exact[:, 0], *exact[:, 1], *flags_N)]
    from_cofw = {"image": "a.png", "phis": phis, "bbox": None}
    triples = [v for (x, y), flag in zip(exact.tolist(), flags_N.tolist(), strict=True) for v in (x, y, 2 - flag)]
    from_coco = {
        "image": {"file_name": "a.png"},
        "annotations": {"0": {"keypoints": triples}},
        "field": "keypoints",
    }
    for reader, payload in [
        (pts.read, from_pts),
        (pts.read, bare),
        (cofw.read, from_cofw),
        (coco_keypoints.read, from_coco),
    ]:
        (face,), problems = reader(payload, num_keypoints=5, flags_known=False)
        assert problems == []
        np.testing.assert_array_equal(face.points_N2, points_N2)
        np.testing.assert_array_equal(face.flags_N, flags_N)


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
things = st.recursive(json_values, lambda inner: st.lists(inner, max_size=6), max_leaves=8)
odd_words = st.text(max_size=4) | st.sampled_from(
    ["nan", "-inf", "1e999", "1_0", "\u0663", "0x1", "1,5", "2", "}", "{", "n_points:", "\n", "\ufeff", "\x85"]
)


def nearly(valid, odd):
    """Lists that are `valid` but for a few places, where something odd stands, or nothing."""

    def changed(changes):
        found = list(valid)
        for place, value in changes:
            found[place % len(found) : place % len(found) + 1] = value
        return found

    return st.lists(st.tuples(st.integers(0, 300), st.lists(odd, max_size=1)), max_size=3).map(changed)


PTS = ["n_points:", "2", "\n", "{", "\n", "1", "1", "0", "\n", "3.5", "4", "1", "\n", "}"]
WFLW = [str(value) for value in range(2 * 98)] + ["1", "2", "30", "40", *"000000", "a/b.jpg"]


@given(st.one_of(st.text(max_size=80), nearly(PTS, odd_words).map(" ".join)))
def test_any_pts_text_is_read_or_reported(text):
    faces, problems = pts.read({"image": "a", "text": text}, num_keypoints=2, flags_known=True)
    assert problems or np.isfinite(faces[0].points_N2).all()


@given(st.one_of(st.text(max_size=80), nearly(WFLW, odd_words).map(" ".join)))
def test_any_line_of_wflw_is_read_or_reported(line):
    faces, problems = wflw.read({"line": line}, num_keypoints=98, flags_known=True)
    assert problems or np.isfinite(faces[0].points_N2).all()


@given(
    st.fixed_dictionaries(
        {"keypoints": things | nearly([1.5, 2, 2, 3, 4.5, 1], things)},
        optional={"bbox": things | nearly([1, 2, 3.5, 4], things), "id": things, "face_valid": things},
    )
)
def test_any_coco_annotation_is_read_or_reported(annotation):
    payload = {"image": {"file_name": "a"}, "annotations": {"0": annotation}, "field": "keypoints"}
    faces, problems = coco_keypoints.read(payload, num_keypoints=2, flags_known=True)
    assert problems or np.isfinite(faces[0].points_N2).all()


def test_what_the_changes_start_from_is_sound():
    (_,), problems = pts.read({"image": "a", "text": " ".join(PTS)}, num_keypoints=2, flags_known=True)
    assert problems == []
    (_,), problems = wflw.read({"line": " ".join(WFLW)}, num_keypoints=98, flags_known=True)
    assert problems == []


@pytest.mark.parametrize("header", ["version: 1\nn_points: 2\n", "version: 1.0\n", "n_points : 2\n", ""])
def test_headers_of_pts_files(header):
    payload = {"image": "a", "text": f"{header}{{\n1 1\n\n3.5\t4\n}}\n"}
    (face,), problems = pts.read(payload, num_keypoints=2, flags_known=True)
    assert problems == []
    assert face.points_N2.tolist() == [[1, 1], [3.5, 4]]
    assert face.flags_N.tolist() == [Flag.VISIBLE, Flag.VISIBLE]


def test_a_flag_that_is_none():
    payload = {"image": "a", "text": "1 1 0\n3 4 2\n5 5"}
    (face,), (problem,) = pts.read(payload, num_keypoints=3, flags_known=False)
    assert (problem.code, problem.keypoint, problem.value) == ("unknown-flag", "P2", "line 2: '2'")
    assert face.flags_N.tolist() == [Flag.VISIBLE, Flag.UNKNOWN, Flag.UNKNOWN]


@pytest.mark.parametrize("text", ["", "1,5", "1_000", "0x10", "one", "١", "--1", None, True, [1]])
def test_what_is_no_number(text):
    assert number(text) is None


def test_the_68_of_wflw_s_98_points():
    """WFLW's README: 0-32 contour, 33-50 eyebrows, 51-59 nose, 60-75 eyes, 76-95 mouth, 96 and 97 pupils."""
    regions = layout(68).regions
    places = {"Chin": (0, 32), "Eyebrows": (33, 50), "Nose": (51, 59), "Eyes": (60, 75), "Mouth": (76, 95)}
    assert len(set(AS_68)) == 68
    for region, (first, last) in places.items():
        assert all(first <= AS_68[index] <= last for index in regions[region])
    assert [AS_68[index] for index in OUTER_EYE_CORNERS] == [60, 72]
    assert [AS_68[index] for index in (0, 8, 16, 48, 54)] == [0, 16, 32, 76, 82]
