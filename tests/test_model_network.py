import json
from pathlib import Path

import keras
import numpy as np
import pytest

from model.network import build_network, network_cost
from model.softargmax import SoftArgmax
from schemas.errors import SpecError
from schemas.experiment import ModelParameters
from tests.networks import KINDS

GOLDEN = Path(__file__).parent / "golden"
MODELS = json.loads((GOLDEN / "models.json").read_text())
FORWARD = json.loads((GOLDEN / "forward.json").read_text())["cases"]["FpeNet_public"]


def parameters(name: str) -> dict:
    kind, _, up = name.partition("+")
    return {"type": kind, "use_upsampling_layer": up == "upsample"}


@pytest.mark.parametrize("case", sorted(MODELS))
def test_parameters_and_macs_are_the_references(case):
    name, _, points = case.partition("/N")
    network = build_network(ModelParameters(**parameters(name)), num_keypoints=int(points))
    cost, expected = network_cost(network), MODELS[case]
    trainable = sum(np.prod(weight.shape) for weight in network.trainable_variables)
    assert (cost.parameters, trainable) == (expected["total_params"], expected["trainable"])
    assert cost.macs / 1e6 == pytest.approx(expected["MMACs"], abs=1e-3)


@pytest.mark.parametrize("case", [case for case in sorted(MODELS) if "layers" in MODELS[case]])
def test_layers_have_the_references_names_and_sizes(case):
    network = build_network(ModelParameters(**parameters(case.partition("/")[0])), num_keypoints=80)
    found = [(layer.name, layer.count_params()) for layer in network.layers if layer.name != "input_face_images"]
    assert found == [(row["layer"], row["params"]) for row in MODELS[case]["layers"]]


def test_other_sizes():
    assert (
        network_cost(build_network(ModelParameters(type="FpeNet_base"), num_keypoints=80, image_size=112)).parameters
        == 601232
    )
    narrow = network_cost(build_network(ModelParameters(width=16), num_keypoints=80))
    assert narrow.parameters < 60000


@pytest.mark.parametrize(("map_stride", "width", "mmacs"), [(None, 32, 289.1), (2, 32, 289.1), (4, 64, 174.5)])
def test_maps_of_a_half_and_of_a_quarter_of_the_side(map_stride, width, mmacs):
    parameters = ModelParameters(type="ResidualUNet", width=width, map_stride=map_stride)
    network = build_network(parameters, num_keypoints=68)
    side = 80 // parameters.stride_of_maps
    assert network.output_shape[2] == (None, side, side, 68)
    assert network_cost(network).macs / 1e6 == pytest.approx(mmacs, abs=0.1)


def test_a_confidence_of_its_own_moves_no_keypoint():
    peak, visibility = (
        build_network(ModelParameters(type="ResidualUNet", width=8, confidence=confidence), num_keypoints=5, seed=3)
        for confidence in ("peak", "visibility")
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 1)).astype(np.float32)
    here, there = peak(images), visibility(images)
    np.testing.assert_array_equal(here[0], there[0])
    own = visibility.get_layer("conv_visibility_m5")
    own.set_weights([np.zeros_like(own.get_weights()[0]), np.array([-20, -1, 0, 1, 20], np.float32)])
    expected = 1 / (1 + np.exp([20.0, 1, 0, -1, -20]))
    np.testing.assert_allclose(visibility(images)[1], [expected] * 2, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_computes_nearly_the_same_with_the_same_weights(kind):
    """Its numbers have 8 bits; weights, and what comes out, have float32's 24."""
    exact, fast = (
        build_network(ModelParameters(type=kind, width=8, beta=0.01), num_keypoints=5, seed=3, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert keras.config.dtype_policy().name == "float32", "other networks are as they were"
    assert {weight.dtype for weight in fast.weights if "seed" not in weight.path} == {"float32"}
    images = np.random.default_rng(0).uniform(0, 255, (4, 80, 80, 1)).astype(np.float32)
    for ours, theirs in zip(fast(images), exact(images), strict=True):
        assert ours.dtype == theirs.dtype
        assert 0 < np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_keypoints(kind):
    """64 is what the reference calls the layer before the keypoints after, where layers have 64 channels."""
    parameters = ModelParameters(type=kind, width=64 if kind in ("FpeNet_base", "FpeNet_release") else 8)
    layers = len(build_network(parameters, num_keypoints=80).layers)
    for n in (5, 17, 64, 98):
        network = build_network(parameters, num_keypoints=n)
        assert network.output_shape[:2] == [(None, n, 2), (None, n)]
        assert len({layer.name for layer in network.layers}) == len(network.layers) == layers


@pytest.mark.parametrize("kind", KINDS)
def test_colour_adds_to_the_first_layer_alone(kind):
    parameters = ModelParameters(type=kind, width=8)
    gray, colour = (build_network(parameters, num_keypoints=5, channels=c) for c in (1, 3))
    assert colour.input_shape == (None, 80, 80, 3)
    pairs = zip(gray.layers, colour.layers, strict=True)
    assert [a.name for a, b in pairs if a.count_params() != b.count_params()] in (["block_1a_conv_1"], ["stem_conv"])


def test_the_forward_pass_is_the_references():
    network = build_network(ModelParameters(beta=FORWARD["beta"]), num_keypoints=80)
    layers = [layer for layer in network.layers if layer.weights and layer.name != "softargmax"]
    for i, (layer, (_, kind, shape, has_bias)) in enumerate(zip(layers, FORWARD["layers"], strict=True)):
        transposed = kind == "Conv2DTranspose"
        fan_in, channels = (shape[3], shape[2]) if transposed else (np.prod(shape[:3]), shape[3])
        kernel = np.random.RandomState(1000 + i).normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        bias = np.random.RandomState(2000 + i).normal(0, 0.1, channels).astype(np.float32)
        layer.set_weights([kernel, bias] if has_bias else [kernel])
    image = np.random.RandomState(5).uniform(0, 255, (1, 1, 80, 80)).astype(np.float32)
    keypoints, confidences, logits = network.predict_on_batch(image.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(keypoints[0], FORWARD["coords_xy"], atol=2e-3)
    np.testing.assert_allclose(confidences[0], FORWARD["confidence"], rtol=2e-3)
    assert [logits.mean(), logits.std()] == pytest.approx(FORWARD["heatmap_mean_std"], rel=1e-3)
    np.testing.assert_allclose(
        logits[0, :3, :3, 0], FORWARD["heatmap_first_channel_corner_3x3"], rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "softargmax.json").read_text()), ids=lambda case: f"beta{case['beta']}"
)
def test_softargmax_is_the_references(case):
    logits = np.transpose(np.array(case["input"], np.float32), (0, 2, 3, 1))
    height, width = logits.shape[1:3]
    keypoints, confidences = SoftArgmax(beta=case["beta"], input_size=80)(logits)
    cell = np.array([80 / width, 80 / height])
    in_cells = (np.array(keypoints) + 0.5) / cell - 0.5  # the reference counts cells of the map
    np.testing.assert_allclose(in_cells, case["coords_xy"], atol=1e-4)
    np.testing.assert_allclose(np.array(confidences), case["confidence"], atol=1e-6)


def test_a_flat_map_gives_the_centre():
    keypoints, confidences = SoftArgmax(beta=0.1, input_size=80)(np.zeros((1, 80, 80, 3), np.float32))
    np.testing.assert_allclose(np.array(keypoints), 39.5, atol=1e-4)
    np.testing.assert_allclose(np.array(confidences), 1 / 6400, rtol=1e-5)


def test_a_peak_of_a_half_size_map_lies_between_its_two_pixels():
    logits = np.zeros((1, 40, 40, 1), np.float32)
    logits[0, 7, 21, 0] = 1000
    keypoints, confidences = SoftArgmax(beta=1.0, input_size=80)(logits)
    np.testing.assert_allclose(np.array(keypoints)[0, 0], (42.5, 14.5), atol=1e-4)
    assert float(confidences[0, 0]) == pytest.approx(1)


@pytest.mark.parametrize("map_stride", [1, 2, 4])
def test_keypoints_end_at_the_outermost_centres_of_the_map(map_stride):
    side = 80 // map_stride
    logits = np.zeros((1, side, side, 2), np.float32)
    logits[0, 0, 0, 0] = logits[0, -1, -1, 1] = 1000
    keypoints, _ = SoftArgmax(beta=1.0, input_size=80)(logits)
    margin = (map_stride - 1) / 2
    np.testing.assert_allclose(np.array(keypoints)[0], [[margin] * 2, [79 - margin] * 2], atol=1e-4)


def test_the_residual_unet_is_small_and_its_maps_half_size():
    network = build_network(ModelParameters(type="ResidualUNet", width=32), num_keypoints=68)
    assert network_cost(network).macs <= 0.35e9
    assert network.output_shape == [(None, 68, 2), (None, 68), (None, 40, 40, 68)]


def test_the_seed_decides_the_weights_and_layers_differ():
    a, b, c = (build_network(ModelParameters(width=8), num_keypoints=5, seed=seed) for seed in (1, 1, 2))
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    kernels = [
        network.get_layer(name).get_weights()[0]
        for network in (a, c)
        for name in ("block_2a_conv_1", "block_3a_conv_1")
    ]
    assert len({kernel.tobytes() for kernel in kernels}) == 4


def test_freezing_acts():
    frozen = ["block_1a_conv_1", "conv2d_transpose_1"]
    network = build_network(ModelParameters(width=8, freeze_Convlayer=frozen), num_keypoints=5)
    assert not any(network.get_layer(name).trainable_variables for name in frozen)
    assert network.get_layer("conv2d_transpose_2").trainable_variables
    assert network.get_layer("block_2a_conv_1").trainable_variables
    assert not build_network(ModelParameters(width=8, train_fpe_model=False), num_keypoints=5).trainable_variables
    with pytest.raises(SpecError, match="did you mean 'block_1a_conv_1'"):
        build_network(ModelParameters(width=8, freeze_Convlayer=["block_1_conv_1"]), num_keypoints=5)


@pytest.mark.parametrize("kind", ["FpeNet_public", "ResidualUNet"])
def test_dropout_acts_in_training_only(kind):
    network = build_network(ModelParameters(type=kind, width=8, dropout_rate=0.5, beta=1.0), num_keypoints=5)
    image = np.random.default_rng(0).uniform(0, 255, (1, 80, 80, 1)).astype(np.float32)
    still, again = (np.array(network(image, training=False)[2]) for _ in range(2))
    np.testing.assert_array_equal(still, again)
    assert not np.array_equal(still, np.array(network(image, training=True)[2]))


@pytest.mark.parametrize(("kind", "share"), [("l1", lambda w: np.abs(w).sum()), ("l2", lambda w: np.square(w).sum())])
def test_the_regulariser_adds_up_the_kernels(kind, share):
    network = build_network(ModelParameters(width=8, regularizer_type=kind, regularizer_weight=0.01), num_keypoints=5)
    kernels = [w.numpy() for w in network.trainable_variables if w.name == "kernel"]
    expected = 0.01 * sum(share(kernel) for kernel in kernels)
    assert float(keras.ops.sum(keras.ops.stack(network.losses))) == pytest.approx(float(expected), rel=1e-4)
