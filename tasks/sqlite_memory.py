"""SQLite files that only save time: one that is damaged is begun anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from schemas.storage import make_folder

_BUSY_S = 60.0
_Item = TypeVar("_Item")


def open_memory(path: Path | None, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    """A connection that `prepare` has made ready.

    Args:
        path: None keeps it in this process.
        prepare: makes the tables of a new file, or of one of another version; what it raises of a damaged one,
            `sqlite3.DatabaseError`, has the file deleted.

    Raises:
        sqlite3.Error: the file can't be used.
        StorageError: its folder can't be made.
    """
    if path is None:
        return _prepared(":memory:", prepare)
    make_folder(path.parent)
    try:
        return _prepared(str(path), prepare)
    except sqlite3.OperationalError:  # locked, or the disk is full
        raise
    except sqlite3.DatabaseError:
        for leftover in (path, path.with_name(f"{path.name}-journal")):
            leftover.unlink(missing_ok=True)
        return _prepared(str(path), prepare)


def batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """The items, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _prepared(path: str, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_S)
    try:
        prepare(database)
    except sqlite3.Error:
        database.close()
        raise
    return database
