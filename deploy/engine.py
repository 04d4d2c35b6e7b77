"""Engines: built once for what goes in, checked against Keras, described by a manifest.

`<engines>/<build_key>/` holds

    model.onnx      what the builder was given, in the target's precision
    engine.*        the engine
    reproduce.sh    makes the engine again
    build.log       what the builder said
    build.json      what went in and what came out; written last, so a directory without it is unfinished
    manifest.json   build.json, where the model comes from, and how the engine compares with Keras
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from deploy.builders.base import BuildResult, Predictions
from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.registry import BUILDERS
from deploy.onnx_export import load_onnx, summarise
from deploy.onnx_graph import check_readable, to_float16
from deploy.parity import Latency, Parity, compare, measure_latency, require_parity
from deploy.targets import ParityBound, Target
from schemas.errors import EngineBuildError, ModelFileError, StorageError
from schemas.storage import read_json, sha256_file, sha256_of, write_bytes, write_json

KEY_LENGTH = 20
NOT_RUN_HERE = "not run here"


@dataclass(frozen=True)
class BuiltEngine:
    """An engine file and what it was made of.

    Attributes:
        key: `build_key` of what went in; names the directory.
        directory, file: where it is.
        sha256, size: of the engine's bytes. TensorRT does not build the same bytes twice, so they are not the key.
        onnx_sha256: of the exported ONNX file, before a change of precision.
        versions: package -> exact version that built it.
        seconds: how long the build took.
        reused: True if it was there already and whole.
    """

    target: Target
    key: str
    directory: Path
    file: Path
    sha256: str
    size: int
    onnx_sha256: str
    versions: dict[str, str]
    seconds: float
    reused: bool


@dataclass(frozen=True)
class EngineCheck:
    """An engine against Keras.

    Attributes:
        state: `passed`, or `not run here` for an engine that this machine can't run; a failed check is a GateError.
        reason: why it was not run, or ''.
        graph: the engine's `model.onnx` (in the target's precision) in ONNX Runtime against Keras.
        parity, latency: of the engine itself; None where it was not run.
    """

    state: Literal["passed", "not run here"]
    reason: str
    graph: Parity
    parity: Parity | None
    latency: Latency | None

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from. `model_version` is the registry's, '' outside a registry."""

    model_name: str
    model_version: str
    snapshot_id: str


def build_key(
    onnx_sha256: str, target: Target, versions: dict[str, str], *, calibration_sha256: str | None = None
) -> str:
    """Names all that decides what an engine is."""
    parts = {
        "onnx": onnx_sha256,
        "settings": target.build_settings(),
        "versions": versions,
        "calibration": calibration_sha256,
    }
    return sha256_of(parts)[:KEY_LENGTH]


def build_engine(onnx: Path, target: Target, engines: Path) -> BuiltEngine:
    """The engine for `target` of an exported ONNX file: the one below `engines` if it is whole, else a new one.

    A build may be killed at any moment: the next one starts anew, and finished engines are never touched.

    Raises:
        ModelFileError: `onnx` can't be used for this target.
        EngineBuildError: its builder is not here, or made no engine.
    """
    summary = summarise(onnx)
    if summary.opset > target.opset_ceiling:
        raise ModelFileError(
            f"{onnx}: opset {summary.opset} is above {target.opset_ceiling}, the newest that target "
            f"'{target.name}' reads; export with a lower opset"
        )
    builder = BUILDERS[target.builder]
    versions = builder.versions()
    key = build_key(summary.sha256, target, versions)
    directory = engines / key
    engines.mkdir(parents=True, exist_ok=True)
    with FileLock(engines / f".{key}.lock"):
        reused = _whole(directory)
        if not reused:
            directory.mkdir(exist_ok=True)
            _build(onnx, target, directory, key)
    return read_engine(directory, target, reused=reused)


def _build(onnx: Path, target: Target, directory: Path, key: str) -> None:
    builder = BUILDERS[target.builder]
    probe = builder.probe()
    if not probe.available:
        raise EngineBuildError(f"target '{target.name}': {builder.name} does not build here: {probe.reason}")
    for leftover in directory.glob(".*.tmp*"):
        leftover.unlink()
    model = directory / "model.onnx"
    write_bytes(model, _in_precision(onnx, target))
    result = builder.build(model, target, directory)
    write_bytes(directory / "build.log", result.log.encode())
    write_bytes(directory / "reproduce.sh", _script(result).encode())
    write_json(
        directory / "build.json",
        {
            "build_key": key,
            "target": target.build_settings(),
            "builder": probe.reason,
            "versions": probe.versions,
            "onnx_sha256": sha256_file(onnx),
            "model_sha256": sha256_file(model),
            "engine": result.engine.name,
            "engine_sha256": sha256_file(result.engine),
            "engine_size": result.engine.stat().st_size,
            "seconds": round(result.seconds, 3),
        },
    )


def _in_precision(onnx: Path, target: Target) -> bytes:
    if target.precision == "fp32":
        return onnx.read_bytes()
    half = to_float16(load_onnx(onnx), summarise(onnx).num_keypoints)
    check_readable(half, f"{onnx} in FP16")
    return half.SerializeToString(deterministic=True)


def _script(result: BuildResult) -> str:
    return (
        "#!/bin/sh\n"
        "# Makes the engine again, beside this script; PYTHON names an interpreter with this project installed.\n"
        'cd "$(dirname "$0")" || exit 1\n'
        f'exec "${{PYTHON:-python}}" {shlex.join(result.command)}\n'
    )


def _whole(directory: Path) -> bool:
    record = directory / "build.json"
    if not record.is_file():
        return False
    built = read_json(record)
    files = {built["engine"]: built["engine_sha256"], "model.onnx": built["model_sha256"]}
    return all((directory / name).is_file() and sha256_file(directory / name) == sha for name, sha in files.items())


def read_engine(directory: Path, target: Target, *, reused: bool = True) -> BuiltEngine:
    """The finished engine in `directory`.

    Raises:
        StorageError: there is none, or its bytes are not those that were built.
    """
    if not _whole(directory):
        raise StorageError(f"{directory}: no whole engine: unfinished, damaged or changed; build it again")
    built = read_json(directory / "build.json")
    return BuiltEngine(
        target=target,
        key=built["build_key"],
        directory=directory,
        file=directory / built["engine"],
        sha256=built["engine_sha256"],
        size=built["engine_size"],
        onnx_sha256=built["onnx_sha256"],
        versions=built["versions"],
        seconds=built["seconds"],
        reused=reused,
    )


def check_engine(
    built: BuiltEngine, expected: Predictions, images_BSSC: np.ndarray, *, bound: ParityBound | None = None
) -> EngineCheck:
    """Compare an engine with Keras on crops (B, S, S, C), and time it where it can run.

    Its ONNX graph is compared in any case, so that a loss of precision is seen before a device sees it.

    Args:
        expected: Keras's predictions of the same crops (`keras_predictions`).
        bound: instead of the target's.

    Raises:
        GateError: graph or engine is beyond the bound in a region.
    """
    target, builder = built.target, BUILDERS[built.target.builder]
    bound = bound or target.gates.parity
    graph = compare(expected, OnnxRuntimeEngine(built.directory / "model.onnx").predict(images_BSSC))
    require_parity(graph, bound, f"the {target.precision} graph of target '{target.name}'")
    reason = builder.not_runnable(target)
    if reason:
        return EngineCheck(NOT_RUN_HERE, reason, graph, None, None)
    engine = builder.open_engine(built.file, target)
    parity = compare(expected, engine.predict(images_BSSC))
    require_parity(parity, bound, f"the engine of target '{target.name}'")
    latency = measure_latency(engine, images_BSSC, batch=target.batch.optimum)
    return EngineCheck("passed", "", graph, parity, latency)


def write_manifest(built: BuiltEngine, check: EngineCheck, provenance: Provenance) -> dict[str, Any]:
    """Write `manifest.json` beside the engine, and return it."""
    manifest = {
        **read_json(built.directory / "build.json"),
        "precision": built.target.precision,
        "provenance": asdict(provenance),
        "check": asdict(check),
        "reproduce": "reproduce.sh",
    }
    write_json(built.directory / "manifest.json", manifest)
    return manifest
