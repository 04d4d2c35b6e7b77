"""Reuse by content: a step's output is named by what went into it, and checked before it is used again.

The key of a step is a hash of its name, its inputs' ids, its configuration and its code. The output is a
directory `<parent>/<key>/` with a `manifest.json` that lists every file and its SHA-256. The directory appears
under its name only when it is complete; until then it is `<parent>/.<key>.partial/`, which a rerun continues.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from schemas.storage import fsync_directory, read_json, sha256_file, sha256_of, write_json

OUR_PACKAGES = ("flows", "tasks", "deploy", "model", "schemas")
SOURCE_ROOT = Path(__file__).resolve().parent.parent
DATA_SUFFIXES = (".json", ".yaml", ".html")
KEY_LENGTH = 20


@dataclass(frozen=True)
class StepOutput:
    """A step's finished output.

    Attributes:
        key: names what went in.
        directory: holds the files and `manifest.json`.
        result: what the step returned, JSON.
        reused: True if an earlier run had made it.
    """

    key: str
    directory: Path
    result: dict[str, Any]
    reused: bool


def step_key(name: str, *, code: str, **inputs: Any) -> str:
    """Key of a step: `inputs` are JSON values, `code` is the module whose import closure does the work."""
    return sha256_of({"step": name, "code": code_version(code), "inputs": inputs})[:KEY_LENGTH]


def reuse_or_run(parent: Path, key: str, run: Callable[[Path], dict[str, Any]]) -> StepOutput:
    """The output `<parent>/<key>/`: the one that is there if it is whole, else what `run(directory)` makes.

    `run` gets a directory that may hold what an interrupted run left, and returns a JSON dictionary. One process
    at a time works on a key; the others wait and find it done.
    """
    directory, partial = parent / key, parent / f".{key}.partial"
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / f".{key}.lock"):
        finished = _verified_manifest(directory)
        if finished is not None:
            return StepOutput(key, directory, finished["result"], reused=True)
        partial.mkdir(exist_ok=True)
        _remove_half_written(partial)
        result = run(partial)
        files = {
            str(path.relative_to(partial)): sha256_file(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        }
        write_json(partial / "manifest.json", {"key": key, "files": files, "result": result})
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
        fsync_directory(parent)
    return StepOutput(key, directory, result, reused=False)


def _remove_half_written(directory: Path) -> None:
    """What `schemas.storage.atomic_path` had no chance to remove when a run was killed. Call it under the lock."""
    for leftover in directory.rglob(".*.tmp*"):
        if leftover.is_file():
            leftover.unlink()


def _verified_manifest(directory: Path) -> dict[str, Any] | None:
    path = directory / "manifest.json"
    if not path.is_file():
        return None
    manifest = read_json(path)
    whole = all(
        (directory / name).is_file() and sha256_file(directory / name) == digest
        for name, digest in manifest["files"].items()
    )
    return manifest if whole else None


@lru_cache
def code_version(module: str) -> str:
    """Hash of the sources of `module` and of every module of ours that it imports, directly or not.

    Imports inside functions count, so nothing that can run is left out; so do the data files (schemas, templates)
    beside a module that its source names.
    """
    digests: dict[str, str] = {}
    waiting = [module]
    while waiting:
        path = _module_file(waiting.pop())
        if path is None or (name := str(path.relative_to(SOURCE_ROOT))) in digests:
            continue
        source = path.read_text()
        digests[name] = hashlib.sha256(source.encode()).hexdigest()
        for data in sorted(path.parent.iterdir()):
            if data.suffix in DATA_SUFFIXES and data.name in source:
                digests[str(data.relative_to(SOURCE_ROOT))] = sha256_file(data)
        waiting += _imported_names(source)
    return sha256_of(digests)[:KEY_LENGTH]


def _imported_names(source: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _module_file(name: str) -> Path | None:
    """The file of a module of ours, found without importing it (TensorFlow takes 9 s); None for anything else."""
    if name.split(".")[0] not in OUR_PACKAGES:
        return None
    place = SOURCE_ROOT.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None
