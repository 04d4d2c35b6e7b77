"""From ONNX to a serialised engine with the Python API that TensorRT 10, 11 and TensorRT-RTX have in common.

The network is strongly typed: precision is what the ONNX file says. Calibrators, precision flags and
`EXPLICIT_BATCH`, which TensorRT 11 has no more, are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from schemas.errors import EngineBuildError


@dataclass(frozen=True)
class Plan:
    """A serialised engine, and the timing cache as the build left it; None without one."""

    engine: bytes
    timing_cache: bytes | None


def build_plan(
    tensorrt: ModuleType,
    onnx: Path,
    batch: Sequence[int],
    *,
    compute_capabilities: Sequence[int] = (),
    workspace: int | None = None,
    timing_cache: bytes | None = None,
) -> Plan:
    """Build for any number of crops from `batch[0]` to `batch[2]`, tuned for `batch[1]`; a fixed batch stays fixed.

    Args:
        tensorrt: the package, of TensorRT or TensorRT-RTX.
        compute_capabilities: GPU generations, 86 for 8.6; none is the GPU of this machine. TensorRT-RTX only.
        workspace: bytes of GPU memory that the choice of kernels may need; None leaves it to the builder.
        timing_cache: of an earlier build with this GPU and version, b'' to begin one, None for none.

    Raises:
        EngineBuildError: the file can't be parsed or built.
    """
    logger = tensorrt.Logger(tensorrt.Logger.INFO)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        problems = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise EngineBuildError(f"{onnx}: not parsed: {problems}")
    config = builder.create_builder_config()
    if workspace is not None:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, workspace)
    _choose_gpus(tensorrt, config, compute_capabilities)
    config.add_optimization_profile(_profile(builder, network, batch))
    if timing_cache is not None:
        config.set_timing_cache(config.create_timing_cache(timing_cache), ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineBuildError(f"{onnx}: {tensorrt.__name__} built nothing; its log says why")
    cache = None if timing_cache is None else bytes(config.get_timing_cache().serialize())
    return Plan(bytes(engine), cache)


def _choose_gpus(tensorrt: ModuleType, config: Any, compute_capabilities: Sequence[int]) -> None:
    if not compute_capabilities:
        return
    config.num_compute_capabilities = len(compute_capabilities)
    for index, capability in enumerate(compute_capabilities):
        config.set_compute_capability(getattr(tensorrt.ComputeCapability, f"SM{capability}"), index)


def _profile(builder: Any, network: Any, batch: Sequence[int]) -> Any:
    crops = network.get_input(0)
    fixed, *image_CSS = crops.shape
    profile = builder.create_optimization_profile()
    profile.set_shape(crops.name, *((count if fixed < 0 else fixed, *image_CSS) for count in batch))
    return profile
