"""Random changes to training faces, on whole batches.

All randomness is stateless: the same seed gives the same batch. A probability is that of the thing happening.
Legend: B batch, H W rows and columns, C channels, N keypoints, 33 affine matrices on columns (u, v, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from model.draws import Draws
from model.occluders import Occluders, draw_occluders, hidden_behind, random_occluders
from model.warp import homogeneous
from schemas.augmentation import Augmentation, GammaAugmentation, SpatialAugmentation

_SMALLEST_PATCH_PX = 10


class Patches(NamedTuple):
    """Rectangles of one grey value, one per sample: first row and column, size in pixels (0 for none), grey value."""

    top_B: tf.Tensor
    left_B: tf.Tensor
    height_B: tf.Tensor
    width_B: tf.Tensor
    grey_B: tf.Tensor


class Covers(NamedTuple):
    """What lies on the faces of a batch."""

    patches: Patches | None = None
    occluders: Sequence[Occluders] = ()

    def hide(self, points_BN2: tf.Tensor) -> tf.Tensor:
        """(B, N) bool: the point lies under one of them."""
        hidden_BN = tf.zeros(tf.shape(points_BN2)[:2], tf.bool)
        if self.patches is not None:
            hidden_BN |= hidden_by(self.patches, points_BN2)
        for one in self.occluders:
            hidden_BN |= hidden_behind(one, points_BN2)
        return hidden_BN


def random_affine(spatial: SpatialAugmentation, draws: Draws, *, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """A map of crop pixels per sample: mirror, rotate and zoom about the centre, then shift.

    The reference zooms into a random window and shifts by whole pixels; here the shift alone moves the face.

    Returns:
        (B, 3, 3) from pixels before to pixels after, and (B,) bool: mirrored, so points change their order.
    """
    angle_B = draws.uniform(-spatial.rotate_rad_max, spatial.rotate_rad_max)
    zoom_B = draws.uniform(spatial.zoom_min, spatial.zoom_max)
    shift_B2 = tf.stack(
        [
            draws.uniform(-spatial.translate_max_x, spatial.translate_max_x),
            draws.uniform(-spatial.translate_max_y, spatial.translate_max_y),
        ],
        axis=1,
    )
    mirrored_B = draws.happens(spatial.hflip_probability)
    sign_B = tf.where(mirrored_B, -1.0, 1.0)
    cosine_B, sine_B = zoom_B * tf.cos(angle_B), zoom_B * tf.sin(angle_B)
    linear_B22 = tf.stack(
        [tf.stack([cosine_B * sign_B, -sine_B], axis=1), tf.stack([sine_B * sign_B, cosine_B], axis=1)], axis=1
    )
    centre = (size - 1) / 2
    return homogeneous(linear_B22, centre - centre * tf.reduce_sum(linear_B22, axis=2) + shift_B2), mirrored_B


def mirror_order(values_BN: tf.Tensor, mirrored_B: tf.Tensor, flip: Sequence[int] | None) -> tf.Tensor:
    """Per-keypoint values (B, N, ...), in the order of the mirrored face where a sample is mirrored."""
    if flip is None:
        return values_BN
    condition = tf.reshape(mirrored_B, (-1, *[1] * (values_BN.shape.rank - 1)))
    return tf.where(condition, tf.gather(values_BN, flip, axis=1), values_BN)


def change_pixels(
    image_BHWC: tf.Tensor, augmentation: Augmentation, draws: Draws, *, size: int
) -> tuple[tf.Tensor, Covers]:
    """Coarsen, put occluders in front, cover with a patch, change the gamma, as far as the spec enables it."""
    patches, occluders = None, []
    if augmentation.enable_resize_augmentation:
        chosen_B = draws.happens(augmentation.augmentation_resize_probability)
        image_BHWC = resize_and_back(image_BHWC, chosen_B, augmentation.augmentation_resize_scale, size=size)
    if augmentation.occluder_probability:
        occluders = random_occluders(augmentation.occluder_probability, draws, size=size)
        image_BHWC = draw_occluders(image_BHWC, occluders)
    if augmentation.enable_occlusion_augmentation:
        patches = random_patches(augmentation, draws, size=size)
    image_BHWC = paint_and_light(image_BHWC, patches, random_exponents(augmentation.gamma_augmentation, draws))
    return image_BHWC, Covers(patches, occluders)


def resize_and_back(image_BHWC: tf.Tensor, chosen_B: tf.Tensor, scale: float, *, size: int) -> tf.Tensor:
    """Bilinear to `size * scale` pixels and back, where chosen: softer images, as of faces small in a frame.

    Both ways together are one matrix along an axis, which is three times faster than to interpolate twice.
    """
    other = max(1, int(size * scale))
    pixels = tf.eye(size)[None, :, :, None]
    matrix_HH = tf.image.resize(tf.image.resize(pixels, (other, size)), (size, size))[0, :, :, 0]
    chosen = tf.where(chosen_B)
    image_BCHW = tf.transpose(tf.gather(image_BHWC, chosen[:, 0]), (0, 3, 1, 2))
    rows_XHW = tf.matmul(matrix_HH, tf.reshape(image_BCHW, (-1, size, size)))
    # Not a batch product: TensorFlow 2.21 crashes on those with a transposed matrix for all.
    changed = tf.matmul(tf.reshape(rows_XHW, (-1, size)), matrix_HH, transpose_b=True)
    changed_BHWC = tf.transpose(tf.reshape(changed, tf.shape(image_BCHW)), (0, 2, 3, 1))
    return tf.tensor_scatter_nd_update(image_BHWC, chosen, changed_BHWC)


def random_patches(augmentation: Augmentation, draws: Draws, *, size: int) -> Patches:
    """Sides of 10 pixels to `size_to_image_ratio` of the image, anywhere in it (the reference: always centred)."""
    largest = max(_SMALLEST_PATCH_PX, size * augmentation.size_to_image_ratio)
    happens_B = tf.cast(draws.happens(augmentation.patch_probability), tf.float32)
    height_B, width_B = (tf.floor(draws.uniform(_SMALLEST_PATCH_PX, largest)) * happens_B for _ in range(2))
    top_B = tf.floor(draws.uniform(0.0, 1.0) * (size - height_B + 1))
    left_B = tf.floor(draws.uniform(0.0, 1.0) * (size - width_B + 1))
    return Patches(top_B, left_B, height_B, width_B, draws.uniform(0.0, 255.0))


def hidden_by(patches: Patches, points_BN2: tf.Tensor) -> tf.Tensor:
    """(B, N) bool: the point lies on the patch, whose pixel k covers [k - 0.5, k + 0.5)."""
    return _between(points_BN2[:, :, 0], patches.left_B, patches.width_B, edge=0.5) & _between(
        points_BN2[:, :, 1], patches.top_B, patches.height_B, edge=0.5
    )


def random_exponents(gamma: GammaAugmentation, draws: Draws) -> tf.Tensor:
    """(B,) what to raise brightness to; 1 changes nothing."""
    chosen_B = draws.happens(gamma.gamma_probability)
    if gamma.gamma_type == "uniform":
        exponent_B = draws.uniform(gamma.gamma_min, gamma.gamma_max)
    else:
        exponent_B = tf.abs(draws.normal(gamma.gamma_mu, gamma.gamma_std))
    return tf.where(chosen_B, exponent_B, 1.0)


@tf.function(jit_compile=True, autograph=False)
def paint_and_light(image_BHWC: tf.Tensor, patches: Patches | None, exponent_B: tf.Tensor) -> tf.Tensor:
    """The images with their patches on, then 255 * (x / 255) ** g: the range stays 0..255.

    The reference raises 0..255 itself to g. Compiled by XLA into one loop; the logarithm there is the fast way.
    """
    if patches is not None:
        height, width = image_BHWC.shape[1:3]
        rows_BH = _between(tf.range(height, dtype=tf.float32)[None], patches.top_B, patches.height_B, edge=0.0)
        columns_BW = _between(tf.range(width, dtype=tf.float32)[None], patches.left_B, patches.width_B, edge=0.0)
        inside = rows_BH[:, :, None, None] & columns_BW[:, None, :, None]
        image_BHWC = tf.where(inside, patches.grey_B[:, None, None, None], image_BHWC)
    exponent = exponent_B[:, None, None, None]
    lit_BHWC = 255.0 * tf.exp(exponent * tf.math.log(tf.minimum(image_BHWC / 255.0, 1.0)))
    return tf.where((exponent == 1.0) | (image_BHWC <= 0.0), image_BHWC, lit_BHWC)


def _between(position: tf.Tensor, start_B: tf.Tensor, length_B: tf.Tensor, *, edge: float) -> tf.Tensor:
    return (position >= start_B[:, None] - edge) & (position < (start_B + length_B)[:, None] - edge)
