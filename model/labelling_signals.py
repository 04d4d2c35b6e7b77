"""What a network tells about faces that nobody has labelled: where its keypoints are, how sure they are, what the
face looks like to it.

Legend: B faces of a batch, F faces of a set, H W C the network's input, N keypoints, V views, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from model.evaluation import Predict
from schemas.layouts import layout

if TYPE_CHECKING:
    import keras

ROTATIONS_DEGREES = (-12.0, 12.0)
ZOOMS = (0.9, 1.1)

Describe = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Images (B, H, W, C) float32 0..255 -> keypoints (B, N, 2) in input pixels, confidences (B, N), features (B, D)."""


@dataclass(frozen=True, eq=False)
class FaceSignals:
    """What a network tells about F faces.

    Attributes:
        points_FN2: keypoints in pixels of the network's input.
        confidence_FN: the network's confidences.
        disagreement_F: how far the keypoints move when the face is mirrored, turned and zoomed, and they are moved
            back: root mean square over views and points of the distance to their mean, input pixels.
        features_FD: the network's innermost maps, averaged over their positions.
    """

    points_FN2: np.ndarray
    confidence_FN: np.ndarray
    disagreement_F: np.ndarray
    features_FD: np.ndarray

    def __len__(self) -> int:
        return len(self.points_FN2)

    def of_faces(self, chosen: np.ndarray) -> FaceSignals:
        """Some of the faces, by index or mask."""
        return FaceSignals(
            self.points_FN2[chosen],
            self.confidence_FN[chosen],
            self.disagreement_F[chosen],
            self.features_FD[chosen],
        )


def read_signals(describe: Describe, batches: Iterable[np.ndarray]) -> FaceSignals:
    """Signals of all faces, a batch (B, H, W, C) float32 at a time. At least one batch is needed."""
    parts = [_of_batch(describe, np.asarray(images_BHWC, np.float32)) for images_BHWC in batches]
    return FaceSignals(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def describer(network: keras.Model) -> Describe:
    """The function that runs a network of this project and looks into it."""
    import keras
    import tensorflow as tf

    keypoints, confidences = network.outputs[:2]
    observed = keras.Model(network.inputs, [keypoints, confidences, _innermost(network).output])
    shape = network.inputs[0].shape
    forward = tf.function(partial(observed, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)])

    def describe(images_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points_BN2, confidence_BN, maps_BHWD = (output.numpy() for output in forward(images_BHWC))
        return points_BN2, confidence_BN, np.maximum(maps_BHWD, 0).mean(axis=(1, 2))

    return describe


def predicting(describe: Describe) -> Predict:
    """The same network without the look into it."""
    return lambda images_BHWC: describe(images_BHWC)[:2]


def _innermost(network: keras.Model) -> keras.layers.Layer:
    """The last layer with the smallest maps: the end of the encoder."""
    maps = [layer for layer in network.layers if len(getattr(layer.output, "shape", ())) == 4]
    side = min(layer.output.shape[1] for layer in maps)
    return [layer for layer in maps if layer.output.shape[1] == side][-1]


def _of_batch(describe: Describe, images_BHWC: np.ndarray) -> tuple[np.ndarray, ...]:
    points_BN2, confidence_BN, features_BD = describe(images_BHWC)
    seen = [points_BN2, *_seen_otherwise(describe, images_BHWC, points_BN2.shape[1])]
    points_VBN2 = np.stack(seen).astype(np.float64)
    squared_VBN = ((points_VBN2 - points_VBN2.mean(axis=0)) ** 2).sum(axis=-1)
    return points_BN2, confidence_BN, np.sqrt(squared_VBN.mean(axis=(0, 2))), features_BD


def _seen_otherwise(describe: Describe, images_BHWC: np.ndarray, num_keypoints: int) -> Iterable[np.ndarray]:
    """Keypoints found in other views of the faces, moved back to where they are in the faces as given."""
    size, flip = images_BHWC.shape[1], layout(num_keypoints).flip
    if flip is not None:
        mirrored_BN2 = describe(np.ascontiguousarray(images_BHWC[:, :, ::-1]))[0][:, list(flip)]
        yield mirrored_BN2 * (-1.0, 1.0) + (size - 1.0, 0.0)
    middle = ((size - 1) / 2, (size - 1) / 2)
    for degrees, zoom in [*((angle, 1.0) for angle in ROTATIONS_DEGREES), *((0.0, zoom) for zoom in ZOOMS)]:
        matrix_23 = cv2.getRotationMatrix2D(middle, degrees, zoom)
        inverse_23 = cv2.invertAffineTransform(matrix_23)
        turned_BHWC = np.stack([_warped(image_HWC, matrix_23) for image_HWC in images_BHWC])
        yield describe(turned_BHWC)[0] @ inverse_23[:, :2].T + inverse_23[:, 2]


def _warped(image_HWC: np.ndarray, matrix_23: np.ndarray) -> np.ndarray:
    height, width, channels = image_HWC.shape
    warped = cv2.warpAffine(image_HWC, matrix_23, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return warped.reshape(height, width, channels)
