"""INT8 in the graph: Q/DQ pairs around what a builder shall compute in 8 bits.

Activations have one scale per tensor, weights one per output channel, biases stay as they are (TensorRT-RTX refuses
an INT32 one). Q/DQ stand where the engine's runtime fuses them, its `Placement`:

    inputs   for TensorRT: on the inputs of the quantised convolutions and around what only moves values (pooling,
             concatenation, resizing), which then work on 8 bits; nothing between a convolution, its activation and
             its sum. Symmetric. Source: NVIDIA, "Working with Quantized Types", TensorRT documentation.
    around   for ONNX Runtime: also on what the quantised convolutions put out, behind their Relu if they have one,
             for it computes in 8 bits only what it may put out in 8 bits. Unsigned, and what comes out of a Relu has
             all 255 steps above zero: such a Relu is then part of the rounding. Transposed convolutions are in
             float, for it has none in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from deploy.onnx_graph import OUTPUT_CHANNELS, last_maps, opset_of
from schemas.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

OPSET = 13
"""The first in which a DequantizeLinear has a scale per channel."""

Placement = Literal["inputs", "around"]

LEVELS, ONE_SIDED_LEVELS = 127, 255
"""Steps from zero to the largest magnitude: of what has both signs, and of what has one."""

SMALLEST_SCALE = 2.0**-24
"""FP16's smallest number: parsers refuse a scale of 0, which a smaller one becomes where scales are FP16."""

_ZERO = 128
"""What stands for 0 in an unsigned tensor that has both signs."""

MOVES = frozenset(("MaxPool", "Concat", "Resize"))
"""Operators whose output holds values of their inputs."""
_SHARING: dict[Placement, frozenset[str]] = {"inputs": MOVES, "around": MOVES - {"Concat"}}
"""Those of them whose inputs and output share a scale. ONNX Runtime concatenates tensors of different scales."""


def convolutions(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes that can be quantised, in the graph's order."""
    return tuple(node.name for node in model.graph.node if node.op_type in OUTPUT_CHANNELS)


def outermost(model: onnx.ModelProto) -> tuple[str, ...]:
    """The first convolution and the last: a hundredth of the work, and most of the error, of an INT8 network."""
    names, maps = convolutions(model), last_maps(model.graph)
    last = [node.name for node in model.graph.node if node.output[0] in maps]
    if len(names) < 2 + len(last):
        raise ModelFileError(f"{len(names)} convolutions: between the first and the last is nothing to quantise")
    return names[0], *last


def always_float(model: onnx.ModelProto, placement: Placement) -> tuple[str, ...]:
    """Convolutions that are never quantised, in the graph's order: the outermost, and what the runtime can't."""
    fixed = outermost(model)
    if placement == "inputs":
        return fixed
    kinds = {node.name: node.op_type for node in model.graph.node}
    return tuple(name for name in convolutions(model) if name in fixed or kinds[name] == "ConvTranspose")


def scale_groups(
    model: onnx.ModelProto, float_layers: Collection[str], placement: Placement = "inputs"
) -> dict[str, str]:
    """Tensors that get Q/DQ -> the one that stands for all that share its scale, in the graph's order.

    Args:
        float_layers: convolutions that stay in float.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    leader: dict[str, str] = {}

    def add(tensor: str, group: str) -> None:
        if tensor in leader:
            old = leader[tensor]
            leader.update({name: group for name, its in leader.items() if its == old})
            return
        leader[tensor] = group
        node = producers.get(tensor)
        if node is not None and node.op_type in _SHARING[placement]:
            for source in _moved(node):
                add(source, leader[tensor])

    for node in model.graph.node:
        if node.op_type in OUTPUT_CHANNELS and node.name not in float_layers:
            add(node.input[0], leader.get(node.input[0], node.input[0]))
            if placement == "around":
                result = _behind_relu(model, node)
                add(result, leader.get(result, result))
    order = [value.name for value in model.graph.input] + [name for node in model.graph.node for name in node.output]
    return {tensor: leader[tensor] for tensor in order if tensor in leader}


def one_sided(model: onnx.ModelProto, groups: Mapping[str, str], placement: Placement) -> frozenset[str]:
    """Those of the `scale_groups` whose tensors hold no negative value, and whose 8 bits need none."""
    if placement == "inputs":
        return frozenset()
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    both = {group for tensor, group in groups.items() if makers.get(tensor) not in {"Relu", *_SHARING[placement]}}
    return frozenset(groups.values()) - both


def insert(
    model: onnx.ModelProto,
    scales: Mapping[str, float],
    float_layers: Collection[str],
    placement: Placement = "inputs",
) -> onnx.ModelProto:
    """The graph with Q/DQ on every tensor of `scales` and on the weights of all but `float_layers`.

    Raises:
        ModelFileError: the opset has no scales per channel.
    """
    import onnx

    opset = opset_of(model)
    if opset < OPSET:
        raise ModelFileError(f"opset {opset}: INT8 needs {OPSET}, the first with one scale per channel")
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    groups = scale_groups(model, float_layers, placement)
    positive = one_sided(model, groups, placement)

    def both_ways(tensor: str) -> list[onnx.NodeProto]:
        zero = np.int8(0) if placement == "inputs" else np.uint8(0 if groups[tensor] in positive else _ZERO)
        return _activation(graph, tensor, scales[tensor], zero)

    nodes: list[onnx.NodeProto] = []
    for value in graph.input:
        if value.name in scales:
            nodes += both_ways(value.name)
    for node in graph.node:
        node.input[:] = [dequantised(name) if name in scales else name for name in node.input]
        if node.op_type in OUTPUT_CHANNELS and node.name not in float_layers:
            nodes.append(_weights(graph, node, constants))
        nodes.append(node)
        for name in node.output:
            if name in scales:
                nodes += both_ways(name)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    return quantised


def _behind_relu(model: onnx.ModelProto, convolution: onnx.NodeProto) -> str:
    """What a convolution puts out, behind its Relu if nothing else reads it before."""
    readers = [node for node in model.graph.node if convolution.output[0] in node.input]
    return readers[0].output[0] if [node.op_type for node in readers] == ["Relu"] else convolution.output[0]


def _moved(node: onnx.NodeProto) -> list[str]:
    """Inputs whose values come out again; a Resize's others are its scales."""
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]


def dequantised(tensor: str) -> str:
    """What a tensor is called behind its Q/DQ."""
    return f"{tensor}/dequantised"


def _activation(graph: onnx.GraphProto, tensor: str, scale: float, zero: np.int8 | np.uint8) -> list[onnx.NodeProto]:
    import onnx

    given = (f"{tensor}/scale", f"{tensor}/zero")
    _store(graph, np.float32(scale), given[0])
    _store(graph, zero, given[1])
    node, between = onnx.helper.make_node, f"{tensor}/quantised"
    return [
        node("QuantizeLinear", [tensor, *given], [between], f"quantise_{tensor}"),
        node("DequantizeLinear", [between, *given], [dequantised(tensor)], f"dequantise_{tensor}"),
    ]


def _weights(
    graph: onnx.GraphProto, convolution: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> onnx.NodeProto:
    """Store a convolution's weights in 8 bits and make it read them through a DequantizeLinear.

    They are called after the convolution: exporters store equal weights once.
    """
    import onnx

    axis, name = OUTPUT_CHANNELS[convolution.op_type], f"{convolution.name}/weights"
    values, scales = quantised_weights(onnx.numpy_helper.to_array(constants[convolution.input[1]]), axis)
    given = [f"{name}/quantised", f"{name}/scale", f"{name}/zero"]
    for part, inner in zip((values, scales, np.zeros(len(scales), np.int8)), given, strict=True):
        _store(graph, part, inner)
    convolution.input[1] = dequantised(name)
    return onnx.helper.make_node("DequantizeLinear", given, [dequantised(name)], f"dequantise_{name}", axis=axis)


def quantised_weights(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """INT8 weights and their float32 scales, one per slice of `axis`; a slice of zeros has the scale 1/127.

    None is below `SMALLEST_SCALE`: what a dead filter has left is rounded to zeros.
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scales = np.maximum(np.where(largest > 0, largest, 1.0) / LEVELS, SMALLEST_SCALE).astype(np.float32)
    values = np.clip(np.rint(weights / scales), -LEVELS, LEVELS).astype(np.int8)
    return values, scales.reshape(-1)


def _store(graph: onnx.GraphProto, values: np.ndarray | np.generic, name: str) -> None:
    import onnx

    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
