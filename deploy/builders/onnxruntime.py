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

from deploy.builders.base import BUILD_TIMEOUT_S, BuildResult, Predictions, Probe, build_with_module, probe_module
from deploy.onnx_graph import CONFIDENCE_NAME, INPUT_NAME, KEYPOINTS_NAME
from deploy.targets import OnnxRuntimeTarget
from schemas.errors import ModelFileError

if TYPE_CHECKING:
    import onnxruntime

MODULE = "deploy.builders.onnxruntime"
PROVIDERS = ["CPUExecutionProvider"]


class OnnxRuntimeBuilder:
    """Runs anywhere. The optimisations saved are those that hold on any CPU; the rest happens when it is opened."""

    name = "onnxruntime"
    suffix = ".onnx"

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": version("onnxruntime")}

    def probe(self) -> Probe:
        return probe_module(MODULE, self.versions())

    def build(
        self, onnx: Path, target: OnnxRuntimeTarget, directory: Path, *, timeout_s: float = BUILD_TIMEOUT_S
    ) -> BuildResult:
        return build_with_module(MODULE, onnx, directory / f"engine{self.suffix}", (), timeout_s=timeout_s)

    def not_runnable(self, target: OnnxRuntimeTarget) -> str:
        return ""

    def open_engine(self, path: Path, target: OnnxRuntimeTarget) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(path, threads=target.threads, max_batch=target.batch.maximum)


class OnnxRuntimeEngine:
    """An ONNX file in a session with `threads` threads, fed at most `max_batch` crops at once.

    Raises:
        ModelFileError: ONNX Runtime can't load it.
    """

    def __init__(self, path: Path, *, threads: int = 1, max_batch: int = 64) -> None:
        from onnxruntime import InferenceSession
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        options = _session_options(threads)
        try:
            self._session = InferenceSession(str(path), options, providers=PROVIDERS)
        except (
            state.Fail,
            state.InvalidGraph,
            state.InvalidProtobuf,
            state.NoSuchFile,
            state.NotImplemented,
        ) as error:
            raise ModelFileError(f"{path}: ONNX Runtime can't load it: {error}") from error
        self._max_batch = max_batch

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        """See `Engine.predict`."""
        images_BCSS = np.ascontiguousarray(np.moveaxis(images_BSSC, -1, 1), np.float32)
        outputs = [
            self._session.run([KEYPOINTS_NAME, CONFIDENCE_NAME], {INPUT_NAME: images_BCSS[i : i + self._max_batch]})
            for i in range(0, len(images_BCSS), self._max_batch)
        ]
        return Predictions(*(np.concatenate(parts) for parts in zip(*outputs, strict=True)))


def _session_options(threads: int) -> onnxruntime.SessionOptions:
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
    options = _session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = given.engine
    onnxruntime.InferenceSession(given.onnx, options, providers=PROVIDERS)


if __name__ == "__main__":
    main(sys.argv[1:])
