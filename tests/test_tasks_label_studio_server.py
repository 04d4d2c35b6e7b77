import socket

import pytest

from schemas.errors import InputError, SourceRefusedError, SourceUnreachableError
from tasks.label_studio.server import HOST, LabelStudioServer, serve
from tests.servers import free_port

TOKEN = "a" * 40


def server(tmp_path, **settings):
    return LabelStudioServer(**({"data": tmp_path / "data", "port": free_port(), "token": TOKEN} | settings))


def test_a_port_that_is_taken_is_not_slipped_past(tmp_path):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is taken"):
            serve(server(tmp_path, port=port))


@pytest.mark.parametrize("token", ["", "short", "A" * 40, "eyJ.eyJ.sig"])
def test_a_token_that_label_studio_would_not_take(tmp_path, token):
    with pytest.raises(SourceRefusedError, match="40 hexadecimal digits"):
        serve(server(tmp_path, token=token))


def test_label_studio_is_not_installed(tmp_path):
    with pytest.raises(
        SourceUnreachableError, match=r"install Label Studio with: make \.venv-label-studio/\.installed"
    ):
        serve(server(tmp_path, environment=tmp_path / "venv"))


def test_the_token_shows_nowhere(tmp_path):
    started = server(tmp_path, environment=tmp_path / "venv")
    assert TOKEN not in repr(started)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/label-studio").touch()
    assert TOKEN not in " ".join(started.command())


def test_settings_of_another_label_studio_stay_out(tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_HOST", "https://labels.example.test")
    monkeypatch.setenv("DJANGO_DB", "default")
    variables = server(tmp_path).variables()
    assert "LABEL_STUDIO_HOST" not in variables
    assert variables["DJANGO_DB"] == "sqlite"


def test_serve_runs_the_program_and_gives_its_exit_code(tmp_path):
    program = tmp_path / "venv/bin/label-studio"
    program.parent.mkdir(parents=True)
    program.write_text(
        '#!/bin/sh\necho "$LABEL_STUDIO_BASE_DATA_DIR $*" > "$LABEL_STUDIO_BASE_DATA_DIR/called"\nexit 7\n'
    )
    program.chmod(0o755)
    started = server(tmp_path, environment=tmp_path / "venv")
    assert serve(started) == 7
    called = (started.data / "called").read_text()
    assert called == f"{started.data} start --no-browser --internal-host {HOST} --port {started.port}\n"
