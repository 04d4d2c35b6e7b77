"""Run as a module: a learner on two replicas, on two halves of the CPU, against one on the whole batch.

Prints the largest differences as JSON: of the terms of the loss, of the gradients, of the weights after two steps.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.learner import Learner
from model.pipeline import training_batches
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import load_spec


def two_cpus() -> tf.distribute.Strategy:
    """To be called before TensorFlow does anything."""
    configuration = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], configuration)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def furthest(spec: ExperimentSpec, shard: Path, strategy: tf.distribute.Strategy) -> dict[str, float]:
    one, two = Learner(spec), Learner(spec, strategy=strategy)
    far = {"terms": 0.0, "gradients": 0.0}
    for number, batch in enumerate(training_batches([shard], spec, epochs=range(1), steps=2)):
        ours, theirs = (learner.step(batch, number=number, learning_rate=0.01) for learner in (two, one))
        assert list(ours) == list(theirs)
        far["terms"] = max(far["terms"], *(_far(ours[name], theirs[name]) for name in ours))
        if number == 0:
            far["gradients"] = _far(*(_joined(learner.optimizer.variables) for learner in (two, one)))
    far["weights"] = _far(*(_joined(learner.averaged.trainable_variables) for learner in (two, one)))
    for variable in two.network.trainable_variables:
        copies = [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        assert len(copies) == 2 and np.array_equal(*copies), f"{variable.path} differs between the replicas"
    return far


def _joined(variables: list) -> np.ndarray:
    """All in one: soft-argmax does not see the last layer's biases, whose gradients are but rounding errors."""
    return np.concatenate([variable.numpy().ravel() for variable in variables])


def _far(ours: object, theirs: object) -> float:
    """Largest difference over the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / max(1e-6, np.abs(theirs).max()))


def main() -> None:
    strategy, shard = two_cpus(), Path(sys.argv[1])
    found = {name: furthest(load_spec(ExperimentSpec, Path(name)), shard, strategy) for name in sys.argv[2:]}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
