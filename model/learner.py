"""One training step: network, losses and optimiser.

Legend: B batch, H W C the network's input, N keypoints.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from model.adam import Adam
from model.augment import mirror_order
from model.losses import elt_loss, heatmap_cross_entropy, keypoint_loss, visibility_cross_entropy
from model.network import build_network
from model.pretrained import load_pretrained
from schemas.errors import SpecError
from schemas.experiment import ExperimentSpec, TrainingPrecision
from schemas.layouts import layout
from schemas.sealed import Key

SUMS_OVER_BATCH = ("l1", "square_euclidean")
"""Losses that grow with the batch, as in the reference; the others average over it (`model.losses`)."""
AVERAGED = ("heatmap", "visibility")
"""Terms that average over the batch whatever the loss."""
SHARE = "share"
"""Beside a batch's tensors: its faces over those of all replicas' batches."""


class Learner:
    """What a training changes: weights and optimiser.

    With several replicas (GPUs) each has a copy of everything and learns from its part of the batch; a step then
    does what it does to one device with the whole batch, but for dropout and the order of sums.

    Args:
        key: opens a sealed pretrained model.
        strategy: where the copies are; by default there is one, on the device that TensorFlow takes.

    Attributes:
        network: what the gradient acts on.
        kept: what is validated and saved: the network as of the last step in float32, so `network` itself if it
            computes in that.

    Raises:
        SpecError: the spec freezes every weight.
        ModelFileError: the pretrained model doesn't fit.
    """

    def __init__(
        self, spec: ExperimentSpec, *, key: Key | None = None, strategy: tf.distribute.Strategy | None = None
    ) -> None:
        self.spec = spec
        self.strategy = strategy or tf.distribute.get_strategy()
        with self.strategy.scope():
            self.network = spec_network(spec, key=key)
            if not self.network.trainable_variables:
                raise SpecError(
                    "model.model_parameters", "train_fpe_model and freeze_Convlayer leave nothing to train"
                )
            self.kept = self.network
            if spec.training_precision != "float32":
                self.kept = _fresh_network(spec, "float32")
                self.kept.set_weights(self.network.get_weights())
            self.optimizer = Adam(spec.optimizer, self.network.trainable_variables)
        self._step = tf.function(self._step_everywhere, jit_compile=False)
        self._assess = tf.function(self._losses_of_kept, jit_compile=False, reduce_retracing=True)
        self._predict = tf.function(lambda image_BHWC: self.kept(image_BHWC, training=False)[0])

    def variables(self) -> list[keras.Variable | tf.Variable]:
        """All that a checkpoint must hold, in a fixed order."""
        return [*self.network.variables, *self.optimizer.variables]

    def step(self, batch: dict[str, tf.Tensor], *, number: int, learning_rate: float) -> dict[str, tf.Tensor]:
        """Learn from one batch of `model.pipeline.training_batches`.

        Args:
            number: of the step in the whole training, from 0.

        Returns:
            `loss`, which was minimised, and what it is made of.
        """
        count, rate = (tf.constant(value, tf.float32) for value in (number, learning_rate))
        return self._step(_parts(batch, self.strategy), count, rate)

    def assess(self, image_BHWC: tf.Tensor, truth: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Loss without regularisation and ELT, and keypoints (B, N, 2), of the kept network.

        Losses that sum over a batch are those of as many faces as a step learns from, however many are given.

        Args:
            truth: see `model.pipeline.targets`.
        """
        return self._assess(image_BHWC, truth)

    def predict(self, image_BHWC: tf.Tensor) -> tf.Tensor:
        """Keypoints (B, N, 2) of the kept network."""
        return self._predict(image_BHWC)

    def spread_dropout(self) -> None:
        """Give every replica masks of its own. To be called once, when the weights are those to go on from."""
        for variable in self.network.variables:
            if variable.path.endswith("seed_generator_state"):
                for replica, state in enumerate(self.strategy.experimental_local_results(variable.value)):
                    state.assign_add(tf.constant([replica, 0], state.dtype))

    def _step_everywhere(self, parts: dict[str, Any], number: tf.Tensor, rate: tf.Tensor) -> dict[str, tf.Tensor]:
        terms = self.strategy.run(self._one_step, args=(parts, number, rate))
        return self.strategy.experimental_local_results(terms)[0]

    def _one_step(
        self, batch: dict[str, tf.Tensor], number: tf.Tensor, learning_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """One replica's share of a step."""
        with tf.GradientTape() as tape:
            outputs = self.network(batch["image_BHWC"], training=True)
            keypoints_BN2, terms = outputs[0], self._losses(*outputs, batch)
            terms |= self._elt(batch, keypoints_BN2)
            if self.network.losses:
                terms["regularisation"] = tf.add_n(self.network.losses)
            terms = {name: self._part_of_whole(name, batch[SHARE]) * value for name, value in terms.items()}
            loss = tf.add_n([value for name, value in terms.items() if not name.startswith("region/")])
        weights = self.network.trainable_variables
        gradients = self._summed(tape.gradient(loss, weights))
        self.optimizer.apply(gradients, learning_rate=learning_rate, steps_done=number)
        if self.kept is not self.network:
            for kept, weight in zip(self.kept.trainable_variables, weights, strict=True):
                tf.raw_ops.AssignVariableOp(resource=kept.value.handle, value=weight)
        terms = {"loss": loss, **terms}
        return dict(zip(terms, tf.unstack(self._summed([tf.stack(list(terms.values()))])[0]), strict=True))

    def _part_of_whole(self, term: str, share: tf.Tensor) -> tf.Tensor | float:
        """What to multiply a replica's term with, so that the replicas' terms sum up to the whole batch's.

        Losses that sum over the batch add up as they are, those that average over it by the part's size; what does
        not depend on the batch counts once.
        """
        if term == "regularisation":
            return 1.0 / self._replicas
        return 1.0 if term not in AVERAGED and self.spec.loss.loss_type in SUMS_OVER_BATCH else share

    def _summed(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Sums over the replicas."""
        if self._replicas == 1:
            return tensors
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)

    def _losses_of_kept(self, image_BHWC: tf.Tensor, truth: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = self.kept(image_BHWC, training=False)
        terms = self._losses(*outputs, truth)
        if self.spec.loss.loss_type in SUMS_OVER_BATCH:
            learnt = (self.spec.dataloader.batch_size - self.spec.unlabelled_in_batch) * self._replicas
            terms["keypoints"] *= learnt / tf.cast(tf.shape(image_BHWC)[0], tf.float32)
        return tf.add_n([value for name, value in terms.items() if not name.startswith("region/")]), outputs[0]

    def _losses(
        self,
        keypoints_BN2: tf.Tensor,
        confidence_BN: tf.Tensor,
        logits: tf.Tensor,
        truth: dict[str, tf.Tensor],
    ) -> dict[str, tf.Tensor]:
        spec, points_BN2, counted_BN = self.spec.loss, truth["points_BN2"], truth["counted_BN"]
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
        if spec.visibility_coeff:
            terms["visibility"] = spec.visibility_coeff * visibility_cross_entropy(
                confidence_BN, truth["visible_BN"], truth["judged_BN"]
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
    def _replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def _input_size(self) -> int:
        return self.spec.dataloader.image_info.image.height


def _parts(batch: dict[str, tf.Tensor], strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """The batch cut into one piece per replica, as equal as can be, and beside it each piece's share of the whole."""
    faces, replicas = len(batch["image_BHWC"]), strategy.num_replicas_in_sync
    if replicas == 1:
        return batch | {SHARE: tf.constant(1.0)}

    def part(context: tf.distribute.ValueContext) -> dict[str, tf.Tensor]:
        start, end = (faces * (context.replica_id_in_sync_group + i) // replicas for i in (0, 1))
        piece = {name: values[start:end] for name, values in batch.items()}
        return piece | {SHARE: tf.constant((end - start) / faces, tf.float32)}

    return strategy.experimental_distribute_values_from_function(part)


def spec_network(spec: ExperimentSpec, *, key: Key | None = None) -> keras.Model:
    """The network that a spec describes: fresh weights from its seed, or its pretrained ones.

    Args:
        key: opens a sealed pretrained model.

    Raises:
        SpecError: it freezes a layer that isn't there.
        ModelFileError: the pretrained model can't be read or doesn't fit.
    """
    network, path = _fresh_network(spec, spec.training_precision), spec.model.model_parameters.pretrained_model_path
    if path:
        load_pretrained(network, path, key=key)
    return network


def _fresh_network(spec: ExperimentSpec, precision: TrainingPrecision) -> keras.Model:
    """The network that a spec describes, with fresh weights from its seed."""
    image = spec.dataloader.image_info.image
    return build_network(
        spec.model.model_parameters,
        num_keypoints=spec.num_keypoints,
        image_size=image.height,
        channels=image.channel,
        seed=spec.random_seed % 2**31,
        precision=precision,
    )
