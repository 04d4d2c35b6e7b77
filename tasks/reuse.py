"""Reuse by content: a step's output is named by what went into it, and checked before it is used again.

The key of a step is a hash of its name, its inputs' ids, its configuration and its code. The output is a
directory `<parent>/<key>/` with a `manifest.json` that lists every file and its SHA-256. The directory appears
under its name only when it is complete; until then it is `<parent>/.<key>.partial/`, which a rerun continues. What
it replaces stands there until then, and for the moment of the exchange in `<parent>/.<key>.replaced/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from schemas.errors import StorageError
from schemas.source_code import code_version
from schemas.storage import (
    fsync_directory,
    make_folder,
    read_json,
    remove_half_written,
    sha256_file,
    sha256_of,
    write_json,
)

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


def reuse_or_run(
    parent: Path,
    key: str,
    run: Callable[[Path], dict[str, Any]],
    *,
    is_current: Callable[[dict[str, str]], bool] = lambda files: True,
) -> StepOutput:
    """The output `<parent>/<key>/`: the one there if it is whole and current, else what `run(directory)` makes.

    `run` gets a directory that may hold what an interrupted run left, and returns a JSON dictionary. One process
    at a time works on a key; the others wait and find it done.

    Args:
        is_current: is asked about a whole output, by its files' names and SHA-256, whether it will do.
    """
    directory, partial, replaced = parent / key, parent / f".{key}.partial", parent / f".{key}.replaced"
    make_folder(parent)
    with FileLock(parent / f".{key}.lock"):
        _end_exchange(directory, replaced)
        finished = _verified_manifest(directory)
        if finished is not None and is_current(finished["files"]):
            return StepOutput(key, directory, finished["result"], reused=True)
        make_folder(partial)
        remove_half_written(partial)
        result = run(partial)
        files = {
            str(path.relative_to(partial)): sha256_file(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        }
        write_json(partial / "manifest.json", {"key": key, "files": files, "result": result})
        if directory.exists():
            directory.rename(replaced)
        partial.rename(directory)
        fsync_directory(parent)
        _end_exchange(directory, replaced)
    return StepOutput(key, directory, result, reused=False)


def _end_exchange(directory: Path, replaced: Path) -> None:
    """Remove what `directory` has replaced, or put it back where a run was killed before anything took its place."""
    if replaced.exists():
        if directory.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(directory)


def _verified_manifest(directory: Path) -> dict[str, Any] | None:
    path = directory / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except StorageError:
        return None
    whole = all(
        (directory / name).is_file() and sha256_file(directory / name) == digest
        for name, digest in manifest["files"].items()
    )
    return manifest if whole else None
