"""Networks and crops for tests of what comes after training."""

import keras
import numpy as np

from model.network import build_network
from schemas.experiment import ModelParameters

KINDS = ["FpeNet_base", "FpeNet_base_5x5_conv", "FpeNet_release", "FpeNet_public", "ResidualUNet"]
WITH_VISIBILITY = "ResidualUNet+visibility"
"""A type with another kind of confidence than the peak of the map, and with smaller maps."""


def sharp_network(
    kind: str = "ResidualUNet",
    *,
    width: int = 8,
    num_keypoints: int = 80,
    channels: int = 1,
    seed: int = 0,
    peaks: float = 30.0,
) -> keras.Model:
    """Fresh weights, the last layer's scaled so that heatmaps have peaks and keypoints spread over the crop.

    Kernels that begin with zeros, the last of each residual branch, are random too: else no branch would count.

    Args:
        peaks: standard deviation of the heatmaps' logits. In INT8 a network of width 4 moves its points by 0.3 px at
            30, and by 0.04 px at 9.
    """
    kind, _, confidence = kind.partition("+")
    settings = {"confidence": confidence, "map_stride": 4} if confidence else {}
    parameters = ModelParameters(type=kind, width=width, **settings)
    network = build_network(parameters, num_keypoints=num_keypoints, channels=channels, seed=seed)
    random = np.random.default_rng(seed)
    for kernel in (weight for weight in network.weights if weight.name == "kernel"):
        if not np.any(kernel):
            kernel.assign(random.normal(0, 0.5 / np.sqrt(np.prod(kernel.shape[:-1])), kernel.shape))
    logits = network.get_layer(f"conv_keypoints_m{num_keypoints}")
    spread = float(np.std(network(crops(4, channels=channels), training=False)[2]))
    logits.set_weights([weight * np.float32(peaks / spread) for weight in logits.get_weights()])
    return network


def crops(count: int, *, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Float32 crops (count, 80, 80, channels), 0..255: soft blobs, no two alike."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (count, 10, 10, channels)).astype(np.float32)
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
