import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.geometry import Box, SquareCrop, percent_to_pixels, pixels_to_percent, tight_square

coordinate = st.floats(-500, 500, width=32)
points = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=20).map(np.array)


def test_box_is_the_reference_s(golden):
    for case in golden("bbox_cases"):
        square = tight_square(np.array(case["kpts"]))
        assert list(square) == case["square_bbox"]
        kept = list(square.enlarged(case["ratio"])) if square.inside(*case["img_size"]) else None
        assert kept == case["result"]


@given(points)
def test_tight_square_holds_every_point(points_N2):
    box = tight_square(points_N2)
    assert box.width == box.height
    assert (points_N2 >= (box.x, box.y)).all()
    assert (points_N2 <= (box.x + box.width, box.y + box.height)).all()


@given(points, st.floats(1, 400), st.sampled_from([40, 80, 112]))
def test_crop_round_trip(points_N2, side, size):
    crop = SquareCrop(-3.25, 17.5, side, size)
    np.testing.assert_allclose(crop.to_frame(crop.to_crop(points_N2)), points_N2, atol=1e-6)
    for change in (crop.to_crop, crop.to_frame):
        assert [change(points_N2.astype(kind)).dtype for kind in ("f4", "f8")] == ["f4", "f8"]


def test_crop_maps_pixel_edges_to_pixel_edges():
    crop = SquareCrop(10, 20, side=40, size=80)
    np.testing.assert_allclose(crop.to_crop(np.array([[9.5, 19.5], [49.5, 59.5]])), [[-0.5, -0.5], [79.5, 79.5]])


def test_a_mirrored_crop_is_79_minus_u():
    frame_width, crop = 200, SquareCrop(30, 0, 64)
    mirrored_crop = SquareCrop(frame_width - 30 - 64, 0, 64)
    x = np.array([[41.25, 3.0]])
    mirrored = np.array([[frame_width - 1 - 41.25, 3.0]])
    assert mirrored_crop.to_crop(mirrored)[0, 0] == pytest.approx(79 - crop.to_crop(x)[0, 0])


@given(points, st.integers(1, 4000), st.integers(1, 4000))
def test_percent_round_trip(points_N2, width, height):
    size = np.array([width, height])
    np.testing.assert_allclose(percent_to_pixels(pixels_to_percent(points_N2, size), size), points_N2, atol=1e-9)


def test_percent_is_edge_based():
    np.testing.assert_allclose(percent_to_pixels(np.array([0, 100]), np.array([80, 60])), [-0.5, 59.5])


@pytest.mark.parametrize("box", [Box(0, 0, 10, 11), Box(0, 0, 0, 0)])
def test_a_crop_needs_a_square_with_an_area(box):
    with pytest.raises(ValueError, match="square box"):
        SquareCrop.of_box(box)
