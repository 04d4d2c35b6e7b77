"""Journal entries as Prefect events: names, resources and payloads that automations match."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tasks.gateway.hints import LABEL_STUDIO, MOST_IDS, Hint

ANNOTATIONS_CHANGED = "fpenet.annotations.changed"
PROJECT_RESOURCE = "fpenet.labelstudio.project."
REGISTRY_EVENT = "fpenet.registry."
MODEL_RESOURCE = "fpenet.registry.model."
TAG_LABEL = "fpenet.registry.tag"
"""Label of the resource: name of the tag that was set."""

_IDS = ("task_ids", "annotation_ids")


@dataclass(frozen=True)
class Entry:
    """A hint as the journal keeps it. `received`: seconds since 1970."""

    number: int
    received: float
    hint: Hint


def coalesce(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries that make one event each: those of Label Studio by project and action, as long as their ids fit.

    The order within a group, and of the groups' first entries, is that of `entries`.
    """
    groups: list[list[Entry]] = []
    open_groups: dict[tuple[str, str], tuple[list[Entry], set[tuple[str, int]]]] = {}
    for entry in entries:
        hint = entry.hint
        if hint.source != LABEL_STUDIO:
            groups.append([entry])
            continue
        ids = {(name, number) for name in _IDS for number in hint.detail[name]}
        group, held = open_groups.get((hint.subject, hint.action), (None, set()))
        if group is None or len(held | ids) > MOST_IDS or bool(held) != bool(ids):
            group, held = [], set()
            open_groups[hint.subject, hint.action] = group, held
            groups.append(group)
        group.append(entry)
        held |= ids
    return groups


def prefect_event(group: Sequence[Entry], *, event_id: UUID, now: float) -> dict[str, Any]:
    """The event of a group, as `POST /api/events` takes it.

    It occurs `now`, when it is sent: an automation ignores an event from before its current window, so one that had
    waited for Prefect would wake nobody. When it was received stands in the payload.
    """
    hint = group[-1].hint
    name, resource, payload = _annotations(group) if hint.source == LABEL_STUDIO else _registry(hint)
    return {
        "id": str(event_id),
        "occurred": _iso(now),
        "event": name,
        "resource": {"prefect.resource.id": resource, "prefect.resource.name": hint.subject} | _labels(hint),
        "payload": payload | {"received_at": _iso(group[-1].received)},
    }


def _annotations(group: Sequence[Entry]) -> tuple[str, str, dict[str, Any]]:
    hint = group[-1].hint
    ids = {name: sorted({number for entry in group for number in entry.hint.detail[name]}) for name in _IDS}
    payload = {"project_id": int(hint.subject), "action": hint.action} | ids
    return ANNOTATIONS_CHANGED, f"{PROJECT_RESOURCE}{hint.subject}", payload


def _registry(hint: Hint) -> tuple[str, str, dict[str, Any]]:
    name = REGISTRY_EVENT + hint.action.replace(".", "-").replace("_", "-")
    return name, f"{MODEL_RESOURCE}{hint.subject}", {"name": hint.subject} | dict(hint.detail)


def _labels(hint: Hint) -> dict[str, str]:
    """What an automation can choose by beside the resource: it does not look into a payload."""
    return {TAG_LABEL: hint.detail["tag"]} if "tag" in hint.detail else {}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
