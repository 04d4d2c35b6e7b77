"""Losses of the keypoint network.

Legend: B batch, N keypoints, H W rows and columns of the heatmap. `counted_BN` is 1 where a keypoint takes part in
the loss and 0 where it is masked. Coordinates are pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import tensorflow as tf

from model.warp import move_points
from schemas.experiment import LossSpec
from schemas.layouts import layout

WING_WIDTH_PX, WING_CURVATURE_PX = 10.0, 2.0
"""w and epsilon of Feng et al., "Wing Loss for Robust Facial Landmark Localisation with CNNs", CVPR 2018."""

_SMALLEST_CHANCE = 1e-6


@dataclass(frozen=True)
class KeypointLoss:
    """`total` is what is minimised; `regions` the unweighted loss of each loss region, empty for unknown layouts."""

    total: tf.Tensor
    regions: dict[str, tf.Tensor]


def keypoint_loss(
    spec: LossSpec, truth_BN2: tf.Tensor, predicted_BN2: tf.Tensor, counted_BN: tf.Tensor
) -> KeypointLoss:
    """Distance between true and predicted keypoints, in total and by region.

    Normalised as in NVIDIA's FPENet: `l1` and `square_euclidean` sum over the batch and average over points and
    axes, `wing_loss` averages over the batch and sums over points and axes; a region in several pieces is the sum of
    its pieces' losses; masked points count as zero without changing a denominator; `kpts_coeff` scales all but `l1`,
    which ignores it there, and so here, for the same spec to train the same.

    With `weights_dict` the total is the weighted sum of the regions; without a weight of their own, pupils belong to
    the eyes. Unlike the reference, every point of 104 belongs to a region.
    """
    difference_BN2 = (truth_BN2 - predicted_BN2) * counted_BN[:, :, None]
    regions = {
        name: tf.add_n([_distance(spec, difference_BN2[:, piece]) for piece in pieces])
        for name, pieces in _region_pieces(spec, predicted_BN2.shape[1]).items()
    }
    if spec.weights_dict is None:
        return KeypointLoss(_distance(spec, difference_BN2), regions)
    return KeypointLoss(tf.add_n([weight * regions[name] for name, weight in spec.weights_dict.items()]), regions)


def heatmap_cross_entropy(
    logits_BHWN: tf.Tensor,
    truth_BN2: tf.Tensor,
    counted_BN: tf.Tensor,
    *,
    beta: float,
    sigma_px: float,
    input_size: int,
) -> tf.Tensor:
    """Mean cross-entropy, in nats, between softmax(beta * z) and a Gaussian around each true point.

    Soft-argmax alone leaves a map's shape free; this asks for one peak. The Gaussian is cut at the map's border and
    normalised there, so a point just outside draws the peak to the border.
    """
    height, width = logits_BHWN.shape[1:3]
    along_x_BNW = _gaussian(truth_BN2[:, :, 0], width, sigma_px, input_size)
    along_y_BNH = _gaussian(truth_BN2[:, :, 1], height, sigma_px, input_size)
    target_BNHW = along_y_BNH[:, :, :, None] * along_x_BNW[:, :, None, :]
    scaled_BNHW = beta * tf.transpose(tf.cast(logits_BHWN, tf.float32), (0, 3, 1, 2))
    expected_BN = tf.reduce_sum(target_BNHW * scaled_BNHW, axis=(2, 3))
    return tf.reduce_mean((tf.reduce_logsumexp(scaled_BNHW, axis=(2, 3)) - expected_BN) * counted_BN)


def visibility_cross_entropy(confidence_BN: tf.Tensor, visible_BN: tf.Tensor, judged_BN: tf.Tensor) -> tf.Tensor:
    """Mean, in nats, of -log of the chance that the network gave to what is true; points nobody judged count as zero.

    Args:
        confidence_BN: chance that a point is visible.
        visible_BN, judged_BN: float32, 1 or 0.
    """
    chance_BN = tf.where(visible_BN > 0, confidence_BN, 1.0 - confidence_BN)
    return -tf.reduce_mean(tf.math.log(chance_BN + _SMALLEST_CHANCE) * judged_BN)


def elt_loss(
    spec: LossSpec,
    keypoints_BN2: tf.Tensor,
    moved_keypoints_BN2: tf.Tensor,
    matrix_B33: tf.Tensor,
    *,
    input_size: int,
) -> tf.Tensor:
    """Disagreement between T(L(I)) and L(T(I)): equivariant landmark transformation, which needs no label.

    Source: Honari et al., "Improving Landmark Localization with Semi-Supervised Learning", CVPR 2018. The distance is
    the spec's own loss. Points that T moves out of the crop are left out.

    Args:
        keypoints_BN2: L(I), points already in mirrored order where T mirrors.
        moved_keypoints_BN2: L(T(I)).
        matrix_B33: T, in pixels of the network's input.
    """
    expected_BN2 = move_points(matrix_B33, keypoints_BN2)
    inside_BN = tf.reduce_all((expected_BN2 >= -0.5) & (expected_BN2 <= input_size - 0.5), axis=-1)
    counted_BN = tf.cast(tf.stop_gradient(inside_BN), tf.float32)
    return keypoint_loss(spec, expected_BN2, moved_keypoints_BN2, counted_BN).total


def _distance(spec: LossSpec, difference_BN2: tf.Tensor) -> tf.Tensor:
    size = tf.abs(difference_BN2)
    if spec.loss_type == "l1":
        return tf.reduce_mean(tf.reduce_sum(size, axis=0))
    if spec.loss_type == "square_euclidean":
        return spec.kpts_coeff * tf.reduce_mean(tf.reduce_sum(tf.square(size), axis=0))
    return spec.kpts_coeff * tf.reduce_mean(tf.reduce_sum(_wing(size), axis=(1, 2)))


def _wing(size: tf.Tensor) -> tf.Tensor:
    offset = WING_WIDTH_PX * (1 - log(1 + WING_WIDTH_PX / WING_CURVATURE_PX))
    near = WING_WIDTH_PX * tf.math.log1p(size / WING_CURVATURE_PX)
    return tf.where(size < WING_WIDTH_PX, near, size - offset)


def _region_pieces(spec: LossSpec, num_keypoints: int) -> dict[str, list[slice]]:
    regions = dict(layout(num_keypoints).loss_regions)
    if "pupil" in regions and "pupil" not in (spec.weights_dict or {}):
        regions["eyes"] += regions.pop("pupil")
    return {name: _runs(sorted(points)) for name, points in regions.items()}


def _runs(points: Sequence[int]) -> list[slice]:
    """Sorted indices as slices without gaps."""
    starts = [points[0], *(b for a, b in pairwise(points) if b != a + 1)]
    ends = [*(a + 1 for a, b in pairwise(points) if b != a + 1), points[-1] + 1]
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def _gaussian(position_BN: tf.Tensor, length: int, sigma_px: float, input_size: int) -> tf.Tensor:
    """(B, N, length) weights at the map's pixel centres, each row summing to 1."""
    cell_px = input_size / length
    centres = (tf.range(length, dtype=tf.float32) + 0.5) * cell_px - 0.5
    return tf.nn.softmax(-tf.square(centres - position_BN[:, :, None]) / (2 * sigma_px**2))
