"""Artifacts on a tracking server, against MLflow itself: a SQLite file here; a server in tests/integration."""

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from schemas.config import Tracking
from schemas.errors import ShardError, StorageError
from tasks.forget.artifacts import purge_artifacts
from tasks.forget.traces import Traces
from tasks.workspace import Workspace

SUBJECT, MARK, PIXELS = "team/1", "redacted/0", b"pixels of a face"
REPORT, FACE = "evaluation/report.json", "figures/face.png"


def logged_run(client, experiment, snapshot, folder):
    run = client.create_run(experiment, tags={"snapshot_id": snapshot}).info.run_id
    client.log_dict(run, {"by_subject": {SUBJECT: 1.5, "team/2": 2.5}}, REPORT)
    face = folder / "face.png"
    face.write_bytes(PIXELS)
    client.log_artifact(run, str(face), "figures")
    return run


def test_no_run_of_any_experiment_keeps_a_trace(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    now, earlier, gone = (client.create_experiment(name, (tmp_path / name).as_uri()) for name in ("a", "b", "c"))
    held = [logged_run(client, experiment, "5" * 64, tmp_path) for experiment in (now, now, earlier, gone)]
    other = logged_run(client, now, "6" * 64, tmp_path)
    client.delete_run(held[1])
    client.delete_experiment(gone)
    monkeypatch.setattr("tasks.forget.artifacts._A_PAGE", 1)
    deleted, really = [], LocalArtifactRepository.delete_artifacts

    def delete(repository, place=None):
        deleted.append(place)
        really(repository, place)

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", delete)
    images = frozenset({hashlib.sha256(PIXELS).hexdigest()})
    traces = Traces(SUBJECT, MARK, images=images, snapshots={"5" * 64: {"kpi": 1}})
    workspace = Workspace(tmp_path / "workspace")
    changed = purge_artifacts(traces, Tracking(uri=uri, experiment="a"), workspace)
    assert sorted(changed) == sorted(f"{run}/{place}" for run in held for place in (REPORT, FACE))
    assert deleted == [FACE] * 4  # a report that is replaced is there at any time
    reports = {report for report in tmp_path.rglob("report.json") if SUBJECT not in report.read_text()}
    assert {json.loads(report.read_text())["by_subject"].get(MARK, 0) for report in reports} == {None}
    assert len(reports) == 4 and len(list(tmp_path.rglob("figures/face.png"))) == 1
    assert client.list_artifacts(other, "figures")
    assert purge_artifacts(traces, Tracking(uri=uri, experiment="a"), workspace) == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("notes/Größe.md", "Größe".encode("latin-1"), StorageError),
        ("shards/a.tfrecords", b"cut off", ShardError),
        ("stores/tasks.sqlite", b"no database at all" * 99, StorageError),
    ],
)
def test_an_artifact_that_can_t_be_searched_is_named_as_the_server_names_it(tmp_path, name, content, problem):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    run = logged_run(client, client.create_experiment("a", (tmp_path / "a").as_uri()), "5" * 64, tmp_path)
    file = tmp_path / Path(name).name
    file.write_bytes(content)
    client.log_artifact(run, str(file), str(Path(name).parent))
    traces = Traces(SUBJECT, MARK, snapshots={"5" * 64: {"kpi": 1}})
    with pytest.raises(problem, match=rf"^artifact {name} of MLflow's run {run}: ") as error:
        purge_artifacts(traces, Tracking(uri=uri, experiment="a"), Workspace(tmp_path / "workspace"))
    assert tempfile.gettempdir() not in str(error.value)
