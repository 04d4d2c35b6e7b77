"""`fpenet review`: what waits for whom, and the webhook that makes it fast."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from flows.entry.terminal import console, say
from schemas.errors import InputError
from schemas.urls import without_credentials
from tasks.workspace import Workspace


def review(arguments: argparse.Namespace) -> int:
    if arguments.action == "init":
        return _init(arguments)
    return _list(arguments)


def _list(arguments: argparse.Namespace) -> int:
    """Show how the registry stands; nothing is changed, and nothing is acted on."""
    from schemas.config import load_config
    from tasks.review.inbox import look

    config = load_config(arguments.config)
    inbox = look(config.tracking, Workspace(Path(config.workspace)), config.review)
    table = Table("version", "gate", "by", "state", box=None, header_style="bold", pad_edge=False)
    for found in inbox.open:
        table.add_row(found.version, found.gate or "-", escape(found.by or "-"), escape(str(found.decision)))
    name = config.tracking.registered_model
    console.print(table if table.row_count else f"no version of {name} waits for anybody")
    for moved in inbox.moved:
        console.print(f"[yellow]note[/yellow] {escape(str(moved))}", soft_wrap=True)
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from schemas.config import load_config
    from tasks.review.webhooks import SERVER_NEEDS, ensure_webhook

    if not arguments.gateway:
        raise InputError("say where the gateway is: --gateway https://gateway.example.org")
    config = load_config(arguments.config)
    state = ensure_webhook(config.tracking, Workspace(Path(config.workspace)), gateway=arguments.gateway)
    what = "made" if state.created else "brought up to date"
    say(f"webhook {what}: {without_credentials(state.url)}")
    if state.answered:
        console.print("[green]the gateway took a test delivery[/]")
    else:
        console.print(f"[yellow]a test delivery did not arrive:[/] {escape(state.problem)}", soft_wrap=True)
        say(SERVER_NEEDS)
    return 0
