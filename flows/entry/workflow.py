"""`fpenet run`, `doctor`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.entry.terminal import console
from schemas.errors import ForwardError, InputError
from schemas.storage import make_folder
from schemas.urls import without_credentials

OPTIONS = {"version": "rollout", "records": "drift"}
"""Of `fpenet run`: parameter -> the flow that takes it."""

PREFECT_TIMEOUT_S = 30.0


def run(arguments: argparse.Namespace) -> int:
    """Run the flow in this process; Prefect keeps its own server's files in the workspace unless told otherwise."""
    from schemas.config import load_config

    options = _options(arguments)
    config = load_config(arguments.config)
    _require_prefect()
    _quiet_prefect(Path(config.workspace), verbose=arguments.verbose)
    _keep_prefect_to_the_end()
    getattr(importlib.import_module(f"flows.{arguments.flow}"), arguments.flow)(arguments.config, **options)
    return 0


def _options(arguments: argparse.Namespace) -> dict[str, str]:
    """Those that were given, if the flow takes them."""
    options = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    for name in options:
        if arguments.flow != OPTIONS[name]:
            raise InputError(f"--{name}: the flow '{arguments.flow}' takes none, only `{OPTIONS[name]}` does")
    return options


def _require_prefect() -> None:
    """Where a server is named, it answers: Prefect itself tells of another in a hundred lines.

    Whom to trust is for Prefect's own client to say, by settings of its own; nothing secret is sent here.
    """
    import httpx

    from tasks.addresses import is_address

    if not (url := os.environ.get("PREFECT_API_URL")):
        return
    if is_address(url):
        with suppress(httpx.HTTPError):
            httpx.get(f"{without_credentials(url).rstrip('/')}/health", timeout=PREFECT_TIMEOUT_S, verify=False)
            return
    raise ForwardError(
        f"Prefect at {without_credentials(url)} does not answer: start it (prefect server start), or unset "
        "PREFECT_API_URL"
    )


def _quiet_prefect(workspace: Path, *, verbose: bool) -> None:
    """Must come before Prefect is imported: it reads its settings then."""
    if not {"PREFECT_API_URL", "PREFECT_HOME"}.intersection(os.environ):
        home = (workspace / "prefect").resolve()
        make_folder(home)
        os.environ["PREFECT_HOME"] = str(home)
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # a busy machine takes 20
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "WARNING" if verbose else "CRITICAL")


def _keep_prefect_to_the_end() -> None:
    """Ctrl-C reaches all of a terminal's processes. Prefect's own server would be gone when the flow tells it of its
    end, which then tries for more than a minute; and a SIGTERM would leave the server behind."""
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()  # the one that the flow's client starts, where no other is named
    spawn = server._run_uvicorn_command

    def spawn_deaf() -> subprocess.Popen[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is blocked stays so in a child
        try:
            return spawn()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end_both(number: int, _: object) -> None:
        if server.server_process is not None:
            server.server_process.terminate()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    server._run_uvicorn_command = spawn_deaf
    signal.signal(signal.SIGTERM, end_both)


def doctor(arguments: argparse.Namespace) -> int:
    from deploy.doctor import examine

    health = examine()
    console.print(f"Python {health.python}, {health.system}, {health.cpus} cores")
    packages = Table("package", "version", box=None, header_style="bold")
    for name, version in health.packages.items():
        packages.add_row(name, version or "[yellow]not installed[/]")
    console.print(packages)
    console.print("GPU: " + ("; ".join(health.gpu.devices) or f"none: {health.gpu.reason}"))
    builders = Table("builder", "here", "", box=None, header_style="bold")
    for name, probe in health.builders.items():
        builders.add_row(name, "[green]builds[/]" if probe.available else "[red]no[/]", probe.reason)
    console.print(builders)
    targets = Table("target", "device", "build here", "run here", box=None, header_style="bold")
    for target in health.targets:
        targets.add_row(target.name, target.title, target.build_why_not or "yes", target.run_why_not or "yes")
    console.print(targets)
    for line in _servers():
        console.print(line)
    return 0


def _servers() -> list[str]:
    """Which of the servers named in the environment answer."""
    import httpx

    from tasks.addresses import is_address

    lines = []
    for variable, path in (
        ("LABEL_STUDIO_URL", "/health/"),
        ("MLFLOW_TRACKING_URI", "/health"),  # for configurations that name it
        ("PREFECT_API_URL", "/health"),
    ):
        url = os.environ.get(variable)
        if not url:
            lines.append(f"{variable}: not set")
            continue
        shown = f"{variable}: {without_credentials(url)}"
        if not is_address(url):
            lines.append(f"{shown} is no address")
            continue
        try:
            answer = httpx.get(f"{url.rstrip('/')}{path}", timeout=5.0)
            lines.append(f"{shown} answers {answer.status_code}")
        except httpx.HTTPError as error:
            lines.append(f"{shown} can't be reached: {str(error) or type(error).__name__}")
    return lines
