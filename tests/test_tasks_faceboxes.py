"""Boxes of many faces at once are those of each by itself, and the reference's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.geometry import Box, SquareCrop, tight_square
from schemas.records import Face
from tasks.faceboxes import FaceBoxer, boxes_of


def face(points_N2, width=64, height=48):
    return Face(
        source_key="s:1", image="a.png", image_name="a.png", image_sha256="0" * 64, frame_width=width,
        frame_height=height, subject=None, set_id="all", points_N2=np.float32(points_N2),
        flags_N=np.zeros(len(points_N2), np.int8),
    )  # fmt: skip


@given(
    hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-3000, 5000, width=32)).filter(
        lambda points: np.ptp(points, axis=1).max(axis=1).min() > 0
    ),
    st.floats(1, 3),
)
def test_boxes_are_those_of_the_geometry(points_BN2, ratio):
    frames_B2 = np.tile([4000, 3000], (3, 1))
    found = boxes_of(points_BN2, frames_B2, enlarge_ratio=ratio)
    for points_N2, box, square, inside, unreachable in zip(points_BN2, *vars(found).values(), strict=True):
        expected = tight_square(points_N2)
        assert tuple(square) == expected and tuple(box) == expected.enlarged(ratio)
        assert inside == expected.inside(4000, 3000)
        crop_N2 = SquareCrop.of_box(expected.enlarged(ratio)).to_crop(points_N2)
        assert unreachable == ((crop_N2 < 0) | (crop_N2 > 79)).any(axis=1).sum()


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [
        ((0, 0), (8, 8), True),
        ((2, 0), (10, 8), True),
        ((3, 0), (10.1, 8), False),
        ((0, 1), (8, 8.1), False),
        ((-0.1, 0), (7, 8), False),
        ((0, -0.1), (8, 7), False),
    ],
)
def test_a_square_may_touch_the_edges_of_its_frame(low, high, inside):
    points_N2 = np.float32([low, high])
    assert tight_square(points_N2).inside(10, 8) is inside
    assert boxes_of(points_N2[None], np.array([[10, 8]]), enlarge_ratio=1.0).inside_B.tolist() == [inside]


def test_boxes_and_drops_are_the_references(golden):
    compared = 0
    for case in golden("bbox_cases"):
        if case["ratio"] < 1:
            continue
        boxer = FaceBoxer(enlarge_ratio=case["ratio"], outside_frame="drop")
        boxes = [list(box) for _, box in boxer.box([face(case["kpts"], *case["img_size"])])]
        assert boxes == ([case["result"]] if case["result"] else []) and len(boxer.dropped) == 1 - len(boxes)
        assert boxer.faces == len(boxes)
        compared += 1
    assert compared > 10


def test_unreachable_points_are_those_beyond_the_outer_pixel_centres():
    boxer = FaceBoxer(enlarge_ratio=1.0, outside_frame="pad")
    faces = [face([[0, 0], [80, 80], [0.5, 40], [79, 40], [79.1, 40]])] * 1500
    boxed = list(boxer.box(faces))
    assert [box for _, box in boxed] == [Box(0, 0, 80, 80)] * 1500 and all(type(side) is int for side in boxed[0][1])
    assert boxer.unreachable_share == pytest.approx(2 / 5)
    assert FaceBoxer(enlarge_ratio=1.0, outside_frame="pad").unreachable_share == 0


def test_dropped_face_says_where_its_square_is():
    boxer = FaceBoxer(enlarge_ratio=1.5, outside_frame="drop")
    assert list(boxer.box([face([[2, 1], [62, 20], [30, 40]])])) == []
    (dropped,) = boxer.dropped
    assert dropped.value == "x 2, y -10, side 60 in 64 x 48" and dropped.code == "box-outside-frame"
