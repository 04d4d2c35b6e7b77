"""Engines: built once for what goes in, here or on a device, checked against Keras, described by a manifest.

`deploy.engine_directory` says what `<engines>/<build_key>/` holds. The way of an engine:

    build_engine       here; a GPU target needs its GPU here
    build_engine_on    on a device of the target; graph, log and engine come to lie here all the same
    check_engine       its graph in any case, itself where it runs here, or by what a device measured
    write_manifest     then it can be staged and delivered
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from deploy.builder_graph import require_opset, require_readable
from deploy.builders.base import BuildResult, Predictions, Probe
from deploy.builders.registry import BUILDERS, require_here
from deploy.calibration import Crops
from deploy.device.build import build_there
from deploy.device.facts import DeviceFacts, read_facts, require_match
from deploy.device.here import run_here
from deploy.engine_directory import MANIFEST, MODEL, RECORD, BuiltEngine, fill, is_whole, read_engine
from deploy.onnx_export import summarise
from deploy.parity import Latency, Parity, compare, graph_predictions
from deploy.precision import calibration_sha256, graph_in
from deploy.shells.base import Shell
from deploy.target_gates import TargetGate, gate_engine, parity_gates, require_reached
from deploy.targets import GpuTarget, Target
from schemas.errors import EngineBuildError
from schemas.source_code import code_version
from schemas.storage import make_folder, read_json, sha256_of, write_json

KEY_LENGTH = 20
GRAPH_CODE = "deploy.precision"
NOT_RUN_HERE = "not run here"


@dataclass(frozen=True)
class EngineCheck:
    """An engine against Keras.

    Attributes:
        state: `passed`, or `not run here` for an engine that this machine can't run; a failed check is a GateError.
        reason: why it was not run, or ''.
        graph: the engine's `model.onnx` (in the target's precision) as `graph_predictions` runs it, against Keras.
        parity, latency: of the engine itself; None where it was not run.
        gates: every number of the engine that the target asks for, with its bound.
        device: that measured it; '' for this machine.
    """

    state: Literal["passed", "not run here"]
    reason: str
    graph: Parity
    parity: Parity | None
    latency: Latency | None
    gates: tuple[TargetGate, ...] = ()
    device: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True)
class EngineRun:
    """What running an engine gave: predictions of the crops asked for, and the time of a call (`deploy.device`)."""

    predictions: Predictions
    latency: Latency
    device: str


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from. `model_version` is the registry's, '' outside a registry."""

    model_name: str
    model_version: str
    snapshot_id: str


def build_key(
    onnx_sha256: str, target: Target, versions: dict[str, str], *, calibration_sha256: str | None = None
) -> str:
    """Names all that decides what an engine is: also our code, so that no engine stays that it would not make now.

    Of the code without the catalogue beside it: what of a target makes another engine is among its build settings.
    """
    code = (GRAPH_CODE, BUILDERS[target.builder].recipe)
    parts = {
        "code": [code_version(module, data=False) for module in code],
        "onnx": onnx_sha256,
        "settings": target.build_settings(),
        "versions": versions,
        "calibration": calibration_sha256,
    }
    return sha256_of(parts)[:KEY_LENGTH]


def build_engine(onnx: Path, target: Target, engines: Path, *, calibration: Crops | None = None) -> BuiltEngine:
    """The engine for `target` of an exported ONNX file: the one below `engines` if it is whole, else a new one.

    A build may be killed at any moment: the next one starts anew, and finished engines are never touched.

    Args:
        calibration: training faces, for int8 and mixed.

    Raises:
        ModelFileError: `onnx` can't be used for this target.
        CalibrationError: int8 or mixed, and no faces that calibrate.
        EngineBuildError: its builder is not here, or made no engine.
        EngineMismatchError: it is for another GPU or another TensorRT than are here.
    """
    builder = BUILDERS[target.builder]

    def build(model: Path, directory: Path) -> BuildResult:
        return builder.build(model, target, directory)

    made = _Maker(builder.versions(), lambda: require_here(target), build, None)
    return _built(onnx, target, engines, made, calibration)


def build_engine_on(
    shell: Shell,
    onnx: Path,
    target: Target,
    engines: Path,
    *,
    program: str,
    facts: DeviceFacts | None = None,
    calibration: Crops | None = None,
) -> BuiltEngine:
    """As `build_engine`, on a device of the target, whose versions count. The graph is prepared here.

    Args:
        program: see `deploy.devices.program_of`.
        facts: of `read_facts`, where they are known.

    Raises:
        EngineMismatchError: the device is no device of the target.
        DeviceOfflineError: it does not answer, or went away; nothing half-written is left.
        StorageError: its disk is full.
    """
    facts = facts or read_facts(shell, target, program=program)
    require_match(facts, target)
    if not isinstance(target, GpuTarget):
        raise EngineBuildError(f"engines of target '{target.name}' need no device to be built: build them here")

    def build(model: Path, directory: Path) -> BuildResult:
        return build_there(shell, target, model, directory, program=program, facts=facts)

    said = Probe(True, f"{target.builder}, TensorRT {facts.tensorrt}, on {shell.name} ({facts.gpu})", facts.versions)
    made = _Maker(facts.versions, lambda: said, build, asdict(facts))
    return _built(onnx, target, engines, made, calibration)


@dataclass(frozen=True)
class _Maker:
    """`ready` is asked only where something is to be built; it says what builds, or raises EngineBuildError."""

    versions: dict[str, str]
    ready: Callable[[], Probe]
    build: Callable[[Path, Path], BuildResult]
    device: dict[str, Any] | None


def _built(onnx: Path, target: Target, engines: Path, maker: _Maker, calibration: Crops | None) -> BuiltEngine:
    summary = summarise(onnx)
    require_opset(summary.opset, target, str(onnx))
    faces = calibration_sha256(target, calibration)
    key = build_key(summary.sha256, target, maker.versions, calibration_sha256=faces)
    directory = engines / key
    make_folder(engines)
    with FileLock(engines / f".{key}.lock"):
        reused = is_whole(directory)
        if not reused:
            probe = maker.ready()
            prepared = graph_in(onnx, target, calibration=calibration)
            require_readable(prepared.model, target, f"{onnx} in {target.precision}")
            make_folder(directory)
            went_in = {
                "build_key": key,
                "target": target.build_settings(),
                "builder": probe.reason,
                "versions": probe.versions,
                "device": maker.device,
                "onnx_sha256": summary.sha256,
                "calibration_sha256": faces,
                "float_layers": list(prepared.float_layers),
            }
            fill(directory, prepared.model, maker.build, went_in)
    return read_engine(directory, target, reused=reused)


def check_engine(
    built: BuiltEngine, expected: Predictions, images_BSSC: np.ndarray, *, measured: EngineRun | None = None
) -> EngineCheck:
    """Compare an engine with Keras on crops (B, S, S, C), and time it where it can run, or take what a device found.

    Its ONNX graph is compared in any case, so that a loss of precision is seen before a device sees it.

    Args:
        expected: Keras's predictions of the same crops (`keras_predictions`).
        measured: of these crops, on a device.

    Raises:
        GateError: graph or engine do not reach the target's gates.
    """
    target = built.target
    graph = compare(expected, graph_predictions((built.directory / MODEL).read_bytes(), images_BSSC))
    require_reached(parity_gates(target, graph), f"the {target.precision} graph of target '{target.name}'")
    if measured is None:
        if reason := BUILDERS[target.builder].not_runnable(target):
            gates = gate_engine(target, size=built.size, not_measured=reason)
            return EngineCheck(NOT_RUN_HERE, reason, graph, None, None, gates)
        measured = EngineRun(*run_here(target, built.file, images_BSSC), "")
    parity = compare(expected, measured.predictions)
    gates = gate_engine(target, parity=parity, latency=measured.latency, size=built.size)
    require_reached(gates, f"the engine of target '{target.name}'")
    return EngineCheck("passed", "", graph, parity, measured.latency, gates, measured.device)


def write_manifest(
    built: BuiltEngine, check: EngineCheck, provenance: Provenance, *, ladder: Sequence[str] = ()
) -> dict[str, Any]:
    """Write `manifest.json` beside the engine, and return the one that is there then.

    What is known of an engine is kept: the same network may be registered again while its engine is in production,
    and a check that was not run then says nothing of one that passed.

    Args:
        ladder: the precisions that were tried, and why the faster ones were left (`deploy.ladder.Rung`), as text.
    """
    if check.state != "passed" and (known := _passed_manifest(built)) is not None:
        return known
    manifest = {
        **read_json(built.directory / RECORD),
        "precision": built.target.precision,
        "provenance": asdict(provenance),
        "check": {**asdict(check), "gates": [asdict(gate) for gate in check.gates]},
        "ladder": list(ladder),
        "reproduce": "reproduce.sh",
    }
    write_json(built.directory / MANIFEST, manifest)
    return manifest


def _passed_manifest(built: BuiltEngine) -> dict[str, Any] | None:
    """That of this very file, if it passed its check."""
    path = built.directory / MANIFEST
    manifest = read_json(path) if path.is_file() else None
    if manifest is None or manifest["engine_sha256"] != built.sha256 or manifest["check"]["state"] != "passed":
        return None
    return manifest
