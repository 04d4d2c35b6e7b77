"""One training step: network, losses, optimiser and the running average of the weights.

Legend: B batch, H W C the network's input, N keypoints.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from model.adam import Adam
from model.augment import mirror_order
from model.losses import elt_loss, heatmap_cross_entropy, keypoint_loss
from model.network import build_network
from model.weights import load_pretrained
from schemas.errors import SpecError
from schemas.experiment import ExperimentSpec
from schemas.layouts import layout
from schemas.sealed import Key


class Learner:
    """What a training changes: weights, optimiser, average.

    Attributes:
        network: what the gradient acts on.
        averaged: what is validated and kept: the exponential average of the weights with the spec's `ema_momentum`,
            or `network` itself without one.

    Raises:
        SpecError: the spec freezes every weight.
        ModelFileError: the pretrained model doesn't fit.
    """

    def __init__(self, spec: ExperimentSpec, *, key: Key | None = None) -> None:
        self.spec = spec
        self.network = spec_network(spec, key=key)
        if not self.network.trainable_variables:
            raise SpecError("model.model_parameters", "train_fpe_model and freeze_Convlayer leave nothing to train")
        self.averaged = self.network
        if spec.optimizer.ema_momentum is not None:
            self.averaged = spec_network(spec, key=key)
        self.optimizer = Adam(spec.optimizer, self.network.trainable_variables)
        self._step = tf.function(self._one_step, jit_compile=False)
        self._assess = tf.function(self._losses_of_average, jit_compile=False, reduce_retracing=True)

    def variables(self) -> list[keras.Variable | tf.Variable]:
        """All that a checkpoint must hold, in a fixed order."""
        average = [] if self.averaged is self.network else self.averaged.variables
        return [*self.network.variables, *self.optimizer.variables, *average]

    def step(self, batch: dict[str, tf.Tensor], *, number: int, learning_rate: float) -> dict[str, tf.Tensor]:
        """Learn from one batch of `model.pipeline.training_batches`.

        Args:
            number: of the step in the whole training, from 0; young averages forget faster.

        Returns:
            `loss`, which was minimised, and what it is made of.
        """
        momentum = min(self.spec.optimizer.ema_momentum or 0.0, (1 + number) / (10 + number))
        return self._step(batch, *(tf.constant(value, tf.float32) for value in (number, learning_rate, momentum)))

    def assess(
        self, image_BHWC: tf.Tensor, points_BN2: tf.Tensor, counted_BN: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Loss without regularisation and ELT, and keypoints (B, N, 2), of the averaged network."""
        return self._assess(image_BHWC, points_BN2, counted_BN)

    def _one_step(
        self, batch: dict[str, tf.Tensor], number: tf.Tensor, learning_rate: tf.Tensor, momentum: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            keypoints_BN2, _, logits = self.network(batch["image_BHWC"], training=True)
            terms = self._losses(keypoints_BN2, logits, batch["points_BN2"], batch["counted_BN"])
            terms |= self._elt(batch, keypoints_BN2)
            if self.network.losses:
                terms["regularisation"] = tf.add_n(self.network.losses)
            weighted = [value for name, value in terms.items() if not name.startswith("region/")]
            loss = tf.add_n(weighted)
        weights = self.network.trainable_variables
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply(gradients, learning_rate=learning_rate, steps_done=number)
        if self.averaged is not self.network:
            for mean, weight in zip(self.averaged.trainable_variables, weights, strict=True):
                mean.assign(weight + momentum * (mean - weight))
        return {"loss": loss, **terms}

    def _losses_of_average(
        self, image_BHWC: tf.Tensor, points_BN2: tf.Tensor, counted_BN: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        keypoints_BN2, _, logits = self.averaged(image_BHWC, training=False)
        terms = self._losses(keypoints_BN2, logits, points_BN2, counted_BN)
        return tf.add_n([value for name, value in terms.items() if not name.startswith("region/")]), keypoints_BN2

    def _losses(
        self, keypoints_BN2: tf.Tensor, logits: tf.Tensor, points_BN2: tf.Tensor, counted_BN: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        spec = self.spec.loss
        distance = keypoint_loss(spec, points_BN2, keypoints_BN2, counted_BN)
        terms = {"keypoints": distance.total}
        if spec.heatmap_coeff:
            terms["heatmap"] = spec.heatmap_coeff * heatmap_cross_entropy(
                logits,
                points_BN2,
                counted_BN,
                beta=self.spec.model.model_parameters.beta,
                sigma_px=spec.heatmap_sigma_px,
                input_size=self._input_size,
            )
        return terms | {f"region/{name}": value for name, value in distance.regions.items()}

    def _elt(self, batch: dict[str, tf.Tensor], keypoints_BN2: tf.Tensor) -> dict[str, tf.Tensor]:
        elt = self.spec.loss.elt_loss_info
        if not elt.enable_elt_loss:
            return {}
        moved_BN2, _, _ = self.network(batch["moved_BHWC"], training=True)
        ordered_BN2 = mirror_order(keypoints_BN2, batch["mirrored_B"], layout(self.spec.num_keypoints).flip)
        loss = elt_loss(self.spec.loss, ordered_BN2, moved_BN2, batch["move_B33"], input_size=self._input_size)
        return {"elt": elt.elt_alpha * loss}

    @property
    def _input_size(self) -> int:
        return self.spec.dataloader.image_info.image.height


def spec_network(spec: ExperimentSpec, *, key: Key | None = None) -> keras.Model:
    """The network that a spec describes: fresh weights from its seed, or its pretrained ones.

    Args:
        key: opens a sealed pretrained model.

    Raises:
        SpecError: it freezes a layer that isn't there.
        ModelFileError: the pretrained model can't be read or doesn't fit.
    """
    parameters, image = spec.model.model_parameters, spec.dataloader.image_info.image
    network = build_network(
        parameters,
        num_keypoints=spec.num_keypoints,
        image_size=image.height,
        channels=image.channel,
        seed=spec.random_seed % 2**31,
    )
    if parameters.pretrained_model_path:
        load_pretrained(network, parameters.pretrained_model_path, key=key)
    return network
