"""The webhook gateway."""

from __future__ import annotations

import argparse
from typing import Any

from flows.entry.commands.parsers import add_command, add_workspace, count

_SERVE = """\
environment variables:
  FPENET_LABEL_STUDIO_WEBHOOK_SECRET   what Label Studio shows; at least 16 characters, `openssl rand -hex 32`
  FPENET_MLFLOW_WEBHOOK_SECRET         what MLflow signs with; without it MLflow's deliveries are refused
  ..._PREVIOUS                         beside either: the secret before it, taken as well while senders change
  PREFECT_API_URL                      the Prefect server to wake; it may be down, events wait in the journal

Label Studio: `fpenet label-studio init` makes the webhook; by hand, under Settings > Webhooks of the project:
  URL      http://GATEWAY:8310/webhooks/label-studio
  header   X-FPENet-Secret: the secret
  With 'send payload' off nothing but the action leaves Label Studio; then add ?project=<id> to the URL.
  It sends to private addresses only with SSRF_PROTECTION_ENABLED=false, or with USE_DEFAULT_BANNED_SUBNETS=false
  and USER_ADDITIONAL_BANNED_SUBNETS naming what stays forbidden.

MLflow 3 (a server with a database, and MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY to keep the secret with): `fpenet review
init` makes the webhook; by hand:
  MlflowClient().create_webhook(name="fpenet", url="https://GATEWAY/webhooks/mlflow", secret="the secret",
      events=["model_version_tag.set", "model_version_alias.created", "model_version.created"])
  It sends to https and public addresses only, unless the server has MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and
  MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true.

What comes in is kept (project, action, ids, time; no payload), answered, and sent to Prefect as the events
  fpenet.annotations.changed        on fpenet.labelstudio.project.<id>
  fpenet.registry.<entity-action>   on fpenet.registry.model.<name>
Look at /healthz (503 if deliveries can't be kept, or are passed on no more; 200 while Prefect is away) and /metrics
(Prometheus).

The gateway speaks plain HTTP: beyond one machine put a proxy with TLS before it, and name it with --trusted-proxy.
One process takes some hundred deliveries a second; a second one needs a journal of its own.
"""


def add(commands: Any) -> None:
    parser = commands.add_parser("gateway", help="take webhooks of Label Studio and MLflow, and wake flows")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    serve = add_command(actions, "serve", "gateway:serve", "take webhooks until interrupted")
    serve.epilog, serve.formatter_class = _SERVE, argparse.RawDescriptionHelpFormatter
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=int, default=8310, help="(%(default)s)")
    serve.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="proxy whose X-Forwarded-For tells the sender's address; may be repeated",
    )
    serve.add_argument(
        "--max-body-mib", type=count, default=10, metavar="N", help="largest body of Label Studio (%(default)s MiB)"
    )
    serve.add_argument(
        "--timeout-s",
        type=count,
        default=10,
        metavar="N",
        help="longest wait for the head of a request, and for its body (%(default)s s)",
    )
    serve.add_argument(
        "--tolerance-s",
        type=count,
        default=300,
        metavar="N",
        help="how far MLflow's clock may be off, either way (%(default)s s, 6 h at most)",
    )
    serve.add_argument(
        "--client-rate",
        default="5000/10second",
        metavar="RATE",
        help="deliveries with the secret from one address (%(default)s)",
    )
    serve.add_argument(
        "--unknown-rate",
        default="600/minute",
        metavar="RATE",
        help="from one address: refused ones, and those of MLflow before they are believed (%(default)s)",
    )
    serve.add_argument(
        "--retention-days",
        type=count,
        default=14,
        metavar="N",
        help="how long forwarded entries are kept (%(default)s)",
    )
    _add_journal(serve)
    _add_journal(
        add_command(actions, "status", "gateway:status", "show what waits in the journal, and what was forwarded")
    )


def _add_journal(parser: argparse.ArgumentParser) -> None:
    add_workspace(parser)
    parser.add_argument("--journal", metavar="DIR", help="folder of the journal (default: gateway/ in the workspace)")
