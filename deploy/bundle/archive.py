"""Bundles on disk: a folder or a `.tar.gz` of it, the same bytes each time, there whole or not at all."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from schemas.errors import InputError, SignatureError
from schemas.storage import fsync_directory, make_folder, temporary_name, write_bytes

ENGINE_FOLDER = "engine"
ENGINE_MANIFEST = f"{ENGINE_FOLDER}/manifest.json"
SUFFIXES = (".tar.gz", ".tgz")
TIME = 315532800
"""1980-01-01 UTC on every member: nothing of when and where a bundle was made, and no tool warns of it."""
SCRIPTS = (".sh",)
_DAMAGED = (
    tarfile.TarError,
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    ValueError,
    OverflowError,
    RecursionError,
)
"""What the readers raise at headers that nobody means."""


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

    An archive must have the very bytes, once decompressed, that `write_bundle` makes of these files: readers of tar
    differ in what they take for a member, so another one could unpack what was not verified. In a folder modes are
    those of whoever unpacked it, and not looked at.

    Raises:
        InputError: neither a folder nor an archive is there.
        SignatureError: it holds what no bundle does: links, special files, paths that lead out of it, and in an
            archive whatever else is not of its files. The message begins with the path.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file() or not is_archive(path):
        raise InputError(f"{path}: there is no bundle: neither a folder nor a file *{' or *'.join(SUFFIXES)}")
    try:
        unpacked = gzip.decompress(path.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            members = [_member(path, archive, member) for member in iter(archive.next, None)]
        files = {name: content for _, name, content in members}
        folders = {folder for folder, _, _ in members}
        if len(folders) != 1 or len(files) < len(members):
            raise SignatureError(f"{path}: does not hold one folder, or holds a file twice: no bundle does")
        same = unpacked == _tar(folders.pop(), files)
    except _DAMAGED as error:
        raise SignatureError(f"{path}: not a whole archive: {error}") from error
    if not same:
        raise SignatureError(
            f"{path}: other modes, or more than its files: not as `fpenet bundle` packs; get the archive from the "
            "signer again, or unpack it and verify the folder"
        )
    return files


def _packed(name: str, files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as compressed:
        compressed.write(_tar(name, files))
    return packed.getvalue()


def _tar(name: str, files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for inner, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{name}/{inner}")
            member.size, member.mtime, member.mode = len(content), TIME, _mode(inner)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _mode(inner: str) -> int:
    return 0o755 if inner.endswith(SCRIPTS) else 0o644


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Under a temporary name first: a folder appears whole."""
    temporary = path.with_name(temporary_name(path.name))
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


def _member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, str, bytes]:
    """The archive's folder, the path below it, and the content; nothing is unpacked to disk."""
    folder, *parts = member.name.split("/")
    if not parts or {"", ".", ".."} & {folder, *parts}:
        raise SignatureError(f"{path}: {member.name}: a path that leads out: no bundle holds such")
    content = archive.extractfile(member) if member.isreg() and member.size >= 0 else None
    if content is None:
        raise SignatureError(f"{path}: {member.name}: a link, a folder or a special file: no bundle holds such")
    return folder, "/".join(parts), content.read()
