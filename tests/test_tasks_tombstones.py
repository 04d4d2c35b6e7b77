"""Tombstones cover those who were forgotten, and tell nobody who they are."""

import pytest

from schemas.errors import StorageError
from tasks.tombstones import FILE, KEY_FILE, KEY_VARIABLE, Tombstones


def test_nobody_is_covered_where_nobody_was_forgotten(tmp_path):
    assert not Tombstones.of(tmp_path).cover("team/7")
    assert list(tmp_path.iterdir()) == []


def test_a_grave_lasts_and_names_nobody(tmp_path):
    Tombstones.of(tmp_path).with_grave("team/7", by="lead", why="asked to").with_grave("team/8", by="lead", why="")
    kept = Tombstones.of(tmp_path)
    assert kept.cover("team/7") and kept.cover("team/8")
    assert not kept.cover("team/70") and not kept.cover(None)
    assert b"team/" not in (tmp_path / FILE).read_bytes() and "team/" not in repr(kept)
    assert kept.redacted("team/7") != kept.redacted("team/8")
    assert len(bytes.fromhex((tmp_path / KEY_FILE).read_text())) == 32, "nobody can try all keys"


@pytest.mark.parametrize("forgotten", ["team/j\u00f6rg", "team/jo\u0308rg"])
def test_a_grave_covers_every_spelling(tmp_path, forgotten):
    graves = Tombstones.of(tmp_path).with_grave(forgotten, by="lead", why="asked to")
    assert graves.cover("team/j\u00f6rg") and graves.cover("team/jo\u0308rg")
    assert not graves.cover("team/jorg")


def test_forgetting_twice_keeps_the_first_grave(tmp_path):
    first = Tombstones.of(tmp_path).with_grave("team/7", by="lead", why="asked to")
    again = Tombstones.of(tmp_path).with_grave("team/7", by="other", why="later")
    assert again.graves == first.graves


def test_the_key_is_its_owners_alone_and_differs_between_workspaces(tmp_path):
    marks = set()
    for name in ("a", "b"):
        Tombstones.of(tmp_path / name).with_grave("team/7", by="lead", why="")
        assert (tmp_path / name / KEY_FILE).stat().st_mode & 0o077 == 0
        marks |= set(Tombstones.of(tmp_path / name).graves)
    assert len(marks) == 2


def test_a_key_from_the_environment_is_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "from the secret store")
    Tombstones.of(tmp_path).with_grave("team/7", by="lead", why="")
    assert Tombstones.of(tmp_path).cover("team/7")
    assert not (tmp_path / KEY_FILE).exists()
    assert "from the secret store" not in repr(Tombstones.of(tmp_path))


@pytest.mark.parametrize("loss", ["gone", "another"])
def test_without_the_key_nothing_can_be_pulled(tmp_path, loss, monkeypatch):
    Tombstones.of(tmp_path).with_grave("team/7", by="lead", why="")
    if loss == "gone":
        (tmp_path / KEY_FILE).unlink()
    else:
        monkeypatch.setenv(KEY_VARIABLE, "another")
    with pytest.raises(StorageError, match="could bring back people"):
        Tombstones.of(tmp_path)
