"""A run in a workspace and a person's withdrawal from it keep each other out."""

import importlib

import pytest

from flows.entry.cli import main
from schemas.errors import InputError
from schemas.raw import RawRecord, write_raw
from tasks.lease import alone, present
from tasks.pull import RAW_FILE
from tasks.workspace import Workspace
from tests.retrain_project import write_project

FLOWS = {
    "retrain": "flows.turn.take_turn",
    "sync": "flows.turn.take_turn",
    "quality": "flows.turn.take_turn",
    "rollout": "flows.rollout.take_turn",
    "review": "flows.review.settle_reviews",
    "drift": "flows.drift.ask_devices",
    "suggest": "flows.suggest.label_studio_sources",
}
"""Name of a flow -> what it does first."""


class AtWorkError(Exception):
    pass


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_keeps_a_withdrawal_out(name, tmp_path, monkeypatch):
    config = write_project(tmp_path, faces=tmp_path)

    def at_work(*_):
        with pytest.raises(InputError, match="a run is at work"), alone(Workspace(tmp_path / "workspace").lease):
            pass
        raise AtWorkError

    monkeypatch.setattr(FLOWS[name], at_work)
    with pytest.raises(AtWorkError):
        getattr(importlib.import_module(f"flows.{name}"), name).fn(str(config))


@pytest.fixture
def pulled(tmp_path):
    """A configuration whose workspace has pulled one face, with its picture."""
    workspace = Workspace(tmp_path / "workspace")
    raw = workspace.raw("s") / RAW_FILE
    raw.parent.mkdir(parents=True)
    picture = raw.parent / "a.png"
    picture.write_bytes(b"pixels")
    write_raw(raw, [RawRecord("sloth", "s", "p", "a.json#0", {"filename": "a.png"}, str(picture), True, "team/1")])
    return write_project(tmp_path, faces=tmp_path), workspace


def forget(config, *options):
    return main(["forget", "--config", str(config), "--subject", "team/1", "--reason", "asked to", *options])


def files(workspace):
    found = (path for path in workspace.root.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if path.name != "presence"}


def test_a_preview_changes_nothing(pulled, capsys):
    config, workspace = pulled
    before = files(workspace)
    assert forget(config, "--dry-run") == 0
    assert "Nothing was changed" in capsys.readouterr().out
    assert files(workspace) == before


def test_the_command_forgets(pulled):
    config, workspace = pulled
    assert forget(config) == 0
    assert not any(b"team/1" in content or content == b"pixels" for content in files(workspace).values())


def test_nothing_is_purged_while_a_run_is_at_work(pulled, capsys):
    config, workspace = pulled
    before = files(workspace)
    with present(workspace.lease):
        assert forget(config) == 2
    assert "a run is at work in" in capsys.readouterr().err
    assert files(workspace) == before
