"""Taking a subject out of files, each kind of file in its own way.

A file is replaced as a whole or removed; a run that is killed leaves every file as it was or as it is to be.
"""

from __future__ import annotations

import hashlib
import html
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from schemas.errors import StorageError
from schemas.storage import atomic_path, read_json, sha256_file, write_bytes, write_json
from tasks.forget.traces import Traces

EVENTS = "events.out.tfevents."
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm")
_LINES = (".csv", ".txt", ".log", ".yaml", ".yml", ".md")
_DATABASES = (".db", ".sqlite", ".sqlite3")
_PAGE = (
    "<!doctype html><meta charset=utf-8><title>Redacted</title><p>This page showed a person who has withdrawn.</p>\n"
)


def files_below(root: Path) -> Iterator[Path]:
    """Every file of a tree, sorted; links are not followed."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def can_tell(path: Path) -> bool:
    """True for files of a kind that can hold something about a person, by name."""
    return _purger(path) is not None


def purge_file(path: Path, traces: Traces) -> bool:
    """Take the subject out of one file; True if that changed or removed it.

    Raises:
        StorageError: the file can't be read or written.
        ShardError: a TFRecord file ends within a record.
    """
    purge = _purger(path) or _purge_picture  # a frame may have come from an address without a suffix
    try:
        return purge(path, traces)
    except (ValueError, sqlite3.Error) as error:  # of JSON, Parquet, a protocol buffer; a database in use
        raise StorageError(
            f"{path}: can't be searched for {traces.mark} ({error}); end what uses it, or remove the file if it is "
            "damaged, and run the same command again"
        ) from error


def _purger(path: Path) -> Callable[[Path, Traces], bool] | None:
    if path.name.startswith(EVENTS):
        return _purge_events
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return _purge_picture
    if suffix in _LINES:
        return _purge_lines
    if suffix in _DATABASES:
        return _purge_database
    return _OTHERS.get(suffix)


def _purge_picture(path: Path, traces: Traces) -> bool:
    found = sha256_file(path) in traces.images | traces.figures
    if found:
        path.unlink()
    return found


def _purge_page(path: Path, traces: Traces) -> bool:
    """Pages carry faces inside; one that names the subject is taken away as a whole, its numbers stand in JSON."""
    found = traces.within(html.unescape(path.read_text()))
    if found:
        write_bytes(path, _PAGE.encode())
    return found


def _purge_lines(path: Path, traces: Traces) -> bool:
    text = path.read_text()
    redacted = traces.redacted_lines(text)
    if redacted != text:
        write_bytes(path, redacted.encode())
    return redacted != text


def _purge_json(path: Path, traces: Traces) -> bool:
    try:
        value = read_json(path)
    except StorageError:  # TAO's status.json has a value a line
        return _purge_json_lines(path, traces)
    redacted = traces.redacted_json(value)
    if redacted != value:
        write_json(path, redacted)
    return redacted != value


def _purge_json_lines(path: Path, traces: Traces) -> bool:
    """Records about the subject are gone: those that name it, or one of its frames, anywhere."""
    kept, changed = [], False
    with path.open("rb") as file:
        for line in file:
            if traces.within(line.decode()) or traces.within(json.dumps(orjson.loads(line), ensure_ascii=False)):
                changed = True
            else:
                kept.append(line)
    if changed:
        write_bytes(path, b"".join(kept))
    return changed


def _purge_parquet(path: Path, traces: Traces) -> bool:
    table = pq.read_table(path)
    redacted = traces.redacted_table(table)
    if redacted.equals(table):
        return False
    group = max(1, pq.ParquetFile(path).metadata.row_group(0).num_rows)
    with atomic_path(path) as temporary:
        pq.write_table(redacted, temporary, compression="zstd", row_group_size=group)
    return True


def _purge_records(path: Path, traces: Traces) -> bool:
    """Faces of the subject in a TFRecord file: by the feature that names it, or the name of the frame."""
    from model.tfrecords import record_spans, write_records

    spans = list(record_spans(path))
    kept = [number for number, record in enumerate(_read_spans(path, spans)) if not _shows(record, traces)]
    if len(kept) == len(spans):
        return False
    write_records(path, _read_spans(path, [spans[number] for number in kept]))
    _describe_anew(path, kept)
    return True


def _read_spans(path: Path, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    with path.open("rb") as file:
        for start, length in spans:
            file.seek(start)
            yield file.read(length)


def _shows(record: bytes, traces: Traces) -> bool:
    import tensorflow as tf

    feature = tf.train.Example.FromString(record).features.feature
    values = [
        value.decode(errors="replace")
        for name in ("image/subject", "train/image_frame_name")
        for value in feature[name].bytes_list.value
    ]
    return any(map(traces.about, values))


def _describe_anew(shard: Path, kept: list[int]) -> None:
    """The description beside a shard of ours (`tasks.shard_store`) after records were taken out."""
    description = shard.with_suffix(".json")
    told = read_json(description) if description.is_file() else {}
    if "record_keys" not in told:
        return
    size, digest = shard.stat().st_size, sha256_file(shard)
    keys = [told["record_keys"][number] for number in kept]
    changed = {"records": len(kept), "bytes": size, "sha256": digest, "hashed": None, "record_keys": keys}
    write_json(description, told | changed)


def _purge_events(path: Path, traces: Traces) -> bool:
    """TensorBoard's pictures do not say whose face they show: all are taken out, curves stay.

    So does everything behind a place that a killed training left half written: it can't be read.
    """
    import tensorflow as tf

    events: list[Any] = []
    whole = False
    with suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            events.append(tf.compat.v1.Event.FromString(record))
        whole = True
    pictures = [value for event in events for value in event.summary.value if _is_picture(value)]
    if whole and not pictures:
        return False
    for event in events:
        curves = [value for value in event.summary.value if not _is_picture(value)]
        del event.summary.value[:]
        event.summary.value.extend(curves)
    with atomic_path(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for event in events:
            writer.write(event.SerializeToString())
    return True


def _is_picture(value: Any) -> bool:
    return (
        value.HasField("image") or value.metadata.plugin_data.plugin_name == "images" or bool(value.tensor.string_val)
    )


def _purge_database(path: Path, traces: Traces) -> bool:
    """Rows that hold the hash or the name of a frame, or a document about the subject, are gone; in other texts the
    mark stands for it. A database in which nothing is found is only read: somebody may be at work in it."""
    with closing(sqlite3.connect(path, timeout=60)) as database:
        _teach(database, traces)
        found = [place for place in _columns(database) if _holds(database, *place)]
        if found:
            database.execute("PRAGMA secure_delete = ON")
            with database:
                for table, column in found:
                    database.execute(f'DELETE FROM "{table}" WHERE about("{column}")')
                    database.execute(
                        f'UPDATE "{table}" SET "{column}" = redacted("{column}") WHERE names("{column}")'
                    )
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("VACUUM")
    return bool(found)


def _teach(database: sqlite3.Connection, traces: Traces) -> None:
    """The functions of SQL that tell what is about the subject; a document is kept as bytes, other texts as text."""
    digests = {digest for image in traces.images for digest in (image, bytes.fromhex(image))}

    def about(value: Any) -> bool:
        if isinstance(value, bytes):
            return value in digests or traces.within(value.decode(errors="ignore"))
        return isinstance(value, str) and (value in digests or traces.about(value))

    def names(value: Any) -> bool:
        return isinstance(value, str) and bool(traces.pattern.search(value))

    for function in (about, names):
        database.create_function(function.__name__, 1, function)
    database.create_function("redacted", 1, traces.redacted_text)


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Tables and their columns that can hold texts or bytes."""
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            if not kind.upper().startswith(("INT", "REAL", "FLOAT", "BOOL", "DATE")):
                yield table, column


def _holds(database: sqlite3.Connection, table: str, column: str) -> bool:
    query = f'SELECT EXISTS (SELECT 1 FROM "{table}" WHERE about("{column}") OR names("{column}"))'
    return bool(database.execute(query).fetchone()[0])


_OTHERS = {
    ".html": _purge_page,
    ".json": _purge_json,
    ".jsonl": _purge_json_lines,
    ".parquet": _purge_parquet,
    ".tfrecords": _purge_records,
}


def still_tells(path: Path, traces: Traces) -> bool:
    """True if a file holds the subject's id, or is a frame of it. Tables are compressed: they are read."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return not traces.redacted_table(table).equals(table)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() in traces.images | traces.figures:
        return True
    if not any(spelling.encode() in content for spelling in traces.spellings):
        return False
    return bool(traces.pattern.search(content.decode(errors="replace")))
