"""What a builder has to know of a graph: whether its parser reads it, its input, what must stay in FP32.

Legend: C channels, S side of the crop.
"""

from __future__ import annotations

from pathlib import Path

from deploy.builders.trtexec_lines import NetworkInput
from deploy.onnx_graph import check_graph, opset_of, unreadable
from deploy.targets import OnnxRuntimeTarget, Precision, Target
from schemas.errors import ModelFileError

HEATMAP = "conv_keypoints_m"


def require_readable(model: bytes, target: Target, where: str) -> None:
    """Let a graph pass that the parser of a target's builder reads.

    Raises:
        ModelFileError: its opset is above the target's, it holds an operator that the parser does not know (the
            message names it and its node), or it breaks ONNX's own rules.
    """
    import onnx

    graph = onnx.load_from_string(model)
    require_opset(opset_of(graph), target, where)
    unknown = [] if isinstance(target, OnnxRuntimeTarget) else unreadable(graph)
    if unknown:
        raise ModelFileError(
            f"{where}: {', '.join(unknown)} is not among the operators that {_parser(target)} is known to read, "
            f"target '{target.name}'; export the model with this project, or build it for 'cpu'"
        )
    check_graph(graph, where)


def require_opset(opset: int, target: Target, where: str) -> None:
    """Let an opset pass that the target reads.

    Raises:
        ModelFileError: it is newer.
    """
    if opset > target.opset_ceiling:
        raise ModelFileError(
            f"{where}: opset {opset} is above {target.opset_ceiling}, the newest that target '{target.name}' reads; "
            "export with a lower opset"
        )


def network_input(path: Path) -> NetworkInput:
    """The crops that an ONNX file takes.

    Raises:
        ModelFileError: it takes something else.
    """
    import onnx

    values = onnx.load(path, load_external_data=False).graph.input
    dims = [dim.dim_value for dim in values[0].type.tensor_type.shape.dim] if len(values) == 1 else []
    if len(dims) != 4 or not all(dims[1:]):
        raise ModelFileError(f"{path}: takes no crops (batch, channels, side, side) as its only input")
    return NetworkInput(values[0].name, (dims[1], dims[2], dims[3]), dims[0] or None)


def precision_of(path: Path) -> Precision:
    """What an ONNX file says of itself: `int8` if anything is quantised, else `fp16` if anything is in FP16."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        return "int8"
    half = onnx.TensorProto.FLOAT16
    return "fp16" if any(tensor.data_type == half for tensor in graph.initializer) else "fp32"


def soft_argmax_layers(path: Path) -> tuple[str, ...]:
    """Names of the nodes behind the heatmap, in the graph's order; none where no tensor is called as ours is."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    behind = {name for node in nodes for name in node.output if name.removeprefix(HEATMAP).isdigit()}
    found = []
    for node in nodes:
        if behind.intersection(node.input):
            behind.update(node.output)
            found.append(node.name)
    return tuple(found)


def _parser(target: Target) -> str:
    version = getattr(target, "tensorrt", "")
    return f"TensorRT {version}" if version else "TensorRT-RTX"
