"""Engines for CPUs: the ONNX file with ONNX Runtime's portable optimisations applied."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploy.builders.base import BuildResult, Predictions, Probe, build_with_module, channels_first, probe_module
from deploy.targets import OnnxRuntimeTarget
from schemas.errors import ModelFileError

if TYPE_CHECKING:
    import onnxruntime

MODULE = "deploy.builders.onnxruntime"
PROVIDERS = ["CPUExecutionProvider"]


class OnnxRuntimeBuilder:
    """Runs anywhere. The optimisations saved are those that hold on any CPU; the rest happens when it is opened."""

    name = "onnxruntime"
    recipe = "deploy.builders.onnxruntime"
    suffix = ".onnx"

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": version("onnxruntime")}

    def probe(self) -> Probe:
        return probe_module(MODULE, self.versions())

    def build(self, onnx: Path, target: OnnxRuntimeTarget, directory: Path) -> BuildResult:
        return build_with_module(MODULE, onnx, directory / f"engine{self.suffix}", ())

    def not_runnable(self, target: OnnxRuntimeTarget) -> str:
        return ""

    def open_engine(self, path: Path, target: OnnxRuntimeTarget) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(path, threads=target.threads, max_batch=target.batch.maximum)


class OnnxRuntimeEngine:
    """An ONNX file in a session with `threads` threads, fed at most `max_batch` crops at once.

    Input and outputs are found by their shapes, so that a file with either of TAO's families of names runs.

    Attributes:
        input_shape: (C, S, S) of one crop.
        num_keypoints: N.

    Args:
        content: of the file, where it was decrypted; `path` then only stands for it in messages.

    Raises:
        ModelFileError: ONNX Runtime can't load or run it, or its input or outputs are others.
    """

    def __init__(self, path: Path, *, threads: int = 1, max_batch: int = 64, content: bytes | None = None) -> None:
        from onnxruntime import InferenceSession
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        options = session_options(threads)
        try:
            self._session = InferenceSession(content or str(path), options, providers=PROVIDERS)
            self._input, batch, self.input_shape = _input(self._session, path)
            self._fixed_batch = batch if isinstance(batch, int) else 0
            self._max_batch = self._fixed_batch or max_batch
            trial = self._session.run(None, {self._input: np.zeros((self._fixed_batch or 1, *self.input_shape), "f")})
        except (
            state.EPFail,
            state.Fail,
            state.InvalidArgument,
            state.InvalidGraph,
            state.InvalidProtobuf,
            state.NoModel,
            state.NoSuchFile,
            state.NotImplemented,
            state.RuntimeException,
        ) as error:
            raise ModelFileError(f"{path}: ONNX Runtime can't load it: {error}") from error
        names = [output.name for output in self._session.get_outputs()]
        shapes = {name: value.shape[1:] for name, value in zip(names, trial, strict=True)}
        self._outputs = _outputs(shapes, path)
        self.num_keypoints = shapes[self._outputs[0]][0]

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        """See `Engine.predict`."""
        images_BCSS = channels_first(images_BSSC)
        outputs = [
            self._run(images_BCSS[i : i + self._max_batch]) for i in range(0, len(images_BCSS), self._max_batch)
        ]
        return Predictions(*(np.concatenate(parts) for parts in zip(*outputs, strict=True)))

    def _run(self, images_BCSS: np.ndarray) -> list[np.ndarray]:
        """One call; where the file has a fixed batch, a smaller one is filled up."""
        count = len(images_BCSS)
        if self._fixed_batch > count:
            images_BCSS = np.resize(images_BCSS, (self._fixed_batch, *images_BCSS.shape[1:]))
        return [output[:count] for output in self._session.run(self._outputs, {self._input: images_BCSS})]


def _input(session: onnxruntime.InferenceSession, path: Path) -> tuple[str, int | str, tuple[int, ...]]:
    """Name, batch (a number or a name) and (C, S, S) of the only input."""
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        shown = ", ".join(f"{value.name} {value.shape}" for value in inputs)
        raise ModelFileError(f"{path}: takes {shown}; needed are crops (batch, channels, side, side)")
    return inputs[0].name, shape[0], tuple(shape[1:])


def _outputs(shapes: dict[str, tuple[int, ...]], path: Path) -> list[str]:
    """Names of the keypoints (N, 2) and the confidences (N,) among the shapes of one face's outputs."""
    keypoints = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] == 2]
    confidences = [name for name, shape in shapes.items() if len(shape) == 1]
    names = [*keypoints, *confidences]
    if len(keypoints) != 1 or len(confidences) != 1 or len({shapes[name][0] for name in names}) != 1:
        shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ModelFileError(f"{path}: puts out {shown} a face; needed are keypoints (N, 2) and confidences (N)")
    return names


def session_options(threads: int = 0) -> onnxruntime.SessionOptions:
    """Of a session that logs errors only, with `threads` threads; 0 takes all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def main(arguments: Sequence[str]) -> None:
    """Write the optimised file, or say what there is: the process that `build` and `probe` start."""
    import onnxruntime

    if list(arguments) == ["--probe"]:
        sys.stdout.write(json.dumps(f"ONNX Runtime {onnxruntime.__version__}, {', '.join(PROVIDERS)}") + "\n")
        return
    parser = argparse.ArgumentParser(prog=MODULE)
    parser.add_argument("onnx")
    parser.add_argument("engine")
    given = parser.parse_args(arguments)
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = given.engine
    onnxruntime.InferenceSession(given.onnx, options, providers=PROVIDERS)


if __name__ == "__main__":
    main(sys.argv[1:])
