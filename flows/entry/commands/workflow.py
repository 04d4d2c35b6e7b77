"""Running flows, and what they leave: engines at stages."""

from __future__ import annotations

from typing import Any

from flows.entry.commands.parsers import add_command, add_workspace

FLOWS = ("retrain",)
"""Each is the function of its name in `flows.<name>`, and takes the path of a configuration."""


def add(commands: Any) -> None:
    run = add_command(
        commands,
        "run",
        "workflow:run",
        "run a flow here, without a Prefect server to start",
        more="Running it again redoes only what has changed, and says what it reused.",
    )
    run.add_argument("flow", choices=FLOWS, help="which flow")
    run.add_argument("--config", required=True, metavar="FILE", help="configuration (YAML)")
    run.add_argument("--verbose", action="store_true", help="show Prefect's log")

    add_workspace(
        add_command(commands, "status", "workflow:status", "show which engine is at which stage, per target")
    )
    for name, summary in (
        ("promote", "make the staged engine of a target its production engine"),
        ("rollback", "restore the production engine that a target had before"),
    ):
        parser = add_command(commands, name, f"workflow:{name}", summary)
        parser.add_argument("--target", required=True, metavar="NAME", help="target device, such as cpu")
        parser.add_argument("--by", metavar="NAME", help="who decides (default: the login name)")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the target's log")
        add_workspace(parser)

    add_command(commands, "doctor", "workflow:doctor", "show what is installed, missing, and can be built here")
