"""A raw annotation as a source gave it, and the JSON Lines file that keeps it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from schemas.storage import atomic_path

RawFormat = Literal["sloth", "label_studio", "pts", "wflw", "cofw", "coco"]


@dataclass(frozen=True)
class RawRecord:
    """What a source holds about one image: an entry of a Sloth/TAO or COCO file, a Label Studio task with its
    annotations, a `.pts` file, a line of a WFLW list, a row of COFW.

    Attributes:
        format: how to read `payload`.
        source: name of the source in the configuration, such as `w300`.
        set_id: the source's own grouping: the ground-truth file's set, the Label Studio project.
        key: unique within the source: `gt/train.json#12`, `task/17`.
        payload: the JSON exactly as received; what is no JSON, as its reader describes it.
        image: local file that holds the image, or None where the source could not give one.
        flags_known: what a keypoint without an occluded flag means here: True visible, False unknown.
        subject: `<dataset>/<id>` by the source's subject rule, or None.
        name_format: what the image's name says beside, see `SourceBase`.
        image_field: of a Label Studio task: the field with the image, see `schemas.label_studio.image_name`.
        origin: the coordinate that the payload gives to the centre of the top-left pixel, where its reader takes 0.
    """

    format: RawFormat
    source: str
    set_id: str
    key: str
    payload: dict[str, Any]
    image: str | None
    flags_known: bool
    subject: str | None
    name_format: Literal["multipie"] | None = None
    image_field: str = "image"
    origin: float = 0.0

    @property
    def source_key(self) -> str:
        return f"{self.source}:{self.key}"


class RawTally:
    """Counts and hashes records on their way, so that they need not all be in memory.

    Attributes:
        sets: set id -> number of records.
        content_hash: of the records so far, wherever this machine keeps the images.
    """

    def __init__(self) -> None:
        self.sets: Counter[str] = Counter()
        self._digest = hashlib.sha256()

    def watch(self, records: Iterable[RawRecord]) -> Iterator[RawRecord]:
        for record in records:
            self.sets[record.set_id] += 1
            content = {name: value for name, value in _fields(record).items() if name != "image"}
            self._digest.update(orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))
            yield record

    @property
    def content_hash(self) -> str:
        return self._digest.hexdigest()


def _fields(record: RawRecord) -> dict[str, Any]:
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    for name, usual in (("name_format", None), ("image_field", "image"), ("origin", 0.0)):
        if fields[name] == usual:
            del fields[name]
    return fields


def write_raw(path: Path, records: Iterable[RawRecord]) -> int:
    """Write one line per record, atomically; return their number."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for record in records:
            file.write(orjson.dumps(_fields(record), option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def read_raw(path: Path) -> Iterator[RawRecord]:
    """The records of `write_raw`, or of a store of tasks (`schemas.task_store`), in order, one at a time."""
    if path.suffix == ".sqlite":
        from schemas.task_store import read_store  # which makes records of this module's

        yield from read_store(path)
        return
    with path.open("rb") as file:
        for line in file:
            yield RawRecord(**orjson.loads(line))
