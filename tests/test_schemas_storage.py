import errno
import os
from pathlib import Path

import pytest

from schemas.errors import StorageError
from schemas.storage import (
    append_bytes,
    atomic_path,
    canonical_json,
    read_json,
    remove_half_written,
    sha256_of,
    temporary_name,
    write_bytes,
    write_json,
    write_private,
)
from tests.small_files import small_files


def test_a_write_replaces_whole_files(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"b": 1, "a": [1.5, None]})
    write_json(path, {"b": 2})
    assert read_json(path) == {"b": 2}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_file_that_is_no_json_any_more_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": ')
    with pytest.raises(StorageError, match=r"a\.json: is damaged, no JSON"):
        read_json(tmp_path / "a.json")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def synced(monkeypatch):
    """What was made durable, in order: the file's or folder's name, and the names of the files in its folder then."""
    fsync, seen = os.fsync, []

    def noting(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        folder = path if path.is_dir() else path.parent
        seen.append((path.name, [file.name for file in folder.iterdir()]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return seen


def test_a_write_is_durable_before_it_has_its_name_and_so_is_the_name(tmp_path, synced):
    write_bytes(tmp_path / "file", b"content")
    (temporary, first), last = synced
    assert first == [temporary] and temporary != "file"
    assert last == (tmp_path.name, ["file"])


def test_a_log_grows_durably(tmp_path, synced):
    for line in (b"one\n", b"two\n"):
        append_bytes(tmp_path / "log", line)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    assert synced == [("log", ["log"])] * 2


def test_what_was_cut_off_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "deep").mkdir()
    cut_off = [temporary_name("a"), f"{temporary_name('a.json')}.json", f"deep/{temporary_name('b')}"]
    others = [".notes.tmp", "a.tmp", f"x{temporary_name('a')}", "deep/a.json"]
    for name in (*cut_off, *others):
        (tmp_path / name).touch()
    (tmp_path / temporary_name("folder")).mkdir()
    remove_half_written(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(others) and len(list(tmp_path.iterdir())) == 5


def test_equal_values_give_equal_files(tmp_path):
    for name, value in (("a", {"x": 1, "y": [{"b": 2, "a": 3}]}), ("b", {"y": [{"a": 3, "b": 2}], "x": 1})):
        write_json(tmp_path / name, value)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_private_is_its_owners_whatever_was_there(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)


def test_two_that_write_a_file_at_once_do_not_meet(tmp_path):
    path = tmp_path / "file.json"
    with atomic_path(path) as first:
        first.write_bytes(b"first")
        with atomic_path(path) as second:
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_a_full_disk_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"file: can't be written: No space left"), atomic_path(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_line_that_the_disk_has_no_room_for_is_taken_back(tmp_path):
    log = tmp_path / "log.jsonl"
    append_bytes(log, b"first\n")
    with small_files(9), pytest.raises(StorageError, match=r"log\.jsonl: can't be written"):
        append_bytes(log, b"second\n")
    append_bytes(log, b"third\n")
    assert log.read_bytes() == b"first\nthird\n"


def test_a_folder_that_takes_no_files():
    with pytest.raises(StorageError, match="/proc/file: can't be written"):
        write_bytes(Path("/proc/file"), b"content")


def test_equal_values_have_equal_hashes():
    assert canonical_json({"b": 1, "a": "ä"}) == '{"a":"ä","b":1}'.encode()
    assert sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})


def test_nan_has_no_hash():
    with pytest.raises(ValueError, match="JSON"):
        sha256_of(float("nan"))
