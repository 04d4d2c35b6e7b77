"""The facts of many image files, and a memory of them, so that none is read twice."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from schemas.annotation import Problem
from schemas.errors import StorageError
from tasks.image_facts import ImageFacts, inspect_image
from tasks.sqlite_memory import batches, open_memory

Progress = Callable[[int, int], None]
"""Called with (done, of)."""

Stamp = tuple[int, int]
"""Size and modification time in ns: what tells a changed file."""

_INDEX_VERSION = 2  # raise it when `inspect_image` finds what it did not find before
_CREATE = f"""
DROP TABLE IF EXISTS images;
CREATE TABLE images (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 BLOB, width INTEGER,
                     height INTEGER, format TEXT) WITHOUT ROWID;
PRAGMA user_version = {_INDEX_VERSION};
"""
_SELECT = "SELECT path, size, mtime_ns, sha256, width, height, format FROM images WHERE path IN ({})"
_REPLACE = "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)"
_A_QUERY = 500  # paths that are looked up at a time
_SAVE_EVERY = 4096
_WORKERS = 2
_A_TASK = 16  # images that a thread takes at a time


class ImageIndex:
    """Remembers the facts of files by path, size and modification time, so that none is read twice.

    Broken files are not remembered; they are looked at again. A memory that is damaged, or of another version, is
    begun anew: it only saves time. It is an SQLite file, so a run that looks up a thousand images of a million
    touches a thousand rows, and one that is killed keeps what was saved.

    Args:
        path: where the memory is kept between runs; None keeps it in this object.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None

    def inspect(self, images: Iterable[str], *, progress: Progress | None = None) -> dict[str, ImageFacts | Problem]:
        """Facts of every file, or the problem with it. Only files that are new or changed are read.

        What was found is saved every few thousand images. Call it with some thousands at a time where memory counts.

        Args:
            progress: called while files are read, with images done and images in all.

        Raises:
            StorageError: the index can't be written.
        """
        wanted = sorted(set(images))
        stamps = {image: _stamp(image) for image in wanted}
        found: dict[str, ImageFacts | Problem] = dict(self._recall(stamps))
        unknown = [image for image in wanted if image not in found]
        with ThreadPoolExecutor(_WORKERS) as pool:
            for batch in batches(unknown, _SAVE_EVERY):
                tasks = list(batches(batch, _A_TASK))
                for images_done, facts in zip(tasks, pool.map(_inspect_all, tasks), strict=True):
                    found.update(zip(images_done, facts, strict=True))
                    if progress is not None:
                        progress(len(found), len(wanted))
                self._save((image, stamps[image], found[image]) for image in batch)
        return found

    def close(self) -> None:
        """Let go of the file; the next `inspect` opens it again."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _recall(self, stamps: dict[str, Stamp | None]) -> Iterator[tuple[str, ImageFacts]]:
        with self._usable() as database:
            for batch in batches(list(stamps), _A_QUERY):
                paths = {_absolute(image): image for image in batch}
                rows = database.execute(_SELECT.format(",".join("?" * len(paths))), list(paths))
                for path, size, mtime_ns, digest, width, height, kind in rows:
                    image = paths[path]
                    if (size, mtime_ns) == stamps[image]:
                        yield image, ImageFacts(digest.hex(), width, height, kind)

    def _save(self, seen: Iterable[tuple[str, Stamp | None, ImageFacts | Problem]]) -> None:
        rows = [
            (_absolute(image), *stamp, bytes.fromhex(facts.sha256), facts.width, facts.height, facts.format)
            for image, stamp, facts in seen
            if stamp is not None and isinstance(facts, ImageFacts)
        ]
        with self._usable() as database, database:
            database.executemany(_REPLACE, rows)

    @contextmanager
    def _usable(self) -> Iterator[sqlite3.Connection]:
        """The database, open. What keeps it from being used is an error that names the file."""
        try:
            if self._database is None:
                self._database = open_memory(self._path, _prepare)
            yield self._database
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path}: the index of images can't be used: {error}. Free space, end the other run that uses "
                "it, or delete it: it only saves time"
            ) from error


def _prepare(database: sqlite3.Connection) -> None:
    if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("damaged")
    if database.execute("PRAGMA user_version").fetchone() != (_INDEX_VERSION,):
        database.executescript(_CREATE)


def _inspect_all(images: Sequence[str]) -> list[ImageFacts | Problem]:
    return [inspect_image(image) for image in images]


def _stamp(image: str) -> Stamp | None:
    """Taken before a file is read: one that changes meanwhile is read again next time."""
    try:
        status = os.stat(image)  # noqa: PTH116 - making a Path costs more than the call
    except (OSError, ValueError):  # ValueError: no file can have that name
        return None
    return status.st_size, status.st_mtime_ns


def _absolute(image: str) -> str:
    return image if image.startswith("/") else str(Path.cwd() / image)
