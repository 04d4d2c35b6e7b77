"""Tracking against a real MLflow server over HTTP."""

from pathlib import Path

import pytest

from schemas.config import Tracking
from schemas.errors import TrackingError
from tasks.mlflow_client import mlflow_client
from tasks.tracking import register_candidate
from tasks.workspace import Workspace
from tests.candidates import make_candidate
from tests.mlflow_servers import mlflow_server
from tests.servers import HOST, Proxy, proxied


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


class _RefusesUploads(Proxy):
    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(413, b"")


def test_an_upload_that_is_refused_is_told_without_the_password(url, tmp_path):
    workspace = Workspace(tmp_path / "workspace")
    where = rf"MLflow at http://{HOST}:\d+: an artifact was not transferred: 413 Client Error"
    with (
        proxied(url, handler=_RefusesUploads) as proxy,
        pytest.raises(TrackingError, match=where) as error,
        mlflow_client(Tracking(uri=proxy.replace("//", "//team:secret@")), workspace) as client,
    ):
        run_id = client.create_run(client.create_experiment("refused")).info.run_id
        client.log_text(run_id, "a file", "file")
    assert "secret" not in str(error.value)
