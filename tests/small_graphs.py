"""ONNX graphs in the form of an export, made without TensorFlow: one convolution and a soft-argmax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from deploy.float16_graph import to_float16
from deploy.onnx_graph import CONFIDENCE_NAME, INPUT_NAME, IR_VERSION, KEYPOINTS_NAME, heatmap_name

SIDE, CELLS, POINTS = 80, 10, 80


def small_graph(*, opset: int = 13, seed: int = 0) -> onnx.ModelProto:
    """(B, 1, 80, 80) in, keypoints (B, 80, 2) and confidences (B, 80) out; peaks move with the picture."""
    random = np.random.default_rng(seed)
    column, row = np.meshgrid(np.arange(CELLS), np.arange(CELLS))
    constants = {
        "weight": random.normal(0, 0.002, (POINTS, 1, 8, 8)).astype(np.float32),
        "flat": np.array([0, POINTS, CELLS * CELLS], np.int64),
        "x": (8.0 * column.reshape(1, 1, -1)).astype(np.float32),
        "y": (8.0 * row.reshape(1, 1, -1)).astype(np.float32),
        "last": np.array([2], np.int64),
        "spatial": np.array([2, 3], np.int64),
    }
    heatmap = heatmap_name(POINTS)
    nodes = [
        ("Conv", [INPUT_NAME, "weight"], [heatmap], {"strides": [8, 8]}),
        ("Reshape", [heatmap, "flat"], ["cells"], {}),
        ("Softmax", ["cells"], ["weights"], {"axis": 2}),
        ("Mul", ["weights", "x"], ["weighted_x"], {}),
        ("Mul", ["weights", "y"], ["weighted_y"], {}),
        ("ReduceSum", ["weighted_x", "last"], ["mean_x"], {"keepdims": 1}),
        ("ReduceSum", ["weighted_y", "last"], ["mean_y"], {"keepdims": 1}),
        ("Concat", ["mean_x", "mean_y"], [KEYPOINTS_NAME], {"axis": 2}),
        ("GlobalMaxPool", [heatmap], ["peak"], {}),
        ("Squeeze", ["peak", "spatial"], [CONFIDENCE_NAME], {}),
    ]
    made = [
        onnx.helper.make_node(kind, taken, given, f"{kind.lower()}_{number}", **attributes)
        for number, (kind, taken, given, attributes) in enumerate(nodes, start=1)
    ]
    number = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        made,
        "small",
        [onnx.helper.make_tensor_value_info(INPUT_NAME, number, ["batch", 1, SIDE, SIDE])],
        [
            onnx.helper.make_tensor_value_info(KEYPOINTS_NAME, number, ["batch", POINTS, 2]),
            onnx.helper.make_tensor_value_info(CONFIDENCE_NAME, number, ["batch", POINTS]),
        ],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return onnx.helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[onnx.helper.make_opsetid("", opset)])


def too_large_for_half() -> onnx.ModelProto:
    """Its weights fit FP16, what they make of a bright picture does not: 300 times 255 is above 65,504."""
    model = small_graph()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((POINTS, 1, 8, 8), 300.0, np.float32), "weight"))
    return model


def write_small(path: Path, *, half: bool = False) -> Path:
    """The graph as a file, in FP16 if `half`."""
    model = small_graph()
    path.write_bytes((to_float16(model, POINTS) if half else model).SerializeToString())
    return path


def pictures(count: int) -> np.ndarray:
    """Float32 crops (count, 80, 80, 1), 0..255: no two alike."""
    coarse = np.random.default_rng(1).uniform(0, 255, (count, CELLS, CELLS, 1)).astype(np.float32)
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
