"""`fpenet export`: a trained model file to ONNX."""

from __future__ import annotations

from pathlib import Path

from deploy.onnx_export import DEFAULT_OPSET, OnnxSummary, export_onnx
from schemas.sealed import SUFFIX as SEALED
from schemas.sealed import Key

SUFFIX = ".onnx"


def export_model(
    model: Path,
    output: Path | None = None,
    *,
    opset: int = DEFAULT_OPSET,
    heatmap: bool = False,
    key: Key | None = None,
) -> OnnxSummary:
    """Write the model in a `.keras` file as ONNX.

    Args:
        model: sealed or not.
        output: beside the model by default. As in TAO, `.onnx` is appended to a name that ends otherwise, so
            `model.etlt` gives `model.etlt.onnx`; with a key it is sealed: `model.etlt.onnx.sealed`.
        key: opens a sealed model, and seals the ONNX file.
        opset, heatmap: see `export_onnx`.

    Raises:
        ModelFileError: the file is not a model of this project, or can't be written for every target.
        SealedFileError: it is sealed and can't be opened with this key, or is a deployable one.
    """
    from model.weights import load_network

    return export_onnx(load_network(model, key=key), _output(model, output), opset=opset, heatmap=heatmap, key=key)


def _output(model: Path, output: Path | None) -> Path:
    """The ONNX file's name, before it is sealed."""
    if output is None:
        return model.with_name(model.name.removesuffix(SEALED)).with_suffix(SUFFIX)
    plain = output.with_name(output.name.removesuffix(SEALED))
    return plain if plain.suffix == SUFFIX else plain.with_name(plain.name + SUFFIX)
