"""The whole flow, as a user runs it: in a process of its own, without a Prefect server to start by hand."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.retrain_project import POLL_S, SUBJECTS, approve, kill_when, render_faces, run, start, write_project


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return render_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, faces):
    """A configuration whose flow has run undisturbed: started by `sync`, which finds no model."""
    config = write_project(tmp_path_factory.mktemp("undisturbed"), faces=faces)
    code, output = run(config, "sync")
    assert (code, "retrain: there is no model" in output) == (0, True), output
    return config


def summaries(config: Path) -> list[dict]:
    return [
        json.loads(path.read_text()) for path in sorted((config.parent / "workspace/reports").glob("*/summary.json"))
    ]


def content(config: Path) -> dict[str, str]:
    """What must not depend on how often the flow was killed: snapshot, shards, networks, ONNX, by their hashes."""
    workspace = config.parent / "workspace"
    shards = [json.loads(path.read_text())["sha256"] for path in sorted((workspace / "shards").glob("*.json"))]
    outputs = {
        path.parent.name: json.loads(path.read_text())["files"]
        for kind in ("training", "exports")
        for path in sorted((workspace / kind).glob("*/manifest.json"))
    }
    wanted = {name: {f: h for f, h in files.items() if f == "model.onnx"} for name, files in outputs.items()}
    return {"snapshot": summaries(config)[-1]["snapshot_id"], "shards": shards, "outputs": wanted}


def test_annotations_become_checked_engines_at_staging(finished):
    (summary,) = summaries(finished)
    assert {row["split"]: row["faces"] > 0 for row in summary["splits"]} == dict.fromkeys(
        ("train", "validation", "kpi"), True
    )
    assert sum(row["faces"] for row in summary["splits"]) == summary["sources"][0]["accepted"]
    assert summary["evaluation"]["faces"] == 8
    assert [engine["target"] for engine in summary["engines"]] == ["cpu"]
    assert summary["engines"][0]["parity_px"] < 1e-3
    workspace = finished.parent / "workspace"
    event = json.loads((workspace / "targets/cpu/staging.json").read_text())["event"]
    assert event["by"] == "flow sync", "who did it, not who does it at night"
    staged = event["engine"]
    assert staged["snapshot_id"] == summary["snapshot_id"]
    assert summary["model_version"] == f"{staged['model_name']}/{staged['model_version']}"


def cards(config: Path) -> tuple[list[str], list[Path]]:
    """Every run's model card, and where MLflow keeps one."""
    workspace = config.parent / "workspace"
    told = [path.read_text() for path in sorted(workspace.glob("reports/*/model-card.md"))]
    return told, list(workspace.glob("mlflow-artifacts/*/artifacts/review/model-card.md"))


def test_the_model_card_lies_beside_the_page_and_the_version(finished):
    (summary,), ((card,), (logged,)) = summaries(finished), cards(finished)
    assert logged.read_text() == card
    error = summary["evaluation"]["regions"]["All"]["crop_px"]["all"]["error"]
    for words in (summary["model_version"], summary["snapshot_id"], f"{error:.2f}", "| cpu | ONNX Runtime"):
        assert words in card
    assert not any(f"multipie-like/{subject}" in card for subject in SUBJECTS)
    for row in summary["splits"]:
        assert sum(row["points"].values()) == 80 * row["faces"]
        assert (row["used"], row["nameless"]) == (row["faces"], 0)
    assert summary["sources"][0]["points"]["unknown"] == 0 < summary["sources"][0]["points"]["occluded"]


def test_a_second_run_makes_nothing_anew(finished):
    before, (_, (logged,)) = content(finished), cards(finished)
    written = logged.stat().st_mtime_ns
    code, output = run(finished)
    assert code == 0, output
    states = {step["name"]: step["state"] for step in summaries(finished)[-1]["steps"]}
    always = {"pull faces", "validate", "leave to devices"}
    assert {name for name, state in states.items() if state != "reused"} == always, output
    assert content(finished) == before
    assert len(set(cards(finished)[0])) == 1 and logged.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(finished, faces, tmp_path):
    config = write_project(tmp_path, faces=faces)
    workspace = tmp_path / "workspace"
    kill_when(config, lambda: any((workspace / "shards").glob("*.tfrecords")))
    kill_when(config, lambda: any((workspace / "training").glob(".*.partial/checkpoint.npz")))
    kill_when(config, lambda: any((workspace / "exports").glob(".*.partial")))
    assert not any((workspace / "reports").glob("*"))
    code, output = run(config)
    assert code == 0, output
    assert content(config) == content(finished)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_at_once_and_in_one_line(faces, tmp_path):
    config = write_project(tmp_path, faces=faces)
    with start(config) as process:
        while not any((tmp_path / "workspace" / "shards").glob("*.tfrecords")):
            assert process.poll() is None
            time.sleep(POLL_S)
        os.killpg(process.pid, signal.SIGINT)  # Prefect's server gets it, too
        output, _ = process.communicate(timeout=40)
    assert process.returncode == 130, output
    assert "interrupted; run the same command again" in output and "Traceback" not in output


@pytest.mark.slow
def test_a_candidate_that_fails_at_the_gate_is_staged_and_its_reviewer_is_told(finished, faces):
    rules = finished.parent / "rules.yaml"
    rules.write_text(
        "minimum_subjects: 2\nallowance_crop_px: {regions: {All: 0.1}}\nbounds_crop_px: {All: 0.01, Eyes: 100}\n"
    )
    config = write_project(finished.parent, faces=faces, promotion_rules=str(rules))
    code, output = run(config)
    assert code == 0, output
    assert "gate failed by the absolute bounds, without a champion" in " ".join(output.split())
    summary = summaries(config)[-1]
    outcomes = {row["name"]: row["outcome"] for row in summary["verdict"]["rows"]}
    assert (outcomes["All"], outcomes["Eyes"], outcomes["Nose"]) == ("failed", "passed", "shown")
    assert summary["verdict"]["blocks"] and summary["verdict"]["champion"] is None
    assert [engine["stage"] for engine in summary["engines"]] == ["staging"]


@pytest.mark.slow
def test_a_folder_without_annotations_is_told(tmp_path):
    (tmp_path / "nothing" / "gt").mkdir(parents=True)
    code, output = run(write_project(tmp_path, faces=tmp_path / "nothing"))
    assert code == 2, output
    assert "gt/**/*.json" in output
    assert "Traceback" not in output


def test_labels_are_looked_at_and_an_approved_version_reaches_the_devices(finished):
    """The flows that follow. It is the last test here: it makes a champion."""
    workspace = finished.parent / "workspace"
    code, output = run(finished, "quality")
    assert (code, "0 suspicious labels" in output) == (0, True), output
    (page,) = workspace.glob("quality/*/index.html")
    assert "No annotation names its annotator" in page.read_text()

    approve(finished)
    code, output = run(finished, "review")
    assert (code, "accepted fpenet version 1, approved by Ann" in output) == (0, True), output
    event = json.loads((workspace / "targets/cpu/production.json").read_text())["event"]
    assert (event["by"], event["engine"]["model_version"]) == ("flow rollout", "1")
    (page,) = workspace.glob("rollouts/fpenet-1-*/index.html")
    assert "promoted" in page.read_text()

    code, output = run(finished, "rollout")
    assert (code, "nothing to do: every device runs what its stage holds" in output) == (0, True), output

    code, output = run(finished, "drift")
    assert (code, "this-machine         no records" in output) == (0, True), output
