"""Engines on devices: what is where, and what is to be where."""

from __future__ import annotations

import argparse
from typing import Any

from flows.entry.commands.parsers import add_command, add_place


def add(commands: Any) -> None:
    status = add_command(
        commands,
        "status",
        "fleet:status",
        "show which engine is at which stage and on which devices, per target",
        more="An engine that has gone on stands at its last stage. It tells what is written down here; with --check "
        "the devices are asked. Without --config the devices are those that come with the project: this machine.",
    )
    add_place(status)
    status.add_argument("--check", action="store_true", help="ask every device what it runs, and who changed it")
    status.add_argument("--json", action="store_true", help="write everything as JSON")

    promote = _add_change(
        commands,
        "promote",
        "bring an engine to the canary devices of a target, or on to all of its devices",
        more="An engine goes from staging to canary to production; a target without canary devices skips canary. "
        "Its model's version has to be the one that was approved. Again with the same stage, it asks devices that "
        "were offline again. An engine that a device has not run before is measured on it first, and runs there only "
        "if it passes. --config names the fleet, and with it the canary devices.",
    )
    promote.add_argument(
        "--override",
        default="",
        metavar="REASON",
        help="why a version that is not approved goes there; kept in the log",
    )
    promote.add_argument(
        "--to", choices=("canary", "production"), default="production", help="the stage (default: %(default)s)"
    )
    _add_change(
        commands,
        "rollback",
        "end a canary, or restore the production engine that a target had before, on its devices",
        more="A canary that is newer than production is ended alone: its devices run what is in production again, or "
        "nothing. Otherwise production goes back by one engine. It says what was taken back.",
    )

    deliver = add_command(
        commands,
        "deliver",
        "fleet:deliver",
        "have the devices of a target run what its stages say",
        more="For devices that were offline, failed, are new, or were changed by hand; no stage changes. An engine "
        "that a device has not run before is measured on it first, as by the flow rollout.",
    )
    deliver.add_argument("--target", required=True, metavar="NAME", help="kind of device, such as t4")
    _add_config(deliver)


def _add_change(commands: Any, name: str, summary: str, *, more: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, f"fleet:{name}", summary, more=more)
    parser.add_argument("--target", required=True, metavar="NAME", help="kind of device, such as t4")
    parser.add_argument("--by", metavar="NAME", help="who decides (default: the login name)")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the target's log")
    _add_config(parser)
    return parser


def _add_config(parser: Any) -> None:
    told = "configuration (YAML): its workspace, targets and devices"
    parser.add_argument("--config", metavar="FILE", required=True, help=told)
