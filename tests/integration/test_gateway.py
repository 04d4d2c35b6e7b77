"""The webhook gateway between real servers: Label Studio and MLflow send, Prefect is woken, also after a pause."""

import os
import socket
import sqlite3
import sys
from contextlib import closing, contextmanager

import httpx
import pytest
from cryptography.fernet import Fernet
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.events import ReceivedEvent
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from tasks.gateway.journal import FILE
from tasks.gateway.settings import SECRET_HEADER
from tests.gateways import LABEL_STUDIO_PATH, MLFLOW_PATH, MLFLOW_SECRET, SECRET, running_gateway
from tests.mlflow_servers import mlflow_server
from tests.prefect_servers import await_found
from tests.servers import HOST, running

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <KeyPointLabels name="kp" toName="image"><Label value="P1"/></KeyPointLabels>
</View>"""
PREFECT_PASSWORD = "gateway:password-of-prefect"


@contextmanager
def prefect_server(folder, held):
    """A Prefect on the port of `held` that wants a password and CSRF tokens."""
    port = held.getsockname()[1]
    held.close()
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_AUTH_STRING": PREFECT_PASSWORD,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    health = f"http://{HOST}:{port}/api/health"
    with running(command, health_url=health, log=folder / "prefect.log", environment=environment):
        yield


def held_port():
    """A socket that keeps a port of its own without listening, for a server that comes later."""
    held = socket.socket()
    held.bind((HOST, 0))
    return held


@contextmanager
def project_with_a_webhook(label_studio, gateway):
    """A project of a real Label Studio that sends what happens in it; its id, and a client of the server."""
    token = {"Authorization": f"Token {label_studio.token}"}
    with httpx.Client(base_url=f"{label_studio.url}/api", headers=token, timeout=120) as server:
        project = server.post("/projects/", json={"title": "gateway", "label_config": CONFIG}).json()["id"]
        hook = {"url": f"{gateway.url}{LABEL_STUDIO_PATH}", "headers": {SECRET_HEADER: SECRET}, "project": project}
        assert server.post("/webhooks/", json=hook | {"send_for_all_actions": True}).status_code == 201
        try:
            yield project, server
        finally:
            server.delete(f"/projects/{project}/")


def label(project, server) -> tuple[int, list[int]]:
    """Import two tasks; label one, correct it, skip and delete; the task and annotations that it was about."""
    tasks = [{"data": {"image": f"/data/{name}.png"}} for name in "ab"]
    server.post(f"/projects/{project}/import", json=tasks).raise_for_status()
    first, second = (task["id"] for task in server.get("/tasks/", params={"project": project}).json()["tasks"])
    point = {"x": 10, "y": 20, "width": 0.3, "keypointlabels": ["P1"]}
    result = {"from_name": "kp", "to_name": "image", "type": "keypointlabels", "id": "a", "value": point}
    made = server.post(f"/tasks/{first}/annotations/", json={"result": [result]}).json()["id"]
    server.patch(f"/annotations/{made}/", json={"result": []}).raise_for_status()
    skipped = server.post(f"/tasks/{first}/annotations/", json={"result": [], "was_cancelled": True}).json()["id"]
    server.delete(f"/annotations/{made}/").raise_for_status()
    server.delete(f"/tasks/{second}/").raise_for_status()
    return first, [made, skipped]


def journal_of(gateway):
    """(subject, action) of every entry."""
    with closing(sqlite3.connect(gateway.journal / FILE)) as journal:
        return journal.execute("SELECT subject, action FROM entries ORDER BY id").fetchall()


def events_of(api, enough):
    """Prefect's events of ours, as soon as `enough` says so of them."""
    ours = {"filter": {"event": {"prefix": ["fpenet."]}}}
    server = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: PREFECT_PASSWORD}

    def found():
        reply = client.request("POST", "/events/filter", json=ours)
        events = [ReceivedEvent.model_validate(event) for event in reply.json()["events"]]
        return events if enough(events) else []

    with temporary_settings(server), get_client(sync_client=True) as client:
        return await_found(found)


def move_the_champion(url, gateway):
    """Let MLflow sign and send an alias that moves and a tag that is set."""
    client = MlflowClient(url, url)
    names = ["model_version_alias.created", "model_version_tag.set"]
    client.create_webhook("fpenet", f"{gateway.url}{MLFLOW_PATH}", names, secret=MLFLOW_SECRET)
    run = client.create_run(client.create_experiment("gateway"))
    client.create_registered_model("faces")
    client.create_model_version("faces", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_model_version_tag("faces", "1", "review", "approved")
    client.set_registered_model_alias("faces", "champion", "1")


@pytest.fixture
def webhook_variables():
    return {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
    }


@pytest.mark.slow
def test_what_happens_in_label_studio_and_mlflow_wakes_prefect_even_if_it_was_away(
    label_studio, tmp_path, webhook_variables
):
    held = held_port()
    api = f"http://{HOST}:{held.getsockname()[1]}/api"
    password = {"PREFECT_API_AUTH_STRING": PREFECT_PASSWORD}
    with running_gateway(tmp_path, prefect=api, environment=password) as gateway:
        with project_with_a_webhook(label_studio, gateway) as (project, server):
            task, annotations = label(project, server)
        actions = [action for subject, action in journal_of(gateway) if subject == str(project)]
        assert actions == [
            "TASKS_CREATED",
            "ANNOTATION_CREATED",
            "ANNOTATION_UPDATED",
            "ANNOTATION_CREATED",
            "ANNOTATIONS_DELETED",
            "TASKS_DELETED",
        ], "each within the second that Label Studio waits"
        assert gateway.get("/healthz").json()["status"] == "degraded"
        assert gateway.metric("fpenet_gateway_backlog") == len(actions)

        with mlflow_server(tmp_path / "mlflow", webhook_variables) as mlflow_url, prefect_server(tmp_path, held):
            move_the_champion(mlflow_url, gateway)
            events = events_of(
                api, lambda found: len({e.event for e in found}) == 3 and len(found) >= 2 + len(set(actions))
            )
        changed = [event for event in events if event.event == "fpenet.annotations.changed"]
        assert {event.resource.id for event in changed} == {f"fpenet.labelstudio.project.{project}"}
        assert {event.payload["project_id"] for event in changed} == {project}
        assert {event.payload["action"] for event in changed} == set(actions)
        assert {number for event in changed for number in event.payload["annotation_ids"]} == set(annotations)
        assert all(task in e.payload["task_ids"] for e in changed if e.payload["action"] == "ANNOTATION_UPDATED")

        registry = {event.event: event for event in events if event.event.startswith("fpenet.registry.")}
        assert {event.resource.id for event in registry.values()} == {"fpenet.registry.model.faces"}
        moved = registry["fpenet.registry.model-version-alias-created"].payload
        assert (moved["name"], moved["version"], moved["alias"]) == ("faces", "1", "champion")
        assert registry["fpenet.registry.model-version-tag-set"].payload["tag"] == "review"
        for secret in (SECRET, MLFLOW_SECRET, PREFECT_PASSWORD):
            assert secret not in gateway.log.read_text()
