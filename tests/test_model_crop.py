import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crop import CONTEXT_SIZE, context_crop, crop_face
from schemas.geometry import Box, SquareCrop


def blob(x: float, y: float, size: int, sigma: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()


@settings(deadline=None, max_examples=30)
@given(
    x=st.floats(88, 95),
    y=st.floats(88, 95),
    x0=st.floats(28, 50),
    y0=st.floats(28, 50),
    side=st.floats(100, 150),
    size=st.sampled_from([80, 160]),
)
def test_a_blob_lands_where_to_crop_says(x, y, x0, y0, side, size):
    crop = SquareCrop(x0, y0, side, size)
    found = centre_of_mass(crop_face(blob(x, y, 200, 4.0), crop))
    assert found == pytest.approx(crop.to_crop(np.array([x, y])), abs=0.02)


def test_outside_the_frame_the_edge_is_repeated():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    cropped = crop_face(image, SquareCrop(-5, -5, 20, 20))
    padded = cv2.copyMakeBorder(image, 5, 5, 5, 5, cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(cropped, padded)


def test_a_crop_wholly_outside_is_the_corner_pixel():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    assert (crop_face(image, SquareCrop(50, 60, 8, 16)) == 99).all()


def test_enlarging_is_linear_interpolation_with_half_pixel_centres():
    image = np.random.default_rng(0).uniform(0, 255, (40, 40, 3)).astype(np.float32)
    expected = cv2.resize(image, (80, 80), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(crop_face(image, SquareCrop(0, 0, 40, 80)), expected, atol=1e-3)


def test_shrinking_a_lot_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (800, 400))
    cropped = crop_face(stripes, SquareCrop(0, 0, 800, 80))
    assert np.ptp(cropped[2:-2, 2:-2]) <= 1 and abs(int(cropped[40, 40]) - 128) <= 1


def test_the_context_keeps_the_centre_and_both_crops_agree():
    box = Box(100, 80, 97, 97)
    context = context_crop(box)
    assert context.size == CONTEXT_SIZE and context.side == pytest.approx(1.6 * 97)
    centre = np.array([148.0, 128.0])
    assert context.to_crop(centre) == pytest.approx([79.5, 79.5])
    assert SquareCrop.of_box(box).to_crop(centre) == pytest.approx([39.5, 39.5])


def test_a_context_needs_a_square_with_an_area():
    with pytest.raises(ValueError, match="square box"):
        context_crop(Box(0, 0, 10, 11))
