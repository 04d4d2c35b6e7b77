"""Build an engine per target, check it against Keras, and put it at stage `staging`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.reuse import StepOutput, reuse_or_run, step_key
from tasks.summary import LaterEngine
from tasks.train import MODEL

if TYPE_CHECKING:
    import numpy as np

    from deploy.engine import BuiltEngine, Provenance
    from deploy.targets import Target
    from tasks.evaluate import KpiCrops


@dataclass(frozen=True)
class CheckedEngine:
    """An engine of a target with its manifest; `reused` is True where build and check are an earlier run's."""

    target: str
    title: str
    directory: Path
    manifest: dict[str, Any]
    reused: bool

    @property
    def check(self) -> dict[str, Any]:
        """`state`, `reason`, `graph`, `parity`, `latency`, as `deploy.engine.EngineCheck`."""
        return self.manifest["check"]


def built_later(targets: Sequence[str]) -> list[LaterEngine]:
    """Those of `targets` whose engine is tied to a GPU that this machine has not, or to a TensorRT not here.

    Raises:
        SpecError: no such target.
    """
    from deploy.targets import find_target

    devices = [find_target(target) for target in targets]
    reasons = [(device, why_not_here(device)) for device in devices]
    return [LaterEngine(device.name, device.title, device.builder, why) for device, why in reasons if why]


def why_not_here(target: Target) -> str:
    """Why the engine of `target` has to be built on a device, or ''."""
    from deploy.builders.registry import BUILDERS
    from deploy.targets import GpuTarget

    if not isinstance(target, GpuTarget):
        return ""
    builder = BUILDERS[target.builder]
    probe = builder.probe()
    return builder.not_runnable(target) if probe.available else probe.reason


def build_and_check(
    onnx: Path,
    target: str,
    *,
    trained: StepOutput,
    crops: KpiCrops,
    provenance: Provenance,
    engines: Path,
) -> CheckedEngine:
    """The engine of `onnx` for `target`, compared with Keras: the engine where it can run here, else its graph.

    Args:
        trained: the network that `onnx` was exported from.
        crops: what to compare on.

    Raises:
        SpecError: no such target.
        EngineBuildError: its builder is not here, or made no engine.
        GateError: the engine is further from Keras than the target allows.
    """
    from pydantic import TypeAdapter

    from deploy.engine import EngineCheck, build_engine, write_manifest
    from deploy.targets import find_target

    device = find_target(target)
    built = build_engine(onnx, device, engines)
    key = step_key(
        "check",
        code="deploy.engine",
        engine=built.sha256,
        trained=trained.key,
        crops=crops.id,
        parity=device.gates.parity.model_dump(),
    )
    checked = reuse_or_run(engines / "checks", key, lambda _: _check(built, trained.directory / MODEL, crops()))
    check = TypeAdapter(EngineCheck).validate_python(checked.result)
    manifest = write_manifest(built, check, provenance)
    return CheckedEngine(target, device.title, built.directory, manifest, reused=built.reused and checked.reused)


def _check(built: BuiltEngine, model: Path, images_BSSC: np.ndarray) -> dict[str, Any]:
    from deploy.engine import check_engine
    from deploy.parity import keras_predictions
    from model.weights import load_network

    expected = keras_predictions(load_network(model), images_BSSC)
    return dataclasses.asdict(check_engine(built, expected, images_BSSC))
