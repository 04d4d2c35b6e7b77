"""This machine as a device."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from deploy.builders.process import Finished, run_program
from deploy.shells.base import REMOVALS
from schemas.errors import DeviceError, StorageError
from schemas.storage import atomic_path, make_folder, sha256_file, write_bytes


class LocalShell:
    """`deploy.shells.base.Shell` without a network between."""

    def __init__(self, name: str, directory: str) -> None:
        root = Path(directory).expanduser().absolute()
        make_folder(root)
        self.name = name
        self.directory = PurePosixPath(root)

    def run(self, command: Sequence[str], *, timeout_s: float) -> Finished:
        return run_program(command, timeout_s=timeout_s, directory=Path(self.directory))

    def put(self, local: Path, remote: str) -> None:
        with self._asked(remote), atomic_path(self._path(remote)) as temporary:
            shutil.copyfile(local, temporary)

    def fetch(self, remote: str, local: Path) -> None:
        with self._asked(remote), atomic_path(local) as temporary:
            shutil.copyfile(self._path(remote), temporary)

    def read(self, remote: str) -> bytes | None:
        with self._asked(remote):
            return self._path(remote).read_bytes() if self._path(remote).is_file() else None

    def write(self, content: bytes, remote: str) -> None:
        with self._asked(remote):
            write_bytes(self._path(remote), content)

    def sha256(self, remote: str) -> str | None:
        with self._asked(remote):
            return sha256_file(self._path(remote)) if self._path(remote).is_file() else None

    def remove(self, remote: str) -> None:
        path = self._path(remote)
        with self._asked(remote):
            if path.is_dir() and not path.is_symlink():
                _remove_tree(path)
            else:
                path.unlink(missing_ok=True)

    def list(self, remote: str = "") -> list[str]:
        with self._asked(remote):
            path = self._path(remote)
            return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def _path(self, remote: str) -> Path:
        return Path(self.directory / remote)

    @contextmanager
    def _asked(self, remote: str) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            if isinstance(error.__cause__, FileExistsError | NotADirectoryError | IsADirectoryError):
                raise DeviceError(f"device '{self.name}': {error}") from error
            raise
        except OSError as error:
            raise DeviceError(
                f"device '{self.name}': {error.filename or self._path(remote)}: {error.strerror}"
            ) from error


def _remove_tree(path: Path, tries: int = REMOVALS) -> None:
    try:
        shutil.rmtree(path, onerror=_unless_gone)
    except OSError as error:  # a list made while somebody else removes may lack files
        if error.errno != errno.ENOTEMPTY or tries == 1:
            raise
        _remove_tree(path, tries - 1)


def _unless_gone(_function: object, _path: str, error: tuple[object, BaseException, object]) -> None:
    """Somebody else may remove the same folder at this moment."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]
