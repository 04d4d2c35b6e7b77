"""How far FP16 reaches in a graph, and what it costs, seen on a CPU: rounded behind every operator, infinite where it
is too large."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from deploy.float16_graph import to_float16, with_half_rounding
from deploy.onnx_export import export_onnx, load_onnx, onnx_model
from deploy.onnx_graph import INPUT_NAME, check_readable, with_outputs
from deploy.parity import compare, graph_predictions
from schemas.errors import ModelFileError
from tests.layered_graphs import layered_graph
from tests.networks import WITH_VISIBILITY, sharp_network
from tests.small_graphs import POINTS, pictures, too_large_for_half


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> onnx.ModelProto:
    return load_onnx(export_onnx(sharp_network("FpeNet_release"), tmp_path_factory.mktemp("m") / "model.onnx").path)


def test_fp16_reaches_up_to_the_heatmap_and_no_further(model):
    half = to_float16(model, 80)
    check_readable(half, "half")
    typed = onnx.shape_inference.infer_shapes(half, strict_mode=True, data_prop=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*typed.graph.value_info, *typed.graph.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    nodes = list(half.graph.node)
    first, last = (i for i, node in enumerate(nodes) if node.op_type == "Cast")
    body, head = nodes[first + 1 : last], nodes[last + 1 :]
    assert [nodes[first].input[0], nodes[last].output[0]] == ["input_face_images", "conv_keypoints_m80"]
    assert {"Conv", "Relu", "MaxPool", "Concat", "Resize"} == {node.op_type for node in body}
    assert {kinds[name] for node in body if node.op_type == "Conv" for name in node.input} == {TensorProto.FLOAT16}
    assert {kinds[name] for node in body for name in node.output} == {TensorProto.FLOAT16}
    assert {kinds[name] for node in head for name in node.output} == {TensorProto.FLOAT}
    assert [value.type.tensor_type.elem_type for value in half.graph.output] == [TensorProto.FLOAT] * 2
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_fp16_ends_at_the_visibility_too():
    """Its maps are averaged over the heatmap, in FP32 as the positions are."""
    half = to_float16(onnx_model(sharp_network(WITH_VISIBILITY)), 80)
    check_readable(half, "half")
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    ends = {node.output[0] for node in casts[1:]}
    assert len(ends) == 2 and "conv_keypoints_m80" in ends
    typed = onnx.shape_inference.infer_shapes(half, strict_mode=True, data_prop=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*typed.graph.value_info, *typed.graph.output)}
    (sigmoid,) = (node for node in half.graph.node if node.op_type == "Sigmoid")
    assert kinds[sigmoid.input[0]] == TensorProto.FLOAT
    assert {kinds[node.output[0]] for node in half.graph.node if node.op_type == "Conv"} == {TensorProto.FLOAT16}


def test_fp16_leaves_the_model_it_was_given_alone(model):
    before = model.SerializeToString(deterministic=True)
    assert to_float16(model, 80).SerializeToString(deterministic=True) != before
    assert model.SerializeToString(deterministic=True) == before


def test_a_weight_too_large_for_fp16_is_named(model):
    large = onnx.ModelProto()
    large.CopyFrom(model)
    index = next(i for i, t in enumerate(large.graph.initializer) if t.name == "conv_2/1")
    values = numpy_helper.to_array(large.graph.initializer[index]) + np.float32(1e5)
    large.graph.initializer[index].CopyFrom(numpy_helper.from_array(values, "conv_2/1"))
    with pytest.raises(ModelFileError, match=r"conv_2/1: 1000\d\d.* does not fit FP16"):
        to_float16(large, 80)


def test_fp16_needs_the_heatmap_tensor(model):
    with pytest.raises(ModelFileError, match="no tensor 'conv_keypoints_m68'"):
        to_float16(model, 68)


def values(model, name, images_BSSC):
    import onnxruntime

    session = onnxruntime.InferenceSession(with_outputs(model, [name]).SerializeToString())
    return session.run([name], {INPUT_NAME: np.moveaxis(images_BSSC, -1, 1)})[0]


def test_what_operators_put_out_is_rounded():
    images_BSSC, exact = pictures(4), layered_graph(3)
    convolutions = [node.output[0] for node in exact.graph.node if node.op_type == "Conv"]
    rounded = with_half_rounding(to_float16(exact, POINTS))
    assert len(convolutions) == 8
    for name in convolutions:
        found = values(rounded, name, images_BSSC)
        np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))
        assert (values(exact, name, images_BSSC) != found).any()


def test_what_is_too_large_for_fp16_is_seen():
    model, images_BSSC = too_large_for_half(), pictures(2)
    parity = compare(graph_predictions(model, images_BSSC), graph_predictions(to_float16(model, POINTS), images_BSSC))
    assert parity.max_px["All"] == np.inf
