"""Engines for NVIDIA GPUs by TensorRT's Python package, 10.x and 11.x, on a machine with such a GPU.

The same calls serve both versions, see `deploy.builders.network`. They are the documented ones of 10.16 and 11.4.
Where this was developed there was neither a GPU nor libnvinfer: the calls of a build have run with TensorRT-RTX,
which shares them; a build and a run by TensorRT itself have not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.builders.base import BuildResult, Engine, Probe, probe_module
from deploy.builders.network import build_plan
from deploy.gpus import needs_gpu
from deploy.targets import TensorRtTarget, meets
from schemas.errors import EngineBuildError, ModelFileError
from schemas.storage import write_bytes

MODULE = "deploy.builders.tensorrt"
PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
OLDEST, NEWEST = 10, 11
MIB = 1 << 20


class TensorRtBuilder:
    """Builds and runs where there are a GPU, its driver and the package `tensorrt`."""

    name = "tensorrt"
    suffix = ".engine"
    module = MODULE
    recipe = "deploy.builders.network"

    def versions(self) -> dict[str, str]:
        for package in PACKAGES:
            try:
                return {"tensorrt": version(package)}
            except PackageNotFoundError:
                continue
        return {}

    def probe(self) -> Probe:
        if not self.versions():
            return Probe(
                False, "not installed; install the extra 'tensorrt10' or 'tensorrt11' on a machine with an NVIDIA GPU"
            )
        return probe_module(MODULE, self.versions())

    def module_options(self, target: TensorRtTarget) -> tuple[str, ...]:
        """What the builder's process is told beside the files."""
        batch = target.batch
        options = ("--batch", *map(str, (batch.minimum, batch.optimum, batch.maximum)))
        if target.workspace_mib is not None:
            options += ("--workspace-mib", str(target.workspace_mib))
        return options

    def build(self, onnx: Path, target: TensorRtTarget, directory: Path) -> BuildResult:
        """Build for the GPU of this machine; its timing cache stands beside the engines' folders.

        Raises:
            EngineMismatchError: the GPU or TensorRT here are not the target's.
            EngineBuildError: TensorRT is not here, or refused the model.
        """
        from deploy.device.build import build_there
        from deploy.shells.local import LocalShell

        here = LocalShell("this machine", str(directory.parent))
        return build_there(here, target, onnx, directory, program=sys.executable)

    def not_runnable(self, target: TensorRtTarget) -> str:
        """Why not: no such GPU, no TensorRT, or another version than the target's."""
        if reason := needs_gpu(target.compute_capability):
            return reason
        found, wanted = self.versions().get("tensorrt"), target.tensorrt
        return "" if meets(found, wanted) else f"needs TensorRT {wanted}; here is {found or 'none'}"

    def open_engine(self, path: Path, target: TensorRtTarget) -> Engine:
        if reason := self.not_runnable(target):
            raise ModelFileError(f"{path}: can't be run here: it {reason}")
        from deploy.builders.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(path, target.batch)


def main(arguments: Sequence[str]) -> None:
    """Build, or say what there is: the process that `build`, `probe` and a device's facts start."""
    import tensorrt

    if list(arguments) == ["--version"]:
        sys.stdout.write(json.dumps(tensorrt.__version__) + "\n")
        return
    if list(arguments) == ["--probe"]:
        tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
        sys.stdout.write(json.dumps(f"TensorRT {tensorrt.__version__}, builds for the GPU of this machine") + "\n")
        return
    given = parse(arguments)
    if not OLDEST <= int(tensorrt.__version__.split(".")[0]) <= NEWEST:
        raise EngineBuildError(f"TensorRT {tensorrt.__version__}: {OLDEST}.x and {NEWEST}.x are known")
    cache: Path | None = given.timing_cache
    before = None if cache is None else cache.read_bytes() if cache.is_file() else b""
    workspace = None if given.workspace_mib is None else given.workspace_mib * MIB
    plan = build_plan(tensorrt, given.onnx, given.batch, workspace=workspace, timing_cache=before)
    write_bytes(given.engine, plan.engine)
    if cache is not None and plan.timing_cache is not None:
        write_bytes(cache, plan.timing_cache)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of a build."""
    parser = argparse.ArgumentParser(prog=MODULE)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--batch", type=int, nargs=3, required=True, metavar=("MIN", "OPT", "MAX"))
    parser.add_argument("--workspace-mib", type=int)
    parser.add_argument("--timing-cache", type=Path, help="read if it is there, and written")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
