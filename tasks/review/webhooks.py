"""MLflow's webhook to the gateway. It only makes review faster: without it the schedule finds what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.config import Tracking
from schemas.errors import InputError, TrackingError
from schemas.urls import without_credentials
from tasks.addresses import is_address
from tasks.gateway.settings import MLFLOW_SECRET_ENV, required_secret
from tasks.mlflow_client import all_pages, mlflow_client
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.entities.webhook import WebhookTestResult

NAME = "fpenet"
PATH = "/webhooks/mlflow"
EVENTS = ("model_version_tag.set", "model_version_alias.created", "model_version.created")

SERVER_NEEDS = """\
What MLflow's server needs:
  - a database (--backend-store-uri sqlite:///... or postgresql://...)
  - MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, a Fernet key that stays the same: without it the server makes one up, and
    delivers nothing after its next restart
  - an https address of the gateway that is public; for http or a private address it must be started with
    MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true, which lets whoever may make
    webhooks reach your network through it
Nothing is lost without the webhook: the deployment `review` looks at the registry on its schedule."""


@dataclass(frozen=True)
class WebhookState:
    """The webhook as it is now.

    Attributes:
        url: where it sends.
        created: whether it was made now; else what is asked for was written into the one that was there.
        answered: whether the gateway took a test delivery; `problem` why not.
    """

    url: str
    created: bool
    answered: bool
    problem: str


def ensure_webhook(tracking: Tracking, workspace: Workspace, *, gateway: str) -> WebhookState:
    """Make the webhook, or bring the one that is there up to date; then let MLflow send a test through it.

    The secret is `FPENET_MLFLOW_WEBHOOK_SECRET`, the one that the gateway has.

    Args:
        gateway: its address, such as https://gateway.example.org.

    Raises:
        InputError: no secret, no address, or the configuration names no MLflow server.
        TrackingError: the server can't be reached, or refuses; the message says what it needs.
    """
    if not (tracking.uri or "").startswith(("http://", "https://")):
        raise InputError(
            "tracking.uri names no MLflow server, so there is nobody to send webhooks; the schedule of the "
            "deployment `review`, or `fpenet run review`, finds what was decided"
        )
    secret = required_secret(MLFLOW_SECRET_ENV).current.decode()
    url = _address(gateway)
    try:
        with mlflow_client(tracking, workspace) as client:
            held = next((hook for hook in all_pages(client.list_webhooks) if hook.name == NAME), None)
            if held is None:
                hook = client.create_webhook(NAME, url, list(EVENTS), secret=secret)
            else:  # the secret can't be read back, so it is written again
                hook = client.update_webhook(
                    held.webhook_id, url=url, events=list(EVENTS), secret=secret, status="ACTIVE"
                )
            result = client.test_webhook(hook.webhook_id, EVENTS[0])
    except TrackingError as error:
        raise TrackingError(f"{error}\n{SERVER_NEEDS}") from error
    return WebhookState(url, held is None, bool(result.success), _problem(result))


def _address(gateway: str) -> str:
    if not is_address(gateway):
        shown = without_credentials(gateway)
        raise InputError(f"{shown!r} is no address of a gateway; name it as https://gateway.example.org")
    return f"{gateway.rstrip('/')}{PATH}"


def _problem(result: WebhookTestResult) -> str:
    if result.success:
        return ""
    said = result.error_message or f"it answered {result.response_status}: {result.response_body}"
    return without_credentials(said)
