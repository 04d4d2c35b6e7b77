"""`fpenet run`, `status`, `promote`, `rollback`, `doctor`."""

from __future__ import annotations

import argparse
import getpass
import importlib
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from schemas.errors import InputError
from tasks.workspace import Workspace

console = Console(highlight=False)


def run(arguments: argparse.Namespace) -> int:
    """Run the flow in this process; Prefect keeps its own server's files in the workspace unless told otherwise."""
    from schemas.config import load_config

    config = load_config(arguments.config)
    _quiet_prefect(Path(config.workspace), verbose=arguments.verbose)
    options = {}
    if arguments.version is not None:
        if arguments.flow != "rollout":
            raise InputError(f"--version: the flow '{arguments.flow}' takes none, only `rollout` does")
        options["version"] = arguments.version
    getattr(importlib.import_module(f"flows.{arguments.flow}"), arguments.flow)(arguments.config, **options)
    return 0


def _quiet_prefect(workspace: Path, *, verbose: bool) -> None:
    """Must come before Prefect is imported: it reads its settings then."""
    if not {"PREFECT_API_URL", "PREFECT_HOME"}.intersection(os.environ):
        home = (workspace / "prefect").resolve()
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")  # a busy machine takes 20
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "WARNING" if verbose else "CRITICAL")


def status(arguments: argparse.Namespace) -> int:
    from deploy.stages import StageStatus
    from deploy.stages import status as stages_of

    targets = _workspace(arguments).targets
    table = Table("target", "stage", "model", "engine", "since (UTC)", "check", box=None, header_style="bold")
    for place in sorted(targets.glob("*/")):
        held: StageStatus = stages_of(targets, place.name)
        for name, pointer in (("production", held.production), ("staging", held.staging)):
            if pointer is not None:
                engine, event = pointer.engine, pointer.event
                model = f"{engine.model_name} {engine.model_version}".strip()
                since = event.at[:16].replace("T", " ")
                table.add_row(place.name, name, model, engine.build_key[:8], since, engine.check)
    console.print(table if table.row_count else f"no engine yet below {targets}; run the flow first")
    return 0


def promote(arguments: argparse.Namespace) -> int:
    from deploy.stages import promote as promote_engine

    pointer = promote_engine(
        _workspace(arguments).targets, arguments.target, by=_decider(arguments), why=arguments.reason
    )
    before = f"; before it: {pointer.event.before}" if pointer.event.before else ""
    console.print(f"{arguments.target}: in production: {pointer.engine}{before}")
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    from deploy.stages import rollback as roll_back

    pointer = roll_back(_workspace(arguments).targets, arguments.target, by=_decider(arguments), why=arguments.reason)
    console.print(f"{arguments.target}: in production again: {pointer.engine}; taken back: {pointer.event.before}")
    return 0


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

    lines = []
    for variable, path in (
        ("LABEL_STUDIO_URL", "/health/"),
        ("MLFLOW_TRACKING_URI", "/health"),
        ("PREFECT_API_URL", "/health"),
    ):
        url = os.environ.get(variable)
        if not url:
            lines.append(f"{variable}: not set")
            continue
        try:
            answer = httpx.get(f"{url.rstrip('/')}{path}", timeout=5.0)
            lines.append(f"{variable}: {url} answers {answer.status_code}")
        except httpx.HTTPError as error:
            lines.append(f"{variable}: {url} can't be reached: {error}")
    return lines


def _workspace(arguments: argparse.Namespace) -> Workspace:
    root = Path(arguments.workspace)
    if not root.is_dir():
        raise InputError(f"{root}: no such workspace; name the one of the run's configuration with --workspace")
    return Workspace(root)


def _decider(arguments: argparse.Namespace) -> str:
    return arguments.by or getpass.getuser()
