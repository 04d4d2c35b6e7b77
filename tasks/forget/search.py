"""Finding what a workspace holds of a subject, before anything is taken out."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import StorageError
from schemas.label_studio import image_name
from schemas.raw import RawRecord, read_raw
from schemas.storage import read_json, sha256_file
from schemas.texts import spellings
from schemas.urls import without_credentials
from tasks.forget.files import files_below
from tasks.forget.traces import Traces
from tasks.label_studio.pull import STORE_FILE
from tasks.pull import RAW_FILE
from tasks.pull_files import task_data
from tasks.snapshot import FACES, SUPERSEDED, VIOLATIONS
from tasks.workspace import Workspace

_COLUMNS = ["subject", "split", "image_sha256", "image_name", "source_key", "content_hash"]
_ADDRESS = re.compile(r"(?:\w+:/)?/.*[^/]", re.DOTALL)  # but not such as `n/a`


def find_traces(workspace: Workspace, folders: Iterable[Path], *, subject: str, mark: str) -> Traces:
    """What the snapshots, the raw records and the pictures below `folders` hold of the subject.

    Raises:
        StorageError: a table of a snapshot, or a JSON file that names the subject, is damaged.
    """
    written = spellings(subject)
    snapshots: dict[str, Counter[str]] = {}
    found: dict[str, set[str]] = {name: set() for name in _COLUMNS}
    names_of_others: set[str] = set()
    for identity, row in _snapshot_rows(workspace.snapshots):
        if row["subject"] in written:
            snapshots.setdefault(identity, Counter())[row["split"]] += 1
            for name in _COLUMNS:
                found[name].add(row[name])
        else:
            names_of_others.add(row["image_name"])
    for record in raw_records(workspace):
        if record.subject not in written:
            continue
        found["source_key"].add(record.source_key)
        found["image_name"] |= {_name_in(record), *_addresses_in(record)}
        if record.image and Path(record.image).is_file():
            found["image_sha256"].add(sha256_file(Path(record.image)))
    rejected = Traces(subject, mark, records=frozenset(found["source_key"]))
    found["image_name"] |= {image for record, image in _violations(workspace) if rejected.about(record)}
    return Traces(
        subject,
        mark,
        images=frozenset(found["image_sha256"]),
        figures=frozenset(_drawn(folders, written)),
        names=frozenset(found["image_name"] - names_of_others - {"", None}),
        records=frozenset(found["source_key"]),
        contents=frozenset(found["content_hash"]),
        snapshots={identity: dict(sorted(splits.items())) for identity, splits in sorted(snapshots.items())},
    )


def _snapshot_rows(snapshots: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in (FACES, SUPERSEDED):
        for path in sorted(snapshots.glob(f"*/{name}")):
            for row in _rows(path, _COLUMNS):
                yield path.parent.name, row


def raw_records(workspace: Workspace) -> Iterator[RawRecord]:
    """The records of every source, as they were pulled."""
    for name in (RAW_FILE, STORE_FILE):
        for path in workspace.of_every_pull(name):
            yield from read_raw(path)


def _name_in(record: RawRecord) -> str:
    """The frame's name in the annotation itself, where the format has one."""
    named = record.payload.get("filename")
    return named if isinstance(named, str) else image_name(task_data(record.payload), record.image_field)


def _addresses_in(record: RawRecord) -> Iterator[str]:
    """Where a task says that its frame is, which may hold the name in another form (`%20`, base 64); also as it is
    shown."""
    value = task_data(record.payload).get(record.image_field)
    if isinstance(value, str) and _ADDRESS.match(value):
        yield from (value, without_credentials(value))


def _violations(workspace: Workspace) -> Iterator[tuple[str, str | None]]:
    """Records that broke a rule, and the names of their frames."""
    for path in [workspace.violations, *sorted(workspace.snapshots.glob(f"*/{VIOLATIONS}"))]:
        if path.is_file():
            yield from ((row["record"], row["image"]) for row in _rows(path, ["record", "image"]))


def _rows(table: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(table).iter_batches(columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{table}: can't be searched ({error}); restore it from a backup, and run the same command again"
        ) from error


def _drawn(folders: Iterable[Path], written: Collection[str]) -> Iterator[str]:
    """Hashes of pictures that a JSON file says show the subject, which may be `written` so."""
    for folder in folders:
        for path in files_below(folder):
            if path.suffix == ".json" and _holds(path.read_bytes(), written):
                for picture in _pictures(_values(path), written):
                    for place in _places(Path(picture), path.parent):
                        if place.is_file():
                            yield sha256_file(place)


def _holds(content: bytes, written: Iterable[str]) -> bool:
    return any(subject.encode() in content for subject in written)


def _places(picture: Path, folder: Path) -> Iterator[Path]:
    """Where a picture that a file in `folder` names may be: workspaces are moved, and commands run elsewhere."""
    yield from (picture, folder / picture, folder / "figures" / picture.name, folder / "pictures" / picture.name)


def _values(path: Path) -> Any:
    """What a JSON file holds, or the list of what its lines hold.

    Raises:
        StorageError: it holds neither.
    """
    try:
        try:
            return read_json(path)
        except StorageError:
            return [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise StorageError(
            f"{path}: can't be searched ({error}); repair it, or remove it, and run the same command again"
        ) from error


def _pictures(value: Any, written: Collection[str]) -> Iterator[str]:
    match value:
        case list():
            for item in value:
                yield from _pictures(item, written)
        case dict():
            if value.get("subject") in written:
                yield from (
                    name
                    for key in ("picture", "file")
                    if isinstance(name := value.get(key), str) and PurePath(name).suffix
                )
            for item in value.values():
                yield from _pictures(item, written)
