"""Real servers on loopback ports, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

POLL_S = 0.25


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    health: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 180.0,
) -> Iterator[subprocess.Popen]:
    """Start a server, yield once `health` answers with success, stop it and all its children afterwards.

    Raises:
        AssertionError: it ended or didn't answer in time; with the end of its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
            start_new_session=True,
        )
    try:
        _wait_until_healthy(process, health, log, timeout_s)
        yield process
    finally:
        _stop(process)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """MLflow with a SQLite store and proxied artifacts below `folder`; yields its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", url.rsplit(":", 1)[1], "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with running(command, health=f"{url}/health", log=folder / "mlflow.log", environment=environment):
        yield url


def _wait_until_healthy(process: subprocess.Popen, health: str, log: Path, timeout_s: float) -> None:
    for _ in range(int(timeout_s / POLL_S)):
        if process.poll() is not None:
            break
        try:
            if httpx.get(health, timeout=5.0).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        try:
            process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"{process.args[0]} does not answer at {health}:\n{log.read_text()[-3000:]}")


def _stop(process: subprocess.Popen) -> None:
    for signal_number, patience_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, signal_number)
            process.wait(patience_s)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
