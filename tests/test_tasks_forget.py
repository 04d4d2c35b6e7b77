"""Forgetting a subject of whom only caches may tell; whole lines: tests/integration/test_forget.py."""

import json

import pytest

from schemas.config import Tracking
from schemas.raw import RawRecord, write_raw
from tasks.forget.forget import forget_subject
from tasks.forget.search import find_traces
from tasks.pull import RAW_FILE
from tasks.workspace import Workspace


def test_thumbnails_go_with_what_a_killed_run_left_of_them(tmp_path):
    for ending in ("", "-journal", "-wal"):
        (tmp_path / f"face-signatures.sqlite{ending}").write_bytes(b"thumbnails of faces")
    forget_subject("team/1", Workspace(tmp_path), Tracking(), by="test", why="asked to")
    assert not list(tmp_path.glob("face-signatures*"))


def test_names_are_those_of_the_field_with_the_image(tmp_path):
    workspace = Workspace(tmp_path)
    payload = {"data": {"image": "001_x.png", "photo": "079_x.png"}, "annotations": []}
    record = RawRecord("label_studio", "s", "p", "task/1", payload, None, True, "team/079", image_field="photo")
    (tmp_path / "raw/s").mkdir(parents=True)
    write_raw(workspace.raw("s") / RAW_FILE, [record])
    assert find_traces(workspace, [], subject="team/079", mark="m").names == {"079_x.png"}


@pytest.mark.parametrize("asked", ["team/j\u00f6rg", "team/jo\u0308rg"])
@pytest.mark.parametrize("kept", ["team/j\u00f6rg", "team/jo\u0308rg"])
def test_a_subject_goes_however_its_letters_are_composed(tmp_path, asked, kept):
    workspace, raw = Workspace(tmp_path), Workspace(tmp_path).raw("s") / RAW_FILE
    raw.parent.mkdir(parents=True)
    picture, told = raw.parent / "a.png", tmp_path / "told.json"
    picture.write_bytes(b"pixels")
    told.write_text(json.dumps({"of": f"faces of {kept}.", kept: 1}, ensure_ascii=False))
    write_raw(raw, [RawRecord("sloth", "s", "p", "a.json#0", {"filename": "a.png"}, str(picture), True, kept)])
    done = forget_subject(asked, workspace, Tracking(), by="test", why="asked to")
    assert done.images == 1 and not picture.exists() and raw.read_bytes() == b""
    assert json.loads(told.read_text()) == {"of": f"faces of {done.mark}.", done.mark: None}
