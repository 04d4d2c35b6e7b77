"""What INT8 was made of: the FP32 graph, and the scales as a calibration cache and as Q/DQ.

The scales are those of the engine's own graph, where they stand as Q/DQ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.bundle.release import Release
from deploy.calibration_cache import cache_text
from deploy.onnx_export import load_onnx
from deploy.qdq import insert

if TYPE_CHECKING:
    import onnx

FOLDER = "calibration"
MODEL, CACHE = "model.fp32.onnx", "calibration.cache"

_QUANTISES = "quantise_"
"""How `deploy.qdq` calls the node that quantises a tensor, before the tensor's name."""


def calibration_files(release: Release) -> dict[str, bytes]:
    """For builders that quantise by themselves (TensorRT up to 10): path in the bundle -> content.

    Nothing where the engine is not in INT8, or is for a CPU.
    """
    if release.exported is None or not release.needs_gpu:
        return {}
    scales = activation_scales(load_onnx(release.model))
    files = {MODEL: release.exported.read_bytes(), CACHE: cache_text(scales).encode()}
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def without_half(release: Release) -> onnx.ModelProto:
    """The engine's graph, Q/DQ with the same scales, of which all else is in FP32: a builder that is told nothing but
    INT8 refuses FP16 in the graph.
    """
    model = load_onnx(release.model)
    if release.exported is None:
        return model
    return insert(load_onnx(release.exported), activation_scales(model), release.manifest["float_layers"])


def activation_scales(model: onnx.ModelProto) -> dict[str, float]:
    """Tensor of the float graph -> the scale that its Q/DQ has, in the graph's order."""
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.name.removeprefix(_QUANTISES): float(onnx.numpy_helper.to_array(constants[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.name.startswith(_QUANTISES)
    }
