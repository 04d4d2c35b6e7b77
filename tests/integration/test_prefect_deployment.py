"""`prefect.yaml` on a real Prefect server: deployed, picked up by a worker, run to its end."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.retrain_project import render_faces, write_project
from tests.servers import free_port, running

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prefect_environment(tmp_path_factory):
    """The environment of a client of a fresh server; the server runs as long as the tests of this module."""
    folder = tmp_path_factory.mktemp("prefect")
    port = free_port()
    environment = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        "PWD": str(PROJECT),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    health = f"{environment['PREFECT_API_URL']}/health"
    with running(command, health_url=health, log=folder / "server.log", environment=environment):
        yield environment


def prefect(environment, *arguments: str) -> str:
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


def test_the_nightly_deployment_runs_on_a_worker(prefect_environment, tmp_path):
    config = write_project(tmp_path, faces=render_faces(tmp_path / "faces"), epochs=1)
    prefect(prefect_environment, "work-pool", "create", "--type", "process", "trainer")
    prefect(prefect_environment, "--no-prompt", "deploy", "--all")
    api = prefect_environment["PREFECT_API_URL"]
    (deployment,) = httpx.post(f"{api}/deployments/filter", json={}).json()
    assert deployment["name"] == "nightly"
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["0 2 * * *"]

    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "trainer"]
    health = f"{api}/health"
    with running(worker, health_url=health, log=tmp_path / "worker.log", environment=prefect_environment):
        prefect(prefect_environment, "deployment", "run", "retrain/nightly", "--param", f"config={config}", "--watch")
    (run,) = httpx.post(
        f"{api}/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    ).json()
    assert run["deployment_id"] == deployment["id"]
    assert list((tmp_path / "workspace/reports").glob("*/index.html"))
    names = {task["name"].split("-")[0] for task in httpx.post(f"{api}/task_runs/filter", json={}).json()}
    assert {"pull", "validate", "snapshot", "convert", "train", "evaluate", "export", "register", "build"} <= names
