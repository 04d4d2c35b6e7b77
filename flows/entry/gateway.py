"""`fpenet gateway serve` and `status`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from flows.entry.terminal import say
from tasks.workspace import Workspace


def serve(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from tasks.gateway.prefect_events import prefect_api_url
    from tasks.gateway.settings import (
        LABEL_STUDIO_SECRET_ENV,
        MLFLOW_SECRET_ENV,
        GatewaySettings,
        SharedSecret,
        required_secret,
    )

    label_studio = required_secret(LABEL_STUDIO_SECRET_ENV)
    mlflow = SharedSecret.from_environment(MLFLOW_SECRET_ENV)
    settings = GatewaySettings(
        label_studio_bytes=arguments.max_body_mib << 20,
        timeout_s=arguments.timeout_s,
        tolerance_s=arguments.tolerance_s,
        client_rate=arguments.client_rate,
        unknown_rate=arguments.unknown_rate,
        retention_days=arguments.retention_days,
    )
    prefect = prefect_api_url()

    from flows.entry.gateway_app import build_app
    from flows.entry.gateway_http import listening, server
    from tasks.gateway.journal import Journal
    from tasks.gateway.rates import Rates

    Rates(settings)  # what is wrong in them is said before anything is opened
    folder = _folder(arguments)
    with listening(arguments.host, arguments.port) as socket:
        journal = Journal(folder, most_pending=settings.most_pending)
        app = build_app(journal, settings, label_studio=label_studio, mlflow=mlflow)
        host, port = socket.getsockname()[:2]
        say(
            f"gateway at http://{host}:{port}, journal in {folder}, events to {prefect}, MLflow's deliveries "
            + ("taken" if mlflow else f"refused: {MLFLOW_SECRET_ENV} is not set"),
        )
        server(app, settings, trusted_proxies=arguments.trusted_proxy).run(sockets=[socket])
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Show what the journal holds; the gateway may be running."""
    from tasks.gateway.journal import read_status

    found = read_status(_folder(arguments))
    say(
        f"pending: {found.pending:,}{_since(found.oldest_pending, ', the oldest received')}\n"
        f"forwarded: {found.forwarded:,}{_since(found.last_forwarded, ', last')}\n"
        f"refused by Prefect: {found.refused:,}\n"
        f"last received: {_since(found.last_received, '').strip() or 'never'}"
    )
    return 0


def _folder(arguments: argparse.Namespace) -> Path:
    return Path(arguments.journal) if arguments.journal else Workspace(Path(arguments.workspace)).gateway


def _since(seconds: float | None, what: str) -> str:
    if seconds is None:
        return ""
    return f"{what} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))} UTC"
