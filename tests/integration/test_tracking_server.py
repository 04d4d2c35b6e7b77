"""Tracking against a real MLflow server over HTTP."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from schemas.config import Tracking
from schemas.errors import TrackingError
from tasks.tracking import mlflow_client, register_candidate
from tasks.workspace import Workspace
from tests.candidates import make_candidate
from tests.mlflow_servers import mlflow_server
from tests.servers import HOST, serving


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


class _Proxy(BaseHTTPRequestHandler):
    """Passes requests on to MLflow at `server.url`, but for uploads, which it finds too large."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {"Content-Type": self.headers.get("Content-Type", "")}
        answer = httpx.request(self.command, self.server.url + self.path, content=body, headers=headers)
        self._answer(answer.status_code, answer.content)

    do_POST = do_GET

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(413, b"")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def proxy(url):
    server = ThreadingHTTPServer((HOST, 0), _Proxy)
    server.url = url
    with serving(server):
        yield f"http://team:secret@{HOST}:{server.server_port}"


def test_an_upload_that_is_refused_is_told_without_the_password(proxy, tmp_path):
    tracking, workspace = Tracking(uri=proxy), Workspace(tmp_path / "workspace")
    where = rf"MLflow at http://{HOST}:\d+: an artifact was not transferred: 413 Client Error"
    with pytest.raises(TrackingError, match=where) as error, mlflow_client(tracking, workspace) as client:
        run_id = client.create_run(client.create_experiment("refused")).info.run_id
        client.log_text(run_id, "a file", "file")
    assert "secret" not in str(error.value)
