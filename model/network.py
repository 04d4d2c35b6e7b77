"""The networks: gray face crop in; keypoints, confidences and heatmaps out.

All take (B, S, S, C) float32 crops, 0..255 as they are, and return keypoints (B, N, 2) in pixels of the crop,
confidences (B, N) and heatmap logits (B, H, W, N).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import layers

from model.softargmax import SoftArgmax
from schemas.errors import SpecError, nearest
from schemas.experiment import ModelParameters, TrainingPrecision

INPUT_NAME = "input_face_images"
_CONVOLUTIONS = (layers.Conv2D, layers.Conv2DTranspose)

HIDDEN_NAME = "conv_keypoints_hidden"
"""The convolution before the keypoints where the reference's name for it would not do."""


def build_network(
    parameters: ModelParameters,
    *,
    num_keypoints: int,
    image_size: int = 80,
    channels: int = 1,
    seed: int = 0,
    precision: TrainingPrecision = "float32",
) -> keras.Model:
    """A network with fresh weights.

    Args:
        parameters: type, width and the rest of the spec's `model_parameters`; pretrained weights are not loaded here
            (`model.pretrained`).
        image_size: side of the input, a multiple of 16.
        seed: of the initial weights and of dropout; the same seed gives the same weights.
        precision: what convolutions but the last compute in; weights are float32.

    Returns:
        Model with outputs keypoints, confidences, heatmap logits.

    Raises:
        SpecError: `freeze_Convlayer` names a layer that the network doesn't have.
    """
    image = keras.Input((image_size, image_size, channels), name=INPUT_NAME)
    maker = Maker(parameters, num_keypoints, seed)
    body = _residual_unet if parameters.type == "ResidualUNet" else _fpenet
    with _computing_in(precision):
        features = body(image, maker)
    logits = maker.conv(features, num_keypoints, 1, f"conv_keypoints_m{num_keypoints}", activation=None)
    maps = logits
    if parameters.confidence == "visibility":
        maps = [logits, maker.conv(features, num_keypoints, 1, f"conv_visibility_m{num_keypoints}", activation=None)]
    keypoints, confidences = SoftArgmax(beta=parameters.beta, input_size=image_size, name="softargmax")(maps)
    network = keras.Model(image, [keypoints, confidences, logits], name=parameters.type)
    _freeze(network, parameters)
    return network


@contextmanager
def _computing_in(precision: TrainingPrecision) -> Iterator[None]:
    """Layers that are made meanwhile compute in this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@dataclass(frozen=True)
class NetworkCost:
    """Size of a network; `macs` are multiply-accumulates per image in convolutions."""

    parameters: int
    macs: int


def network_cost(network: keras.Model) -> NetworkCost:
    """Count parameters (the soft-argmax's grids included) and multiply-accumulates per image."""
    return NetworkCost(network.count_params(), sum(_layer_macs(layer) for layer in network.layers))


@dataclass
class Maker:
    """Makes layers that share initialisation and regularisation, each with a seed of its own."""

    parameters: ModelParameters
    num_keypoints: int
    seed: int
    _made: list[str] = field(default_factory=list)

    def conv(  # noqa: ANN201 - a symbolic tensor, whose type Keras keeps to itself
        self,
        tensor,
        filters: int,
        kernel: int,
        name: str,
        *,
        strides: int = 1,
        activation: str | None = "relu",
        use_bias: bool = True,
        initializer: Callable = keras.initializers.GlorotUniform,
    ):
        return layers.Conv2D(
            filters,
            kernel,
            strides=strides,
            padding="same",
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=self._initializer(initializer, name),
            kernel_regularizer=self._regularizer(),
            name=name,
        )(tensor)

    def up(self, tensor, filters: int, name: str):  # noqa: ANN201
        """Twice the side by a 2 x 2 transposed convolution without bias."""
        return layers.Conv2DTranspose(
            filters,
            2,
            strides=2,
            use_bias=False,
            kernel_initializer=self._initializer(keras.initializers.HeUniform, name),
            kernel_regularizer=self._regularizer(),
            name=name,
        )(tensor)

    def dropout(self, tensor, name: str):  # noqa: ANN201
        rate = self.parameters.dropout_rate
        return layers.Dropout(rate, seed=self._next_seed(name), name=name)(tensor) if rate else tensor

    def hidden_name(self) -> str:
        """The reference's name of the layer before the keypoints, which 64 keypoints would use twice."""
        is_reference = self.parameters.width == 64 and self.num_keypoints != 64
        return "conv_keypoints_m64" if is_reference else HIDDEN_NAME

    def _initializer(self, kind: Callable, name: str) -> keras.initializers.Initializer:
        return kind() if kind is keras.initializers.Zeros else kind(seed=self._next_seed(name))

    def _next_seed(self, name: str) -> int:
        self._made.append(name)
        return int(np.random.SeedSequence([self.seed, len(self._made)]).generate_state(1)[0] >> 1)

    def _regularizer(self) -> keras.regularizers.Regularizer | None:
        weight = self.parameters.regularizer_weight
        kind = {"l1": keras.regularizers.L1, "l2": keras.regularizers.L2}[self.parameters.regularizer_type]
        return kind(weight) if weight else None


def _fpenet(image, maker: Maker):  # noqa: ANN202
    """The reference's encoder-decoder with its layer names, all `width` channels wide, maps of the input's side.

    The types differ in the decoder's kernel, a further 1 x 1 convolution, and how maps grow. Topology and names:
    NVIDIA's open-source FPENet backend.
    """
    parameters = maker.parameters
    width = parameters.width
    kernel = 5 if parameters.type == "FpeNet_base_5x5_conv" else 3
    nearest_up = parameters.use_upsampling_layer
    if parameters.type in ("FpeNet_release", "FpeNet_public"):
        nearest_up = parameters.type == "FpeNet_release"
    tensor, skips = image, []
    for stage in range(1, 5):
        tensor = maker.conv(tensor, width, 3, f"block_{stage}a_conv_1")
        skips.append(tensor)
        tensor = layers.MaxPooling2D(2, name=f"max_pooling2d_{stage}")(tensor)
    for order, size in enumerate((3, 3, 1), start=1):
        tensor = maker.conv(tensor, width, size, f"block_5a_conv_{order}")
    tensor = maker.dropout(tensor, "dropout")
    for order, skip in enumerate(reversed(skips), start=1):
        if nearest_up:
            tensor = layers.UpSampling2D(2, name=f"up_sampling2d_{order}")(tensor)
        else:
            tensor = maker.up(tensor, width, f"conv2d_transpose_{order}")
        tensor = layers.Concatenate(name=f"concatenate_{order}")([tensor, skip])
        tensor = maker.conv(tensor, width, kernel, f"block_{order + 5}a_conv_1")
        tensor = maker.conv(tensor, width, 1, f"block_{order + 5}a_conv_2")
    if parameters.type in ("FpeNet_base", "FpeNet_release"):
        tensor = maker.conv(tensor, width, 1, maker.hidden_name())
    return tensor


@dataclass(frozen=True)
class _UNet:
    """A residual encoder-decoder: its stem's stride; channels and encoder's blocks per stage, largest maps first."""

    stem_stride: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]


def _unet_of(parameters: ModelParameters) -> _UNet:
    width = parameters.width
    if parameters.stride_of_maps == 4:
        return _UNet(2, (width, width * 3 // 2, 2 * width), (2, 2, 2))
    return _UNet(1, (width, 2 * width, 4 * width, 4 * width), (1, 2, 2, 2))


def _residual_unet(image, maker: Maker):  # noqa: ANN202
    """Residual encoder-decoder over maps down to 1/16 of the input's side; sums for skips, no norm.

    The second convolution of a residual block starts at zero, so a block starts as the identity and no normalisation
    is needed (Zhang et al. 2019, Fixup). A stage of the decoder has one block.
    """
    plan, he = _unet_of(maker.parameters), keras.initializers.HeNormal
    tensor = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling", dtype="float32")(image)
    stem = maker.parameters.width // 2
    tensor = maker.conv(tensor, stem, 3, "stem_conv", strides=plan.stem_stride, initializer=he)
    skips = []
    for stage, (channels, blocks) in enumerate(zip(plan.widths, plan.blocks, strict=True), start=1):
        tensor = maker.conv(tensor, channels, 3, f"down_{stage}_conv", strides=2, activation=None, initializer=he)
        for order in range(blocks):
            tensor = _residual(tensor, maker, channels, f"encoder_{stage}{'ab'[order]}")
        skips.append(tensor)
    tensor = maker.dropout(skips.pop(), "dropout")
    for stage in range(len(skips), 0, -1):
        tensor = layers.ReLU(name=f"up_{stage}_relu")(tensor)
        tensor = maker.up(tensor, plan.widths[stage - 1], f"up_{stage}_deconv")
        tensor = layers.Add(name=f"up_{stage}_sum")([tensor, skips.pop()])
        tensor = _residual(tensor, maker, plan.widths[stage - 1], f"decoder_{stage}")
    return layers.ReLU(name="features")(tensor)


def _residual(tensor, maker: Maker, channels: int, name: str):  # noqa: ANN202
    """x + conv(relu(conv(relu(x)))). No bias before the sum: TensorFlow's graph optimiser fails on such chains."""
    inner = layers.ReLU(name=f"{name}_relu")(tensor)
    inner = maker.conv(inner, channels, 3, f"{name}_conv_1", initializer=keras.initializers.HeNormal)
    inner = maker.conv(
        inner,
        channels,
        3,
        f"{name}_conv_2",
        activation=None,
        use_bias=False,
        initializer=keras.initializers.Zeros,
    )
    return layers.Add(name=f"{name}_sum")([tensor, inner])


def _freeze(network: keras.Model, parameters: ModelParameters) -> None:
    """Act on `train_fpe_model` and `freeze_Convlayer`, which the reference reads and ignores."""
    convolutions = {layer.name: layer for layer in network.layers if isinstance(layer, _CONVOLUTIONS)}
    for name in parameters.freeze_Convlayer or []:
        if name not in convolutions:
            where = "model.model_parameters.freeze_Convlayer"
            raise SpecError(where, f"{parameters.type} has no convolution '{name}'{nearest(name, convolutions)}")
        convolutions[name].trainable = False
    if not parameters.train_fpe_model:
        network.trainable = False


def _layer_macs(layer: keras.layers.Layer) -> int:
    if isinstance(layer, layers.Conv2DTranspose):
        return int(np.prod(layer.kernel.shape)) * int(np.prod(layer.input.shape[1:3]))
    if isinstance(layer, layers.Conv2D):
        return int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
    return 0
