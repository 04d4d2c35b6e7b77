"""A real Prefect server for tests, its command line, and a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.servers import HOST, free_port, running

PROJECT = Path(__file__).parents[1]
POOL = "trainer"
_POLL_S, _DEADLINE_S = 0.5, 240


@contextmanager
def prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """A fresh server that keeps its things below `folder`; yields the environment of its clients."""
    port = free_port()
    environment = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        "PWD": str(PROJECT),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    health = f"{environment['PREFECT_API_URL']}/health"
    with running(command, health_url=health, log=folder / "server.log", environment=environment):
        yield environment


@contextmanager
def prefect_worker(environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """A worker of the pool that `prefect.yaml` names."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--with-healthcheck"]
    own = {"PREFECT_WORKER_WEBSERVER_HOST": HOST, "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
    with running(command, health_url=f"http://{HOST}:{port}/health", log=log, environment={**environment, **own}):
        yield


def prefect(environment: Mapping[str, str], *arguments: str) -> str:
    """Run Prefect's command line in the project; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=os.environ | environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stop_schedules(environment: Mapping[str, str]) -> None:
    """Of all deployments: what runs then is what a test starts."""
    for deployment in ask(environment, "deployments"):
        for schedule in deployment["schedules"]:
            place = f"deployments/{deployment['id']}/schedules/{schedule['id']}"
            send(environment, "PATCH", place, {"active": False})


def ask(environment: Mapping[str, str], path: str, **criteria: Any) -> Any:
    """POST to a filter route of the server; what it found."""
    return send(environment, "POST", f"{path}/filter", criteria).json()


def send(environment: Mapping[str, str], method: str, path: str, body: Any) -> httpx.Response:
    """A request to the server, again while it is busy, as Prefect's own client does it.

    Raises:
        httpx.HTTPStatusError: it refused, or was busy for minutes.
    """
    for _ in range(int(_DEADLINE_S / _POLL_S)):
        reply = httpx.request(method, f"{environment['PREFECT_API_URL']}/{path}", json=body, timeout=60)
        if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(_POLL_S)
    return reply.raise_for_status()


def await_found(find: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What `find` gives as soon as that is something.

    Raises:
        AssertionError: it stayed empty for minutes.
    """
    for _ in range(int(_DEADLINE_S / _POLL_S)):
        if found := find():
            return found
        time.sleep(_POLL_S)
    raise AssertionError("what was awaited did not come")
