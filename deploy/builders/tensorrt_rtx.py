"""Engines for NVIDIA GPUs by TensorRT-RTX, which builds on a machine without one.

A file serves the compute capabilities it was built for; kernels are compiled on the device when it is first opened.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from deploy.builders.base import BuildResult, Probe, build_with_module, probe_module
from deploy.builders.network import build_plan
from deploy.targets import TensorRtRtxTarget
from schemas.errors import ModelFileError
from schemas.storage import write_bytes

MODULE = "deploy.builders.tensorrt_rtx"
PACKAGES = ("tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu13_libs")


class TensorRtRtxBuilder:
    """Builds anywhere the wheels of the extra `rtx` are installed; runs nothing: see `not_runnable`."""

    name = "tensorrt-rtx"
    suffix = ".plan"
    recipe = MODULE

    def versions(self) -> dict[str, str]:
        try:
            return {package: version(package) for package in PACKAGES}
        except PackageNotFoundError:
            return {}

    def probe(self) -> Probe:
        if not self.versions():
            return Probe(False, "not installed; install the extra 'rtx'")
        return probe_module(MODULE, self.versions())

    def build(self, onnx: Path, target: TensorRtRtxTarget, directory: Path) -> BuildResult:
        batch = target.batch
        options = (
            "--compute-capabilities",
            *map(str, target.compute_capabilities),
            "--batch",
            *map(str, (batch.minimum, batch.optimum, batch.maximum)),
        )
        if target.workspace_bytes is not None:
            options += ("--workspace", str(target.workspace_bytes))
        return build_with_module(MODULE, onnx, directory / f"engine{self.suffix}", options)

    def not_runnable(self, target: TensorRtRtxTarget) -> str:
        """Always a reason, GPU or not: no runtime of TensorRT-RTX is in this project."""
        return f"is built ahead of time and bundled, not run by this project (for {target.devices})"

    def open_engine(self, path: Path, target: TensorRtRtxTarget) -> NoReturn:
        raise ModelFileError(f"{path}: can't be run here: it {self.not_runnable(target)}")


def main(arguments: Sequence[str]) -> None:
    """Build, or say what there is: the process that `build` and `probe` start."""
    import tensorrt_rtx_bindings as tensorrt

    if list(arguments) == ["--probe"]:
        tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
        sys.stdout.write(json.dumps(f"TensorRT-RTX {tensorrt.__version__}, builds without a GPU") + "\n")
        return
    parser = argparse.ArgumentParser(prog=MODULE)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--compute-capabilities", type=int, nargs="+", required=True)
    parser.add_argument("--batch", type=int, nargs=3, required=True, metavar=("MIN", "OPT", "MAX"))
    parser.add_argument("--workspace", type=int, metavar="BYTES")
    given = parser.parse_args(arguments)
    plan = build_plan(
        tensorrt,
        given.onnx,
        given.batch,
        compute_capabilities=given.compute_capabilities,
        workspace=given.workspace,
    )
    write_bytes(given.engine, plan.engine)


if __name__ == "__main__":
    main(sys.argv[1:])
