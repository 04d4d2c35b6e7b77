"""A real MLflow server for tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers import HOST, free_port, running


@contextmanager
def mlflow_server(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """MLflow with a SQLite store and proxied artifacts below `folder`; yields its URL."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment |= variables or {}
    with running(command, health_url=f"{url}/health", log=folder / "mlflow.log", environment=environment):
        yield url
