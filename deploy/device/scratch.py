"""Work in progress on a device: folders for it, and what is left of files that were cut off."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.shells.base import Shell
from schemas.errors import DeviceOfflineError

LEFTOVER_S = 6 * 3600
"""Older than that no work is: several times the longest build, with room for the clocks of those who ask."""

CUT_OFF_S = 3600
"""The same of a file that is being written: the largest engine takes minutes over a slow link."""

_BEGUN = re.compile(r"\.(\d+)-[0-9a-f]+\.tmp")


@contextmanager
def scratch(shell: Shell, parent: str, *, leftover_s: float = LEFTOVER_S) -> Iterator[str]:
    """An empty folder below `parent` that is this caller's alone, and gone at the end.

    Two runs, or two workspaces, may ask one device for the same thing at once. What a device that went away keeps is
    removed by whoever comes `leftover_s` later: a folder's name begins with the second in which it was asked for.
    """
    now = int(time.time())
    for name in shell.list(parent):
        asked = name.partition("-")[0]
        if not asked.isdigit() or now - int(asked) > leftover_s:
            shell.remove(f"{parent}/{name}")
    folder, gone = f"{parent}/{now}-{uuid.uuid4().hex[:12]}", False
    try:
        yield folder
    except DeviceOfflineError:
        gone = True
        raise
    finally:
        if not gone:
            shell.remove(folder)


def remove_cut_off(shell: Shell, folder: str) -> list[str]:
    """Remove from a folder what is left of files that were being written when the connection or the writer ended.

    Returns:
        Names that are younger than `CUT_OFF_S`, and stay: somebody may be writing those now.
    """
    young = []
    for name in shell.list(folder):
        begun = _BEGUN.search(name)
        if not name.startswith("."):
            continue
        if begun and time.time() - int(begun[1]) <= CUT_OFF_S:
            young.append(name)
        else:
            shell.remove(f"{folder}/{name}")
    return young
