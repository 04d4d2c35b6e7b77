"""The journal: every accepted hint, on disk before its sender is answered, until Prefect has it.

SQLite with a write-ahead log and `synchronous=FULL`: a commit returns after the fsync, the checksums of the log tell
where a crash has torn it, and `fpenet gateway status` may read while the gateway writes.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from schemas.errors import DeliveryError, InputError, StorageError
from schemas.storage import fsync_directory, make_folder
from tasks.gateway.hints import LABEL_STUDIO, Hint
from tasks.gateway.outgoing import Entry, coalesce
from tasks.gateway.settings import DELIVERY_MEMORY_S

FILE = "journal.sqlite"
_VERSION = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, received REAL NOT NULL, source TEXT NOT NULL, subject TEXT NOT NULL,
    action TEXT NOT NULL, detail BLOB NOT NULL,
    event INTEGER, ended REAL, outcome TEXT
);
CREATE INDEX IF NOT EXISTS pending ON entries (id) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS done ON entries (ended) WHERE ended IS NOT NULL;
CREATE TABLE IF NOT EXISTS deliveries (id TEXT PRIMARY KEY, received REAL NOT NULL);
CREATE INDEX IF NOT EXISTS delivered ON deliveries (received);
"""
_COLUMNS = "id, received, source, subject, action, detail"
_PRUNED_AT_ONCE = 1000
_LOCKED_S = 0.5  # wait for another program that has the file: Label Studio waits 1 s


@dataclass(frozen=True)
class Arrival:
    """A hint to be kept. `received`: seconds since 1970. `delivery`: an id that may arrive once, if there is one."""

    hint: Hint
    received: float
    delivery: str | None = None


@dataclass(frozen=True)
class JournalStatus:
    """`pending`: entries that Prefect does not have yet. Times are seconds since 1970, None without such an entry."""

    pending: int
    oldest_pending: float | None
    forwarded: int
    refused: int
    last_received: float | None
    last_forwarded: float | None


class Journal:
    """To be used from one thread at a time, and by one gateway at a time.

    Args:
        folder: made if it is not there.
        most_pending: above so many entries, `thin` does something.

    Raises:
        InputError: another gateway has this journal open.
        StorageError: the journal can't be opened, or is damaged.
    """

    def __init__(self, folder: Path, *, most_pending: int = 100_000) -> None:
        make_folder(folder)
        self.path = folder / FILE
        self._most_pending = most_pending
        self._lock = FileLock(folder / "gateway.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{folder}: another gateway has this journal open; stop it, or choose another with --journal"
            ) from None
        try:
            with self._storage("can't be opened"):
                self._connection = _connect(self.path)
                self._namespace = self._prepare()
                self._pending = self._count_pending()
            self._left_by_thinning = 0
            fsync_directory(folder)
        except StorageError:
            self._lock.release()
            raise

    def append(self, arrivals: Sequence[Arrival]) -> list[int | DeliveryError]:
        """Keep the arrivals, all with one fsync; for each its number, or the error if its delivery id was there.

        Raises:
            StorageError: nothing of it is kept.
        """
        with self._transaction("can't be written"):
            kept = [self._keep(arrival) for arrival in arrivals]
        self._pending += sum(isinstance(number, int) for number in kept)
        return kept

    def outgoing(self, most: int = 500) -> list[list[Entry]]:
        """The oldest entries that wait, in groups that are one event each.

        A group, once made, is written down, so that a second attempt sends the same event again.
        """
        with self._transaction("can't be written"):
            groups = self._groups_made()
            if not groups:
                rows = self._rows("ended IS NULL ORDER BY id LIMIT ?", most)
                groups = coalesce(_entry(row) for row in rows)
                marks = [(group[0].number, entry.number) for group in groups for entry in group]
                self._connection.executemany("UPDATE entries SET event = ? WHERE id = ?", marks)
        return groups

    def event_id(self, group: Sequence[Entry]) -> uuid.UUID:
        """The id of the event of a group: the same each time it is sent, different between journals."""
        return uuid.uuid5(self._namespace, str(group[0].number))

    def end(self, groups: Sequence[Sequence[Entry]], *, at: float, outcome: str) -> None:
        """Mark what Prefect has taken (`forwarded`), or never will (`refused`)."""
        numbers = [(at, outcome, entry.number) for group in groups for entry in group]
        with self._transaction("can't be written"):
            self._connection.executemany("UPDATE entries SET ended = ?, outcome = ? WHERE id = ?", numbers)
        self._pending -= len(numbers)
        self._left_by_thinning = min(self._left_by_thinning, self._pending)

    def thin(self) -> None:
        """If too many entries wait: of the hints of one project and action, keep the last, without ids.

        It says what all of them said: look at this project. So the journal stays small however long Prefect is away.
        What can't be thinned out (of MLflow, or on its way) is not gone through again before as much has come anew.
        """
        if self._pending <= max(self._most_pending, 2 * self._left_by_thinning):
            return
        waiting = f"ended IS NULL AND event IS NULL AND source = '{LABEL_STUDIO}'"
        with self._transaction("can't be thinned out"):
            last = f"SELECT max(id) FROM entries WHERE {waiting} GROUP BY subject, action"
            self._connection.execute(f"DELETE FROM entries WHERE {waiting} AND id NOT IN ({last})")
            whole_project = orjson.dumps({"task_ids": [], "annotation_ids": []})
            self._connection.execute(f"UPDATE entries SET detail = ? WHERE {waiting}", (whole_project,))
        with self._storage("can't be read"):
            self._pending = self._left_by_thinning = self._count_pending()

    def prune(self, *, now: float, retention_s: float) -> int:
        """Delete some of what ended before the retention, and old delivery ids; how many rows. Call until it is 0."""
        with self._transaction("can't be written"):
            entries = self._connection.execute(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE ended < ? LIMIT ?)",
                (now - retention_s, _PRUNED_AT_ONCE),
            )
            deliveries = self._connection.execute(
                "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE received < ? LIMIT ?)",
                (now - DELIVERY_MEMORY_S, _PRUNED_AT_ONCE),
            )
        return entries.rowcount + deliveries.rowcount

    def probe(self, now: float) -> None:
        """Raises `StorageError` unless the journal can be written."""
        with self._transaction("can't be written"):
            self._connection.execute("INSERT OR REPLACE INTO about VALUES ('probed', ?)", (str(now),))

    @property
    def pending(self) -> int:
        """Entries that wait for Prefect."""
        return self._pending

    def oldest_pending(self) -> float | None:
        """When the oldest of them was received, in seconds since 1970."""
        with self._storage("can't be read"):
            row = self._connection.execute("SELECT received FROM entries WHERE ended IS NULL ORDER BY id LIMIT 1")
            return next((received for (received,) in row), None)

    def close(self) -> None:
        self._connection.close()
        self._lock.release()

    def _prepare(self) -> uuid.UUID:
        self._connection.executescript(_SCHEMA)
        first = (("version", _VERSION), ("journal", str(uuid.uuid4())))
        self._connection.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", first)
        about = dict(self._connection.execute("SELECT key, value FROM about"))
        if about["version"] != _VERSION:
            raise StorageError(
                f"{self.path}: a journal of version {about['version']}, and this program writes {_VERSION}; "
                "use the program that made it until nothing is pending, or choose another with --journal"
            )
        return uuid.UUID(about["journal"])

    def _count_pending(self) -> int:
        return self._connection.execute("SELECT count(*) FROM entries WHERE ended IS NULL").fetchone()[0]

    def _keep(self, arrival: Arrival) -> int | DeliveryError:
        if arrival.delivery is not None:
            new = self._connection.execute(
                "INSERT OR IGNORE INTO deliveries VALUES (?, ?)", (arrival.delivery, arrival.received)
            )
            if not new.rowcount:
                return DeliveryError("repeated", "a delivery with this id has been here")
        hint = arrival.hint
        values = (arrival.received, hint.source, hint.subject, hint.action, orjson.dumps(dict(hint.detail)))
        row = self._connection.execute(
            "INSERT INTO entries (received, source, subject, action, detail) VALUES (?, ?, ?, ?, ?)", values
        )
        return row.lastrowid

    def _groups_made(self) -> list[list[Entry]]:
        groups: dict[int, list[Entry]] = {}
        for *row, event in self._connection.execute(
            f"SELECT {_COLUMNS}, event FROM entries WHERE ended IS NULL AND event IS NOT NULL ORDER BY id"
        ):
            groups.setdefault(event, []).append(_entry(row))
        return list(groups.values())

    def _rows(self, condition: str, *values: Any) -> list[tuple]:
        return self._connection.execute(f"SELECT {_COLUMNS} FROM entries WHERE {condition}", values).fetchall()

    @contextmanager
    def _transaction(self, failure: str) -> Iterator[None]:
        with self._storage(failure):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def _storage(self, failure: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"{self.path}: {failure}: {error}; free space, or if the file is damaged, move it and its -wal away: "
                "what it held is looked at in the next scheduled run"
            ) from error


def read_status(folder: Path) -> JournalStatus:
    """The status of a journal that a gateway may be writing.

    Raises:
        InputError: there is none.
        StorageError: it can't be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder}: no journal there; name it with --journal, or its workspace with --workspace")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return _status(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(f"{path}: can't be read: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_LOCKED_S)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _status(connection: sqlite3.Connection) -> JournalStatus:
    waiting, forwarded = "FILTER (WHERE ended IS NULL)", "FILTER (WHERE outcome = 'forwarded')"
    return JournalStatus(
        *connection.execute(
            f"SELECT count(*) {waiting}, min(received) {waiting}, count(*) {forwarded}, "
            "count(*) FILTER (WHERE outcome = 'refused'), "
            f"max(received), max(ended) {forwarded} FROM entries"
        ).fetchone()
    )


def _entry(row: Sequence[Any]) -> Entry:
    number, received, source, subject, action, detail = row
    return Entry(number, received, Hint(source, subject, action, orjson.loads(detail)))
