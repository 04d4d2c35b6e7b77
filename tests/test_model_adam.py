import keras
import numpy as np
import tensorflow as tf

from model.adam import Adam
from schemas.experiment import Optimizer


def test_three_steps_are_those_of_keras_adam():
    settings = Optimizer(beta1=0.8, beta2=0.99, epsilon=1e-3)
    start = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    ours, theirs = keras.Variable(start), keras.Variable(start)
    fused = Adam(settings, [ours])
    reference = keras.optimizers.Adam(0.05, beta_1=0.8, beta_2=0.99, epsilon=1e-3)
    for step in range(3):
        gradient = tf.constant(np.random.default_rng(step + 1).normal(size=(3, 4)), tf.float32)
        fused.apply([gradient], learning_rate=tf.constant(0.05), steps_done=tf.constant(float(step)))
        reference.apply([gradient], [theirs])
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)
    assert np.abs(ours.numpy() - start).min() > 0.01
