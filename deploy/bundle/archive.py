"""Bundles on disk: a folder or a `.tar.gz` of it, the same bytes each time, there whole or not at all."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import InputError, SignatureError
from schemas.storage import fsync_directory, make_folder, write_bytes

ENGINE_FOLDER = "engine"
ENGINE_MANIFEST = f"{ENGINE_FOLDER}/manifest.json"
SUFFIXES = (".tar.gz", ".tgz")
TIME = 315532800
"""1980-01-01 UTC on every member: nothing of when and where a bundle was made, and no tool warns of it."""
SCRIPTS = (".sh",)
_FILE_MODES, _FOLDER_MODES = (0o644, 0o755), (0o755,)


def is_archive(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def write_bundle(path: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write the files to the folder `path`, or to the archive `path` below a folder `name`.

    An archive is replaced. A folder that is there may be empty, and is left alone if it holds just these files.

    Raises:
        InputError: the folder holds something else.
        StorageError: the disk is full, or the place can't be written.
    """
    if is_archive(path):
        write_bytes(path, _packed(name, files))
    elif not path.exists() or (path.is_dir() and not any(path.iterdir())):
        _write_folder(path, files)
    elif not path.is_dir() or _read_folder(path) != dict(files):
        raise InputError(f"{path}: is there and is not this bundle; name another place, or remove it")


def read_bundle(path: Path) -> dict[str, bytes]:
    """Every file of a bundle: path inside it -> content.

    Raises:
        InputError: neither a folder nor an archive is there.
        SignatureError: it holds what no bundle does: links, special files, paths that lead out of it, folders and
            files that others may write or that run as their owner. The message begins with the path.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file() or not is_archive(path):
        raise InputError(f"{path}: there is no bundle: neither a folder nor a file *{' or *'.join(SUFFIXES)}")
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = [_member(path, archive, member) for member in archive.getmembers()]
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SignatureError(f"{path}: not a whole archive: {error}") from error
    files = [(name, content) for _, name, content in members if content is not None]
    if len({folder for folder, _, _ in members}) > 1 or len(dict(files)) < len(files):
        raise SignatureError(f"{path}: holds more than one folder, or a file twice: no bundle does")
    return dict(files)


def _packed(name: str, files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for inner, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{name}/{inner}")
            member.size, member.mtime, member.mode = len(content), TIME, _mode(inner)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _mode(inner: str) -> int:
    return 0o755 if inner.endswith(SCRIPTS) else 0o644


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Under a temporary name first: a folder appears whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    make_folder(path.parent)
    try:
        for inner, content in sorted(files.items()):
            write_bytes(temporary / inner, content)
            (temporary / inner).chmod(_mode(inner))
        temporary.rename(path)
        fsync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_folder(path: Path) -> dict[str, bytes]:
    files = {}
    for inner in sorted(path.rglob("*")):
        if inner.is_symlink() or not (inner.is_file() or inner.is_dir()):
            raise SignatureError(f"{path}: {inner.relative_to(path)}: a link or a special file: no bundle holds such")
        if inner.is_file():
            files[inner.relative_to(path).as_posix()] = inner.read_bytes()
    return files


def _member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, str, bytes | None]:
    """The archive's folder, the path below it, and the content, None for a folder; nothing is unpacked to disk."""
    parts = [part for part in member.name.split("/") if part != "."]
    if "" in parts or ".." in parts or len(parts) < (1 if member.isdir() else 2):
        raise SignatureError(f"{path}: {member.name}: a path that leads out: no bundle holds such")
    if not (member.isreg() or member.isdir()):
        raise SignatureError(f"{path}: {member.name}: a link or a special file: no bundle holds such")
    if member.mode not in (_FOLDER_MODES if member.isdir() else _FILE_MODES):
        raise SignatureError(f"{path}: {member.name}: has mode {member.mode:04o}, which nothing in a bundle has")
    content = archive.extractfile(member)
    return parts[0], "/".join(parts[1:]), content and content.read()
