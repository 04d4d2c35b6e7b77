"""The real servers that the integration tests talk to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.label_studio.client import Connection, connected
from tasks.label_studio.server import ENVIRONMENT, HEALTH_PATH, USER, LabelStudioServer
from tests.servers import free_port, running

TOKEN = "0123456789abcdef0123456789abcdef01234567"
TOKEN_ENV = "FPENET_TEST_LABEL_STUDIO_TOKEN"


@dataclass(frozen=True)
class RunningLabelStudio:
    """A Label Studio that is up. `user` has the password `token`.

    Attributes:
        files: folder whose subfolders it serves; None if the server is not one of the tests' own.
    """

    url: str
    token: str
    user: str
    files: Path | None = None


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLabelStudio]:
    """One Label Studio for all tests; each uses projects of its own. Its data goes with the session.

    While tests are written, `FPENET_TEST_LABEL_STUDIO` may name one that is up and has this token: starting one takes
    half a minute.
    """
    if url := os.environ.get("FPENET_TEST_LABEL_STUDIO"):
        yield RunningLabelStudio(url, TOKEN, USER)
        return
    environment = Path(__file__).parents[2] / ENVIRONMENT
    if not (environment / "bin" / "label-studio").is_file():
        pytest.skip(f"Label Studio is not installed in {ENVIRONMENT}; `make test` installs it")
    folder = tmp_path_factory.mktemp("label-studio")
    server = LabelStudioServer(folder / "data", free_port(), TOKEN, environment)
    server.check()
    server.files.mkdir(parents=True)
    with running(
        server.command(),
        health_url=f"{server.url}{HEALTH_PATH}",
        log=folder / "server.log",
        environment=server.variables(),
    ):
        yield RunningLabelStudio(server.url, TOKEN, USER, server.files)


@pytest.fixture
def label_studio_token(label_studio: RunningLabelStudio, monkeypatch: pytest.MonkeyPatch) -> str:
    """Puts the token where a source looks for it; the name of the environment variable."""
    monkeypatch.setenv(TOKEN_ENV, label_studio.token)
    return TOKEN_ENV


@pytest.fixture
def connection(label_studio: RunningLabelStudio) -> Iterator[Connection]:
    with connected(label_studio.url, label_studio.token) as opened:
        yield opened
