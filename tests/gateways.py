"""A real gateway process for tests, and deliveries as Label Studio and MLflow make them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
from mlflow.webhooks.delivery import _generate_hmac_signature

from tasks.gateway.settings import LABEL_STUDIO_SECRET_ENV, MLFLOW_SECRET_ENV, SECRET_HEADER
from tasks.gateway.signatures import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from tests.servers import HOST, free_port, running

SECRET = "the-secret-of-label-studio-0123"
PREVIOUS_SECRET = "the-secret-before-it-0123456789"
MLFLOW_SECRET = "the-secret-of-mlflow-0123456789"
NOBODY = f"http://{HOST}:9/api"
"""A Prefect that is down."""

LABEL_STUDIO_PATH, MLFLOW_PATH = "/webhooks/label-studio", "/webhooks/mlflow"


@dataclass(frozen=True)
class RunningGateway:
    url: str
    journal: Path
    log: Path
    process: Popen

    client: httpx.Client

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        return self.client.post(path, content=body, headers=dict(headers))

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def label_studio(self, body: Any, *, secret: str = SECRET, query: str = "") -> httpx.Response:
        """Post `body`, as JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.post(LABEL_STUDIO_PATH + query, content, {SECRET_HEADER: secret})

    def mlflow(self, body: Any, **stamp: Any) -> httpx.Response:
        content = json.dumps(body).encode()
        return self.post(MLFLOW_PATH, content, signed(content, **stamp))

    def metric(self, name: str, **labels: str) -> float:
        """Value of a metric; 0 if it was never counted."""
        shown = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
        pattern = re.compile(rf"{name}{re.escape('{' + shown + '}') if shown else ''} (\S+)")
        lines = self.get("/metrics").text.splitlines()
        return next((float(match[1]) for line in lines if (match := pattern.fullmatch(line))), 0.0)

    def kill(self) -> None:
        """No time to finish anything."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running_gateway(
    folder: Path, *options: str, prefect: str = NOBODY, environment: Mapping[str, str] | None = None
) -> Iterator[RunningGateway]:
    """`fpenet gateway serve` with its journal in `folder`/journal; its log grows over several of them."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    journal, log = folder / "journal", folder / "gateway.log"
    command = [sys.executable, "-m", "flows.entry.cli", "gateway", "serve", "--port", str(port)]
    command += ["--journal", str(journal), *options]
    variables = os.environ | {
        LABEL_STUDIO_SECRET_ENV: SECRET,
        f"{LABEL_STUDIO_SECRET_ENV}_PREVIOUS": PREVIOUS_SECRET,
        MLFLOW_SECRET_ENV: MLFLOW_SECRET,
        "PREFECT_API_URL": prefect,
        "PREFECT_HOME": str(folder / "prefect-client"),
    }
    health = f"{url}/healthz"
    one_connection_each = httpx.Limits(max_keepalive_connections=0)
    with (
        running(command, health_url=health, log=log, environment=variables | (environment or {})) as process,
        httpx.Client(base_url=url, timeout=60, limits=one_connection_each) as client,
    ):
        yield RunningGateway(url, journal, log, process, client)


def annotation_event(number: Any = 1, *, project: Any = 7, action: str = "ANNOTATION_CREATED", **more: Any) -> dict:
    """As Label Studio posts it, with an invite token and a face that nobody should find afterwards."""
    annotation = {"id": number, "project": project, "result": [{"value": {"x": 12.5}}]}
    held = {"id": project, "title": "faces of people", "token": "invite-token-xyz", "label_config": "<View/>"}
    payload = {"action": action, "annotation": annotation, "task": {"id": f"100{number}"}, "project": held}
    return payload | more


def registry_event(entity: str = "model_version_alias", action: str = "created", **data: Any) -> dict:
    data = {"name": "fpenet", "version": "3", "alias": "champion"} | data
    return {"entity": entity, "action": action, "timestamp": "2026-11-22T08:00:00+00:00", "data": data}


def signed(
    body: bytes, *, secret: str = MLFLOW_SECRET, delivery: str = "delivery-1", late_s: float = 0
) -> dict[str, str]:
    """MLflow's headers, by MLflow's own function, as if sent `late_s` ago."""
    timestamp = str(int(time.time() - late_s))
    return {
        DELIVERY_HEADER: delivery,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: _generate_hmac_signature(secret, delivery, timestamp, body.decode()),
    }
