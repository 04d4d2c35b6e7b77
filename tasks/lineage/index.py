"""The index of what snapshots hold: SQLite, made from the snapshots alone, so it can always be deleted.

A snapshot is indexed once, because its content never changes. What may change it all the same (somebody is forgotten,
images move) replaces its files, and they are looked at, not read, on every opening. Everything else that lineage
needs is small and is read where it stands (`tasks.lineage.versions`, `tasks.lineage.engines`).

The index names people: `fpenet forget` drops it, and SQLite overwrites what is deleted from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from schemas.errors import StorageError
from schemas.storage import make_folder
from tasks.lineage.rows import FACE_TABLES, rows_of, taken_at
from tasks.workspace import Workspace

VERSION = 1
"""Of the tables; an index of another version is made anew."""

PLACES = ("train", "validation", "kpi", "superseded")
"""What a snapshot uses a face for; superseded ones are kept beside it and used for nothing."""

_TABLES = """
CREATE TABLE snapshots (id INTEGER PRIMARY KEY, name TEXT UNIQUE, files TEXT, taken_at TEXT);
CREATE TABLE subjects (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE faces (id INTEGER PRIMARY KEY, annotation TEXT, content TEXT, subject INTEGER,
                    UNIQUE (annotation, content));
CREATE TABLE members (snapshot INTEGER, place INTEGER, face INTEGER,
                      PRIMARY KEY (snapshot, place, face)) WITHOUT ROWID;
CREATE INDEX members_of_face ON members (face);
CREATE TABLE subject_counts (snapshot INTEGER, place INTEGER, subject INTEGER, faces INTEGER,
                             PRIMARY KEY (snapshot, place, subject)) WITHOUT ROWID;
CREATE INDEX counts_of_subject ON subject_counts (subject);
CREATE TABLE source_counts (snapshot INTEGER, place INTEGER, source TEXT, faces INTEGER);
"""
_INCOMING = "CREATE TEMP TABLE incoming (annotation TEXT, content TEXT, subject TEXT, place INTEGER)"
_ADD = (
    "INSERT OR IGNORE INTO subjects (name) SELECT DISTINCT subject FROM incoming WHERE subject IS NOT NULL",
    "INSERT OR IGNORE INTO faces (annotation, content, subject) SELECT annotation, content, subjects.id"
    " FROM incoming LEFT JOIN subjects ON subjects.name = incoming.subject",
    "INSERT INTO members SELECT :snapshot, place, faces.id FROM incoming JOIN faces USING (annotation, content)",
    "INSERT INTO subject_counts SELECT snapshot, place, subject, count(*) FROM members"
    " JOIN faces ON faces.id = face WHERE snapshot = :snapshot AND subject IS NOT NULL GROUP BY place, subject",
    "INSERT INTO source_counts SELECT :snapshot, place, substr(annotation, 1, instr(annotation, ':') - 1), count(*)"
    " FROM incoming GROUP BY 2, 3",
    "DELETE FROM incoming",
)
_REMOVE = (
    *(f"DELETE FROM {table} WHERE snapshot = :snapshot" for table in ("members", "subject_counts", "source_counts")),
    "DELETE FROM snapshots WHERE id = :snapshot",
    "DELETE FROM faces WHERE id NOT IN (SELECT face FROM members)",
    "DELETE FROM subjects WHERE id NOT IN (SELECT subject FROM faces WHERE subject IS NOT NULL)",
)
_BUSY_S = 120.0
"""How long one process waits while another indexes."""


class LineageIndex:
    """Questions to an index that is open. Snapshots go by their ids, faces by the source key of their annotation.

    Attributes:
        read: number of snapshots that were new to the index when it was opened.
    """

    def __init__(self, database: sqlite3.Connection, read: int) -> None:
        self._database, self.read = database, read

    def snapshots(self) -> dict[str, str]:
        """Snapshot -> when it was taken (ISO 8601, '' where unknown), in that order."""
        return dict(self._database.execute("SELECT name, taken_at FROM snapshots ORDER BY taken_at, name"))

    def counts(self, snapshot: str) -> dict[str, dict[str, int]]:
        """Place -> source -> number of faces."""
        rows = self._database.execute(
            "SELECT place, source, faces FROM source_counts JOIN snapshots ON id = snapshot WHERE name = ?"
            " ORDER BY place, source",
            (snapshot,),
        )
        counts: dict[str, dict[str, int]] = {}
        for place, source, faces in rows:
            counts.setdefault(PLACES[place], {})[source] = faces
        return counts

    def subjects_in(self, snapshot: str, place: str, limit: int = -1) -> list[str]:
        rows = self._database.execute(
            "SELECT subjects.name FROM subject_counts JOIN snapshots ON snapshots.id = snapshot"
            " JOIN subjects ON subjects.id = subject WHERE snapshots.name = ? AND place = ?"
            " ORDER BY subjects.name LIMIT ?",
            (snapshot, PLACES.index(place), limit),
        )
        return [name for (name,) in rows]

    def number_of_subjects(self, snapshot: str, place: str) -> int:
        query = "SELECT count(*) FROM subject_counts JOIN snapshots ON id = snapshot WHERE name = ? AND place = ?"
        return int(self._database.execute(query, (snapshot, PLACES.index(place))).fetchone()[0])

    def annotations_in(self, snapshot: str, place: str, limit: int = -1) -> list[str]:
        """Source keys, sorted."""
        rows = self._database.execute(
            "SELECT annotation FROM members JOIN snapshots ON snapshots.id = snapshot"
            " JOIN faces ON faces.id = face WHERE name = ? AND place = ? ORDER BY annotation LIMIT ?",
            (snapshot, PLACES.index(place), limit),
        )
        return [annotation for (annotation,) in rows]

    def places_of_subject(self, subject: str) -> dict[str, dict[str, int]]:
        """Snapshot -> place -> number of the subject's faces."""
        return self._places(
            "SELECT snapshots.name, place, faces FROM subject_counts JOIN snapshots ON snapshots.id = snapshot"
            " JOIN subjects ON subjects.id = subject WHERE subjects.name = ? ORDER BY place",
            subject,
        )

    def places_of_annotation(self, annotation: str) -> dict[str, dict[str, int]]:
        """Snapshot -> place -> number of faces of this annotation: 1."""
        return self._places(
            "SELECT name, place, count(*) FROM faces JOIN members ON face = faces.id"
            " JOIN snapshots ON snapshots.id = snapshot WHERE annotation = ? GROUP BY name, place ORDER BY place",
            annotation,
        )

    def annotations_starting(self, prefix: str, limit: int = -1) -> list[str]:
        rows = self._database.execute(
            "SELECT DISTINCT annotation FROM faces WHERE annotation >= ? AND annotation < ?"
            " ORDER BY annotation LIMIT ?",
            (prefix, prefix + "\U0010ffff", limit),
        )
        return [annotation for (annotation,) in rows]

    def subjects_starting(self, prefix: str, limit: int = -1) -> list[str]:
        rows = self._database.execute(
            "SELECT name FROM subjects WHERE name >= ? AND name < ? ORDER BY name LIMIT ?",
            (prefix, prefix + "\U0010ffff", limit),
        )
        return [name for (name,) in rows]

    def _places(self, query: str, name: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for snapshot, place, faces in self._database.execute(query, (name,)):
            found.setdefault(snapshot, {})[PLACES[place]] = faces
        return found


def index_path(workspace: Workspace) -> Path:
    return workspace.lineage / "index.sqlite"


def drop_index(workspace: Workspace) -> None:
    """Delete the index with what SQLite may have left beside it; the next question makes it anew."""
    for path in workspace.lineage.glob("index.sqlite*"):
        path.unlink()


@contextmanager
def open_index(workspace: Workspace) -> Iterator[LineageIndex]:
    """The index of a workspace as its snapshots are now: new ones are read first, those that are gone taken out.

    Raises:
        StorageError: a snapshot can't be read, the index can't be written, or it was found to be damaged while it
            was asked; it is gone then, and the next question makes it anew.
    """
    make_folder(workspace.lineage)
    try:
        read = _refresh(workspace)
        with closing(_connect(index_path(workspace))) as database:
            yield LineageIndex(database, read)
    except sqlite3.OperationalError as error:  # locked for long, disk full, read-only
        raise StorageError(f"{index_path(workspace)}: {error}; run the same command again") from error
    except sqlite3.DatabaseError as error:
        drop_index(workspace)
        raise StorageError(
            f"{index_path(workspace)} was damaged ({error}) and is deleted; the same command makes it anew"
        ) from error


def _refresh(workspace: Workspace) -> int:
    """Bring the index up to date, replacing a damaged one, or one of another version. Returns how many were read."""
    try:
        with closing(_connect(index_path(workspace))) as database:
            if _version(database) in (0, VERSION):
                return _update(database, workspace.snapshots)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:  # no database, or a damaged one
        pass
    drop_index(workspace)
    with closing(_connect(index_path(workspace))) as database:
        return _update(database, workspace.snapshots)


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    database.execute("PRAGMA secure_delete = ON")
    database.execute("PRAGMA temp_store = MEMORY")
    return database


def _update(database: sqlite3.Connection, snapshots: Path) -> int:
    """Make the index that of the snapshots; only looks at them if it is. Returns how many were read."""
    if _version(database) and _known(database) == _present(snapshots):
        return 0
    with database:  # commits, or rolls back
        database.execute("BEGIN IMMEDIATE")
        if not _version(database):
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
        return _change(database, snapshots, _known(database), _present(snapshots))


def _change(
    database: sqlite3.Connection, snapshots: Path, known: Mapping[str, str], present: Mapping[str, str]
) -> int:
    for name in sorted(known):
        if known[name] != present.get(name):
            (number,) = database.execute("SELECT id FROM snapshots WHERE name = ?", (name,)).fetchone()
            for statement in _REMOVE:
                database.execute(statement, {"snapshot": number} if ":snapshot" in statement else {})
    new = [name for name in sorted(present) if known.get(name) != present[name]]
    database.execute(_INCOMING)
    for name in new:
        _add(database, snapshots / name, present[name])
    database.execute("DROP TABLE incoming")
    return len(new)


def _add(database: sqlite3.Connection, directory: Path, files: str) -> None:
    number = database.execute(
        "INSERT INTO snapshots (name, files, taken_at) VALUES (?, ?, ?)", (directory.name, files, taken_at(directory))
    ).lastrowid
    rows = ((face.annotation, face.content, face.subject, PLACES.index(face.place)) for face in rows_of(directory))
    database.executemany("INSERT INTO incoming VALUES (?, ?, ?, ?)", rows)
    for statement in _ADD:
        database.execute(statement, {"snapshot": number} if ":snapshot" in statement else {})


def _version(database: sqlite3.Connection) -> int:
    """Of the tables; 0 before there are any."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _known(database: sqlite3.Connection) -> dict[str, str]:
    return dict(database.execute("SELECT name, files FROM snapshots"))


def _present(snapshots: Path) -> dict[str, str]:
    """Finished snapshots -> which files they are: replaced ones are others, even within a tick of the clock."""
    found = {}
    for manifest in snapshots.glob("*/manifest.json"):
        if not manifest.parent.name.startswith("."):  # one that is being made
            states = [path.stat() for name in FACE_TABLES if (path := manifest.parent / name).is_file()]
            found[manifest.parent.name] = " ".join(
                f"{state.st_ino}:{state.st_size}:{state.st_mtime_ns}" for state in states
            )
    return found
