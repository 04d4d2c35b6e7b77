import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import StorageError
from schemas.raw import read_raw
from schemas.task_store import Change, Span, StoredTask, Totals, open_store

ABOUT = {"source": "server", "set_id": "faces", "flags_known": True, "image_field": "photo"}


def stored(identity, *, version=0, subject="team/1", annotations=1, forgotten=False):
    return StoredTask(
        id=identity,
        updated_at=f"2026-11-22T08:00:00.{version:06d}Z",
        annotations=annotations,
        submitted=annotations > 0 and not forgotten,
        flagged=True,
        subject=None if forgotten else subject,
        image=None if forgotten else f"/data/{identity}.png",
        payload=None if forgotten else json.dumps({"id": identity, "version": version}).encode(),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "raw.sqlite"


def put(store, *tasks):
    with store.transaction():
        store.notes(**ABOUT)
        return store.put(tasks)


def test_only_rows_that_differ_are_written(path):
    with open_store(path) as store:
        assert put(store, stored(1), stored(2)) == Change(new=2, changed=0)
        assert put(store, stored(1), stored(2, version=1), stored(3)) == Change(new=1, changed=1)
    with open_store(path) as store:
        assert [task.id for task in store.tasks()] == [1, 2, 3]
        assert put(store, stored(1), stored(2, version=1)) == Change(0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"updated_at": "2026-11-23T08:00:00.000000Z"},
        {"annotations": 2},
        {"submitted": False},
        {"flagged": False},
        {"subject": "team/2"},
        {"image": "/data/b.png"},
        {"payload": b"{}"},
    ],
)
def test_a_row_that_differs_in_anything_is_written(path, change):
    changed = replace(stored(1), **change)
    with open_store(path) as store:
        put(store, stored(1), stored(2))
        assert put(store, changed, stored(2)) == Change(new=0, changed=1)
        assert list(store.tasks()) == [changed, stored(2)]


def test_an_image_s_file_is_forgotten_with_the_image_and_not_before(path):
    """Or one person's keypoints would lie on the picture of another."""
    file = path.parent / "images/1.png"
    with open_store(path) as store:
        put(store, stored(1))
        with store.transaction():
            store.set_files({"/data/1.png": file})
        for task, kept in ((stored(1, version=1), str(file)), (replace(stored(1), image="/data/b.png"), None)):
            put(store, task)
            assert [record.image for record in read_raw(path)] == [kept]


def test_rows_are_read_some_at_a_time_and_none_is_passed_over(path):
    numbers = list(range(1, 601))
    with open_store(path) as store:
        put(store, *map(stored, numbers))
        assert [task.id for task in store.tasks()] == numbers


def test_places_of_forgotten_tasks_can_be_deleted(path):
    with open_store(path) as store:
        put(store, stored(1), stored(2, forgotten=True))
        with store.transaction():
            store.delete_places()
        assert store.totals(Span()) == Totals(1, 1)


def test_records_are_read_back_by_id(path):
    with open_store(path) as store:
        put(store, stored(7, subject="team/7"), stored(3), stored(5, forgotten=True))
        with store.transaction():
            store.set_files({"/data/3.png": path.parent / "images/3.png", "/data/7.png": None})
    records = list(read_raw(path))
    assert [(record.key, record.subject, record.image) for record in records] == [
        ("task/3", "team/1", str(path.parent / "images/3.png")),
        ("task/7", "team/7", None),
    ]
    assert records[1].payload == {"id": 7, "version": 0}
    assert (records[0].source_key, records[0].set_id, records[0].flags_known) == ("server:task/3", "faces", True)
    assert {record.image_field for record in records} == {"photo"}


def test_the_images_move_with_the_store(path, tmp_path):
    with open_store(path) as store:
        put(store, stored(3))
        with store.transaction():
            store.set_files({"/data/3.png": path.parent / "images/3.png"})
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    path.rename(moved / path.name)
    (record,) = read_raw(moved / path.name)
    assert record.image == str(moved / "images/3.png")


def test_an_image_elsewhere_stays_there(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store(tmp_path / "deep" / path.name) as store:
        put(store, stored(3))
        with store.transaction():
            store.set_files({"/data/3.png": Path("images/3.png")})
    (record,) = read_raw(tmp_path / "deep" / path.name)
    assert record.image == str(tmp_path / "images/3.png")


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 2), st.booleans()).map(
            lambda drawn: stored(drawn[0], version=drawn[1], forgotten=drawn[2])
        ),
        max_size=12,
    )
)
def test_the_content_hash_is_of_the_content(tmp_path_factory, tasks):
    """Not of the order in which it came, nor of what was there before."""
    folder = tmp_path_factory.mktemp("stores")
    last = {task.id: task for task in tasks}
    with open_store(folder / "a.sqlite") as one, open_store(folder / "b.sqlite") as other:
        put(one)
        for task in tasks:
            put(one, task)
        put(other, *(last[identity] for identity in sorted(last, reverse=True)))
        assert one.content_hash() == other.content_hash()
        assert one.totals(Span()) == other.totals(Span()) == Totals(len(last), len(last))
        before = one.content_hash()
        put(one, stored(9))
        assert one.content_hash() != before


def test_the_content_hash_knows_what_is_read_and_no_more(path):
    read = [{"subject": "team/2"}, {"flagged": False}, {"payload": b"{}"}]
    unread = [{"updated_at": "2026-11-23T08:00:00.000000Z"}, {"annotations": 2}, {"image": "/data/b.png"}]
    hashes = []
    with open_store(path) as store:
        for change in ({}, *read, *unread):
            put(store, replace(stored(1), **change))
            hashes.append(store.content_hash())
        put(store, stored(1))
        with store.transaction():
            store.notes(image_field="picture")
        hashes.append(store.content_hash())
    assert len(set(hashes)) == 5 and set(hashes[4:7]) == {hashes[0]}


def test_a_task_without_flags_says_so_of_itself(path):
    with open_store(path) as store:
        put(store, stored(1), replace(stored(2), flagged=False))
        assert [record.flags_known for record in read_raw(path)] == [True, False]
        with store.transaction():
            store.notes(flags_known=False)
        assert [record.flags_known for record in read_raw(path)] == [False, False]


def test_spans_are_counted_halved_and_cleared(path):
    with open_store(path) as store:
        put(store, *(stored(identity, annotations=identity % 2) for identity in (2, 3, 5, 8, 9)))
        assert store.totals(Span(2, 8)) == Totals(3, 2)
        assert store.middle(Span()) == 5
        assert store.middle(Span(5)) == 8
        with store.transaction():
            assert store.keep_only([3], Span(2, 8)) == 2
        assert [task.id for task in store.tasks()] == [2, 3, 9]


def test_rows_are_told_by_their_time(path):
    with open_store(path) as store:
        put(store, *(stored(identity, version=10 - identity) for identity in (1, 2, 3)))
        middle = stored(2, version=8).updated_at
        assert store.versions(middle) == [middle, stored(1, version=9).updated_at]
        assert store.newer_than(middle) == [1]


def test_counts_tell_the_forgotten_apart(path):
    with open_store(path) as store:
        put(store, stored(1), stored(2, annotations=0), stored(3, forgotten=True))
        assert store.counts() == {"tasks": 2, "submitted": 1, "forgotten": 1}
        assert store.images() == ["/data/1.png"]


def test_what_is_deleted_is_wiped(path):
    with open_store(path) as store:
        put(store, *(stored(identity, subject=f"team/person-{identity}") for identity in range(1, 40)))
    assert b"team/person-17" in path.read_bytes()
    with open_store(path) as store, store.transaction():
        store.keep_only([1], Span())
    assert b"team/person-17" not in path.read_bytes()


def test_a_transaction_that_fails_leaves_nothing(path):
    with open_store(path) as store:
        put(store, stored(1))
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.put([stored(2)])
            _ = 1 / 0
        assert [task.id for task in store.tasks()] == [1]


def test_a_reader_sees_one_moment(path):
    with open_store(path) as store:
        put(store, stored(1), stored(2), stored(3))
        reading = read_raw(path)
        first = next(reading)
        put(store, stored(2, version=1))
        assert [first.payload["version"], *(record.payload["version"] for record in reading)] == [0, 0, 0]


def test_only_a_pull_replaces_a_store_of_another_version(path):
    with open_store(path) as store:
        put(store, stored(1))
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(StorageError, match=r"raw.sqlite: .* another version of this project; pull again"):
        list(read_raw(path))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
    with open_store(path) as store:
        assert list(store.tasks()) == []


def test_reading_begins_no_store(path):
    with pytest.raises(StorageError, match=r"raw.sqlite: the tasks of this source can't be used: unable to open"):
        list(read_raw(path))
    assert not path.exists()


def test_a_damaged_store_is_named(path):
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StorageError, match=r"raw.sqlite: the tasks of this source can't be used: .*delete it"):
        list(read_raw(path))
