import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.onnx_export import export_onnx, load_onnx, onnx_model, write_onnx
from deploy.onnx_graph import canonical, check_readable, to_float16, unreadable
from deploy.qdq import insert
from schemas.errors import ModelFileError
from tests.networks import WITH_VISIBILITY, sharp_network
from tests.small_graphs import small_graph


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> onnx.ModelProto:
    return load_onnx(export_onnx(sharp_network("FpeNet_release"), tmp_path_factory.mktemp("m") / "model.onnx").path)


def graph(names: dict[str, str], *, swapped: bool, opset: int = 13) -> onnx.ModelProto:
    """y = relu(x + w) + relu(x), its inner tensors called by `names`, independent nodes in either order."""
    nodes = [
        helper.make_node("Add", ["x", names["w"]], [names["sum"]], name=names["sum"], doc_string=names["sum"]),
        helper.make_node("Relu", ["x"], [names["left"]]),
        helper.make_node("Relu", [names["sum"]], [names["right"]]),
        helper.make_node("Add", [names["right"], names["left"]], ["y"]),
    ]
    if swapped:
        nodes = [nodes[1], nodes[0], nodes[2], nodes[3]]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        names["sum"],
        [value("x", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, [2])],
        [
            numpy_helper.from_array(np.ones(2, np.float32), names["w"]),
            numpy_helper.from_array(np.zeros(9, np.float32), "unused"),
        ],
    )
    return helper.make_model(made, producer_name=names["sum"], opset_imports=[helper.make_opsetid("", opset)])


def test_canonical_bytes_do_not_depend_on_names_or_order():
    one = graph({"w": "w", "sum": "s", "left": "l", "right": "r"}, swapped=False)
    other = graph({"w": "v__9", "sum": "a/b:0", "left": "zz", "right": "aa"}, swapped=True)
    assert canonical(one).SerializeToString(deterministic=True) == canonical(other).SerializeToString(
        deterministic=True
    )
    assert [tensor.name for tensor in canonical(one).graph.initializer] == ["add_1/1"]


def test_canonical_keeps_the_tensors_it_is_told_to():
    kept = canonical(graph({"w": "w", "sum": "s", "left": "l", "right": "r"}, swapped=False), keep=["s"])
    assert "s" in {name for node in kept.graph.node for name in node.output}


def test_opset_ceiling():
    newer = graph({"w": "w", "sum": "s", "left": "l", "right": "r"}, swapped=False, opset=14)
    with pytest.raises(ModelFileError, match=r"m\.onnx: opset 14 is above 13"):
        check_readable(canonical(newer), "m.onnx")


def test_the_opset_is_found_by_either_name_of_its_domain(tmp_path):
    named = small_graph()
    named.opset_import[0].domain = "ai.onnx"
    assert write_onnx(named, tmp_path / "m.onnx").opset == 13
    check_readable(named, "m.onnx")
    named.opset_import[0].version = 11
    with pytest.raises(ModelFileError, match="opset 11: INT8 needs 13"):
        insert(named, {}, ())
    del named.opset_import[:]
    with pytest.raises(ModelFileError, match="names no opset"):
        check_readable(named, "m.onnx")


def test_a_graph_that_breaks_the_rules_is_refused(model):
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    broken.graph.node[3].input[0] = "nowhere"
    with pytest.raises(ModelFileError, match="not a valid ONNX graph"):
        check_readable(broken, "m.onnx")


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


def test_an_operator_of_another_domain_is_foreign_whatever_it_is_called():
    model = small_graph()
    assert unreadable(model) == []
    model.graph.node[0].domain = "com.microsoft"
    assert unreadable(model) == ["Conv (node 'conv_1')"]
