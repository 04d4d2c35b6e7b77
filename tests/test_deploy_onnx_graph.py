import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.onnx_export import export_onnx, load_onnx, write_onnx
from deploy.onnx_graph import canonical, check_readable, unreadable
from deploy.qdq import insert
from schemas.errors import ModelFileError
from tests.networks import sharp_network
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


def test_an_operator_of_another_domain_is_foreign_whatever_it_is_called():
    model = small_graph()
    assert unreadable(model) == []
    model.graph.node[0].domain = "com.microsoft"
    assert unreadable(model) == ["Conv (node 'conv_1')"]
