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


@tf.function(jit_compile=True, autograph=False)
def warp(image_BSSC: tf.Tensor, output_to_input_B33: tf.Tensor, *, size: int) -> tf.Tensor:
    """Resample to (B, size, size, C) float32, bilinear; beyond the border the edge pixels are repeated.

    Compiled by XLA into one loop: a third of the time of TensorFlow's ImageProjectiveTransformV3 for the same pixels.
    A new batch size costs a tenth of a second, once. Channels are columns of their own, E = W * C of them.
    """
    side, channels = image_BSSC.shape[1], image_BSSC.shape[3]
    rows_H = tf.range(size, dtype=tf.float32)
    columns_E = tf.repeat(rows_H, channels)

    def source(axis: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Along one axis of the input, the pixel before the place (int32), and how far behind it the place is."""
        of_u_B1, of_v_B1, shift_B1 = (output_to_input_B33[:, axis, k, None] for k in range(3))
        down_BH = of_v_B1 * rows_H + shift_B1
        place_BHE = tf.clip_by_value(of_u_B1[:, None] * columns_E + down_BH[:, :, None], 0.0, side - 1.0)
        pixel_BHE = tf.minimum(tf.cast(place_BHE, tf.int32), side - 2)
        return pixel_BHE, place_BHE - tf.cast(pixel_BHE, tf.float32)

    (x_BHE, right_BHE), (y_BHE, below_BHE) = source(0), source(1)
    index_BHE = (y_BHE * side + x_BHE) * channels + tf.tile(tf.range(channels), [size])
    flat_BP = tf.reshape(image_BSSC, (-1, side * side * channels))
    corners = (0, 1, side, side + 1)
    a, b, c, d = (tf.cast(tf.gather(flat_BP, index_BHE + k * channels, batch_dims=1), tf.float32) for k in corners)
    upper_BHE, lower_BHE = a + (b - a) * right_BHE, c + (d - c) * right_BHE
    return tf.reshape(upper_BHE + (lower_BHE - upper_BHE) * below_BHE, (-1, size, size, channels))
