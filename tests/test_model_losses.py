import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.losses import elt_loss, heatmap_cross_entropy, keypoint_loss, visibility_cross_entropy
from schemas.experiment import LossSpec

GOLDEN = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())
EYES_AND_PUPILS_OF_104 = {"face": 0.3, "eyes": 0.4, "mouth": 0.3}


def golden_inputs(case: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(case["seed"])
    shape = (case["B"], case["N"], 2)
    truth = random.uniform(0, 80, shape).astype(np.float32)
    predicted = (truth + random.normal(0, 6, shape)).astype(np.float32)
    visible = (random.uniform(0, 1, shape[:2]) > 0.3).astype(np.float32)
    return truth, predicted, visible


def golden_loss(case: dict):
    truth, predicted, visible = golden_inputs(case)
    exempt = np.array(case["occ_masking_info"], np.float32)[:, None]
    counted = np.maximum(visible, exempt) if case["mask_occ"] else np.ones_like(visible)
    spec = LossSpec(loss_type=case["loss_type"], kpts_coeff=case["kpts_coeff"], weights_dict=case["weights_dict"])
    return keypoint_loss(spec, tf.constant(truth), tf.constant(predicted), tf.constant(counted))


SOUND = [case for case in GOLDEN["cases"] if case["N"] in (68, 80) or (case["N"] == 104 and not case["weights_dict"])]


@pytest.mark.parametrize(
    "case", SOUND, ids=lambda c: f"{c['loss_type']}-{c['N']}-{c['mask_occ']}-{bool(c['weights_dict'])}"
)
def test_losses_are_the_references(case):
    loss = golden_loss(case)
    assert float(loss.total) == pytest.approx(case["total"], rel=1e-5)
    assert float(loss.regions["mouth"]) == pytest.approx(case["mouth"], rel=1e-5)
    if case["N"] < 104:  # there the reference forgets the points from 69 on
        assert float(loss.regions["eyes"]) == pytest.approx(case["eyes"], rel=1e-5)


@pytest.mark.parametrize("case", [c for c in GOLDEN["cases"] if c["N"] == 10 and not c["weights_dict"]])
def test_unknown_layouts_have_a_total_and_no_regions(case):
    loss = golden_loss(case)
    assert float(loss.total) == pytest.approx(case["total"], rel=1e-5)
    assert loss.regions == {}


@pytest.mark.parametrize("loss_type", ["l1", "square_euclidean", "wing_loss"])
@pytest.mark.parametrize("num_keypoints", [1, 5, 36])
def test_few_points_have_a_finite_loss_and_no_regions(loss_type, num_keypoints):
    truth = tf.random.stateless_uniform((2, num_keypoints, 2), (1, 2), 0, 80)
    loss = keypoint_loss(LossSpec(loss_type=loss_type), truth, truth + 1.0, tf.ones((2, num_keypoints)))
    assert np.isfinite(float(loss.total)) and float(loss.total) > 0 and loss.regions == {}


UNIT_TESTS = {test["test"]: test["value"] for test in GOLDEN["reference_unit_tests"]}


@pytest.mark.parametrize(
    ("name", "changes", "truth", "visible"),
    [
        ("l1 ones-vs-zeros B4 N80", {}, tf.ones((4, 80, 2)), 1.0),
        ("sq coeff1", {"loss_type": "square_euclidean", "kpts_coeff": 1.0}, tf.ones((4, 80, 2)), 1.0),
        ("wing coeff.01", {"loss_type": "wing_loss"}, tf.ones((4, 80, 2)), 1.0),
        ("l1 all occluded mask", {}, tf.ones((4, 80, 2)), 0.0),
        ("l1 first40 ones", {}, tf.pad(tf.ones((4, 40, 2)), [[0, 0], [0, 40], [0, 0]]), 1.0),
        ("l1 68 B3", {}, tf.ones((3, 68, 2)), 1.0),
    ],
)
def test_the_references_unit_tests_hold(name, changes, truth, visible):
    loss = keypoint_loss(LossSpec(**changes), truth, tf.zeros_like(truth), tf.fill(truth.shape[:2], visible))
    found = [float(loss.total), float(loss.regions["mouth"]), float(loss.regions["eyes"])]
    assert found == pytest.approx(UNIT_TESTS[name], rel=1e-5)


@pytest.mark.parametrize("loss_type", ["l1", "square_euclidean", "wing_loss"])
@pytest.mark.parametrize("weights", [EYES_AND_PUPILS_OF_104, {"face": 0.2, "eyes": 0.3, "mouth": 0.3, "pupil": 0.2}])
@pytest.mark.parametrize("num_keypoints", [80, 104])
def test_every_point_gets_a_gradient(loss_type, weights, num_keypoints):
    predicted = tf.Variable(tf.ones((2, num_keypoints, 2)))
    spec = LossSpec(loss_type=loss_type, weights_dict=weights)
    with tf.GradientTape() as tape:
        total = keypoint_loss(spec, tf.zeros_like(predicted), predicted, tf.ones((2, num_keypoints))).total
    assert (np.abs(tf.convert_to_tensor(tape.gradient(total, predicted))) > 0).all()


def test_pupils_without_a_weight_belong_to_the_eyes():
    case = next(c for c in GOLDEN["cases"] if c["N"] == 80 and c["weights_dict"])
    truth, predicted, visible = map(tf.constant, golden_inputs(case))
    together = keypoint_loss(LossSpec(weights_dict=EYES_AND_PUPILS_OF_104), truth, predicted, visible)
    apart = keypoint_loss(
        LossSpec(weights_dict={"face": 0.3, "eyes": 0.2, "mouth": 0.3, "pupil": 0.2}), truth, predicted, visible
    )
    assert "pupil" not in together.regions
    assert float(together.regions["eyes"]) == pytest.approx(float(apart.regions["eyes"] + apart.regions["pupil"]))


def test_width_and_curvature_of_the_wing():
    """At |d| = w both branches meet; below, the slope at 0 is w / epsilon."""
    spec = LossSpec(loss_type="wing_loss", kpts_coeff=1.0)

    def at(distance: float) -> float:
        truth, predicted = tf.zeros((1, 1, 2)), tf.constant([[[distance, 0.0]]])
        return float(keypoint_loss(spec, truth, predicted, tf.ones((1, 1))).total)

    assert at(1e-3) / 1e-3 == pytest.approx(5.0, rel=2e-3)
    assert at(9.999) == pytest.approx(at(10.001), abs=5e-3)
    assert at(14.0) - at(12.0) == pytest.approx(2.0, abs=1e-4)


def test_the_heatmap_loss_is_least_for_the_gaussian_itself():
    truth = tf.constant([[[30.2, 41.7]]])
    rows, columns = np.mgrid[:40, :40]
    distance = ((columns * 2 + 0.5 - 30.2) ** 2 + (rows * 2 + 0.5 - 41.7) ** 2) / (2 * 1.5**2)
    perfect = tf.constant(-distance[None, :, :, None].astype(np.float32))

    def loss(logits):
        return float(heatmap_cross_entropy(logits, truth, tf.ones((1, 1)), beta=1.0, sigma_px=1.5, input_size=80))

    entropy = np.log(2 * np.pi * np.e * (1.5 / 2) ** 2)  # of a 2D Gaussian, in map cells
    assert loss(perfect) == pytest.approx(entropy, abs=0.02)
    assert loss(perfect * 1.2) > loss(perfect) and loss(perfect * 0.8) > loss(perfect)
    assert loss(tf.roll(perfect, 1, axis=2)) > loss(perfect) and loss(tf.roll(perfect, 1, axis=1)) > loss(perfect)
    assert loss(tf.zeros_like(perfect)) == pytest.approx(np.log(1600), rel=1e-5)


def test_masked_points_add_nothing_to_the_heatmap_loss():
    logits, truth = tf.random.stateless_normal((2, 20, 20, 3), (1, 2)), tf.fill((2, 3, 2), 30.0)
    counted = tf.constant([[1.0, 0, 1], [1, 0, 0]])
    arguments = {"beta": 0.5, "sigma_px": 2.0, "input_size": 80}
    other = tf.where(counted[:, :, None] > 0, truth, 55.0)
    masked = heatmap_cross_entropy(logits, truth, counted, **arguments)
    np.testing.assert_array_equal(masked, heatmap_cross_entropy(logits, other, counted, **arguments))
    assert float(masked) > 0
    flat = heatmap_cross_entropy(tf.zeros_like(logits), truth, counted, **arguments)
    assert float(flat) == pytest.approx(np.log(400) * 3 / 6, rel=1e-5), "nor do they make the others dearer"


def quarter_turn(size: int) -> tf.Tensor:
    return tf.constant([[[0.0, -1.0, size - 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])


def test_elt_is_zero_for_an_equivariant_prediction_and_grows_with_disagreement():
    spec = LossSpec(loss_type="square_euclidean", kpts_coeff=1.0)
    points = tf.constant([[[10.0, 20.0], [40.0, 41.0]]])
    turned = tf.constant([[[59.0, 10.0], [38.0, 40.0]]])
    assert float(elt_loss(spec, points, turned, quarter_turn(80), input_size=80)) == pytest.approx(0, abs=1e-8)
    assert float(elt_loss(spec, points, turned + 2.0, quarter_turn(80), input_size=80)) == pytest.approx(4.0)


def test_elt_pulls_both_predictions_and_leaves_out_points_beyond_the_crop():
    spec = LossSpec(loss_type="wing_loss")
    points, moved = tf.Variable([[[10.0, 20.0], [70.0, 41.0]]]), tf.Variable([[[35.0, 20.0], [79.0, 41.0]]])
    shift = tf.constant([[[1.0, 0.0, 20.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    with tf.GradientTape() as tape:
        loss = elt_loss(spec, points, moved, shift, input_size=80)
    gradients = [tf.convert_to_tensor(g).numpy()[0, :, 0] for g in tape.gradient(loss, [points, moved])]
    assert gradients[0][0] < 0 < gradients[1][0]
    assert gradients[0][1] == gradients[1][1] == 0


@pytest.mark.parametrize(("x", "counts"), [(-0.6, False), (-0.4, True), (79.4, True), (79.6, False)])
def test_elt_counts_points_as_far_as_the_edge_of_the_outermost_pixels(x, counts):
    loss = elt_loss(LossSpec(), tf.constant([[[x, 40.0]]]), tf.zeros((1, 1, 2)), tf.eye(3)[None], input_size=80)
    assert (float(loss) > 0) == counts


def test_visibility_costs_what_was_thought_of_what_is_true():
    """Points that nobody judged cost nothing, and make the others no dearer."""
    confidence = tf.constant([[0.9, 0.2, 0.5, 0.0]])
    visible, judged = tf.constant([[1.0, 0.0, 1.0, 0.0]]), tf.constant([[1.0, 1.0, 0.0, 1.0]])
    expected = -(np.log(0.9) + np.log(0.8) + np.log(1.0)) / 4
    assert float(visibility_cross_entropy(confidence, visible, judged)) == pytest.approx(expected, abs=1e-5)
    certain_and_wrong = visibility_cross_entropy(tf.constant([[0.0]]), tf.constant([[1.0]]), tf.constant([[1.0]]))
    assert 10 < float(certain_and_wrong) < 20, "much, but a number"
