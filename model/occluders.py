"""Things in front of faces, for training: shapes filled with another face of the batch, or with a shade.

Ellipses and rectangles, turned at random; some have gaps at one end, as between fingers. So a network learns what a
hidden point looks like from more than flat rectangles, and which points are hidden is known exactly.

Legend: B batch, H W rows and columns, C channels, N keypoints.
"""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import tensorflow as tf

from model.draws import Draws

SECOND = 0.4
"""Chance that a face gets a second one, as a share of the chance of the first."""

_LENGTHS, _WIDTHS = (1 / 16, 3 / 10), (1 / 16, 1 / 5)
"""Half axes, as shares of the image's side."""
_RECTANGLES, _FINGERS, _TEXTURED = 0.4, 0.35, 0.5
"""Shares of the occluders."""
_FINGER = (1 / 27, 1 / 11)
"""Distance from one gap to the next, as a share of the image's side."""
_GAP = 0.8
"""Where the sine along the width is below minus this, there is a gap."""


class Occluders(NamedTuple):
    """One per face: where, as what, and how filled. `there_B` is False where a face has none."""

    there_B: tf.Tensor
    x_B: tf.Tensor
    y_B: tf.Tensor
    half_length_B: tf.Tensor
    half_width_B: tf.Tensor
    angle_B: tf.Tensor
    rectangle_B: tf.Tensor
    fingers_B: tf.Tensor
    finger_B: tf.Tensor
    phase_B: tf.Tensor
    textured_B: tf.Tensor
    contrast_B: tf.Tensor
    grey_B: tf.Tensor
    slope_x_B: tf.Tensor
    slope_y_B: tf.Tensor


def random_occluders(probability: float, draws: Draws, *, size: int) -> list[Occluders]:
    """Up to two for each face of the batch, centred anywhere in images of `size` pixels."""
    return [_random(chance, draws, size) for chance in (probability, SECOND * probability)]


def hidden_behind(occluders: Occluders, points_BN2: tf.Tensor) -> tf.Tensor:
    """(B, N) bool: the point lies on the occluder."""
    return _covers(occluders, points_BN2[:, :, 0], points_BN2[:, :, 1], rank=2)


@tf.function(jit_compile=True, autograph=False)
def draw_occluders(image_BHWC: tf.Tensor, occluders: list[Occluders]) -> tf.Tensor:
    """The images, 0..255, with their occluders on, one after the other."""
    height, width = image_BHWC.shape[1:3]
    y_1H1, x_11W = tf.range(height, dtype=tf.float32)[None, :, None], tf.range(width, dtype=tf.float32)[None, None]
    for one in occluders:
        mask_BHW = _covers(one, x_11W, y_1H1, rank=3)
        slope_BHW = _wide(one.slope_x_B, 3) * x_11W + _wide(one.slope_y_B, 3) * y_1H1
        shade_BHW1 = (_wide(one.grey_B, 3) + slope_BHW)[..., None]
        other_BHWC = tf.reverse(tf.roll(image_BHWC, 1, axis=0), axis=[2])
        middle_B111 = tf.reduce_mean(other_BHWC, axis=(1, 2, 3), keepdims=True)
        texture_BHWC = (other_BHWC - middle_B111) * _wide(one.contrast_B, 4) + _wide(one.grey_B, 4)
        filling_BHWC = tf.clip_by_value(tf.where(_wide(one.textured_B, 4), texture_BHWC, shade_BHW1), 0.0, 255.0)
        image_BHWC = tf.where(mask_BHW[..., None], filling_BHWC, image_BHWC)
    return image_BHWC


def _random(chance: float, draws: Draws, size: int) -> Occluders:
    return Occluders(
        there_B=draws.happens(chance),
        x_B=draws.uniform(0.0, size - 1.0),
        y_B=draws.uniform(0.0, size - 1.0),
        half_length_B=draws.uniform(*(size * share for share in _LENGTHS)),
        half_width_B=draws.uniform(*(size * share for share in _WIDTHS)),
        angle_B=draws.uniform(0.0, pi),
        rectangle_B=draws.happens(_RECTANGLES),
        fingers_B=draws.happens(_FINGERS),
        finger_B=draws.uniform(*(size * share for share in _FINGER)),
        phase_B=draws.uniform(0.0, 2 * pi),
        textured_B=draws.happens(_TEXTURED),
        contrast_B=draws.uniform(0.3, 1.6),
        grey_B=draws.uniform(0.0, 255.0),
        slope_x_B=draws.uniform(-80.0 / size, 80.0 / size),
        slope_y_B=draws.uniform(-80.0 / size, 80.0 / size),
    )


def _covers(one: Occluders, x: tf.Tensor, y: tf.Tensor, *, rank: int) -> tf.Tensor:
    """Whether positions lie on it; `x`, `y` and the result are of this rank, the batch in front."""
    wide = {name: _wide(values, rank) for name, values in one._asdict().items()}
    across, down = x - wide["x_B"], y - wide["y_B"]
    cosine, sine = tf.cos(wide["angle_B"]), tf.sin(wide["angle_B"])
    along, aside = cosine * across + sine * down, cosine * down - sine * across
    u, v = tf.abs(along) / wide["half_length_B"], tf.abs(aside) / wide["half_width_B"]
    inside = tf.where(wide["rectangle_B"], tf.maximum(u, v), tf.sqrt(u * u + v * v)) < 1.0
    gap = (tf.sin(2 * pi * aside / wide["finger_B"] + wide["phase_B"]) < -_GAP) & (along > 0)
    return wide["there_B"] & inside & ~(wide["fingers_B"] & gap)


def _wide(values_B: tf.Tensor, rank: int) -> tf.Tensor:
    return tf.reshape(values_B, (-1, *[1] * (rank - 1)))
