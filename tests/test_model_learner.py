import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.learner import Learner, spec_network
from model.weights import save_network
from schemas.experiment import ExperimentSpec
from schemas.layouts import layout
from schemas.yamlspec import dump_spec
from tests.shard_files import blob_face, small_spec, write_shard

STEP = """loss:
  loss_type: {loss}
  kpts_coeff: 0.05
  mask_occ: true
  heatmap_coeff: 1.0
  visibility_coeff: 1.0
  elt_loss_info: {{elt_alpha: 0.5, enable_elt_loss: true, modulus_spatial_augmentation: {{rotate_rad_max: 0.3}}}}
model: {{model_parameters: {{type: ResidualUNet, width: 4, beta: 1.0, confidence: visibility,
  regularizer_weight: 1.0e-2}}}}
optimizer: {{epsilon: 0.1}}
"""
"""Adam's first step is the gradient's sign but for epsilon: a large one keeps rounding errors small."""

RESUME = """model: {model_parameters: {type: ResidualUNet, width: 4, dropout_rate: 0.5}}
enable_visualization: false
"""


def on_two_replicas(check: str, folder: Path, specs: dict[str, str]) -> dict[str, dict]:
    """Run `tests.two_replicas`; batches of 7 faces, so of 3 and 4."""
    shard, paths = write_shard(folder / "shard", [blob_face(i) for i in range(14)]), {}
    for name, text in specs.items():
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(dump_spec(small_spec(text)).replace("batch_size: 8", "batch_size: 7"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.two_replicas", check, str(shard), *map(str, paths.values())],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[str(path)] for name, path in paths.items()}


@pytest.mark.parametrize("loss", ["l1", "square_euclidean", "wing_loss"])
def test_a_validation_loss_does_not_grow_with_the_batch(loss):
    """The same face once, and as often as it makes a batch to learn from."""
    spec = small_spec(f"loss: {{loss_type: {loss}}}\nmodel: {{model_parameters: {{type: ResidualUNet, width: 4}}}}\n")
    learner, faces = Learner(spec), spec.dataloader.batch_size
    batch = batch_of_one(spec)
    few, _ = learner.assess(batch["image_BHWC"], batch)
    whole = {name: tf.repeat(values, faces, axis=0) for name, values in batch.items()}
    many, _ = learner.assess(whole["image_BHWC"], whole)
    assert float(few) == pytest.approx(float(many), rel=1e-4)


def test_a_validation_loss_is_of_as_many_faces_as_are_labelled_in_a_batch():
    network = "model: {model_parameters: {type: ResidualUNet, width: 4}}\n"
    elt = "elt_loss_info: {enable_elt_loss: true, unlabelled_sets: a, unlabelled_share: 0.75}"
    losses = []
    for loss in ("{loss_type: l1}", f"{{loss_type: l1, {elt}}}"):
        spec = small_spec(f"loss: {loss}\n{network}")
        batch = batch_of_one(spec)
        losses.append(float(Learner(spec).assess(batch["image_BHWC"], batch)[0]))
    assert losses[0] == pytest.approx(4 * losses[1], rel=1e-5)


@pytest.mark.parametrize("term", ["heatmap", "visibility"])
def test_a_term_weighs_what_the_spec_says(term):
    confidence = "visibility" if term == "visibility" else "peak"
    network = f"model: {{model_parameters: {{type: ResidualUNet, width: 4, confidence: {confidence}}}}}\n"
    losses = []
    for weight in (1, 2, 4):
        spec = small_spec(f"loss: {{{term}_coeff: {weight}}}\n{network}")
        batch = batch_of_one(spec)
        losses.append(float(Learner(spec).assess(batch["image_BHWC"], batch)[0]))
    once, twice = losses[1] - losses[0], losses[2] - losses[1]
    assert once > 0.1 and twice == pytest.approx(2 * once, rel=1e-3)


def test_fresh_weights_come_from_the_seed():
    one, again, other = (
        np.concatenate(
            [values.ravel() for values in spec_network(small_spec(f"random_seed: {seed}\n")).get_weights()]
        )
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_a_first_step_moves_weights_by_the_learning_rate():
    """Adam's moments begin at nothing, which the number of the step makes up for."""
    spec = small_spec()
    learner = Learner(spec)
    before = [weight.numpy() for weight in learner.network.trainable_variables]
    learner.step(batch_of_one(spec), number=0, learning_rate=0.01)
    moved = [np.abs(w - old).max() for w, old in zip(learner.network.trainable_variables, before, strict=True)]
    assert max(moved) == pytest.approx(0.01, rel=1e-3)


def test_losses_of_regions_are_told_and_not_minimised():
    spec = small_spec(num_keypoints=68)
    learner, batch = Learner(spec), batch_of_one(spec)
    validation, _ = learner.assess(batch["image_BHWC"], batch)
    terms = learner.step(batch, number=0, learning_rate=0.01)
    assert set(terms) == {"loss", "keypoints", "region/face", "region/eyes", "region/mouth"}
    assert float(terms["loss"]) == float(terms["keypoints"]) == pytest.approx(float(validation), rel=1e-4)


def test_a_mirrored_view_is_compared_under_its_mirrored_names():
    """ELT: the left eye of the one is the right eye of the other."""
    network = "model: {model_parameters: {type: ResidualUNet, width: 4}}\n"
    spec = small_spec(
        f"loss: {{loss_type: l1, elt_loss_info: {{elt_alpha: 0.25, enable_elt_loss: true}}}}\n{network}",
        num_keypoints=68,
    )
    learner, batch = Learner(spec), batch_of_one(spec)
    mirror = tf.constant([[[-1.0, 0, 79], [0, 1, 0], [0, 0, 1]]])
    batch |= {"moved_BHWC": batch["image_BHWC"][:, :, ::-1], "move_B33": mirror, "mirrored_B": tf.constant([True])}
    plain_BN2, moved_BN2 = (learner.network(batch[name])[0].numpy() for name in ("image_BHWC", "moved_BHWC"))
    expected_BN2 = plain_BN2[:, list(layout(68).flip)] * (-1, 1) + (79, 0)
    terms = learner.step(batch, number=0, learning_rate=0.01)
    assert float(terms["elt"]) == pytest.approx(0.25 * np.abs(expected_BN2 - moved_BN2).mean(), rel=1e-2)


def test_pretrained_weights_are_those_of_every_copy(tmp_path):
    """In bfloat16 a network in float32 is kept beside, of which no step changes what is frozen."""
    pretrained = spec_network(small_spec("random_seed: 1\n"))
    save_network(pretrained, tmp_path / "pretrained.keras")
    parameters = f"{{type: ResidualUNet, width: 8, pretrained_model_path: {tmp_path}/pretrained.keras}}"
    learner = Learner(small_spec(f"training_precision: bfloat16\nmodel: {{model_parameters: {parameters}}}\n"))
    for network in (learner.network, learner.kept):
        for values, expected in zip(network.get_weights(), pretrained.get_weights(), strict=True):
            np.testing.assert_array_equal(values, expected)


def batch_of_one(spec: ExperimentSpec) -> dict[str, tf.Tensor]:
    points = spec.num_keypoints
    return {
        "image_BHWC": tf.random.stateless_uniform((1, 80, 80, 1), (0, 1), 0, 255),
        "points_BN2": tf.random.stateless_uniform((1, points, 2), (0, 2), 5, 74),
        "counted_BN": tf.ones((1, points)),
        "visible_BN": tf.ones((1, points)),
        "judged_BN": tf.ones((1, points)),
    }


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    specs = {loss: STEP.format(loss=loss) for loss in ("square_euclidean", "wing_loss")}
    return on_two_replicas("step", tmp_path_factory.mktemp("replicas"), specs)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["square_euclidean", "wing_loss"])
def test_a_step_of_two_replicas_is_that_of_one_device_with_the_whole_batch(differences, loss):
    """One loss that sums over the batch, one that averages."""
    far = differences[loss]
    assert far["terms"] < 1e-4 and far["gradients"] < 1e-3 and far["weights"] < 1e-4, far
    expected = {"square_euclidean": 1.0, "wing_loss": 0.0}[loss]
    assert far["validation"] == pytest.approx(expected, abs=0.01), "it is of twice as many faces"


@pytest.mark.slow
def test_a_training_on_two_replicas_resumes_as_if_it_had_not_stopped(tmp_path):
    """Every replica has dropout masks of its own, which a checkpoint brings back too; a step takes 2 x 7 faces."""
    found = on_two_replicas("resume", tmp_path, {"resume": RESUME})["resume"]
    assert found == {"weights": 0.0, "resumed_after": 1, "steps": 2, "refused": True, "seeds": 2}
