"""`fpenet export --engine_file`: an engine straight from an exported ONNX file, by what builds here."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deploy.builder_graph import precision_of
from deploy.builders.registry import BUILDERS, require_here
from deploy.gpus import find_gpu
from deploy.onnx_export import read_onnx
from deploy.targets import GpuTarget, OnnxRuntimeTarget, Target, TensorRtRtxTarget, find_target, load_targets
from schemas.errors import EngineBuildError, InputError
from schemas.sealed import Key
from schemas.storage import write_bytes


@dataclass(frozen=True)
class EngineOptions:
    """What the builder is told; None leaves it to the target of the catalogue.

    Attributes:
        target: name in the catalogue; None is the GPU of this machine.
        optimum, maximum: faces in one call, tuned for and at most.
        workspace_bytes: GPU memory for the builder's choice of kernels.
    """

    target: str | None = None
    optimum: int | None = None
    maximum: int | None = None
    workspace_bytes: int | None = None


@dataclass(frozen=True)
class EngineFile:
    """An engine, and what built it. `not_runnable` says why it can't run on this machine, or is ''."""

    path: Path
    target: Target
    builder: str
    size: int
    seconds: float
    not_runnable: str


def build_engine_file(onnx: Path, engine: Path, options: EngineOptions, *, key: Key | None = None) -> EngineFile:
    """Build `engine` from an ONNX file, in the precision that the file says.

    Args:
        key: opens a sealed ONNX file. An engine is never sealed: its runtime could not read it.

    Raises:
        SpecError: no such target.
        InputError: an option that the target's builder does not take.
        EngineBuildError: nothing builds for this device here, or the builder refused the model.
    """
    target = adjusted(find_target(options.target) if options.target else _target_of_this_machine(onnx), options)
    builder = BUILDERS[target.builder]
    probe = require_here(target)
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "model.onnx"
        given.write_bytes(read_onnx(onnx, key=key))
        target = target.model_copy(update={"precision": precision_of(given)})
        result = builder.build(given, target, Path(folder) / "engine")
        write_bytes(engine, result.engine.read_bytes())
    reason = builder.not_runnable(target)
    return EngineFile(engine, target, probe.reason, engine.stat().st_size, result.seconds, reason)


def adjusted(target: Target, options: EngineOptions) -> Target:
    """The target with the batch sizes and the workspace asked for.

    Raises:
        InputError: the sizes contradict each other, or the builder knows no workspace.
    """
    batch = target.batch
    maximum = options.maximum or max(batch.maximum, options.optimum or 1)
    optimum = options.optimum or min(batch.optimum, maximum)
    if optimum > maximum:
        raise InputError(f"--opt_batch_size {optimum} is above --max_batch_size {maximum}")
    changes = {"batch": batch.model_copy(update={"minimum": 1, "optimum": optimum, "maximum": maximum})}
    if options.workspace_bytes is not None:
        changes |= _workspace(target, options.workspace_bytes)
    return target.model_copy(update=changes)


def _workspace(target: Target, size: int) -> dict[str, int]:
    """The setting of the target's builder. Where that counts in MiB, at least one."""
    if isinstance(target, OnnxRuntimeTarget):
        raise InputError(f"--max_workspace_size: {target.builder} (target '{target.name}') has no workspace to limit")
    if isinstance(target, GpuTarget):
        return {"workspace_mib": max(size >> 20, 1)}
    return {"workspace_bytes": size}


def _target_of_this_machine(onnx: Path) -> Target:
    """The target of the first GPU here: that of TensorRT where its package is installed, else of TensorRT-RTX."""
    gpu = find_gpu()
    known = [target for target in load_targets().values() if BUILDERS[target.builder].versions()]
    for target in sorted(known, key=lambda target: target.builder):
        if gpu.compute_capability is not None and gpu.compute_capability in _capabilities(target):
            return target
    names = [target.name for target in load_targets().values() if isinstance(target, TensorRtRtxTarget)]
    raise EngineBuildError(_nothing_builds(onnx, gpu.devices[0] if gpu.devices else gpu.reason, names))


def _capabilities(target: Target) -> list[int]:
    """GPU generations that engines of a target run on."""
    if isinstance(target, TensorRtRtxTarget):
        return list(target.compute_capabilities)
    return [target.compute_capability] if isinstance(target, GpuTarget) else []


def _nothing_builds(onnx: Path, gpu: str, names: list[str]) -> str:
    tensorrt = "is installed" if find_spec("tensorrt") else "is not installed (extras 'tensorrt10', 'tensorrt11')"
    return (
        f"no engine for the GPU of this machine: {gpu}; Python package tensorrt {tensorrt}. Name a device with "
        f"--target to build ahead of time ({', '.join(names)}), or build where the GPU is: "
        f"trtexec --onnx={onnx.name} --saveEngine=model.engine"
    )
