"""Writes that a crash can't leave half done, and the hashes that name content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.errors import StorageError

_REFUSED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EROFS,
    errno.EFBIG,
    errno.EISDIR,
    errno.ENOTDIR,
)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_of(value: Any) -> str:
    """Hex SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_TEMPORARY = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.tmp(\.[^.]*)?")


def temporary_name(name: str) -> str:
    """A hidden name to write a file under, each time another. It says when that began: what was cut off grows old."""
    return f".{name}.{int(time.time())}-{secrets.token_hex(4)}.tmp"


def is_half_written(path: Path) -> bool:
    """Whether it is a file under a `temporary_name`: also of a process that works, which no lock keeps away."""
    return _TEMPORARY.fullmatch(path.name) is not None and path.is_file()


def remove_half_written(folder: Path) -> None:
    """Remove below `folder` what `atomic_path` had no chance to when a process was killed. Nobody may write there."""
    for path in folder.rglob(".*.tmp*"):
        if is_half_written(path):
            path.unlink()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success fsync it and rename it to `path`.

    On an exception the temporary file is removed and `path` is as it was. For libraries that want a file name.
    Threads and processes that write the same file have a name each; the last one's content stays.

    Raises:
        StorageError: the disk is full, or the place can't be written; the message names the file.
    """
    temporary = path.with_name(f"{temporary_name(path.name)}{path.suffix}")
    make_folder(path.parent)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        if error.errno in _REFUSED or error.filename == str(temporary):
            raise StorageError(
                f"{path}: can't be written: {error.strerror}. Nothing half-written is left; "
                "free space or choose another place, and run the same command again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, atomically and durably."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_private(path: Path, data: bytes) -> None:
    """As `write_bytes`, readable by its owner only from the first byte on."""
    with atomic_path(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(data)


def append_bytes(path: Path, data: bytes) -> None:
    """Add `data` to the end of `path` in one write, durably: a log, of which only the end can be lost.

    What the disk has no room for is taken back, so that the next line does not follow half of one.

    Raises:
        StorageError: the disk is full, or the place can't be written.
    """
    make_folder(path.parent)
    try:
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            if file.write(data) < len(data):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _REFUSED:
            raise StorageError(
                f"{path}: can't be written: {error.strerror}; free space, or choose another"
            ) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        StorageError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: can't be made: {error.strerror}; choose another place") from error


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by indented JSON, atomically and durably."""
    write_bytes(
        path,
        json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n",
    )


def read_json(path: Path) -> Any:
    """What a file that this project wrote holds.

    Raises:
        StorageError: it is no JSON any more.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise StorageError(f"{path}: is damaged, no JSON: {error}; restore it from a backup") from error
