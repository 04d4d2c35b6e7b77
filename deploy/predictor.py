"""Open a model file, whatever its kind, as a function from crops to keypoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.engine_directory import MODEL, RECORD
from model.evaluation import Predict
from schemas.errors import ModelFileError, StorageError
from schemas.experiment import ExperimentSpec
from schemas.sealed import SUFFIX, Key, Kind, is_sealed, kind_of, refuse_nvidias
from schemas.storage import read_json, sha256_file

if TYPE_CHECKING:
    import numpy as np

    from deploy.targets import Target

ENGINES = (".plan", ".engine", ".trt")


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


def load_predictor(path: Path | str, *, key: Key | None = None) -> Predictor:
    """Open a `.keras` or `.onnx` file, sealed or not, or an engine that runs on this machine.

    Args:
        key: opens a sealed file.

    Raises:
        ModelFileError: the file is missing, damaged, of another kind, or an engine for another device.
        SealedFileError: it is sealed and can't be opened with this key.
        StorageError: an engine's bytes are not those that were built.
    """
    path = Path(path)
    if is_sealed(path):
        return _onnx(path, key) if kind_of(path) is Kind.DEPLOYABLE else _keras(path, key)
    refuse_nvidias(path)
    if path.suffix in ENGINES or _is_built(path):
        return _engine(path)
    if path.suffix not in (".keras", ".onnx"):
        raise ModelFileError(f"{path}: not a model: those end in .keras, .onnx or {SUFFIX}")
    return _keras(path, key) if path.suffix == ".keras" else _onnx(path, key)


def _keras(path: Path, key: Key | None) -> Predictor:
    import tensorflow as tf

    from model.weights import load_network

    network = load_network(path, key=key)
    _, height, _, channels = network.inputs[0].shape
    forward = tf.function(
        lambda images_BSSC: network(images_BSSC, training=False)[:2],
        input_signature=[tf.TensorSpec((None, height, height, channels), tf.float32)],
    )

    def predict(images_BSSC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keypoints_BN2, confidence_BN = forward(images_BSSC)
        return keypoints_BN2.numpy(), confidence_BN.numpy()

    return Predictor(path, predict, network.outputs[0].shape[1], height, channels)


def _onnx(path: Path, key: Key | None) -> Predictor:
    from deploy.builders.onnxruntime import OnnxRuntimeEngine
    from deploy.onnx_export import read_onnx

    engine = OnnxRuntimeEngine(path, threads=os.cpu_count() or 1, content=read_onnx(path, key=key))
    channels, height, _ = engine.input_shape
    return Predictor(path, engine.predict, engine.num_keypoints, height, channels)


def _engine(path: Path) -> Predictor:
    """An engine that is whole and runs here. What goes in and comes out stands in the graph that it was built of."""
    from deploy.builders.registry import BUILDERS
    from deploy.onnx_export import summarise

    target = _runnable_target(path)
    if target.builder == "onnxruntime":
        return _onnx(path, None)  # on all cores
    summary = summarise(path.with_name(MODEL))
    channels, height, _ = summary.input_shape
    engine = BUILDERS[target.builder].open_engine(path, target)
    return Predictor(path, engine.predict, summary.num_keypoints, height, channels)


def _is_built(path: Path) -> bool:
    """Whether `deploy.engine` has made this file."""
    record = path.with_name(RECORD)
    return record.is_file() and read_json(record)["engine"] == path.name


def _runnable_target(path: Path) -> Target:
    """The target of an engine that is whole and runs here, as it was when the engine was built."""
    from deploy.builders.registry import BUILDERS
    from deploy.targets import target_as_built

    if not path.is_file():
        raise ModelFileError(f"{path}: no such engine file")
    if not _is_built(path):
        raise ModelFileError(
            f"{path}: an engine runs on the device it was built for, with the tool that built it; give the .onnx or "
            ".keras model that it was made of"
        )
    built = read_json(path.with_name(RECORD))
    if sha256_file(path) != built["engine_sha256"]:
        raise StorageError(f"{path}: damaged or changed: not the engine that {RECORD} tells of; build it again")
    target = target_as_built(built["target"])
    if reason := BUILDERS[target.builder].not_runnable(target):
        raise ModelFileError(
            f"{path}: built by {target.builder} for {target.title}; it {reason}. Here run the .onnx or .keras model "
            "that it was made of"
        )
    return target
