"""A graph in FP16, as a GPU computes it: what stays in float32, and what a CPU must round to see the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploy.onnx_graph import INPUT_NAME, ancestors, heatmap_name, last_maps, own_opset
from schemas.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

LARGEST_FLOAT16 = 65504.0

HALF_SCALES_OPSET, HALF_SCALES_IR_VERSION = 19, 9
"""The first in which a QuantizeLinear takes FP16."""


def to_float16(model: onnx.ModelProto, num_keypoints: int) -> onnx.ModelProto:
    """The graph with everything up to its last convolutions in FP16 and the soft-argmax behind them in FP32.

    Inputs and outputs stay float32; casts mark the borders, so a strongly typed builder keeps the types. FP16 has a
    spacing of 1/16 px between 64 and 128, too coarse for the coordinates.

    Raises:
        ModelFileError: a weight is beyond FP16's largest number, or the graph has no heatmap under its own name.
    """
    import onnx

    half = onnx.ModelProto()
    half.CopyFrom(model)
    maps = last_maps(half.graph)
    if heatmap_name(num_keypoints) not in maps:
        raise ModelFileError(f"no tensor '{heatmap_name(num_keypoints)}' in the graph; export it with this project")
    body = ancestors(half.graph, maps)
    names = {node.name for node in body}
    head = [node for node in half.graph.node if node.name not in names]
    weights = {name for node in body if node.op_type != "Resize" for name in node.input}  # its scales stay FP32
    for tensor in half.graph.initializer:
        if tensor.name in weights and tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(_half(tensor), tensor.name))
    renamed = {name: f"{name}/fp16" for name in (INPUT_NAME, *maps)}
    for node in body:
        for slots in (node.input, node.output):
            slots[:] = [renamed.get(name, name) for name in slots]
    first = _cast(INPUT_NAME, renamed[INPUT_NAME], onnx.TensorProto.FLOAT16)
    last = [_cast(renamed[name], name, onnx.TensorProto.FLOAT) for name in maps]
    nodes = [first, *body, *last, *head]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    return half


def with_half_scales(model: onnx.ModelProto, num_keypoints: int) -> onnx.ModelProto:
    """A graph with Q/DQ of which all else up to the heatmap, their scales too, is in FP16.

    Opset `HALF_SCALES_OPSET`: what the operators in `READABLE_OPS` do has not changed since 13.

    Raises:
        ModelFileError: a weight is beyond FP16's largest number.
    """
    half = to_float16(model, num_keypoints)
    own_opset(half).version = HALF_SCALES_OPSET
    half.ir_version = HALF_SCALES_IR_VERSION
    return half


def with_half_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with what it has in FP16 in float32, and rounded to FP16 behind every operator; itself without any.

    A CPU has no FP16 convolution: ONNX Runtime computes a whole FP16 graph in float32, where nothing is rounded and
    nothing is too large. A GPU rounds what every operator puts out, and what is beyond FP16's largest number is
    infinite there.
    """
    import onnx

    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    halves = {value.name for value in inferred if value.type.tensor_type.elem_type == half}
    if not halves:
        return model
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    for tensor in rounded.graph.initializer:
        if tensor.data_type == half:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in rounded.graph.node:
        nodes.append(node)
        if node.output[0] not in halves:
            continue
        name = node.output[0]
        exact, rounds = f"{name}/exact", f"{name}/rounded"
        if node.op_type == "Cast":
            node.output[0] = rounds
        else:
            node.output[0] = exact
            nodes.append(_cast(exact, rounds, half))
        nodes.append(onnx.helper.make_node("Cast", [rounds], [name], f"cast_{rounds}_back", to=single))
    del rounded.graph.node[:]
    rounded.graph.node.extend(nodes)
    return rounded


def _half(tensor: onnx.TensorProto) -> np.ndarray:
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST_FLOAT16:
        raise ModelFileError(
            f"initializer {tensor.name}: {largest:g} does not fit FP16 ({LARGEST_FLOAT16:g}); use an FP32 target"
        )
    return values.astype(np.float16)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    import onnx

    return onnx.helper.make_node("Cast", [source], [target], f"cast_{target}", to=kind)
