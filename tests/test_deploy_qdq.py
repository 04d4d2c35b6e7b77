"""Q/DQ in the graph, on all five types."""

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deploy.builders.registry import BUILDERS
from deploy.onnx_export import onnx_model
from deploy.onnx_graph import canonical, check_readable, with_interface
from deploy.parity import compare, graph_predictions
from deploy.qdq import convolutions, insert, outermost, quantised_weights, scale_groups
from deploy.quantise import Calibrated, Quantised, quantise
from deploy.targets import find_target
from schemas.errors import ModelFileError
from tests.networks import KINDS, WITH_VISIBILITY, crops, sharp_network

BATCHES = [crops(2), crops(2, seed=1)]


@pytest.fixture(scope="module", params=[*KINDS, WITH_VISIBILITY])
def both(request) -> tuple[onnx.ModelProto, Quantised]:
    model = onnx_model(sharp_network(request.param))
    return model, quantise(model, BATCHES, max_shift_px=20.0)


@pytest.fixture(scope="module")
def around(both) -> tuple[onnx.ModelProto, Quantised]:
    model, _ = both
    return model, Calibrated(model, BATCHES, "around").with_float()


def test_int8_is_a_valid_graph_that_says_nearly_the_same(both):
    model, made = both
    check_readable(made.model, "int8")
    images = crops(8, seed=2)
    parity = compare(graph_predictions(model, images), graph_predictions(made.model, images))
    assert 0 < parity.mean_px["All"] < 2.0
    assert made.shift.faces == 4


def test_what_is_quantised_and_what_stays_in_float(both):
    model, made = both
    writers = {output: node for node in made.model.graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in made.model.graph.initializer}
    assert made.float_layers == outermost(model)
    for node in made.model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        if node.name in made.float_layers:
            assert stored[node.input[1]].data_type == onnx.TensorProto.FLOAT
            continue
        weights = writers[node.input[1]]
        assert weights.op_type == "DequantizeLinear"
        assert stored[weights.input[0]].data_type == onnx.TensorProto.INT8
        axis = {"Conv": 0, "ConvTranspose": 1}[node.op_type]
        assert weights.attribute[0].i == axis
        assert stored[weights.input[1]].dims[0] == stored[weights.input[0]].dims[axis]
        assert writers[node.input[0]].op_type == "DequantizeLinear"
        assert all(stored[bias].data_type == onnx.TensorProto.FLOAT for bias in node.input[2:])
    assert not any(tensor.data_type == onnx.TensorProto.INT32 for tensor in stored.values())
    zeros = [onnx.numpy_helper.to_array(tensor) for name, tensor in stored.items() if name.endswith("/zero")]
    assert not any(zero.any() for zero in zeros), "symmetric, as TensorRT wants it"
    assert writers["softargmax"].op_type == "Add"
    read = {name for node in made.model.graph.node for name in node.input}
    assert set(stored) <= read, "no weight is in the file twice"


def test_what_only_moves_values_has_one_scale(both):
    model, made = both
    read = {name for node in model.graph.node if node.op_type in ("Conv", "Concat") for name in node.input}
    movers = [node for node in model.graph.node if node.op_type in ("MaxPool", "Resize", "Concat")]
    for node in (node for node in movers if node.output[0] in read):
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        assert {made.scales[name] for name in sources} == {made.scales[node.output[0]]}


def test_int8_bytes_are_the_same_each_time_and_survive_canonical_names(both):
    model, made = both
    again = quantise(model, BATCHES, max_shift_px=20.0)
    assert made.model.SerializeToString(deterministic=True) == again.model.SerializeToString(deterministic=True)
    renamed = canonical(made.model)
    check_readable(renamed, "canonical")
    images = crops(4)
    expected, found = graph_predictions(made.model, images), graph_predictions(renamed, images)
    np.testing.assert_allclose(found.keypoints_BN2, expected.keypoints_BN2, atol=1e-3)
    operators = [node.op_type for node in renamed.graph.node]
    assert operators.count("QuantizeLinear") == len(made.scales)


def test_onnx_runtime_computes_in_8_bits_what_is_quantised_for_it(around, tmp_path):
    """Only a convolution whose inputs and output it may have in 8 bits becomes a QLinearConv."""
    model, made = around
    check_readable(made.model, "int8")
    onnx.save(made.model, tmp_path / "model.onnx")
    engine = BUILDERS["onnxruntime"].build(tmp_path / "model.onnx", find_target("cpu"), tmp_path).engine
    operators = [node.op_type for node in onnx.load(engine).graph.node]
    quantised = [name for name in convolutions(model) if name not in made.float_layers]
    assert len(quantised) > 5
    assert operators.count("QLinearConv") == len(quantised)
    transposed = [node.name for node in model.graph.node if node.op_type == "ConvTranspose"]
    assert set(made.float_layers) == {*outermost(model), *transposed}
    assert made.shift.faces == 4
    assert 0 < made.shift.mean_px["All"] < 2.0


def test_what_comes_out_of_a_relu_has_all_steps_above_zero(around):
    model, made = around
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.model.graph.initializer}
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    zeros = {tensor: stored[f"{tensor}/zero"] for tensor in made.scales}
    assert {zero.dtype for zero in zeros.values()} == {np.dtype(np.uint8)}
    assert {int(zero) for tensor, zero in zeros.items() if makers[tensor] in ("Relu", "MaxPool")} == {0}
    assert {int(zero) for tensor, zero in zeros.items() if makers[tensor] in ("Add", "Concat", "Conv")} <= {128}


def test_tensorrt_rtx_builds_int8(both, tmp_path):
    _, made = both
    onnx.save(with_interface(made.model, naming="tfonnx", batch=2), tmp_path / "model.onnx")
    target = find_target("rtx").model_copy(update={"compute_capabilities": [75, 86]})
    result = BUILDERS["tensorrt-rtx"].build(tmp_path / "model.onnx", target, tmp_path)
    assert result.engine.stat().st_size > 100_000


def test_convolutions_of_equal_weights_are_quantised_each():
    """Exporters store equal weights once, such as the zeros a residual block starts with."""
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    names = ["x", "a", "b", "c", "y"]
    nodes = [node("Conv", [one, "w"], [other], other) for one, other in itertools.pairwise(names)]
    ends = [[value(name, onnx.TensorProto.FLOAT, [1, 1, 8, 8])] for name in ("x", "y")]
    weights = onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "w")
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", *ends, [weights]), opset_imports=[onnx.helper.make_opsetid("", 13)]
    )
    made = insert(model, {"a": 0.5, "b": 0.5}, ("a", "y"))
    onnx.checker.check_model(made, full_check=True)
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)


def test_opset_12_has_no_scales_per_channel():
    model = onnx_model(sharp_network(), opset=12)
    with pytest.raises(ModelFileError, match="opset 12: INT8 needs 13"):
        insert(model, {}, ())


def test_two_scales_that_meet_in_a_concatenation_become_one():
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Conv", ["x", "w"], ["a"], "first"),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w"], ["c"], "second"),
        node("Concat", ["b", "c"], ["d"], axis=1),
        node("Conv", ["d", "w"], ["e"], "third"),
        node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2]),
        node("Conv", ["f", "w"], ["y"], "last"),
    ]
    shape = [1, 1, 8, 8]
    ends = [[value(name, onnx.TensorProto.FLOAT, shape)] for name in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends))
    assert convolutions(model) == ("first", "second", "third", "last")
    groups = scale_groups(model, ("first", "last"))
    assert list(groups) == ["b", "c", "d"]
    assert len(set(groups.values())) == 1
    assert list(scale_groups(model, ("first", "second", "third"))) == ["e", "f"]


_WEIGHTS = arrays(np.float32, (4, 3, 2, 2), elements=st.floats(-8, 8, width=32, allow_subnormal=False))


@given(_WEIGHTS, st.integers(0, 1))
def test_weights_are_off_by_half_a_step_of_their_channel_at_most(weights, axis):
    values, scales = quantised_weights(weights, axis)
    assert values.dtype == np.int8
    assert values.min() >= -127
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    steps = scales.reshape(shape).astype(np.float64)
    assert (np.abs(values * steps - weights) <= steps * 0.5001).all()
    assert (scales.astype(np.float16) > 0).all()


@pytest.mark.parametrize("left", [1e-6, 1e-44], ids=["almost nothing", "denormal"])
def test_a_dead_filter_has_a_scale_that_is_none_in_fp16_neither(left):
    """Parsers refuse a scale of 0, and graphs of opset 19 have their scales in FP16."""
    weights = np.stack([np.full((3, 2, 2), left), np.full((3, 2, 2), 0.5)]).astype(np.float32)
    values, scales = quantised_weights(weights, 0)
    assert (scales.astype(np.float16) > 0).all()
    assert (values[1] == 127).all()
