import onnx
import pytest

from deploy.builder_graph import network_input, precision_of, require_readable, soft_argmax_layers
from deploy.targets import find_target
from schemas.errors import ModelFileError
from tests.small_graphs import small_graph, write_small

NANO, CPU = find_target("jetson-nano"), find_target("cpu")


def _with(kind: str, **attributes) -> bytes:
    """The small graph with one more node before its first."""
    model = small_graph()
    first = model.graph.node[0]
    node = onnx.helper.make_node(kind, [first.input[0]], ["more"], "the_odd_one", **attributes)
    first.input[0] = "more"
    model.graph.node.insert(0, node)
    return model.SerializeToString()


def test_an_operator_that_a_parser_does_not_know_is_named_with_its_node():
    with pytest.raises(
        ModelFileError,
        match=r"m\.onnx: HardSwish \(node 'the_odd_one'\) is not among .* TensorRT 8\.2 .*'jetson-nano'",
    ):
        require_readable(_with("HardSwish"), NANO, "m.onnx")
    with pytest.raises(ModelFileError, match="TensorRT-RTX"):
        require_readable(_with("Gelu", domain="com.microsoft"), find_target("rtx"), "m.onnx")


def test_onnx_runtime_reads_more_than_tensorrt():
    require_readable(_with("Elu"), CPU, "m.onnx")
    with pytest.raises(ModelFileError, match=r"Elu \(node 'the_odd_one'\)"):
        require_readable(_with("Elu"), NANO, "m.onnx")


def test_an_opset_that_is_too_new():
    model = small_graph(opset=18).SerializeToString()
    with pytest.raises(ModelFileError, match="opset 18 is above 17, the newest that target 'xavier-nx' reads"):
        require_readable(model, find_target("xavier-nx"), "m.onnx")


def test_a_file_says_its_precision(tmp_path):
    assert precision_of(write_small(tmp_path / "float.onnx")) == "fp32"
    assert precision_of(write_small(tmp_path / "half.onnx", half=True)) == "fp16"
    (tmp_path / "int8.onnx").write_bytes(_with("QuantizeLinear"))
    assert precision_of(tmp_path / "int8.onnx") == "int8"


def test_a_graph_that_breaks_the_rules():
    model = small_graph()
    model.graph.node[2].input[0] = "nowhere"
    with pytest.raises(ModelFileError, match="not a valid ONNX graph"):
        require_readable(model.SerializeToString(), NANO, "m.onnx")


@pytest.mark.parametrize("half", [False, True])
def test_what_is_behind_the_heatmap_and_what_goes_in(half, tmp_path):
    path = write_small(tmp_path / "model.onnx", half=half)
    assert soft_argmax_layers(path) == (
        "reshape_2",
        "softmax_3",
        "mul_4",
        "mul_5",
        "reducesum_6",
        "reducesum_7",
        "concat_8",
        "globalmaxpool_9",
        "squeeze_10",
    )
    taken = network_input(path)
    assert (taken.name, taken.image_CSS, taken.batch) == ("input_face_images", (1, 80, 80), None)
