"""Review of versions in MLflow's registry."""

from __future__ import annotations

from typing import Any

from flows.entry.commands.parsers import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "review",
        "review:review",
        "show which versions wait for a reviewer, and why an approval does not hold",
        more="Decisions are tags of a version, set in MLflow's own pages: review, review.by, review.reason, "
        "review.report, review.override (docs/review.md). `fpenet run review` acts on them, as the deployment "
        "`review` does on its schedule and when MLflow's webhook tells. `fpenet review init` makes that webhook; it "
        "may be run again. Its secret is the environment variable FPENET_MLFLOW_WEBHOOK_SECRET.",
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "init"), default="list", help="list (default), or make the webhook"
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the flows' configuration: which MLflow")
    parser.add_argument("--gateway", metavar="URL", help="for init: the gateway, such as https://gateway.example.org")
