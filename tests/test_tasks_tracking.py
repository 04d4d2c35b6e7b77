"""Tracking, against MLflow itself: a SQLite file here; a server in tests/integration."""

from dataclasses import replace

import pytest
from filelock import FileLock, Timeout

from schemas.config import Tracking
from schemas.errors import TrackingError
from tasks.review.aliases import drop, move
from tasks.tracking import RegisteredVersion, kpi_metrics, register_candidate
from tasks.workspace import Workspace
from tests.candidates import make_candidate


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def candidate(tmp_path_factory):
    return make_candidate(tmp_path_factory.mktemp("candidate"))


@pytest.fixture(scope="module")
def registered(candidate, workspace):
    return register_candidate(candidate, Tracking(), workspace)


@pytest.fixture(scope="module")
def client(workspace, registered):
    from mlflow import MlflowClient

    return MlflowClient(workspace.tracking_uri, workspace.tracking_uri)


def test_a_candidate_becomes_the_challenger(client, registered, candidate):
    version = client.get_model_version_by_alias("fpenet", "challenger")
    assert registered == RegisteredVersion("fpenet", "1", version.run_id, created=True, code_version="c0de")
    assert version.tags["snapshot_id"] == candidate.snapshot_id
    assert version.tags["candidate_key"] == candidate.key
    assert len(version.tags["report_sha256"]) == 64
    assert "git_commit" not in version.tags


def test_its_run_holds_what_was_asked_and_what_came_out(client, registered, candidate):
    run = client.get_run(registered.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["dataloader.batch_size"] == "8"
    assert run.data.params["model.model_parameters.type"] == "FpeNet_public"
    losses = client.get_metric_history(registered.run_id, "loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 3.0), (2, 2.0)]
    assert run.data.metrics["terms.region/eyes"] == 0.5
    assert [m.step for m in client.get_metric_history(registered.run_id, "validation_error_px")] == [2]
    for name, value in kpi_metrics(candidate.report):
        assert run.data.metrics[name] == pytest.approx(value)
    wanted = {
        "kpi/crop_px/visible/Eyes/low",
        "kpi/inter_ocular_percent/all/All",
        "kpi/auc/crop_px",
        "kpi/confidence_auc",
    }
    assert wanted <= set(run.data.metrics)
    (dataset,) = run.inputs.dataset_inputs
    assert candidate.snapshot_id.startswith(dataset.dataset.digest)
    assert dataset.dataset.profile == '{"faces":{"kpi":2,"train":10}}'


def test_its_files_are_in_the_workspace(client, registered, workspace):
    run = client.get_run(registered.run_id)
    assert run.info.artifact_uri.startswith(workspace.artifacts.as_uri())
    found = {
        artifact.path
        for folder in ("", "onnx", "evaluation", "figures")
        for artifact in client.list_artifacts(registered.run_id, folder or None)
    }
    assert {"experiment_spec.yaml", "onnx/model.onnx", "evaluation/report.json", "figures/curve.svg"} <= found


def test_its_model_predicts_as_the_file_does(registered, workspace, candidate):
    import keras
    import mlflow
    import numpy as np

    mlflow.set_tracking_uri(workspace.tracking_uri)
    logged = mlflow.keras.load_model(f"models:/{registered.name}/{registered.version}")
    images_BHWC = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 1)).astype(np.float32)
    for ours, theirs in zip(
        keras.models.load_model(candidate.keras_model)(images_BHWC), logged(images_BHWC), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_rerun_that_changed_nothing_makes_nothing(client, registered, candidate, workspace):
    again = register_candidate(candidate, Tracking(), workspace)
    assert again == replace(registered, created=False)
    assert len(client.search_model_versions("name='fpenet'")) == 1
    assert len(client.search_runs([client.get_run(registered.run_id).info.experiment_id])) == 1


@pytest.fixture
def own_workspace(tmp_path):
    return Workspace(tmp_path)


def test_the_next_candidate_takes_the_alias_but_the_champion_is_left_alone(candidate, own_workspace, monkeypatch):
    from mlflow import MlflowClient

    def move_if_locked(*arguments):
        with pytest.raises(Timeout), FileLock(own_workspace.review / "lock", timeout=0):
            pass
        move(*arguments)

    monkeypatch.setattr("tasks.tracking.move", move_if_locked)  # or a review would finish what is not done yet
    client = MlflowClient(own_workspace.tracking_uri, own_workspace.tracking_uri)
    first = register_candidate(candidate, Tracking(), own_workspace)
    move(client, "fpenet", "champion", first.version)
    drop(client, "fpenet", "challenger")
    register_candidate(candidate, Tracking(), own_workspace)
    assert client.get_model_version("fpenet", first.version).aliases == ["champion"]
    second = register_candidate(replace(candidate, key="another"), Tracking(), own_workspace)
    assert second.version == "2" and second.created
    assert str(client.get_model_version_by_alias("fpenet", "challenger").version) == "2"


def test_a_run_that_died_on_the_way_is_closed_and_the_candidate_logged_anew(candidate, own_workspace):
    from mlflow import MlflowClient

    broken = replace(candidate, keras_model=candidate.keras_model.with_name("gone.keras"))
    with pytest.raises(ValueError, match=r"gone\.keras"):
        register_candidate(broken, Tracking(), own_workspace)
    client = MlflowClient(own_workspace.tracking_uri, own_workspace.tracking_uri)
    experiment = client.get_experiment_by_name("fpenet").experiment_id
    (died,) = client.search_runs([experiment])
    client.update_run(died.info.run_id, status="RUNNING")
    registered = register_candidate(candidate, Tracking(), own_workspace)
    states = {run.info.run_id: run.info.status for run in client.search_runs([experiment])}
    assert states == {died.info.run_id: "KILLED", registered.run_id: "FINISHED"}


def test_a_refusal_says_what_was_refused(candidate, own_workspace):
    with pytest.raises(TrackingError, match=r"refused: .*name"):
        register_candidate(candidate, Tracking(registered_model="with/slash"), own_workspace)
