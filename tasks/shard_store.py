"""Shards on the disk: found by key, verified before they are used, written whole or not at all.

A shard `<key>.tfrecords` has a description `<key>.json` beside it, written after it; a shard without one is
unfinished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from schemas.errors import StorageError
from schemas.storage import read_json, sha256_file, write_json

_TOLD = ("file", "sha256", "records", "bytes")


@dataclass(frozen=True)
class RecordPlace:
    """A record in a shard that is there."""

    file: Path
    start: int
    length: int


class ShardStore:
    """A folder of shards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> dict[str, Any] | None:
        """`file`, `sha256`, `records` and `bytes` of a shard that is there and sound."""
        description = self._sound(key)
        return None if description is None else {name: description[name] for name in _TOLD}

    def add(self, key: str, record_keys: list[str], records: Iterable[bytes]) -> dict[str, Any]:
        """Write a shard; what `find` gives afterwards."""
        from model.tfrecords import write_records

        path = self._folder / f"{key}.tfrecords"
        number = write_records(path, records)
        hashed = _stamp(path)  # first: a file that changes meanwhile is hashed again next time
        told = {"file": path.name, "sha256": sha256_file(path), "records": number, "bytes": path.stat().st_size}
        write_json(path.with_suffix(".json"), {**told, "hashed": hashed, "record_keys": record_keys})
        return told

    def places(self, key: str, wanted: set[str]) -> dict[str, RecordPlace]:
        """Where in a sound shard the wanted records are; those that it does not hold are left out."""
        from model.tfrecords import record_spans

        description = self._sound(key)
        if description is None or wanted.isdisjoint(description["record_keys"]):
            return {}
        file = self._folder / description["file"]
        spans = zip(description["record_keys"], record_spans(file), strict=True)
        return {record: RecordPlace(file, *span) for record, span in spans if record in wanted}

    def _sound(self, key: str) -> dict[str, Any] | None:
        """The description of a shard whose bytes are those that were written.

        They are hashed again unless the file is, by size, times and inode, the very one that was hashed before.
        """
        path = self._folder / f"{key}.json"
        if not path.is_file():
            return None
        try:
            description = read_json(path)
        except StorageError:
            return None
        shard = self._folder / description["file"]
        if not shard.is_file():
            return None
        if description["hashed"] != (hashed := _stamp(shard)):
            if sha256_file(shard) != description["sha256"]:
                return None
            write_json(path, {**description, "hashed": hashed})
        return description


class RecordReader:
    """Reads single records out of shards, each of which is opened once."""

    def __init__(self) -> None:
        self._files: dict[Path, BinaryIO] = {}
        self._open = ExitStack()

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(self, place: RecordPlace) -> bytes:
        if place.file not in self._files:
            self._files[place.file] = self._open.enter_context(place.file.open("rb"))
        file = self._files[place.file]
        file.seek(place.start)
        return file.read(place.length)


def merged(
    keys: Iterable[str], there: dict[str, RecordPlace], reader: RecordReader, made: Iterator[bytes]
) -> Iterator[bytes]:
    """A record for every key, in order: the one that is there, else the next one that is made."""
    for key in keys:
        yield reader.read(there[key]) if key in there else next(made)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
