"""Files for DeepStream: FPENet as a secondary stage behind a face detector, and NVIDIA's facial-landmark sample.

Keys are Gst-nvinfer's. Values are those of NVIDIA's sample for FPENet where they do not follow from the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deploy.builder_graph import soft_argmax_layers
from deploy.bundle import calibration
from deploy.bundle.release import Release
from deploy.onnx_graph import CONFIDENCE_NAME, KEYPOINTS_NAME, heatmap_name, with_heatmap
from schemas.layouts import layout

FOLDER = "deepstream"
MODEL = "faciallandmark.onnx"
CONFIG, ENGINE_CONFIG = "faciallandmark_sgie_config.txt", "faciallandmark_sgie_engine_config.txt"
LABELS = "labels.txt"
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2, "mixed": 1}
NETWORK_MODE_NAMES = {0: "fp32", 1: "int8", 2: "fp16"}
"""What nvinfer calls the modes in the names of the engines that it builds."""

_ENGINE_LINE = (
    "The engine that was built and checked. It puts out keypoints and confidences only: the heatmap is 4 H W bytes "
    "a keypoint that would be copied for every face."
)
_MODEL_LINE = (
    "nvinfer builds an engine of this ONNX file when it first starts, and keeps it beside the file. Keypoints, "
    "confidences and heatmap come out."
)


def deepstream_files(release: Release) -> dict[str, bytes]:
    """Path in the bundle -> content; nothing for a target without a GPU, which DeepStream needs.

    Raises:
        ModelFileError: the graph has no heatmap under its own name.
    """
    if not release.needs_gpu:
        return {}
    onnx = release.onnx
    graph = with_heatmap(calibration.without_half(release), onnx.num_keypoints)
    files = {
        MODEL: graph.SerializeToString(deterministic=True),
        CONFIG: _key_file(_MODEL_LINE, _of_model(release)),
        LABELS: "".join(f"{label}\n" for label in labels(onnx.num_keypoints)).encode(),
        **_post_processing(release),
    }
    if release.is_plan:
        files[ENGINE_CONFIG] = _key_file(_ENGINE_LINE, _of_engine(release))
    return {f"{FOLDER}/{name}": content for name, content in files.items()}


def labels(num_keypoints: int) -> list[str]:
    """One line per keypoint in the network's order: its 1-based label, and the region that it is evaluated in."""
    known = layout(num_keypoints)
    regions = {i: name for name, indices in known.regions.items() if name not in ("All", "HP") for i in indices}
    return [f"{label} {regions[i]}" if i in regions else label for i, label in enumerate(known.labels)]


def built_engine_name(release: Release) -> str:
    """What nvinfer calls the engine that it builds of `MODEL` on GPU 0."""
    mode = NETWORK_MODE_NAMES[NETWORK_MODES[release.precision]]
    return f"{MODEL}_b{release.target.batch.maximum}_gpu0_{mode}.engine"


def _of_model(release: Release) -> dict[str, str]:
    settings = {
        "onnx-file": MODEL,
        "model-engine-file": built_engine_name(release),
        **_common(release, (KEYPOINTS_NAME, CONFIDENCE_NAME, heatmap_name(release.onnx.num_keypoints))),
    }
    if release.exported is not None:
        settings["int8-calib-file"] = f"../{calibration.FOLDER}/{calibration.CACHE}"
    if release.precision != "fp32":
        pinned = (f"{layer}:fp32:gpu" for layer in soft_argmax_layers(release.model))
        settings["layer-device-precision"] = ";".join(pinned)
    return settings


def _of_engine(release: Release) -> dict[str, str]:
    return {
        "model-engine-file": f"../engine/{release.engine.name}",
        **_common(release, (KEYPOINTS_NAME, CONFIDENCE_NAME)),
    }


def _common(release: Release, outputs: Iterable[str]) -> dict[str, str]:
    return {
        "gpu-id": "0",
        "batch-size": str(release.target.batch.maximum),
        "network-mode": str(NETWORK_MODES[release.precision]),
        "infer-dims": ";".join(map(str, release.onnx.input_shape)),
        "output-blob-names": ";".join(outputs),
        "labelfile-path": LABELS,
        "network-type": "100",
        "output-tensor-meta": "1",
        "process-mode": "2",
        "gie-unique-id": "2",
        "operate-on-gie-id": "1",
        "model-color-format": "2",
        "net-scale-factor": "1.0",
        "offsets": "0.0",
        "input-object-min-width": "5",
        "input-object-min-height": "5",
    }


_COMMENTS = {
    "batch-size": "faces in one call at most",
    "network-mode": "0 FP32, 1 INT8, 2 FP16",
    "int8-calib-file": "without it nvinfer leaves INT8; TensorRT takes the same scales from the ONNX file (Q/DQ)",
    "layer-device-precision": "soft-argmax stays in FP32: FP16 knows no steps below 1/16 px beyond pixel 64",
    "network-type": "raw tensors: no parser of nvinfer's",
    "process-mode": "on objects of the stage in operate-on-gie-id",
    "model-color-format": "gray",
    "net-scale-factor": "pixels go in as 0..255",
}


def _key_file(headline: str, settings: Mapping[str, str]) -> bytes:
    """A GLib key file; comments stand on lines of their own, as it has no others."""
    lines = [f"# {headline}", "# Paths are relative to this file.", "[property]"]
    for key, value in settings.items():
        if key in _COMMENTS:
            lines.append(f"# {_COMMENTS[key]}")
        lines.append(f"{key}={value}")
    lines += ["", "[class-attrs-all]", "pre-cluster-threshold=0.0", ""]
    return "\n".join(lines).encode()


def _post_processing(release: Release) -> dict[str, bytes]:
    """What the sample's post-processing is told, in the two forms that its versions read."""
    _, height, width = release.onnx.input_shape
    told = {
        "numLandmarks": release.onnx.num_keypoints,
        "maxBatchSize": release.target.batch.maximum,
        "inputLayerWidth": width,
        "inputLayerHeight": height,
    }
    forms = {"yml": "{}: {}\n", "txt": "{}={}\n"}
    return {
        f"sample_faciallandmarks_config.{suffix}": "".join(line.format(*pair) for pair in told.items()).encode()
        for suffix, line in forms.items()
    }
