"""Folders for work in progress on a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deploy.shells.base import Shell
from schemas.errors import DeviceOfflineError


@contextmanager
def scratch(shell: Shell, folder: str) -> Iterator[str]:
    """`folder`, empty at first and gone at the end. What a device that went away keeps of it goes the next time."""
    shell.remove(folder)
    gone = False
    try:
        yield folder
    except DeviceOfflineError:
        gone = True
        raise
    finally:
        if not gone:
            shell.remove(folder)
