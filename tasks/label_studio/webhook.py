"""The webhook that tells the gateway what happens in a project."""

from __future__ import annotations

from typing import Any

import httpx

from schemas.errors import SourceRefusedError, SpecError
from schemas.urls import without_credentials
from tasks.gateway.settings import SECRET_HEADER
from tasks.label_studio.client import Connection
from tasks.label_studio.outcome import Outcome, State

ACTIONS = (
    "ANNOTATIONS_CREATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "PROJECT_UPDATED",
    "TASKS_CREATED",
    "TASKS_DELETED",
)
"""Everything that can change what a pull gives. Predictions and drafts fire nothing."""

_PATH = "/api/webhooks/"
_PROTECTED = ("reserved network", "must not resolve to")
_UNRESOLVED = "resolve hostname"


def ensure_webhook(connection: Connection, project_id: int, url: str, secret: str) -> Outcome:
    """Make the project's webhook to `url`, or put the one that is there right.

    Raises:
        SourceRefusedError: the server does not send to such addresses.
        SourceUnreachableError: nobody answers.
    """
    wanted = {
        "url": url,
        "headers": {SECRET_HEADER: secret},
        "actions": list(ACTIONS),
        "send_for_all_actions": False,
        "send_payload": True,  # without it an event names no annotation
        "is_active": True,
    }
    shown = without_credentials(url)
    with connection.errors():
        reply = connection.files.get(_PATH, params={"project": project_id})
        reply.raise_for_status()
        there = sorted((hook for hook in reply.json() if hook["url"] == url), key=lambda hook: hook["id"])
        if not there:
            _checked(connection.files.post(_PATH, json=wanted | {"project": project_id}), shown)
            return Outcome("webhook", State.MADE, f"tells {shown} of {len(ACTIONS)} kinds of events")
        drift = _drift(there[0], wanted)
        if drift:
            _checked(connection.files.patch(f"{_PATH}{there[0]['id']}/", json=wanted), shown)
    also = f"; {len(there) - 1} more of this project go there too, delete them" if len(there) > 1 else ""
    return Outcome("webhook", State.CHANGED if drift else State.FOUND, f"to {shown}{also}", drift)


def _drift(there: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, ...]:
    """What of a webhook is otherwise; no values, for one of them is the secret."""
    actual = there | {"actions": sorted(there["actions"])}
    return tuple(f"its {key.replace('_', ' ')} had changed" for key, value in wanted.items() if actual[key] != value)


def _checked(reply: httpx.Response, shown: str) -> None:
    if reply.status_code == httpx.codes.FORBIDDEN and any(word in reply.text for word in _PROTECTED):
        raise SourceRefusedError(
            f"Label Studio does not send events to {shown}: that is a local or private address, which the server is "
            "protected against (HTTP 403). Give the gateway a public address, or have the server started with "
            "USE_DEFAULT_BANNED_SUBNETS=false and the networks that stay forbidden in USER_ADDITIONAL_BANNED_SUBNETS"
        )
    if _UNRESOLVED in reply.text:
        raise SpecError("--webhook-url", f"Label Studio finds no host for {shown}; correct it, or the server's DNS")
    reply.raise_for_status()
