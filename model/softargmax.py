"""Soft-argmax: from heatmaps to keypoints and confidences.

Legend: B batch, H W rows and columns of the heatmap, N keypoints, P = H * W.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="fpenet")
class SoftArgmax(keras.layers.Layer):
    """Expected position under softmax(beta * z) per keypoint, and the largest probability as its confidence.

    The sum runs over a centred unit grid (-0.5..0.5) by multiply and reduce-sum in float32, and is scaled to input
    pixels at the end: a grid of 0..79 loses 1/16 px at its far side in FP16, and TensorRT refuses a MatMul there on
    SM75. The two grids are weights that do not train, as in the reference, so that parameter counts agree.

    Input: (B, H, W, N) logits, or a pair of these and of as many visibility logits. Output: keypoints (B, N, 2) as
    x, y in pixels of the network's input, whose `input_size` pixels the map covers, and confidences (B, N). With
    visibility logits a confidence is the chance that the point is not occluded: the sigmoid of what they are on
    average where the point is expected. That average moves no keypoint: no gradient goes through it to the first
    logits.
    """

    def __init__(self, *, beta: float, input_size: int, **kwargs) -> None:
        super().__init__(trainable=False, dtype="float32", **{k: v for k, v in kwargs.items() if k not in _FIXED})
        self.beta = beta
        self.input_size = input_size

    def build(self, shape: tuple[int | None, ...] | list[tuple[int | None, ...]]) -> None:
        _, height, width, self.num_keypoints = _first(shape)
        rows_HW, columns_HW = np.meshgrid(_centred(height), _centred(width), indexing="ij")
        self.columns_HW = self._grid("columns", columns_HW)
        self.rows_HW = self._grid("rows", rows_HW)

    def call(self, inputs):  # noqa: ANN201 - Keras traces with tensors of its own
        logits_BHWN, *visibility = inputs if isinstance(inputs, list | tuple) else [inputs]
        probability_BNP = ops.softmax(self.beta * self._by_point(logits_BHWN))
        xy_BN2 = ops.stack(
            [self._expected(probability_BNP, grid) for grid in (self.columns_HW, self.rows_HW)], axis=-1
        )
        if visibility:
            seen_BNP = self._by_point(visibility[0])
            confidence_BN = ops.sigmoid(ops.sum(ops.stop_gradient(probability_BNP) * seen_BNP, axis=-1))
        else:
            confidence_BN = ops.max(probability_BNP, axis=-1)
        return xy_BN2 * self.input_size + (self.input_size - 1) / 2, confidence_BN

    def compute_output_shape(
        self, shape: tuple[int | None, ...] | list[tuple[int | None, ...]]
    ) -> tuple[tuple[int | None, ...], ...]:
        batch, _, _, num_keypoints = _first(shape)
        return (batch, num_keypoints, 2), (batch, num_keypoints)

    def get_config(self) -> dict:
        return super().get_config() | {"beta": self.beta, "input_size": self.input_size}

    def _grid(self, name: str, values_HW: np.ndarray) -> keras.Variable:
        constant = keras.initializers.Constant(values_HW.astype(np.float32))
        return self.add_weight(name=name, shape=values_HW.shape, initializer=constant, trainable=False)

    def _by_point(self, maps_BHWN):  # noqa: ANN202
        maps_BNHW = ops.transpose(ops.cast(maps_BHWN, "float32"), (0, 3, 1, 2))
        return ops.reshape(maps_BNHW, (-1, self.num_keypoints, self.columns_HW.shape[0] * self.columns_HW.shape[1]))

    def _expected(self, probability_BNP, grid_HW):  # noqa: ANN202
        return ops.sum(probability_BNP * ops.reshape(grid_HW, (1, 1, -1)), axis=-1)


_FIXED = ("trainable", "dtype")


def _first(shape: tuple[int | None, ...] | list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
    """The shape of the logits, alone or in front of the visibility's."""
    return shape[0] if isinstance(shape[0], list | tuple) else shape


def _centred(length: int) -> np.ndarray:
    """Pixel centres of `length` pixels that cover -0.5..0.5."""
    return (np.arange(length) + 0.5) / length - 0.5
