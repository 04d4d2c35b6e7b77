"""INT8 for builders that quantise by themselves (TensorRT up to 10): the FP32 graph and a calibration cache for it.

The scales are those of the engine's own graph, where they stand as Q/DQ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.bundle.release import Release
from deploy.calibration_cache import cache_text
from deploy.onnx_export import load_onnx

if TYPE_CHECKING:
    import onnx

FOLDER = "calibration"
MODEL, CACHE = "model.fp32.onnx", "calibration.cache"

_QUANTISES = "quantise_"
"""How `deploy.qdq` calls the node that quantises a tensor, before the tensor's name."""


def calibration_files(release: Release) -> dict[str, bytes]:
    """Path in the bundle -> content; nothing where the engine is not in INT8, or the FP32 graph is gone."""
    if release.exported is None:
        return {}
    scales = activation_scales(load_onnx(release.model))
    files = {MODEL: release.exported.read_bytes(), CACHE: cache_text(scales).encode()}
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def activation_scales(model: onnx.ModelProto) -> dict[str, float]:
    """Tensor of the float graph -> the scale that its Q/DQ has, in the graph's order."""
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.name.removeprefix(_QUANTISES): float(onnx.numpy_helper.to_array(constants[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.name.startswith(_QUANTISES)
    }
