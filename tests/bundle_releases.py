"""Engines at a stage, for tests of bundles. Plans are stand-ins: no TensorRT is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from deploy import stages
from deploy.bundle.release import Release, release_at
from deploy.device.facts import DeviceFacts
from deploy.engine import NOT_RUN_HERE, EngineCheck, Provenance
from deploy.parity import Latency, Parity
from deploy.pointers import Stage
from deploy.precision import graph_in
from deploy.target_gates import gate_engine
from deploy.targets import Target, find_target
from schemas.storage import sha256_file, write_bytes, write_json
from tests.calibration_crops import FixedCrops
from tests.small_graphs import pictures

STAND_IN_PLAN = b"stand-in for a TensorRT plan"
SNAPSHOT = "0123456789abcdef" * 4
PX = {"All": 0.0125, "Eyes": 0.025}
PARITY = Parity(faces=6, mean_px=PX, p95_px=PX, max_px=PX, max_confidence=1e-3, mean_confidence=1e-2)
LATENCY = Latency(batch=1, runs=200, p50_ms=2.0, p90_ms=2.5, p99_ms=4.0)
NOT_RUN = EngineCheck(NOT_RUN_HERE, "needs a GPU", PARITY, None, None)
PASSED = EngineCheck("passed", "", PARITY, PARITY, LATENCY)
NANO = DeviceFacts("Tegra X1", 53, "8.2.1", "4.6.1", None, 1 << 30, "nano-7")
TIMINGS = b"timings"


def measured_on(device: DeviceFacts, target: Target) -> EngineCheck:
    """What a device's own run of an engine leaves."""
    gates = gate_engine(target, parity=PARITY, latency=LATENCY, size=len(STAND_IN_PLAN))
    return replace(PASSED, gates=gates, device=device.device)


def engine_directory(
    root: Path,
    onnx: Path,
    target: Target,
    *,
    check: EngineCheck = NOT_RUN,
    build: Callable[[Path], bytes] | None = None,
    device: DeviceFacts | None = None,
) -> Path:
    """A directory as `build_engine` and `write_manifest` leave it. `build` makes the engine of the graph."""
    directory = root / "engines" / f"key-of-{target.name}"
    name = "engine.onnx" if target.builder == "onnxruntime" else "engine.plan"
    prepared = graph_in(onnx, target, calibration=FixedCrops(pictures(32)))
    write_bytes(directory / "model.onnx", prepared.model)
    write_bytes(directory / name, build(directory / "model.onnx") if build else STAND_IN_PLAN)
    write_bytes(directory / "reproduce.sh", b"#!/bin/sh\n")
    if device:
        write_bytes(directory / "timing.cache", TIMINGS)
    manifest = {
        "build_key": directory.name,
        "target": target.build_settings(),
        "builder": f"{target.builder}, as in a test",
        "versions": device.versions if device else {target.builder: "1.2.3"},
        "device": device and asdict(device),
        "script_sha256": sha256_file(directory / "reproduce.sh"),
        "timing_cache": "timing.cache" if device else None,
        "timing_cache_sha256": sha256_file(directory / "timing.cache") if device else None,
        "packages": {"onnx": "1.2.3", "tf2onnx": "4.5.6"},
        "float_layers": list(prepared.float_layers),
        "ladder": [],
        "onnx_sha256": sha256_file(onnx),
        "model_sha256": sha256_file(directory / "model.onnx"),
        "engine": name,
        "engine_sha256": sha256_file(directory / name),
        "engine_size": (directory / name).stat().st_size,
        "seconds": 1.0,
        "precision": target.precision,
        "provenance": asdict(Provenance("fpenet", "7", SNAPSHOT)),
        "check": asdict(check),
        "reproduce": "reproduce.sh",
    }
    write_json(directory / "manifest.json", manifest)
    return directory


def staged(
    root: Path,
    onnx: Path,
    target: str,
    *,
    at: Stage = "staging",
    check: EngineCheck = NOT_RUN,
    device: DeviceFacts | None = None,
) -> Release:
    """The engine of a target of the catalogue at a stage.

    Args:
        onnx: `<exports>/<key>/model.onnx`.
        device: where it was built and measured.
    """
    kind = find_target(target)
    build = Path.read_bytes if kind.builder == "onnxruntime" else None
    check = measured_on(device, kind) if device else check
    directory = engine_directory(root, onnx, kind, check=check, build=build, device=device)
    stages.stage(root / "targets", target, directory, by="test", why="test")
    if at != "staging":
        stages.promote(root / "targets", target, by="test", why="test")
    return release_at(root / "targets", target, at, exports=onnx.parent.parent)
