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

    from deploy.builders.base import Predictions
    from deploy.engine import BuiltEngine, Provenance
    from deploy.targets import Target
    from tasks.calibration import CalibrationCrops
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
    calibration: CalibrationCrops,
    provenance: Provenance,
    engines: Path,
) -> CheckedEngine:
    """The engine of `onnx` for `target`, compared with Keras: the engine where it can run here, else its graph.

    An INT8 target whose graph is too far from Keras gets the next precision: see `deploy.ladder`.

    Args:
        trained: the network that `onnx` was exported from.
        crops: what to compare on.
        calibration: what INT8 is calibrated on.

    Raises:
        SpecError: no such target.
        CalibrationError: INT8, and too few training faces.
        EngineBuildError: its builder is not here, or made no engine.
        GateError: the engine is further from Keras than the target allows, in every precision.
    """
    from pydantic import TypeAdapter

    from deploy.engine import EngineCheck, build_engine, write_manifest
    from deploy.targets import find_target

    listed = find_target(target)
    device, tried = _close_enough(onnx, listed, trained, crops, calibration, engines)
    built = build_engine(onnx, device, engines, calibration=calibration)
    key = step_key(
        "check",
        code="deploy.engine",
        engine=built.sha256,
        settings=device.build_settings(),
        trained=trained.key,
        crops=crops.id,
        gates=device.gates.model_dump(),
    )
    checked = reuse_or_run(engines / "checks", key, lambda _: _check(built, trained.directory / MODEL, crops()))
    check = TypeAdapter(EngineCheck).validate_python(checked.result)
    manifest = write_manifest(built, check, provenance, ladder=tried)
    return CheckedEngine(target, listed.title, built.directory, manifest, reused=built.reused and checked.reused)


def _close_enough(
    onnx: Path,
    target: Target,
    trained: StepOutput,
    crops: KpiCrops,
    calibration: CalibrationCrops,
    engines: Path,
) -> tuple[Target, list[str]]:
    """The target in the fastest precision whose graph is close enough, and why faster ones were left."""
    from deploy.ladder import climb, precisions

    if len(precisions(target)) == 1:
        return target, []  # the check of its engine compares the graph

    def run(_directory: Path) -> dict[str, Any]:
        images_BSSC = crops()
        expected = _expected(trained.directory / MODEL, images_BSSC)
        ladder = climb(onnx, target, expected=expected, images_BSSC=images_BSSC, calibration=calibration)
        left = [str(rung) for rung in ladder.rungs if rung.failure]
        return {"precision": ladder.require(target).precision, "left": left}

    key = step_key(
        "ladder",
        code="deploy.ladder",
        trained=trained.key,
        target=target.model_dump(mode="json"),
        crops=[crops.id, calibration.id],
    )
    found = reuse_or_run(engines / "checks", key, run).result
    return target.model_copy(update={"precision": found["precision"]}), found["left"]


def _expected(model: Path, images_BSSC: np.ndarray) -> Predictions:
    from deploy.parity import keras_predictions
    from model.weights import load_network

    return keras_predictions(load_network(model), images_BSSC)


def _check(built: BuiltEngine, model: Path, images_BSSC: np.ndarray) -> dict[str, Any]:
    from deploy.engine import check_engine

    return dataclasses.asdict(check_engine(built, _expected(model, images_BSSC), images_BSSC))
