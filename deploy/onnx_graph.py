"""The form an exported graph takes: canonical names and order, an operator list, TAO's names, further outputs.

Legend: B batch, C channels, N keypoints, H x W heatmap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from schemas.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

INPUT_NAME = "input_face_images"
KEYPOINTS_NAME = "softargmax"
CONFIDENCE_NAME = "softargmax:1"
TFONNX_NAMES = {
    INPUT_NAME: "input_face_images:0",
    KEYPOINTS_NAME: "softargmax/strided_slice:0",
    CONFIDENCE_NAME: "softargmax/strided_slice_1:0",
}
"""What TAO's `--backend tfonnx` calls input and outputs."""

Naming = Literal["onnx", "tfonnx"]
PRODUCER = "fpenet-workflow"
ONNX_DOMAINS = ("", "ai.onnx")
"""Both name ONNX's own operators."""
IR_VERSION = 7
"""The ONNX file format that came with opset 12 and 13; older readers refuse a newer one."""

OUTPUT_CHANNELS = {"Conv": 0, "ConvTranspose": 1}
"""Convolution -> axis of its weights."""

OPSET_CEILING = 13
"""Newest opset that TensorRT 8.2 (JetPack 4.6) reads."""

# fmt: off
READABLE_OPS = frozenset((
    "Add", "Cast", "Concat", "Conv", "ConvTranspose", "DequantizeLinear", "GlobalMaxPool", "MaxPool", "Mul",
    "QuantizeLinear", "ReduceSum", "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Squeeze", "Transpose",
    "Unsqueeze",
))
# fmt: on
"""What FPENet needs of the operators that TensorRT 8.2 to 11 and TensorRT-RTX read (onnx-tensorrt's operators.md).

MatMul is left out on purpose: TensorRT-RTX refuses an FP32 one for SM75, and in FP16 a soft-argmax loses 1/16 px.
"""


def heatmap_name(num_keypoints: int) -> str:
    """Name of the logits (B, N, H, W), output or not."""
    return f"conv_keypoints_m{num_keypoints}"


def canonical(model: onnx.ModelProto, *, keep: Iterable[str] = ()) -> onnx.ModelProto:
    """The same computation with nodes in an order and under names that depend on nothing but the graph.

    Inputs, outputs and the tensors in `keep` keep their names; nodes are called by operator and count, initializers
    after the node that reads them first. Converter metadata, inner shapes, unused nodes and initializers go.
    """
    import onnx

    graph = model.graph
    order = _depth_first(graph)
    names = {name: name for name in (*(value.name for value in (*graph.input, *graph.output)), *keep)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    result = onnx.GraphProto(name=PRODUCER)
    counts: Counter[str] = Counter()
    for node in order:
        counts[node.op_type] += 1
        result.node.append(_renamed(node, f"{node.op_type.lower()}_{counts[node.op_type]}", names, constants))
    for old, new in sorted(names.items(), key=lambda item: item[1]):
        if old in constants:
            result.initializer.append(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(constants[old]), new))
    result.input.extend(graph.input)
    result.output.extend(graph.output)
    return onnx.helper.make_model(
        result,
        producer_name=PRODUCER,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", opset_of(model))],
    )


def opset_of(model: onnx.ModelProto) -> int:
    """Of ONNX's own operators.

    Raises:
        ModelFileError: the model names none.
    """
    return own_opset(model).version


def own_opset(model: onnx.ModelProto) -> onnx.OperatorSetIdProto:
    """The model's entry for ONNX's own operators, by which its opset can be changed.

    Raises:
        ModelFileError: the model names none.
    """
    found = next((entry for entry in model.opset_import if entry.domain in ONNX_DOMAINS), None)
    if found is None:
        raise ModelFileError("the graph names no opset of ONNX's own operators; export it anew")
    return found


def _depth_first(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes that the outputs need, each after its inputs, in the order the outputs reach them."""
    producer = {output: node for node in graph.node for output in node.output}
    done: set[str] = set()
    order: list[onnx.NodeProto] = []
    waiting = [producer[value.name] for value in reversed(graph.output)]
    while waiting:
        node = waiting[-1]
        inputs = [producer[name] for name in reversed(node.input) if name in producer]
        missing = [needed for needed in inputs if needed.output[0] not in done]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if node.output[0] not in done:
            done.add(node.output[0])
            order.append(node)
    return order


def _renamed(
    node: onnx.NodeProto, name: str, names: dict[str, str], constants: dict[str, onnx.TensorProto]
) -> onnx.NodeProto:
    import onnx

    copy = onnx.NodeProto(op_type=node.op_type, name=name)
    copy.attribute.extend(sorted(node.attribute, key=lambda attribute: attribute.name))
    for slot, old in enumerate(node.input):
        if old in constants:
            names.setdefault(old, f"{name}/{slot}")
        copy.input.append(names[old] if old else "")
    for slot, old in enumerate(node.output):
        names.setdefault(old, name if slot == 0 else f"{name}:{slot}")
        copy.output.append(names[old])
    return copy


def check_readable(model: onnx.ModelProto, where: str) -> None:
    """Refuse what a target's parser would refuse.

    Raises:
        ModelFileError: the graph breaks ONNX's own rules, its opset is above `OPSET_CEILING`, or it holds an
            operator that is not in `READABLE_OPS`.
    """
    opset = opset_of(model)
    if opset > OPSET_CEILING:
        raise ModelFileError(
            f"{where}: opset {opset} is above {OPSET_CEILING}, the newest that TensorRT 8.2 reads; "
            f"export with opset {OPSET_CEILING}"
        )
    foreign = unreadable(model)
    if foreign:
        raise ModelFileError(
            f"{where}: {', '.join(foreign)} can't be read by every target; the operators in use are "
            f"{', '.join(sorted(READABLE_OPS))}"
        )
    check_graph(model, where)


def unreadable(model: onnx.ModelProto) -> list[str]:
    """Operators that are not in `READABLE_OPS`, each with its first node: `Erf (node 'erf_1')`."""
    first: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in READABLE_OPS or node.domain not in ONNX_DOMAINS:
            first.setdefault(node.op_type, f"{node.op_type} (node '{node.name}')")
    return sorted(first.values())


def check_graph(model: onnx.ModelProto, where: str) -> None:
    """Refuse what breaks ONNX's own rules.

    Raises:
        ModelFileError: what it breaks.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelFileError(f"{where}: not a valid ONNX graph: {error}") from error


def with_interface(model: onnx.ModelProto, *, naming: Naming = "onnx", batch: int | None = None) -> onnx.ModelProto:
    """The same graph under the names of one of TAO's backends, with a fixed batch if one is given."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    names = TFONNX_NAMES if naming == "tfonnx" else {}
    for node in graph.node:
        for slots in (node.input, node.output):
            slots[:] = [names.get(name, name) for name in slots]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
        if batch is not None:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return copy


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The same graph, which also puts out the tensors `names`; what is an output already stays so once.

    Build an engine of it to see inside a device.

    Raises:
        ModelFileError: the graph has no such tensor.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inner = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    there = {value.name for value in copy.graph.output}
    for name in names:
        if name in there:
            continue
        if name not in inner:
            raise ModelFileError(f"no tensor '{name}' in the graph; export it with this project")
        copy.graph.output.append(inner[name])
        there.add(name)
    return copy


def with_heatmap(model: onnx.ModelProto, num_keypoints: int) -> onnx.ModelProto:
    """The same graph, which also puts out the heatmap's logits (B, N, H, W); nothing is computed otherwise.

    Raises:
        ModelFileError: the graph has no heatmap under its own name.
    """
    copy = with_outputs(model, [heatmap_name(num_keypoints)])
    batch = copy.graph.input[0].type.tensor_type.shape.dim[0]
    copy.graph.output[-1].type.tensor_type.shape.dim[0].CopyFrom(batch)
    return copy


def last_maps(graph: onnx.GraphProto) -> list[str]:
    """Outputs of the convolutions that no other one depends on: the heatmap, and visibility where there is one."""
    convolutions = [node for node in graph.node if node.op_type in OUTPUT_CHANNELS]
    before = ancestors(graph, {name for node in convolutions for name in node.input})
    inner = {name for node in before for name in node.output}
    return [node.output[0] for node in convolutions if node.output[0] not in inner]


def ancestors(graph: onnx.GraphProto, tensors: Iterable[str]) -> list[onnx.NodeProto]:
    """Nodes that the tensors depend on, in the graph's order."""
    needed, found = set(tensors), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            found.append(node)
    return found[::-1]
