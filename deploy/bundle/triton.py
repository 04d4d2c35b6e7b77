"""A model repository for Triton Inference Server: `faciallandmark/config.pbtxt` and version 1 of the model."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.bundle.release import Release
from deploy.onnx_graph import CONFIDENCE_NAME, INPUT_NAME, KEYPOINTS_NAME

FOLDER = "triton"
NAME = "faciallandmark"
"""What NVIDIA's DeepStream samples call the model when Triton serves it."""

QUEUE_DELAY_US = 100
"""How long a request may wait for others; less than one call takes on any target."""


def triton_files(release: Release) -> dict[str, bytes]:
    """Path in the bundle -> content.

    The engine is served where Triton can read it: a TensorRT plan, or ONNX Runtime's file. For TensorRT-RTX, which no
    backend reads, it is the graph that the engine was built of, by ONNX Runtime.
    """
    served = release.model if release.target.builder == "tensorrt-rtx" else release.engine
    model = "model.plan" if release.is_plan else "model.onnx"
    return {
        f"{FOLDER}/{NAME}/config.pbtxt": _config(release).encode(),
        f"{FOLDER}/{NAME}/1/{model}": served.read_bytes(),
    }


def _config(release: Release) -> str:
    """Dimensions are those of one face: Triton puts the batch in front."""
    num_keypoints, batch = release.onnx.num_keypoints, release.target.batch
    kind = "KIND_GPU" if release.needs_gpu else "KIND_CPU"
    parts = [
        f'name: "{NAME}"',
        f'backend: "{"tensorrt" if release.is_plan else "onnxruntime"}"',
        f"max_batch_size: {release.onnx.batch or batch.maximum}",
        _tensors("input", {INPUT_NAME: release.onnx.input_shape}),
        _tensors("output", {KEYPOINTS_NAME: (num_keypoints, 2), CONFIDENCE_NAME: (num_keypoints,)}),
        f"instance_group [\n  {{\n    count: 1\n    kind: {kind}\n  }}\n]",
        _batching(batch.optimum),
    ]
    if not release.needs_gpu:
        parts.append(_parameter("intra_op_thread_count", str(release.target.threads)))
    return "\n".join(parts) + "\n"


def _batching(optimum: int) -> str:
    """A batch of a preferred size is sent at once: with 1 among them Triton would never gather more."""
    preferred = f"  preferred_batch_size: [ {optimum} ]\n" if optimum > 1 else ""
    return f"dynamic_batching {{\n{preferred}  max_queue_delay_microseconds: {QUEUE_DELAY_US}\n}}"


def _tensors(field: str, shapes: dict[str, Sequence[int]]) -> str:
    items = [
        f'  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ {", ".join(map(str, shape))} ]\n  }}'
        for name, shape in shapes.items()
    ]
    return f"{field} [\n" + ",\n".join(items) + "\n]"


def _parameter(key: str, value: str) -> str:
    return f'parameters {{\n  key: "{key}"\n  value {{ string_value: "{value}" }}\n}}'
