"""A training step of ours beside a plain `keras.Model.fit` of the same network, on one batch in memory.

    python bench/training_step.py --spec examples/real-faces-spec.yaml

Both minimise the same sum (distance, heatmap, visibility) by Adam, in the spec's precision and in the other one; the
plain one with Keras' own optimiser and mixed precision. Interleaved, medians over rounds of 64 steps, about an epoch:
what `fit` needs to begin is shared by as many. Takes three minutes on two cores of an AMD EPYC.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from hardware import hardware

from model.learner import Learner, spec_network
from model.losses import heatmap_cross_entropy, keypoint_loss, visibility_cross_entropy
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import load_spec

STEPS, WARM_UP = 64, 2
RATE = 1e-4


def batch_of(spec: ExperimentSpec) -> dict[str, tf.Tensor]:
    faces, image, points = spec.dataloader.batch_size, spec.dataloader.image_info.image, spec.num_keypoints
    tf.random.set_seed(0)
    ones_BN = tf.ones((faces, points))
    return {
        "image_BHWC": tf.random.uniform((faces, image.height, image.width, image.channel), 0, 255),
        "points_BN2": tf.random.uniform((faces, points, 2), 5, image.width - 6),
        "counted_BN": ones_BN,
        "visible_BN": tf.cast(tf.random.uniform((faces, points)) < 0.8, tf.float32),
        "judged_BN": ones_BN,
    }


def ours(spec: ExperimentSpec, batch: dict[str, tf.Tensor]) -> Callable[[int], None]:
    learner, number = Learner(spec), 0

    def run(steps: int) -> None:
        nonlocal number
        for _ in range(steps):
            float(learner.step(batch, number=number, learning_rate=RATE)["loss"])
            number += 1

    return run


def plain(spec: ExperimentSpec, batch: dict[str, tf.Tensor]) -> Callable[[int], None]:
    network, loss, size = spec_network(spec), spec.loss, spec.dataloader.image_info.image.height
    beta = spec.model.model_parameters.beta

    def distance(true_BN2, found_BN2):
        return keypoint_loss(loss, true_BN2, found_BN2, tf.ones(tf.shape(true_BN2)[:2])).total

    def visibility(true_BN, found_BN):
        return loss.visibility_coeff * visibility_cross_entropy(found_BN, true_BN, tf.ones_like(true_BN))

    def heatmap(true_BN2, logits_BHWN):
        counted_BN, sigma = tf.ones(tf.shape(true_BN2)[:2]), loss.heatmap_sigma_px
        return loss.heatmap_coeff * heatmap_cross_entropy(
            logits_BHWN, true_BN2, counted_BN, beta=beta, sigma_px=sigma, input_size=size
        )

    losses = [distance, visibility if loss.visibility_coeff else None, heatmap if loss.heatmap_coeff else None]
    network.compile(optimizer=keras.optimizers.Adam(RATE), loss=losses)
    truth = (batch["points_BN2"], batch["visible_BN"], batch["points_BN2"])
    faces = tf.data.Dataset.from_tensors((batch["image_BHWC"], truth)).cache().repeat()
    return lambda steps: network.fit(faces, steps_per_epoch=steps, shuffle=False, verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    given = parser.parse_args()
    spec = load_spec(ExperimentSpec, given.spec)
    batch, runs = batch_of(spec), {}
    for precision in ("float32", "bfloat16"):
        one = spec.model_copy(update={"training_precision": precision})
        runs |= {f"{precision}, plain Keras fit": plain(one, batch), f"{precision}, ours": ours(one, batch)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(given.rounds + 1):
        for name, run in runs.items():
            run(WARM_UP if turn == 0 else 1)
            started = time.perf_counter()
            run(STEPS)
            if turn:
                times[name].append((time.perf_counter() - started) / STEPS)
    print(f"{hardware()}, batch {spec.dataloader.batch_size}")
    print("| step | ms, median | fastest | faces/s | times the plain fit's |\n|---|---|---|---|---|")
    for name, values in times.items():
        median, base = statistics.median(values), statistics.median(times[f"{name.split(',')[0]}, plain Keras fit"])
        faces = spec.dataloader.batch_size / median
        print(f"| {name} | {1000 * median:.0f} | {1000 * min(values):.0f} | {faces:.0f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
