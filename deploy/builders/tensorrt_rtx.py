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
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from deploy.builders.base import BUILD_TIMEOUT_S, BuildResult, Probe, build_with_module, probe_module
from deploy.targets import TensorRtRtxTarget
from schemas.errors import EngineBuildError, ModelFileError
from schemas.storage import write_bytes

if TYPE_CHECKING:
    import tensorrt_rtx_bindings

MODULE = "deploy.builders.tensorrt_rtx"
PACKAGES = ("tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu13_libs")


class TensorRtRtxBuilder:
    """Builds anywhere the wheels of the extra `rtx` are installed; runs nothing: see `not_runnable`."""

    name = "tensorrt-rtx"
    suffix = ".plan"

    def versions(self) -> dict[str, str]:
        try:
            return {package: version(package) for package in PACKAGES}
        except PackageNotFoundError:
            return {}

    def probe(self) -> Probe:
        if not self.versions():
            return Probe(False, "not installed; install the extra 'rtx'")
        return probe_module(MODULE, self.versions())

    def build(
        self, onnx: Path, target: TensorRtRtxTarget, directory: Path, *, timeout_s: float = BUILD_TIMEOUT_S
    ) -> BuildResult:
        batch = target.batch
        options = (
            "--compute-capabilities",
            *map(str, target.compute_capabilities),
            "--batch",
            *map(str, (batch.minimum, batch.optimum, batch.maximum)),
        )
        if target.workspace_bytes is not None:
            options += ("--workspace", str(target.workspace_bytes))
        return build_with_module(MODULE, onnx, directory / f"engine{self.suffix}", options, timeout_s=timeout_s)

    def not_runnable(self, target: TensorRtRtxTarget) -> str:
        """Always a reason: an engine needs a GPU of its generation, and is compared with Keras there."""
        return f"needs a GPU ({target.devices})"

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
    plan = build_plan(tensorrt, given.onnx, given.compute_capabilities, given.batch, workspace=given.workspace)
    write_bytes(given.engine, plan)


def build_plan(
    tensorrt: ModuleType,
    onnx: Path,
    compute_capabilities: Sequence[int],
    batch: Sequence[int],
    *,
    workspace: int | None = None,
) -> bytes:
    """A serialised engine; precision is what the ONNX file says (strongly typed), and so is a fixed batch.

    Raises:
        EngineBuildError: TensorRT-RTX can't parse or build it.
    """
    logger = tensorrt.Logger(tensorrt.Logger.INFO)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        problems = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise EngineBuildError(f"{onnx}: not parsed: {problems}")
    config = _configured(tensorrt, builder, network, compute_capabilities, batch)
    if workspace is not None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineBuildError(f"{onnx}: TensorRT-RTX built nothing; its log says why")
    return bytes(plan)


def _configured(
    tensorrt: ModuleType, builder: Any, network: Any, compute_capabilities: Sequence[int], batch: Sequence[int]
) -> tensorrt_rtx_bindings.IBuilderConfig:
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(compute_capabilities)
    for index, capability in enumerate(compute_capabilities):
        config.set_compute_capability(getattr(tensorrt.ComputeCapability, f"SM{capability}"), index)
    crops = network.get_input(0)
    fixed, *image_CSS = crops.shape
    profile = builder.create_optimization_profile()
    profile.set_shape(crops.name, *((count if fixed < 0 else fixed, *image_CSS) for count in batch))
    config.add_optimization_profile(profile)
    return config


if __name__ == "__main__":
    main(sys.argv[1:])
