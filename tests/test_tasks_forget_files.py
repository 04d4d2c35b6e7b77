"""Every kind of file loses a subject in its own way, and nothing else."""

import hashlib
import json
import sqlite3
from contextlib import closing

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from model.summaries import write_images
from model.tfrecords import record_spans
from schemas.errors import ShardError, StorageError
from schemas.storage import sha256_file
from tasks.forget.files import files_below, purge_file, still_tells
from tasks.forget.traces import Traces
from tests.event_files import pictures, scalars
from tests.shard_files import blob_face, write_shard

SUBJECT, MARK = "blobs/001", "redacted/0123456789abcdef"
FACES = [blob_face(index) for index in range(6)]
"""Two of each of three subjects."""


def traces(**changes):
    return Traces(SUBJECT, MARK, **{"names": frozenset({"images/0002.png", "images/0003.png"})} | changes)


def purged(path, found=None):
    """Purge twice: the second time there is nothing left to do."""
    found = found or traces()
    assert still_tells(path, found) or path.suffix in (".html", ".tfrecords")
    assert purge_file(path, found)
    if path.exists():
        content = path.read_bytes()
        assert not purge_file(path, found)
        assert path.read_bytes() == content
        assert not still_tells(path, found)


@pytest.mark.parametrize("tao_only", [False, True])
def test_records_of_the_subject_are_taken_out(tmp_path, tao_only):
    path = write_shard(tmp_path / "a.tfrecords", FACES, tao_only=tao_only)
    before = path.read_bytes()
    records = [before[start : start + length] for start, length in record_spans(path)]
    purged(path)
    after = path.read_bytes()
    assert [after[start : start + length] for start, length in record_spans(path)] == records[:2] + records[4:]
    assert len(list(tf.data.TFRecordDataset(str(path)))) == 4  # TensorFlow checks the checksums


def test_a_shards_description_stays_true(tmp_path):
    path = write_shard(tmp_path / "a.tfrecords", FACES)
    told = {"file": path.name, "sha256": sha256_file(path), "records": 6, "bytes": path.stat().st_size, "hashed": [1]}
    path.with_suffix(".json").write_text(json.dumps(told | {"record_keys": list("abcdef")}))
    purged(path)
    now = json.loads(path.with_suffix(".json").read_text())
    assert (now["records"], now["record_keys"]) == (4, ["a", "b", "e", "f"])
    assert (now["sha256"], now["bytes"]) == (sha256_file(path), path.stat().st_size)


@pytest.mark.parametrize("kind", ["images", "figures"])
def test_pictures_go_by_their_bytes(tmp_path, kind):
    for name, shade in (("theirs.png", 10), ("other.png", 20)):
        cv2.imwrite(str(tmp_path / name), np.full((4, 4), shade, np.uint8))
    found = traces(**{kind: frozenset({hashlib.sha256((tmp_path / "theirs.png").read_bytes()).hexdigest()})})
    purged(tmp_path / "theirs.png", found)
    assert not purge_file(tmp_path / "other.png", found)
    assert [path.name for path in tmp_path.iterdir()] == ["other.png"]


def test_tensorboards_curves_stay_and_its_pictures_go(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    with writer.as_default(step=3):
        tf.summary.scalar("loss", 2.5)
        write_images("faces", [np.zeros((4, 4, 1), np.uint8)])
    writer.close()
    (path,) = tmp_path.glob("events*")
    assert pictures(tmp_path) and purge_file(path, traces())
    assert scalars(tmp_path) == {"loss": [(3, 2.5)]} and not pictures(tmp_path)
    assert not purge_file(path, traces())


def test_what_a_killed_training_left_half_written_goes_too(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    with writer.as_default(step=3):
        tf.summary.scalar("loss", 2.5)
        writer.flush()
        (path,) = tmp_path.glob("events*")
        whole = path.stat().st_size
        write_images("faces", [np.zeros((4, 4, 1), np.uint8)])
    writer.close()
    path.write_bytes(path.read_bytes()[: whole + 30])
    assert purge_file(path, traces())
    assert scalars(tmp_path) == {"loss": [(3, 2.5)]} and not pictures(tmp_path)
    assert not purge_file(path, traces())


def test_a_page_is_taken_away_as_a_whole(tmp_path):
    page = tmp_path / "index.html"
    page.write_text(f"<img src=data:image/png;base64,AAAA> {SUBJECT}")
    purged(page)
    assert "base64" not in page.read_text()


def test_a_card_that_names_the_subject_keeps_its_numbers(tmp_path):
    card = tmp_path / "model-card.md"
    card.write_text(f"| set {SUBJECT} | 2.1 |\n| set blobs/0010 | 2.2 |\n")
    purged(card)
    assert card.read_text() == f"| set {MARK} | 2.1 |\n| set blobs/0010 | 2.2 |\n"


def test_the_case_of_a_suffix_means_nothing(tmp_path):
    notes = tmp_path / "NOTES.TXT"
    notes.write_text(f"seen: {SUBJECT}\n")
    purged(notes)
    assert notes.read_text() == f"seen: {MARK}\n"


def test_what_a_link_leads_to_is_elsewhere(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there.txt").write_text(SUBJECT)
    (tmp_path / "here/link.txt").symlink_to(tmp_path / "there.txt")
    assert list(files_below(tmp_path / "here")) == []


def test_lines_of_json_go(tmp_path):
    raw = tmp_path / "raw.jsonl"
    raw.write_text(f'{{"subject":"{SUBJECT}"}}\n{{"subject":"blobs/0010"}}\n{{"name":"images\\/0002.png"}}\n')
    purged(raw)
    assert raw.read_text() == '{"subject":"blobs/0010"}\n'


def test_a_value_a_line_is_json_too(tmp_path):
    status = tmp_path / "status.json"
    status.write_text(f'{{"message": "{SUBJECT}"}}\n{{"message": "fine"}}\n')
    purged(status)
    assert status.read_text() == '{"message": "fine"}\n'


def test_tables_keep_their_row_groups(tmp_path):
    path = tmp_path / "faces.parquet"
    table = pa.table({"subject": [face.subject for face in FACES], "number": list(range(6))})
    pq.write_table(table, path, row_group_size=2)
    purged(path)
    assert [pq.ParquetFile(path).metadata.row_group(group).num_rows for group in range(2)] == [2, 2]
    assert pq.read_table(path)["number"].to_pylist() == [0, 1, 4, 5]


def test_databases_keep_nothing_in_their_free_pages(tmp_path):
    path, digest = tmp_path / "index.sqlite", "cd" * 32
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE images (path TEXT PRIMARY KEY, sha256 BLOB)")
        database.execute("CREATE TABLE log (message TEXT, number INTEGER)")
        database.executemany("INSERT INTO images VALUES (?, ?)", [("a", bytes.fromhex(digest)), ("b", b"other")])
        database.executemany("INSERT INTO log VALUES (?, 1)", [(f"KPI subject {SUBJECT} must not",), ("fine",)])
    purged(path, traces(images=frozenset({digest})))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT path FROM images").fetchall() == [("b",)]
        assert database.execute("SELECT message FROM log").fetchall() == [
            (f"KPI subject {MARK} must not",),
            ("fine",),
        ]
    assert bytes.fromhex(digest) not in path.read_bytes()


def test_documents_in_databases_go_by_what_they_say(tmp_path):
    path = tmp_path / "raw.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE tasks (id INTEGER, subject TEXT, payload BLOB)")
        documents = [f'{{"subject": "{subject}"}}'.encode() for subject in (SUBJECT, "blobs/0010")]
        database.executemany("INSERT INTO tasks VALUES (?, NULL, ?)", enumerate(documents))
    purged(path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT payload FROM tasks").fetchall() == [(documents[1],)]


def test_a_database_without_the_subject_is_only_read(tmp_path):
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE entries (action TEXT)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO entries VALUES ('created')")
        assert not purge_file(path, traces())
        writer.execute("COMMIT")


def test_a_frame_without_a_suffix_goes_by_its_bytes(tmp_path):
    path = tmp_path / "0a1b2c"
    path.write_bytes(b"pixels")
    assert not purge_file(path, traces())
    purged(path, traces(images=frozenset({hashlib.sha256(b"pixels").hexdigest()})))
    assert not path.exists()


def test_a_page_that_escapes_the_name_is_found(tmp_path):
    page = tmp_path / "index.html"
    page.write_text("<img src=data:image/png;base64,AAAA> blobs/o&#39;neil")
    assert purge_file(page, Traces("blobs/o'neil", MARK))
    assert "base64" not in page.read_text()


@pytest.mark.parametrize("name", ["a.json", "a.parquet", "a.tfrecords", "a.sqlite", "a.jsonl", "a.csv"])
def test_a_file_that_cant_be_searched_is_told(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe{ broken " + SUBJECT.encode())
    with pytest.raises((StorageError, ShardError), match=name):
        purge_file(path, traces())
    assert path.read_bytes().endswith(SUBJECT.encode())


def test_models_and_engines_are_not_touched(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    assert not purge_file(path, traces())
    assert not still_tells(path, traces())
