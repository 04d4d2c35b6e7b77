"""Open a model file, whatever its kind, as a function from crops to keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.evaluation import Predict
from schemas.errors import ModelFileError
from schemas.experiment import ExperimentSpec

KINDS = (".keras", ".onnx")
THREADS = 2


@dataclass(frozen=True)
class Predictor:
    """A model that can run here: `predict` takes (B, input_size, input_size, channels) crops, 0..255."""

    path: Path
    predict: Predict
    num_keypoints: int
    input_size: int
    channels: int

    def require(self, spec: ExperimentSpec) -> None:
        """Refuse a spec of another model.

        Raises:
            ModelFileError: the number of keypoints, the side of the input or its channels differ.
        """
        image = spec.dataloader.image_info.image
        for what, mine, asked in (
            ("keypoints", self.num_keypoints, spec.num_keypoints),
            ("pixels of input side", self.input_size, image.height),
            ("channels", self.channels, image.channel),
        ):
            if mine != asked:
                raise ModelFileError(
                    f"{self.path}: has {mine} {what}, the spec says {asked}; use the spec it was trained with"
                )


def load_predictor(path: Path | str) -> Predictor:
    """Open a `.keras` or `.onnx` file.

    Raises:
        ModelFileError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if path.suffix not in KINDS:
        raise ModelFileError(
            f"{path}: models end in {' or '.join(KINDS)}; engines run on the device they were built for"
        )
    return _keras(path) if path.suffix == ".keras" else _onnx(path)


def _keras(path: Path) -> Predictor:
    from deploy.parity import keras_predictions
    from model.weights import load_network

    network = load_network(path)
    _, height, _, channels = network.inputs[0].shape
    return Predictor(
        path=path,
        predict=lambda images_BSSC: keras_predictions(network, images_BSSC),
        num_keypoints=network.outputs[0].shape[1],
        input_size=height,
        channels=channels,
    )


def _onnx(path: Path) -> Predictor:
    from deploy.builders.onnxruntime import OnnxRuntimeEngine
    from deploy.onnx_export import summarise

    summary = summarise(path)
    channels, height, _ = summary.input_shape
    return Predictor(
        path=path,
        predict=OnnxRuntimeEngine(path, threads=THREADS).predict,
        num_keypoints=summary.num_keypoints,
        input_size=height,
        channels=channels,
    )
