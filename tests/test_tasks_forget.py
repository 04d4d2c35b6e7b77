"""Forgetting a subject of whom only caches may tell; whole lines: tests/integration/test_forget.py."""

from schemas.config import Tracking
from tasks.forget.forget import forget_subject
from tasks.workspace import Workspace


def test_thumbnails_go_with_what_a_killed_run_left_of_them(tmp_path):
    for ending in ("", "-journal", "-wal"):
        (tmp_path / f"face-signatures.sqlite{ending}").write_bytes(b"thumbnails of faces")
    forget_subject("team/1", Workspace(tmp_path), Tracking(), by="test", why="asked to")
    assert not list(tmp_path.glob("face-signatures*"))
