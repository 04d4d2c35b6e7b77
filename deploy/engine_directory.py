"""What stands in an engine's directory, and whether all of it is there and as it was written.

`<engines>/<build_key>/` holds

    model.onnx      what the builder was given, in the target's precision
    engine.*        the engine
    timing.cache    what the builder measured, where it keeps that: with it, it chooses the same again
    reproduce.sh    makes the engine again
    build.log       what the builder said
    build.json      what went in and what came out; written last, so a directory without it is unfinished
    manifest.json   build.json, where the model comes from, and how the engine compares with Keras
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deploy.builders.base import BuildResult
from deploy.targets import Target, target_as_built
from schemas.errors import StorageError
from schemas.storage import read_json, remove_half_written, sha256_file, write_bytes, write_json

MODEL, LOG, SCRIPT, RECORD, MANIFEST = "model.onnx", "build.log", "reproduce.sh", "build.json", "manifest.json"

PACKAGES = ("fpenet-workflow", "keras", "numpy", "onnx", "protobuf", "tensorflow", "tensorflow-cpu", "tf2onnx")
"""What has a hand in a graph, from training to a target's precision."""


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
        device: where it was built: `DeviceFacts` as a dictionary; None for this machine.
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
    device: dict[str, Any] | None = None


def fill(directory: Path, model: bytes, build: Callable[[Path, Path], BuildResult], went_in: dict[str, Any]) -> None:
    """Build in `directory` and write down how. What an earlier build that was cut off has left goes first.

    Args:
        build: from the graph's file and the directory to the engine.
        went_in: what else the record says.
    """
    remove_half_written(directory)
    write_bytes(directory / MODEL, model)
    result = build(directory / MODEL, directory)
    write_bytes(directory / LOG, result.log.encode())
    write_bytes(directory / SCRIPT, script(result).encode())
    cache = result.timing_cache
    came_out = {
        "model_sha256": sha256_file(directory / MODEL),
        "engine": result.engine.name,
        "engine_sha256": sha256_file(result.engine),
        "engine_size": result.engine.stat().st_size,
        "seconds": round(result.seconds, 3),
        "script_sha256": sha256_file(directory / SCRIPT),
        "timing_cache": cache,
        "timing_cache_sha256": sha256_file(directory / cache) if cache else None,
        "packages": _installed(),
    }
    write_json(directory / RECORD, {**went_in, **came_out})


def _installed() -> dict[str, str]:
    """`PACKAGES` of this environment with their versions, without importing any."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def is_whole(directory: Path) -> bool:
    """Whether a build came to its end there, and graph and engine are still what it wrote."""
    if not (directory / RECORD).is_file():
        return False
    built = read_json(directory / RECORD)
    files = {built["engine"]: built["engine_sha256"], MODEL: built["model_sha256"]}
    return all((directory / name).is_file() and sha256_file(directory / name) == sha for name, sha in files.items())


def read_engine(directory: Path, target: Target | None = None, *, reused: bool = True) -> BuiltEngine:
    """The finished engine in `directory`.

    Args:
        target: None takes what it was built for (`deploy.targets.target_as_built`).

    Raises:
        SpecError: the catalogue does not have its target any more.
        StorageError: there is none, or its bytes are not those that were built.
    """
    if not is_whole(directory):
        raise StorageError(f"{directory}: no whole engine: unfinished, damaged or changed; build it again")
    built = read_json(directory / RECORD)
    return BuiltEngine(
        target=target or target_as_built(built["target"]),
        key=built["build_key"],
        directory=directory,
        file=directory / built["engine"],
        sha256=built["engine_sha256"],
        size=built["engine_size"],
        onnx_sha256=built["onnx_sha256"],
        versions=built["versions"],
        seconds=built["seconds"],
        reused=reused,
        device=built["device"],
    )


def script(result: BuildResult) -> str:
    """A shell script that makes the engine again, beside it."""
    if result.program == "python":
        program = "${PYTHON:-python}"
        what = "PYTHON names an interpreter with this project installed"
    else:
        program = f"${{TRTEXEC:-{result.program}}}"
        what = "TRTEXEC names another trtexec, of the same version of TensorRT"
    return (
        "#!/bin/sh\n"
        f"# Makes the engine again, beside this script; {what}.\n"
        'cd "$(dirname "$0")" || exit 1\n'
        f'exec "{program}" {shlex.join(result.command)}\n'
    )
