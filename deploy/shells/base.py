"""What can be asked of a device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from deploy.builders.process import Finished

REMOVALS = 5
"""Tries to remove a folder that others remove at the same moment."""


class Shell(Protocol):
    """An open connection to a device. Paths there are absolute, or relative to `directory`.

    Every method raises DeviceOfflineError if the device goes away, and DeviceError, in words, for what it refuses.
    """

    name: str
    directory: PurePosixPath

    def run(self, command: Sequence[str], *, timeout_s: float) -> Finished:
        """Run a program to its end or kill it; `failure` is '' for success. No shell splits `command`."""
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copy a file there: to a temporary name, fsync, rename. Directories are made.

        Raises:
            StorageError: the device's disk is full; nothing is left behind there.
        """
        ...

    def fetch(self, remote: str, local: Path) -> None:
        """Copy a file from there, whole or not at all."""
        ...

    def read(self, remote: str) -> bytes | None:
        """Content of a small file; None if there is none."""
        ...

    def write(self, content: bytes, remote: str) -> None:
        """As `put`, of bytes."""
        ...

    def sha256(self, remote: str) -> str | None:
        """Of a file's bytes as the device reads them back; None if there is none."""
        ...

    def remove(self, remote: str) -> None:
        """Remove a file or a directory with all that is in it; nothing happens if there is none, or none any more."""
        ...

    def list(self, remote: str = "") -> list[str]:
        """Names in a directory, sorted; empty if there is none."""
        ...
