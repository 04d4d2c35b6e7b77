"""Small networks of several layers as ONNX graphs in the form of an export, made without TensorFlow."""

from __future__ import annotations

import numpy as np
import onnx

from deploy.onnx_graph import INPUT_NAME, heatmap_name
from tests.small_graphs import POINTS, small_graph


def layered_graph(seed: int) -> onnx.ModelProto:
    """Encoder, decoder with a skip connection, soft-argmax; what joins and what enlarges depends on the seed.

    Fourteen layers at most; features have a size of 1, heatmaps have peaks.
    """
    body = _Body(seed)
    adds, transposes = bool(seed % 2), bool(seed // 2 % 2)
    wide = body.convolution(INPUT_NAME, 1, 4, stride=2, gain=1 / 128)
    skip = body.convolution(wide, 4, 4)
    small = body.node("MaxPool", [skip], kernel_shape=[2, 2], strides=[2, 2])
    small = body.convolution(body.convolution(small, 4, 6), 6, 4)
    large = body.enlarged(small, 4, by_transposing=transposes)
    joined = body.node("Add", [large, skip]) if adds else body.node("Concat", [large, skip], axis=1)
    joined = body.convolution(joined, 4 if adds else 8, 6)
    quarter = body.node("MaxPool", [body.convolution(joined, 6, 4)], kernel_shape=[4, 4], strides=[4, 4])
    body.convolution(body.convolution(quarter, 4, 6), 6, POINTS, name=heatmap_name(POINTS), gain=4)
    return body.with_head()


class _Body:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], *, name: str = "", **attributes) -> str:
        name = name or f"{kind.lower()}_{sum(node.op_type == kind for node in self._nodes) + 1}"
        self._nodes.append(onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def convolution(
        self, source: str, taken: int, given: int, *, stride: int = 1, gain: float = 1.0, name: str = ""
    ) -> str:
        """3x3, and a Relu behind it unless it is named."""
        number = sum(node.op_type == "Conv" for node in self._nodes) + 1
        weights = self._random.normal(0, gain * np.sqrt(2 / (9 * taken)), (given, taken, 3, 3))
        inputs = [source, self._constant(f"conv_{number}/1", weights)]
        made = self.node("Conv", inputs, name=name, strides=[stride, stride], pads=[1, 1, 1, 1])
        return made if name else self.node("Relu", [made])

    def enlarged(self, source: str, channels: int, *, by_transposing: bool) -> str:
        if by_transposing:
            weights = self._random.normal(0, np.sqrt(2 / channels), (channels, channels, 2, 2))
            return self.node("ConvTranspose", [source, self._constant("convtranspose_1/1", weights)], strides=[2, 2])
        scales = self._constant("resize_1/2", np.array([1, 1, 2, 2]))
        return self.node("Resize", [source, "", scales], coordinate_transformation_mode="asymmetric", mode="nearest")

    def with_head(self) -> onnx.ModelProto:
        """The layers before the soft-argmax of `small_graph`."""
        model = small_graph()
        head = list(model.graph.node)[1:]
        del model.graph.node[:]
        model.graph.node.extend([*self._nodes, *head])
        model.graph.initializer.extend(self._constants)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _constant(self, name: str, values: np.ndarray) -> str:
        self._constants.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        return name
