"""The tasks of one Label Studio project as received, in an SQLite file.

A task is a row: its JSON, and beside it what is looked at without reading the JSON. A pull changes only the rows of
tasks that changed, page by page, each page in one transaction; so a pull that is killed leaves whole pages, and a
reader sees the file as it was when it began to read. What is overwritten or deleted is wiped.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from schemas.errors import StorageError
from schemas.raw import RawRecord
from schemas.storage import make_folder

_VERSION = 2
_CREATE = f"""
PRAGMA journal_mode = WAL;
DROP TABLE IF EXISTS tasks;
DROP TABLE IF EXISTS notes;
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE tasks (id INTEGER PRIMARY KEY, updated_at TEXT NOT NULL, annotations INTEGER NOT NULL,
                    submitted INTEGER NOT NULL, flagged INTEGER NOT NULL, subject TEXT, image TEXT, digest BLOB,
                    file TEXT, payload BLOB);
CREATE INDEX times ON tasks (updated_at);
PRAGMA user_version = {_VERSION};
"""
_COLUMNS = "id, updated_at, annotations, submitted, flagged, subject, image, digest"
_PUT = f"""
INSERT INTO tasks ({_COLUMNS}, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    file = CASE WHEN image IS excluded.image THEN file END,
    updated_at = excluded.updated_at, annotations = excluded.annotations, submitted = excluded.submitted,
    flagged = excluded.flagged, subject = excluded.subject, image = excluded.image, digest = excluded.digest,
    payload = excluded.payload
"""
_OF_ALL = ("source", "set_id", "flags_known", "name_format", "image_field")
"""Notes that are part of every record."""

_BUSY_S = 60.0
_AT_ONCE = 256  # rows that are read or written together


class Span(NamedTuple):
    """Tasks by id: from the one after `after` to `until`, or to the last."""

    after: int = 0
    until: int | None = None

    @property
    def bounds(self) -> tuple[int, int]:
        return self.after, (1 << 62) if self.until is None else self.until


class Totals(NamedTuple):
    """How many tasks, and how many annotations the server counts in them."""

    tasks: int
    annotations: int


@dataclass(frozen=True)
class StoredTask:
    """A row.

    Attributes:
        id: of the task.
        updated_at: as the server's filters take it, see `tasks.label_studio.task_queries`.
        annotations: as the server counts them.
        submitted: whether one of them was submitted, not skipped.
        flagged: False where the task says that its keypoints have no occluded flags.
        subject: by the source's subject rule, or None.
        image: where the task says that its image is.
        payload: the task's JSON; None for a task of which only its place is known, because its subject is forgotten.
    """

    id: int
    updated_at: str
    annotations: int
    submitted: bool
    flagged: bool
    subject: str | None
    image: str | None
    payload: bytes | None

    @property
    def digest(self) -> bytes | None:
        return self.payload and hashlib.sha256(self.payload).digest()

    def _row(self) -> tuple[Any, ...]:
        return (
            self.id, self.updated_at, self.annotations, int(self.submitted), int(self.flagged), self.subject,
            self.image, self.digest, self.payload,
        )  # fmt: skip


class Change(NamedTuple):
    """Rows of a page that are new, and that differ from what was there."""

    new: int
    changed: int


class TaskStore:
    """An open store, see `open_store`."""

    def __init__(self, database: sqlite3.Connection, folder: Path) -> None:
        self._database, self._folder = database, folder

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is there afterwards, or nothing of it."""
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            yield

    def note(self, name: str) -> Any:
        """A remark about the whole, such as how far a pull got; None if there is none."""
        row = self._database.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return row and json.loads(row[0])

    def notes(self, **values: Any) -> None:
        rows = [(name, json.dumps(value, sort_keys=True)) for name, value in values.items()]
        self._database.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", rows)

    def put(self, tasks: Iterable[StoredTask]) -> Change:
        """Write the rows that are not there just so; the others are left untouched."""
        wanted = {task.id: task for task in tasks}
        known = self._known(wanted)
        rows = [task._row() for identity, task in wanted.items() if known.get(identity) != task._row()[:-1]]
        self._database.executemany(_PUT, rows)
        new = sum(identity not in known for identity in wanted)
        return Change(new, len(rows) - new)

    def _known(self, identities: Iterable[int]) -> dict[int, tuple[Any, ...]]:
        listed = ",".join(map(str, identities))
        return {row[0]: row for row in self._database.execute(f"SELECT {_COLUMNS} FROM tasks WHERE id IN ({listed})")}

    def keep_only(self, identities: Iterable[int], span: Span) -> int:
        """Delete the rows of a span that are not among these; return their number."""
        listed = ",".join(map(str, identities))
        query = f"DELETE FROM tasks WHERE id > ? AND id <= ? AND id NOT IN ({listed})"
        return self._database.execute(query, span.bounds).rowcount

    def delete_places(self) -> None:
        """Delete the rows of forgotten subjects' tasks, which hold no more than the id."""
        self._database.execute("DELETE FROM tasks WHERE payload IS NULL")

    def totals(self, span: Span) -> Totals:
        query = "SELECT count(*), ifnull(sum(annotations), 0) FROM tasks WHERE id > ? AND id <= ?"
        return Totals(*self._database.execute(query, span.bounds).fetchone())

    def middle(self, span: Span) -> int:
        """The id that halves the rows of a span, of which there are some."""
        query = "SELECT id FROM tasks WHERE id > ? AND id <= ? ORDER BY id LIMIT 1 OFFSET ?"
        half = (self.totals(span).tasks - 1) // 2
        return self._database.execute(query, (*span.bounds, half)).fetchone()[0]

    def versions(self, since: str) -> list[str]:
        """`updated_at` of all rows from a time on, sorted."""
        query = "SELECT updated_at FROM tasks WHERE updated_at >= ? ORDER BY updated_at"
        return [updated_at for (updated_at,) in self._database.execute(query, (since,))]

    def newer_than(self, time: str) -> list[int]:
        """Ids of the rows that were changed later, sorted."""
        query = "SELECT id FROM tasks WHERE updated_at > ? ORDER BY id"
        return [identity for (identity,) in self._database.execute(query, (time,))]

    def tasks(self) -> Iterator[StoredTask]:
        """Every row that holds a task, by id. Rows may be written meanwhile; they are read some at a time."""
        query = (
            f"SELECT {_COLUMNS}, payload FROM tasks WHERE id > ? AND payload NOT NULL ORDER BY id LIMIT {_AT_ONCE}"
        )
        last = 0
        while rows := self._database.execute(query, (last,)).fetchall():
            for identity, updated_at, count, submitted, flagged, subject, image, _, payload in rows:
                yield StoredTask(identity, updated_at, count, bool(submitted), bool(flagged), subject, image, payload)
            last = rows[-1][0]

    def images(self) -> list[str]:
        """Where the images of tasks with a submitted annotation are, sorted."""
        query = (
            "SELECT DISTINCT image FROM tasks WHERE submitted AND payload NOT NULL AND image NOT NULL ORDER BY image"
        )
        return [image for (image,) in self._database.execute(query)]

    def set_files(self, files: Mapping[str, Path | None]) -> None:
        """Note where images are on this machine; those below the store's folder may move with it."""
        query = "SELECT id, image, file FROM tasks WHERE image NOT NULL OR file NOT NULL"
        changes = [
            (file, identity)
            for identity, image, noted in self._database.execute(query)
            if (file := self._relative(files.get(image))) != noted
        ]
        self._database.executemany("UPDATE tasks SET file = ? WHERE id = ?", changes)

    def _relative(self, file: Path | None) -> str | None:
        if file is None:
            return None
        return str(file.relative_to(self._folder)) if file.is_relative_to(self._folder) else str(file.absolute())

    def counts(self) -> dict[str, int]:
        """`tasks` that are stored, those among them with a `submitted` annotation, and those `forgotten`."""
        query = """SELECT count(payload), ifnull(sum(submitted AND payload NOT NULL), 0), count(*) - count(payload)
                   FROM tasks"""
        return dict(zip(("tasks", "submitted", "forgotten"), self._database.execute(query).fetchone(), strict=True))

    def content_hash(self) -> str:
        """Of what `read_store` gives, images apart: the same whatever pulls have brought it here."""
        about = [self.note(name) for name in _OF_ALL]
        digest = hashlib.sha256(orjson.dumps(about))
        query = "SELECT id, subject, flagged, hex(digest) FROM tasks WHERE payload NOT NULL ORDER BY id"
        for row in self._database.execute(query):
            digest.update(orjson.dumps(row))
        return digest.hexdigest()

    def records(self) -> Iterator[RawRecord]:
        """A record for every task, by id, of one moment."""
        source, set_id, known, name_format, image_field = (self.note(name) for name in _OF_ALL)
        query = "SELECT id, flagged, subject, file, payload FROM tasks WHERE payload NOT NULL ORDER BY id"
        for identity, flagged, subject, file, payload in self._database.execute(query):
            yield RawRecord(
                format="label_studio",
                source=source,
                set_id=set_id,
                key=f"task/{identity}",
                payload=orjson.loads(payload),
                image=file and str(self._folder / file),
                flags_known=known and bool(flagged),
                subject=subject,
                name_format=name_format,
                image_field=image_field,
            )


@contextmanager
def open_store(path: Path) -> Iterator[TaskStore]:
    """The store in `path`, to fill it: begun where there is none, and anew where it is one of another version.

    Raises:
        StorageError: it is damaged, in use, or the disk is full.
    """
    make_folder(path.parent)
    with _opened(path, mode="rwc") as database:
        database.execute("PRAGMA secure_delete = ON")
        if not _is_current(database):
            database.executescript(_CREATE)
        yield TaskStore(database, path.parent)


@contextmanager
def _opened(path: Path, *, mode: str) -> Iterator[sqlite3.Connection]:
    """The database; `mode` is that of SQLite's addresses. What keeps it from being used is an error that names it."""
    try:
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, timeout=_BUSY_S, isolation_level=None, uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        raise StorageError(
            f"{path}: the tasks of this source can't be used: {error}. Free space, or end the other run that uses "
            "it; if it is damaged delete it, and the next pull fetches everything anew"
        ) from error


def read_store(path: Path) -> Iterator[RawRecord]:
    """The records of a store, by task id, one at a time.

    Raises:
        StorageError: see `open_store`; or there is no store, or one of another version, which only a pull replaces.
    """
    with _opened(path, mode="rw") as database:
        if not _is_current(database):
            raise StorageError(
                f"{path}: was begun by a pull that did not get far, or kept by another version of this project; pull "
                "again: that fetches everything anew"
            )
        yield from TaskStore(database, path.parent).records()


def _is_current(database: sqlite3.Connection) -> bool:
    return database.execute("PRAGMA user_version").fetchone() == (_VERSION,)
