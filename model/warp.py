"""Affine maps of face crops: one resampling step from a record's context crop to the network's input.

Legend: B batch, H W rows and columns of the network's input, S side of the context crop, C channels, N keypoints;
33 homogeneous 3 x 3 matrices that act on columns (u, v, 1), pixel centres at integers.
"""

from __future__ import annotations

import tensorflow as tf


def crop_to_context(box_B4: tf.Tensor, region_B3: tf.Tensor, *, size: int, context_size: int) -> tf.Tensor:
    """Matrix (B, 3, 3) from pixels of the face box's crop to pixels of the context crop.

    Args:
        box_B4: x, y, width, height of the square face box in the frame.
        region_B3: x0, y0, side of the context crop in the frame.
        size, context_size: sides of the two crops in their own pixels.
    """
    context_scale_B = context_size / region_B3[:, 2]
    scale_B = box_B4[:, 2] / size * context_scale_B
    shift_B2 = (box_B4[:, :2] - region_B3[:, :2]) * context_scale_B[:, None] + 0.5 * scale_B[:, None] - 0.5
    return homogeneous(scale_B[:, None, None] * tf.eye(2), shift_B2)


def homogeneous(linear_B22: tf.Tensor, shift_B2: tf.Tensor) -> tf.Tensor:
    """(B, 3, 3) out of a linear part and a shift."""
    top_B23 = tf.concat([linear_B22, shift_B2[:, :, None]], axis=2)
    bottom_B13 = tf.broadcast_to(tf.constant([[[0.0, 0.0, 1.0]]]), (tf.shape(linear_B22)[0], 1, 3))
    return tf.concat([top_B23, bottom_B13], axis=1)


def move_points(matrix_B33: tf.Tensor, points_BN2: tf.Tensor) -> tf.Tensor:
    """Every point through its sample's matrix."""
    return tf.einsum("bij,bnj->bni", matrix_B33[:, :2, :2], points_BN2) + matrix_B33[:, None, :2, 2]


def to_crop(points_BN2: tf.Tensor, box_B4: tf.Tensor, *, size: int) -> tf.Tensor:
    """Frame coordinates to pixels of the face box's crop, as `schemas.geometry.SquareCrop.to_crop`."""
    return (points_BN2 - box_B4[:, None, :2] + 0.5) * (size / box_B4[:, None, 2:3]) - 0.5


def warp(image_BSSC: tf.Tensor, output_to_input_B33: tf.Tensor, *, size: int) -> tf.Tensor:
    """Resample to (B, size, size, C) float32, bilinear; beyond the border the edge pixels are repeated."""
    transforms_B8 = tf.reshape(output_to_input_B33, (-1, 9))[:, :8]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image_BSSC, tf.float32),
        transforms=transforms_B8,
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
