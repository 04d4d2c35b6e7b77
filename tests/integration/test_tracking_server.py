"""Tracking against a real MLflow server over HTTP."""

from pathlib import Path

import pytest

from schemas.config import Tracking
from tasks.tracking import register_candidate
from tasks.workspace import Workspace
from tests.candidates import make_candidate
from tests.mlflow_servers import mlflow_server


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


def test_a_candidate_is_registered_once_with_its_files(url, tmp_path, capfd):
    from mlflow import MlflowClient

    candidate = make_candidate(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    uri = url.replace("//", "//team:secret@")
    tracking = Tracking(uri=uri, experiment="faces", registered_model="fpenet-test")
    first, again = (register_candidate(candidate, tracking, workspace) for _ in range(2))
    assert "secret" not in "".join(capfd.readouterr())
    assert (first.created, again.created) == (True, False)
    assert (again.version, again.run_id) == (first.version, first.run_id)

    client = MlflowClient(url, url)
    version = client.get_model_version_by_alias("fpenet-test", "challenger")
    assert version.tags["candidate_key"] == candidate.key
    run = client.get_run(first.run_id)
    assert run.data.metrics["kpi/crop_px/all/All"] == pytest.approx(
        candidate.report["regions"]["All"]["crop_px"]["all"]["error"]
    )
    fetched = client.download_artifacts(first.run_id, "onnx/model.onnx", str(tmp_path))
    assert Path(fetched).read_bytes() == candidate.onnx_model.read_bytes()
    assert not workspace.artifacts.exists()
