"""Export a trained network to ONNX and compare the two on KPI crops."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.reuse import StepOutput, reuse_or_run, step_key
from tasks.train import MODEL

if TYPE_CHECKING:
    from tasks.evaluate import KpiCrops

ONNX = "model.onnx"
CONFIDENCE_BOUND = 0.1
"""As of the targets that compute in float (`deploy/targets.yaml`)."""


def export_network(trained: StepOutput, *, crops: KpiCrops, bound_px: float, parent: Path) -> StepOutput:
    """ONNX file of a trained network, or the one that an earlier run exported.

    Args:
        crops: what to compare on.
        bound_px: largest distance from Keras of any keypoint of any crop, in network-input pixels.

    Returns:
        Directory with `model.onnx`; `result` has `sha256`, `opset`, `outputs`, `size`, `parity`.

    Raises:
        GateError: the ONNX file is further from Keras than `bound_px`, or its confidences are others.
    """
    key = step_key("export", code="tasks.export", trained=trained.key, crops=crops.id, bound_px=bound_px)

    def run(directory: Path) -> dict[str, Any]:
        from deploy.builders.onnxruntime import OnnxRuntimeEngine
        from deploy.onnx_export import export_onnx
        from deploy.parity import compare, keras_predictions, require_parity
        from deploy.targets import ParityBound
        from model.weights import load_network

        network, images_BSSC = load_network(trained.directory / MODEL), crops()
        summary = export_onnx(network, directory / ONNX)
        expected = keras_predictions(network, images_BSSC)
        parity = compare(expected, OnnxRuntimeEngine(directory / ONNX).predict(images_BSSC))
        bound = ParityBound(mean_px=bound_px, max_px=bound_px)
        require_parity(parity, bound, "the ONNX export", confidence=CONFIDENCE_BOUND)
        return {
            "sha256": summary.sha256,
            "opset": summary.opset,
            "outputs": list(summary.outputs),
            "size": summary.size,
            "parity": dataclasses.asdict(parity),
        }

    return reuse_or_run(parent, key, run)
