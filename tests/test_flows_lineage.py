"""`fpenet lineage` as a person meets it."""

import json

import pytest

from flows.entry.cli import main
from tests.lineage_histories import (
    Row,
    digest,
    point_stage,
    workspace_in,
    write_device,
    write_engine,
    write_snapshot,
    write_version,
)
from tests.retrain_project import write_project


@pytest.fixture
def root(tmp_path):
    workspace = workspace_in(tmp_path / "workspace")
    rows = [Row(f"team:task/{i}/annotation/{i}", f"multipie/{i:03d}", "train") for i in range(1234)]
    write_snapshot(workspace, digest("snapshot"), rows, taken_at="2026-11-22T02:34:35+00:00")
    record = write_version(workspace, "fpenet", 3, digest("snapshot"), digest("onnx"))
    key = write_engine(workspace, "t4", record)
    point_stage(workspace, "t4", "production", key)
    write_device(workspace, "t4", "dock-7", key)
    return workspace.root


def ask(root, *words):
    return main(["lineage", *words, "--workspace", str(root)])


def test_back_from_an_engine(root, capsys):
    (engine,) = (root / "engines").iterdir()
    assert ask(root, engine.name[:8]) == 0
    told = capsys.readouterr().out
    for line in (
        "  target     t4, fp16, tests",
        "  stages     production",
        "  devices    dock-7",
        "  version    fpenet/3, MLflow run run3",
        "    training t3, ONNX " + digest("onnx")[:12],
        f"  snapshot   {digest('snapshot')}, taken 2026-11-22 02:34 UTC",
        "    train: 1,234 faces of 1,234 subjects; team 1,234",
    ):
        assert line in told.splitlines()
    assert "multipie/009, and 1,224 more (--all)" in told


def test_on_from_an_annotation(root, capsys):
    assert ask(root, "team:task/17/annotation/17") == 0
    told = capsys.readouterr().out
    assert f"snapshot {digest('snapshot')[:12]}, taken 2026-11-22 02:34 UTC: 1 train" in told
    assert "t4, fp16: stages production; devices dock-7" in told


def test_json_holds_everything(root, capsys):
    assert ask(root, "fpenet/3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    part = told["snapshots"][0]["parts"]["train"]
    assert len(part["annotations"]) == len(part["subject_names"]) == part["faces"] == 1234
    assert told["versions"][0]["engines"][0]["devices"] == ["dock-7"]


def test_an_unknown_name_says_what_can_be_asked(root, capsys):
    assert ask(root, "multipie/9999") == 2
    assert "a subject (multipie/079)" in capsys.readouterr().err


def test_a_workspace_that_is_not_there(tmp_path, capsys):
    assert ask(tmp_path / "none", "3") == 2
    assert "no such workspace" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["lineage", "3"], ["bundle", "--target", "cpu"], ["prune", "--dry-run"]])
def test_a_workspace_that_no_run_has_made_is_not_made_by_looking(tmp_path, capsys, command):
    config = write_project(tmp_path, faces=tmp_path)
    assert main([*command, "--config", str(config)]) == 2
    assert "workspace: no such workspace" in capsys.readouterr().err
    assert not (tmp_path / "workspace").exists()
