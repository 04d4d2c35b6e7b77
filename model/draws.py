"""Random numbers for augmentation.

Legend: B batch.
"""

from __future__ import annotations

import tensorflow as tf

_DRAWN_TOGETHER = 16


class Draws:
    """Random numbers for one batch: every call gives new ones, the same for the same seed (2 integers).

    They are made in blocks: sixteen single operations would take as long as a tenth of the whole augmentation.
    """

    def __init__(self, seed_2: tf.Tensor, batch: tf.Tensor) -> None:
        self._seed_2, self._batch, self._seeds = seed_2, batch, 0
        self._block: list[tf.Tensor] = []

    def uniform(self, low: float, high: float) -> tf.Tensor:
        """One number per sample, (B,) float32 in [low, high)."""
        if not self._block:
            self._block = tf.unstack(tf.random.stateless_uniform((_DRAWN_TOGETHER, self._batch), self._next_seed()))
        return low + (high - low) * self._block.pop()

    def normal(self, mean: float, deviation: float) -> tf.Tensor:
        """One number per sample, (B,) float32."""
        return tf.random.stateless_normal((self._batch,), self._next_seed(), mean, deviation)

    def happens(self, probability: float) -> tf.Tensor:
        """(B,) bool."""
        return self.uniform(0.0, 1.0) < probability

    def _next_seed(self) -> tf.Tensor:
        self._seeds += 1
        return tf.random.experimental.stateless_fold_in(self._seed_2, self._seeds)
