"""Pulls from a server that is restarted, whose clock is wrong, and that no longer takes a token.

The server here is one of its own: the others' would not like that.
"""

import sqlite3
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from schemas.errors import SourceRefusedError, SourceUnreachableError
from schemas.raw import read_raw
from tasks.label_studio import client, task_queries
from tasks.label_studio import pull as label_studio_pull
from tasks.label_studio.client import connected
from tasks.label_studio.server import ENVIRONMENT, HEALTH_PATH, USER, LabelStudioServer
from tasks.pull import pull
from tasks.workspace import Workspace
from tests.integration.labelled_projects import LabelledProject, N, assert_equal_to_server, source_of
from tests.integration.personal_tokens import expired, personal_token, revoke
from tests.servers import free_port, running

pytestmark = pytest.mark.slow  # a server of its own, started and stopped again and again

TOKEN = "89abcdef0123456789abcdef0123456789abcdef"
TOKEN_ENV = "FPENET_TEST_TROUBLED_TOKEN"
SECRET = "signs-access-tokens-in-this-test"


class TroubledServer:
    """A server that can be stopped and started again, and whose database can be written behind its back."""

    def __init__(self, folder: Path) -> None:
        environment = Path(__file__).parents[2] / ENVIRONMENT
        if not (environment / "bin" / "label-studio").is_file():
            pytest.skip(f"Label Studio is not installed in {ENVIRONMENT}; `make test` installs it")
        self._server = LabelStudioServer(folder / "data", free_port(), TOKEN, environment)
        self._server.data.mkdir()
        self._log, self._running = folder / "server.log", ExitStack()
        self.url = self._server.url

    def start(self) -> None:
        variables = self._server.variables() | {"SECRET_KEY": SECRET}
        health = f"{self.url}{HEALTH_PATH}"
        process = running(self._server.command(), health_url=health, log=self._log, environment=variables)
        self._running.enter_context(process)

    def stop(self) -> None:
        self._running.close()

    def write(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self._server.data / "label_studio.sqlite3", timeout=60)) as database, database:
            database.execute(statement, values)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = TroubledServer(tmp_path_factory.mktemp("troubled"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def project(server, request, tmp_path):
    with connected(server.url, TOKEN) as connection:
        yield LabelledProject(connection, request.node.name[:40], tmp_path / "images")


@pytest.fixture
def fetch(server, project, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    workspace = Workspace(tmp_path / "workspace")

    def fetch(progress=lambda *told: None, **settings):
        source = source_of(project, server.url, TOKEN_ENV, **settings)
        return pull(source, workspace, num_keypoints=N, progress=progress)

    fetch.raw = workspace.raw("server") / "raw.sqlite"
    return fetch


def once(page, act):
    """Progress that does something after a page."""
    pages = []

    def progress(what, done, of):
        pages.append(what)
        if len(pages) == page:
            act()

    return progress


def took(result):
    return result.details["tasks"]


def test_a_server_that_is_restarted_meanwhile(server, project, fetch, monkeypatch):
    monkeypatch.setattr(task_queries, "RESTART_PATIENCE_S", (1.0,) * 300)  # a busy machine takes minutes to start it
    project.add(15)

    def restart():
        server.stop()
        server.start()

    result = fetch(progress=once(2, restart))
    assert took(result) == {"full": "first pull", "fetched": 15, "new": 15, "changed": 0, "deleted": 0}
    assert_equal_to_server(result.raw, project)


def test_a_server_that_stays_away(server, project, fetch, monkeypatch):
    project.add(15)
    with monkeypatch.context() as impatient, pytest.raises(SourceUnreachableError, match="can't be reached"):
        impatient.setattr(task_queries, "RESTART_PATIENCE_S", ())
        impatient.setattr(client, "PATIENCE_S", ())
        fetch(progress=once(2, server.stop))
    kept = len(list(read_raw(fetch.raw)))
    assert 6 <= kept < 15
    server.start()
    resumed = fetch()
    assert took(resumed) == {"full": "resumed", "fetched": 15 - kept, "new": 15 - kept, "changed": 0, "deleted": 0}
    assert_equal_to_server(resumed.raw, project)


@pytest.fixture
def access(monkeypatch):
    """How each connection that a pull opens proves who it is, the newest last."""
    opened = []

    @contextmanager
    def watched(url, token):
        with connected(url, token) as connection:
            opened.append(connection.files.auth)
            yield connection

    monkeypatch.setattr(label_studio_pull, "connected", watched)
    return opened


def test_an_access_token_that_expires_meanwhile(server, project, fetch, access, monkeypatch):
    project.add(15)
    token = personal_token(server.url, USER, TOKEN)
    monkeypatch.setenv(TOKEN_ENV, token)

    def expire():
        access[-1]._access = expired(access[-1]._access, SECRET)

    result = fetch(progress=once(2, expire))
    assert took(result)["fetched"] == 15

    project.add(15, first=15)

    def withdraw():
        revoke(server.url, token, TOKEN)
        expire()

    with pytest.raises(SourceRefusedError, match=r"refuses the token \(HTTP 401\); it is wrong, expired or revoked"):
        fetch(progress=once(1, withdraw))
    kept = len(list(read_raw(fetch.raw)))
    assert 18 <= kept < 30
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    assert took(fetch())["new"] == 30 - kept
    assert_equal_to_server(fetch.raw, project)


@pytest.mark.parametrize("year", [2001, 2099])
def test_only_the_server_s_clock_counts(server, project, fetch, year):
    """A server whose clock was far behind or far ahead of this machine's, until it was set right."""
    tasks = project.add(6)
    server.write(
        "UPDATE task SET updated_at = ? || substr(updated_at, 5) WHERE project_id = ?", str(year), project.id
    )
    assert fetch().details["watermark"].startswith(str(year))
    project.edit(tasks[2], note="after the clock was set right")
    again = fetch()
    assert took(again)["changed"] == 1
    assert took(again)["full"] == ("the server's clock was put back" if year == 2099 else None)
    assert_equal_to_server(again.raw, project)


def test_a_server_that_is_put_back_to_a_backup(server, project, fetch):
    """Its tasks are then older than they were at the last pull, and as many."""
    tasks = project.add(6)
    fetch()
    project.edit(tasks[2], note="lost with the disk")
    assert took(fetch())["changed"] == 1
    server.write("UPDATE task SET updated_at = created_at, data = json_remove(data, '$.note') WHERE id = ?", tasks[2])
    again = fetch()
    assert (took(again)["full"], took(again)["changed"]) == (None, 1)
    assert_equal_to_server(again.raw, project)


def test_what_leaves_no_time_is_found_when_all_is_gone_through(server, project, fetch):
    project.add(4)
    fetch()
    server.write(
        "UPDATE task_completion SET was_cancelled = 1 WHERE id = (SELECT min(id) FROM task_completion "
        "WHERE project_id = ?)",
        project.id,
    )
    assert took(fetch())["changed"] == 0
    assert took(fetch(reconcile_hours=0))["changed"] == 1
    assert_equal_to_server(fetch.raw, project)
