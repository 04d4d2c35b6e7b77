"""The way to MLflow: which servers are of use, and what is said of those that are not."""

import re
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from urllib3.exceptions import InsecureRequestWarning

from schemas.config import Tracking
from schemas.errors import StorageError, TrackingError
from tasks.mlflow_client import mlflow_client
from tasks.workspace import Workspace
from tests.servers import HOST, free_port, self_signed, serving, speak_tls

PASSWORD = "s3cret"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


class Broken(BaseHTTPRequestHandler):
    """Tells how it is, and hangs up on everything else."""

    def do_GET(self):
        if self.path == "/health":
            self.server.credentials.append(self.headers["Authorization"])
            self.send_response(self.server.health)
            self.send_header("Location", "/login")
            self.end_headers()

    def log_message(self, *args):
        """Not on the terminal."""


@pytest.fixture
def broken_server():
    server = ThreadingHTTPServer((HOST, 0), Broken)
    server.health, server.credentials = 200, []
    with serving(server):
        yield server


def asked(uri, workspace):
    """What is raised where the server is asked for something, as `mlflow_client` tells it."""
    tracking = Tracking(uri=uri.replace("//", f"//team:{PASSWORD}@"))
    with pytest.raises(TrackingError) as error, mlflow_client(tracking, workspace) as client:
        client.get_experiment("0")
    return error.value


def test_a_server_that_is_of_no_use_is_named_without_its_password(workspace, broken_server, monkeypatch):
    """Nor has the traceback it, which Prefect writes into its log."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    here = f"http://{HOST}:{broken_server.server_port}"

    def told(uri):
        text = "".join(traceback.format_exception(asked(uri, workspace)))
        assert PASSWORD not in text
        return text

    assert f"MLflow at {here} refused: API request to {here}/api/" in told(here)
    for broken_server.health in (401, 302):  # by a proxy that lets in whom MLflow's own variables name
        assert f"MLflow at {here} refused: API request to {here}/api/" in told(here)
    broken_server.health = 503
    assert f"MLflow at {here} answers HTTP 503; start it" in told(here)
    down = f"http://{HOST}:{free_port()}"
    assert f"MLflow at {down} can't be reached: " in told(down)
    for nowhere in (f"http://{HOST}:many", "http://a..b", f"http://{HOST}:65536"):
        assert f"MLflow at {nowhere} is no address; " in told(nowhere)


def test_a_server_of_a_private_ca_is_asked_as_mlflow_s_variables_say(workspace, tmp_path, monkeypatch):
    """By MLflow's own client, which has its credentials; the health is asked for without any."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
    server = ThreadingHTTPServer((HOST, 0), Broken)
    server.health, server.credentials = 200, []
    certificate = self_signed(tmp_path)
    speak_tls(server, certificate)
    here = f"https://{HOST}:{server.server_port}"

    def told():
        return str(asked(here, workspace))

    with serving(server):
        assert re.search(rf"{here} can't be reached by TLS: .*; name the file of its CA in MLFLOW_TRACK", told())
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "gone.pem"))
        assert "gone.pem" in told()
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        assert f"MLflow at {here} refused: API request to {here}/api/" in told()
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "TRUE")
        with pytest.warns(InsecureRequestWarning):
            assert f"MLflow at {here} refused: API request to {here}/api/" in told()
    assert server.credentials == [None, None]


def test_a_place_where_no_workspace_can_be_made_is_named(tmp_path):
    (tmp_path / "workspace").write_text("no folder")
    with (
        pytest.raises(StorageError, match="workspace: can't be made"),
        mlflow_client(Tracking(), Workspace(tmp_path / "workspace")),
    ):
        pass
