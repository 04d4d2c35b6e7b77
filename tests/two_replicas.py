"""Run as a module: training on two replicas, on two halves of the CPU. Prints JSON.

`step SHARD SPEC ...`: against one device with the whole batch, the largest differences of the terms of the loss, of
the gradients, and of the weights after two steps, for every spec; and how much larger the validation's loss is, in
losses for the keypoints of a batch.
`resume SHARD SPEC`: how far a training that was stopped and resumed ends from the undisturbed one, and what it did;
whether one device refused to go on from it, and how many seeds of dropout the replicas have.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from model.learner import Learner
from model.pipeline import training_batches
from model.training import CHECKPOINT_FILE, train
from schemas.errors import TrainingError
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
    keypoints = one.step(batch, number=2, learning_rate=0.0)["keypoints"]
    ours, theirs = (learner.assess(batch["image_BHWC"], batch)[0] for learner in (two, one))
    far["validation"] = float((ours - theirs) / keypoints)
    far["weights"] = _far(*(_joined(learner.kept.trainable_variables) for learner in (two, one)))
    for variable in two.network.trainable_variables:
        copies = [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        assert len(copies) == 2 and np.array_equal(*copies), f"{variable.path} differs between the replicas"
    return far


def resumed(spec: ExperimentSpec, shard: Path, strategy: tf.distribute.Strategy) -> dict[str, float | bool]:
    class StoppedError(Exception):
        pass

    def stop(result) -> None:
        raise StoppedError

    def run(directory: Path, on_epoch=None, devices=strategy):
        files = {"train_files": [shard], "validation_files": [shard], "directory": directory}
        return train(spec, strategy=devices, on_epoch=on_epoch, **files)

    with tempfile.TemporaryDirectory() as folder:
        whole, stopped = Path(folder) / "whole", Path(folder) / "stopped"
        run(whole)
        try:
            run(stopped, stop)
        except StoppedError:
            result = run(stopped)
        with np.load(whole / CHECKPOINT_FILE) as theirs, np.load(stopped / CHECKPOINT_FILE) as ours:
            far = max(_far(ours[name], theirs[name]) for name in ours.files if name != "meta")
        try:
            run(whole, devices=tf.distribute.OneDeviceStrategy("CPU:0"))
            refused = False
        except TrainingError:
            refused = True
    done = {"weights": far, "resumed_after": result.resumed_after, "steps": result.history[-1].step}
    return done | {"refused": refused, "seeds": len(_seeds(spec, strategy))}


def _seeds(spec: ExperimentSpec, strategy: tf.distribute.Strategy) -> set[tuple[int, ...]]:
    """Of the first layer's dropout, on all replicas."""
    learner = Learner(spec, strategy=strategy)
    learner.spread_dropout()
    state = next(v for v in learner.network.variables if v.path.endswith("seed_generator_state"))
    return {tuple(copy.numpy().tolist()) for copy in strategy.experimental_local_results(state.value)}


def _joined(variables: list) -> np.ndarray:
    """All in one: soft-argmax does not see the last layer's biases, whose gradients are but rounding errors."""
    return np.concatenate([variable.numpy().ravel() for variable in variables])


def _far(ours: object, theirs: object) -> float:
    """Largest difference over the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / max(1e-6, np.abs(theirs).max()))


def main() -> None:
    strategy, (check, shard, *specs) = two_cpus(), sys.argv[1:]
    compare = {"step": furthest, "resume": resumed}[check]
    found = {name: compare(load_spec(ExperimentSpec, Path(name)), Path(shard), strategy) for name in specs}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
