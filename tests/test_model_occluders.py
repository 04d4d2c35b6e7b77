"""What augmentation puts in front of faces."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from model.augment import change_pixels
from model.draws import Draws
from model.occluders import SECOND, Occluders, draw_occluders, hidden_behind, random_occluders
from schemas.augmentation import Augmentation

BATCH, SIDE = 6, 32


def draws(step: int, batch: int = BATCH) -> Draws:
    return Draws(tf.constant([7, step]), tf.constant(batch))


def every_pixel(batch: int) -> tf.Tensor:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return tf.constant(np.tile(np.stack([x, y], axis=-1).reshape(1, -1, 2), (batch, 1, 1)))


def one(**changes: float | bool) -> list[Occluders]:
    """A grey, horizontal rectangle of 17 by 9 pixels about (15, 15), or as `changes` say."""
    values = dict.fromkeys(Occluders._fields, 0.0) | {
        "there_B": True, "x_B": 15.0, "y_B": 15.0, "half_length_B": 8.5, "half_width_B": 4.5, "rectangle_B": True,
        "fingers_B": False, "finger_B": 3.0, "textured_B": False, "grey_B": 100.0,
    }  # fmt: skip
    return [Occluders(**{name: tf.constant([value]) for name, value in (values | changes).items()})]


@settings(max_examples=25)
@given(step=st.integers(0, 2**31 - 1))
def test_a_point_is_hidden_where_its_pixel_is_painted(step):
    """Images of 300: brighter than anything that is painted."""
    occluders = random_occluders(1.0, draws(step), size=SIDE)
    images = tf.fill((BATCH, SIDE, SIDE, 1), 300.0)
    painted = draw_occluders(images, occluders).numpy().reshape(BATCH, -1) < 300.0
    hidden = np.any([hidden_behind(each, every_pixel(BATCH)) for each in occluders], axis=0)
    np.testing.assert_array_equal(hidden, painted)


def test_where_a_rectangle_lies_and_how_it_is_turned():
    wide = draw_occluders(tf.zeros((1, SIDE, SIDE, 1)), one()).numpy()[0, :, :, 0]
    assert (wide[11:20, 7:24] == 100).all() and (wide > 0).sum() == 9 * 17
    tall = draw_occluders(tf.zeros((1, SIDE, SIDE, 1)), one(angle_B=np.pi / 2)).numpy()[0, :, :, 0]
    np.testing.assert_array_equal(tall, wide.T)


def test_an_ellipse_lacks_the_corners_and_a_hand_has_gaps_on_one_side():
    area = np.pi * 8.5 * 4.5
    ellipse = draw_occluders(tf.zeros((1, SIDE, SIDE, 1)), one(rectangle_B=False)).numpy()[0, :, :, 0] > 0
    assert ellipse.sum() == pytest.approx(area, rel=0.1)
    hand = draw_occluders(tf.zeros((1, SIDE, SIDE, 1)), one(fingers_B=True)).numpy()[0, :, :, 0] > 0
    whole = draw_occluders(tf.zeros((1, SIDE, SIDE, 1)), one()).numpy()[0, :, :, 0] > 0
    assert (hand[:, :15] == whole[:, :15]).all() and 0 < hand[:, 15:].sum() < whole[:, 15:].sum()


def test_a_filling_of_another_face():
    """Of the one before it in the batch, mirrored, about a grey of its own."""
    faces = tf.random.stateless_uniform((2, SIDE, SIDE, 1), (1, 2), 0, 255)
    (both,) = one(textured_B=True, contrast_B=1.0)
    both = Occluders(*(tf.repeat(value, 2) for value in both))
    drawn = draw_occluders(faces, [both]).numpy()[0, 11:20, 7:24, 0]
    other = faces.numpy()[1, :, ::-1, 0]
    np.testing.assert_allclose(drawn, np.clip(other - other.mean() + 100, 0, 255)[11:20, 7:24], atol=1e-3)


def test_as_often_as_asked():
    first, second = random_occluders(0.5, draws(3, 4000), size=SIDE)
    assert first.there_B.numpy().mean() == pytest.approx(0.5, abs=0.03)
    assert second.there_B.numpy().mean() == pytest.approx(0.5 * SECOND, abs=0.03)


def test_they_hide_points_with_and_without_patches():
    images = tf.fill((200, SIDE, SIDE, 1), 128.0)
    for patches in (False, True):
        augmentation = Augmentation(
            enable_online_augmentation=True,
            occluder_probability=1.0,
            enable_occlusion_augmentation=patches,
            patch_probability=1.0,
        )
        changed, covers = change_pixels(images, augmentation, draws(1, 200), size=SIDE)
        assert changed.numpy().min() >= 0 and changed.numpy().max() <= 255
        hidden = covers.hide(every_pixel(200)).numpy().reshape(200, SIDE, SIDE)
        assert (changed.numpy()[..., 0][~hidden] == 128).all()
        assert 0.02 < hidden.mean() < 0.9
