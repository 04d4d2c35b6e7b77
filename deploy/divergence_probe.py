"""A graph in a lower precision beside the float graph that it was made of: which tensor belongs to which.

`deploy.qdq` and `deploy.float16_graph` keep the names of the nodes, and put `/dequantised` and `/fp16` behind
those of the tensors that they change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from deploy.float16_graph import LARGEST_FLOAT16
from deploy.onnx_graph import OUTPUT_CHANNELS, with_outputs
from deploy.qdq import Placement, dequantised, quantised_weights, scale_groups
from schemas.errors import ModelFileError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Point:
    """A tensor to be compared.

    Attributes:
        tensor: its name in the float graph.
        operator: see `TensorError`.
        given: what the graph makes of it.
        local: what the float operator makes of the same inputs; before Q/DQ, of the tensor itself.
        clean: what a correctly rounded operator makes of them; '' where there is nothing to round.
        half: it is stored in FP16.
        rounded: it is the tensor behind Q/DQ.
    """

    tensor: str
    operator: str
    given: str
    local: str
    clean: str
    half: bool
    rounded: bool


class Twins:
    """The nodes of two graphs in pairs.

    Raises:
        ModelFileError: a node of the float graph has no twin.
    """

    def __init__(self, float_model: onnx.ModelProto, model: onnx.ModelProto) -> None:
        self.float_model, self.model = float_model, model
        by_name = {node.name: node for node in model.graph.node}
        missing = [node.name for node in float_model.graph.node if node.name not in by_name]
        if missing:
            raise ModelFileError(
                f"the graphs do not belong together: {', '.join(missing[:5])} is in one only; compare a graph with "
                "the FP32 export that it was made of"
            )
        self.pairs = [(node, by_name[node.name]) for node in float_model.graph.node]
        self.constants = {tensor.name: tensor for tensor in float_model.graph.initializer}
        self.tensors = {output for node in model.graph.node for output in node.output}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {output: node for node in model.graph.node for output in node.output}

    @cached_property
    def lowered(self) -> tuple[str, ...]:
        """Convolutions that are not computed in FP32, in the graph's order."""
        return tuple(node.name for node, twin in self.pairs if node.op_type in OUTPUT_CHANNELS and self.is_low(twin))

    @cached_property
    def quantised_groups(self) -> dict[str, str]:
        """Tensors with Q/DQ -> the one whose scale they share."""
        groups = scale_groups(self.float_model, self.float_layers, self.placement)
        return {tensor: group for tensor, group in groups.items() if dequantised(tensor) in self.tensors}

    @cached_property
    def placement(self) -> Placement:
        import onnx

        unsigned = {name for name, tensor in self._weights.items() if tensor.data_type == onnx.TensorProto.UINT8}
        return "around" if unsigned else "inputs"

    @property
    def float_layers(self) -> list[str]:
        """Convolutions without 8-bit weights."""
        return [node.name for node, twin in self.pairs if node.op_type in OUTPUT_CHANNELS and not self.is_int8(twin)]

    def is_int8(self, twin: onnx.NodeProto) -> bool:
        maker = self._makers.get(twin.input[1]) if len(twin.input) > 1 else None
        return maker is not None and maker.op_type == "DequantizeLinear"

    def is_low(self, twin: onnx.NodeProto) -> bool:
        return self.is_int8(twin) or self.is_half(twin.output[0])

    def is_half(self, tensor: str) -> bool:
        return tensor in self._halves

    @cached_property
    def _halves(self) -> frozenset[str]:
        import onnx

        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        half = onnx.TensorProto.FLOAT16
        return frozenset(value.name for value in values if value.type.tensor_type.elem_type == half)

    def rounded(self, node: onnx.NodeProto, twin: onnx.NodeProto) -> dict[str, np.ndarray]:
        """Float constant -> its values, correctly rounded once to the precision that the twin has them in."""
        import onnx

        found = {}
        for name, stored in zip(node.input, twin.input, strict=True):
            if name not in self.constants:
                continue
            values = onnx.numpy_helper.to_array(self.constants[name])
            if stored not in self._weights and self.is_int8(twin):
                found[name] = _int8(values, OUTPUT_CHANNELS[node.op_type])
            elif self._weights[stored].data_type == onnx.TensorProto.FLOAT16:
                found[name] = _half(values)
        return found


def probe(twins: Twins) -> tuple[onnx.ModelProto, list[Point]]:
    """The graph with every point's tensors as outputs, and the points in the order in which they are computed."""
    additions = _Additions(twins)
    points = [point for node, twin in twins.pairs for point in _points(additions, node, twin)]
    model = additions.appended()
    del model.graph.output[:]
    return with_outputs(
        model, (name for point in points for name in (point.given, point.local, point.clean) if name)
    ), points


def with_layer_in_float(twins: Twins, layer: str) -> onnx.ModelProto:
    """The graph with one convolution in FP32: its weights, and no Q/DQ on what no other one reads in 8 bits."""
    additions = _Additions(twins)
    node, twin = next((node, twin) for node, twin in twins.pairs if node.name == layer)
    kept = scale_groups(twins.float_model, [*twins.float_layers, layer], twins.placement)
    made = {name: twin.output[0] for node, twin in twins.pairs for name in node.output}
    raw = {dequantised(tensor): made[tensor] for tensor in twins.quantised_groups if tensor not in kept}
    inputs = [raw.get(name, name) for name in twin.input]
    output = f"{layer}/fp32" if twins.is_half(twin.output[0]) else twin.output[0]
    additions.add_float(node, inputs, output)
    if output != twin.output[0]:
        additions.add_cast(output, twin.output[0], half=True)
    return additions.replacing(twin, raw)


def _points(additions: _Additions, node: onnx.NodeProto, twin: onnx.NodeProto) -> Iterator[Point]:
    twins, tensor, given = additions.twins, node.output[0], twin.output[0]
    local = additions.add_float(node, twin.input, f"{tensor}/local")
    rounded = twins.rounded(node, twin)
    clean = additions.add_float(node, twin.input, f"{tensor}/clean", rounded) if rounded else ""
    yield Point(tensor, node.op_type, given, local, clean, twins.is_half(given), rounded=False)
    if tensor in twins.quantised_groups:
        behind = dequantised(tensor)
        yield Point(tensor, "QuantizeLinear", behind, given, "", twins.is_half(behind), rounded=True)


class _Additions:
    """Nodes and constants to add to a copy of the lower graph."""

    def __init__(self, twins: Twins) -> None:
        self.twins = twins
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._made: set[str] = set()

    def add_float(
        self,
        node: onnx.NodeProto,
        inputs: Sequence[str],
        output: str,
        rounded: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> str:
        """Add a node of the float graph that reads the lower graph's `inputs`; constants: its own, or `rounded`."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name, copy.output[:] = output, [output]
        copy.input[:] = [
            self._constant(own, rounded.get(own)) if own in self.twins.constants else self._in_float(given)
            for own, given in zip(node.input, inputs, strict=True)
        ]
        self._nodes.append(copy)
        return output

    def add_cast(self, source: str, output: str, *, half: bool) -> str:
        import onnx

        kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
        self._nodes.append(onnx.helper.make_node("Cast", [source], [output], output, to=kind))
        return output

    def appended(self) -> onnx.ModelProto:
        """A copy of the graph with the additions at its end."""
        return self._copy([*self.twins.model.graph.node, *self._nodes])

    def replacing(self, twin: onnx.NodeProto, instead: Mapping[str, str]) -> onnx.ModelProto:
        """A copy of the graph with the additions in the place of `twin`, and tensors read from elsewhere."""
        model = self._copy(
            [
                new
                for node in self.twins.model.graph.node
                for new in (self._nodes if node.name == twin.name else [node])
            ]
        )
        for node in model.graph.node:
            node.input[:] = [instead.get(name, name) for name in node.input]
        return model

    def _in_float(self, tensor: str) -> str:
        if not self.twins.is_half(tensor):
            return tensor
        cast = f"{tensor}/fp32"
        if cast not in self._made:
            self._made.add(cast)
            self.add_cast(tensor, cast, half=False)
        return cast

    def _constant(self, name: str, values: np.ndarray | None) -> str:
        import onnx

        stored = f"{name}/{'float' if values is None else 'clean'}"
        if stored not in self._constants:
            own = onnx.numpy_helper.to_array(self.twins.constants[name]) if values is None else values
            self._constants[stored] = onnx.numpy_helper.from_array(own, stored)
        return stored

    def _copy(self, nodes: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.twins.model)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(self._constants.values())
        return model


def _int8(weights: np.ndarray, axis: int) -> np.ndarray:
    values, scales = quantised_weights(weights, axis)
    shape = [1] * weights.ndim
    shape[axis] = -1
    return values * scales.reshape(shape)


def _half(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -LARGEST_FLOAT16, LARGEST_FLOAT16).astype(np.float16).astype(np.float32)
