"""`fpenet export`: a trained model file to ONNX."""

from __future__ import annotations

from pathlib import Path

from deploy.onnx_export import DEFAULT_OPSET, OnnxSummary, export_onnx

SUFFIX = ".onnx"


def export_model(
    model: Path, output: Path | None = None, *, opset: int = DEFAULT_OPSET, heatmap: bool = False
) -> OnnxSummary:
    """Write the model in a `.keras` file as ONNX.

    Args:
        output: beside the model by default. As in TAO, `.onnx` is appended to a name that ends otherwise, so
            `model.etlt` gives `model.etlt.onnx`.
        opset, heatmap: see `export_onnx`.

    Raises:
        ModelFileError: the file is not a model of this project, or can't be written for every target.
    """
    from model.weights import load_network

    output = output or model.with_suffix(SUFFIX)
    if output.suffix != SUFFIX:
        output = output.with_name(output.name + SUFFIX)
    return export_onnx(load_network(model), output, opset=opset, heatmap=heatmap)
