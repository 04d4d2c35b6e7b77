"""A layer that is broken on purpose is named, whichever it is."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.divergence import TIMES_CLEAN, bisect_layers, find_divergence
from deploy.float16_graph import to_float16, with_half_scales
from deploy.onnx_graph import with_outputs
from deploy.parity import graph_predictions
from deploy.qdq import Placement, convolutions, one_sided
from deploy.quantise import Calibrated, calibrate
from schemas.errors import ModelFileError
from tests.layered_graphs import layered_graph
from tests.small_graphs import POINTS, pictures, small_graph

IMAGES = pictures(2)
SEEDS, CHOICES = st.integers(0, 7), st.integers(0, 1000)
FEW = settings(max_examples=6)


class Graphs:
    """A network in float and in INT8; `scales` lose least of each tensor of `IMAGES` by itself."""

    def __init__(self, seed: int, placement: Placement = "inputs") -> None:
        self.model = layered_graph(seed)
        self.int8 = Calibrated(self.model, [pictures(16)], placement).with_float()
        each = {tensor: tensor for tensor in self.int8.scales}
        self.scales = calibrate(self.model, each, [IMAGES], one_sided(self.model, each, placement))
        self.layers = [name for name in convolutions(self.model) if name not in self.int8.float_layers]


graphs = cache(Graphs)


def changed(model: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    """The graph with one constant changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(stored)
    stored.CopyFrom(onnx.numpy_helper.from_array(np.asarray(change(values), values.dtype), name))
    return copy


@pytest.mark.parametrize("seed", range(4))
def test_nothing_diverges_in_a_sound_graph(seed):
    made = graphs(seed)
    of_a_cpu = graphs(seed, "around").int8.model
    lowered = to_float16(made.model, POINTS), made.int8.model, with_half_scales(made.int8.model, POINTS), of_a_cpu
    for lower in lowered:
        found = find_divergence(made.model, lower, IMAGES)
        assert found.first is None, str(found)
        assert str(found) == "no layer errs by more than its rounding: it adds up"
        assert max(tensor.error for tensor in found.tensors) > 0


def test_a_graph_beside_itself_has_no_error():
    found = find_divergence(graphs(0).model, graphs(0).model, IMAGES)
    assert {(tensor.error, tensor.own) for tensor in found.tensors} == {(0, 0)}


@FEW
@given(seed=SEEDS, choice=CHOICES, kind=st.sampled_from(["int8", "int8 and half", "int8 of a CPU"]))
def test_a_scale_that_is_eight_times_too_small_is_named(seed, choice, kind):
    made = graphs(seed, "around" if kind == "int8 of a CPU" else "inputs")
    tensor = list(made.scales)[choice % len(made.scales)]
    broken = changed(made.int8.model, f"{tensor}/scale", lambda _: made.scales[tensor] / 8)
    lower = with_half_scales(broken, POINTS) if kind == "int8 and half" else broken
    found = find_divergence(made.model, lower, IMAGES)
    assert found.first is not None, str(found)
    assert (found.first.tensor, found.first.operator) == (tensor, "QuantizeLinear")
    assert found.first.times_clean > TIMES_CLEAN


@FEW
@given(seed=SEEDS, choice=CHOICES)
def test_weights_whose_scale_is_eight_times_too_small_are_named(seed, choice):
    made = graphs(seed)
    layer = made.layers[choice % len(made.layers)]
    broken = changed(made.int8.model, f"{layer}/weights/scale", lambda scale: scale / 8)
    found = find_divergence(made.model, broken, IMAGES)
    assert found.first is not None, str(found)
    assert (found.first.tensor, found.first.operator[:4]) == (layer, "Conv")


@FEW
@given(seed=SEEDS, choice=CHOICES)
def test_a_weight_that_overflows_fp16_is_named(seed, choice):
    made = graphs(seed)
    half = to_float16(made.model, POINTS)
    layer = convolutions(made.model)[choice % len(convolutions(made.model))]
    weights = next(node.input[1] for node in half.graph.node if node.name == layer)

    def overflow(values):
        return np.where(np.arange(values.size).reshape(values.shape) == 0, np.inf, values)

    found = find_divergence(made.model, changed(half, weights, overflow), IMAGES)
    assert found.first is not None
    assert (found.first.tensor, found.first.own) == (layer, np.inf)
    assert str(found).startswith(f"first diverges at {layer} (Conv")


@pytest.mark.parametrize("half", [False, True])
def test_the_layer_that_brings_most_back_is_the_broken_one(half):
    made = graphs(2)
    layer = made.layers[-1]
    broken = changed(made.int8.model, f"{layer}/weights/scale", lambda scale: scale / 8)
    lower = with_half_scales(broken, POINTS) if half else broken
    reliefs = bisect_layers(made.model, lower, IMAGES)
    assert reliefs[0].layer == layer
    assert reliefs[0].parity.worst_px < 0.5 * reliefs[1].parity.worst_px
    assert {relief.layer for relief in reliefs} == set(convolutions(made.model) if half else made.layers)


def test_a_layer_in_float_is_as_if_it_had_never_been_quantised():
    made = graphs(1)
    calibrated = Calibrated(made.model, [pictures(16)])
    expected = graph_predictions(made.model, IMAGES)
    for relief in bisect_layers(made.model, made.int8.model, IMAGES):
        again = calibrated.with_float([relief.layer]).model
        direct = graph_predictions(again, IMAGES).keypoints_BN2 - expected.keypoints_BN2
        assert relief.parity.mean_px["All"] == pytest.approx(np.linalg.norm(direct, axis=-1).mean(), rel=1e-3)


def test_a_graph_of_another_network_is_refused():
    with pytest.raises(ModelFileError, match=r"the graphs do not belong together: .* is in one only"):
        find_divergence(graphs(0).model, small_graph(), IMAGES)


def test_inner_tensors_become_outputs_for_a_device():
    int8, tensor = graphs(0).int8.model, next(iter(graphs(0).scales))
    watched = with_outputs(int8, [tensor, "softargmax", tensor])
    onnx.checker.check_model(watched, full_check=True)
    assert [value.name for value in watched.graph.output] == ["softargmax", "softargmax:1", tensor]
    with pytest.raises(ModelFileError, match="no tensor 'relu_999' in the graph"):
        with_outputs(int8, ["relu_999"])
