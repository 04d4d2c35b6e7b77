"""What is kept of a delivery: who changed, how, and the ids. The rest of the payload is left where it came from.

A hint says where to look; what really changed is read from Label Studio or MLflow. So a hint too many costs a look,
and one that is lost waits for the next scheduled run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.errors import DeliveryError

LABEL_STUDIO, MLFLOW = "label-studio", "mlflow"

LABEL_STUDIO_ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "LABEL_LINK_CREATED",
    "LABEL_LINK_UPDATED",
    "LABEL_LINK_DELETED",
    "PROJECT_CREATED",
    "PROJECT_UPDATED",
    "PROJECT_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
)
"""Actions of Label Studio 1.23. Others are kept as well: see ADR 009."""

REGISTRY_ACTIONS = (
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
)
"""Events about models of MLflow 3.17, `<entity>.<action>`."""

MOST_IDS = 1000
"""Ids kept of one delivery, and sent in one event; instead of more, none: look at the whole project."""

_ACTION = re.compile(r"[A-Z][A-Z_]{0,63}")
_EVENT = re.compile(r"(registered_model|model_version)[a-z_]{0,40}\.[a-z_]{1,40}")
_ID = re.compile(r"[0-9]{1,18}")
_LONGEST_NAME = 500


@dataclass(frozen=True)
class Hint:
    """Attributes:
    source: `label-studio` or `mlflow`.
    subject: id of the project, or name of the registered model.
    action: Label Studio's action, or MLflow's `<entity>.<action>`.
    detail: `task_ids` and `annotation_ids` (empty: not known, or too many); or `version`, `alias`, `tag`, such as
        there are.
    """

    source: str
    subject: str
    action: str
    detail: Mapping[str, Any]

    @property
    def known(self) -> bool:
        return self.action in LABEL_STUDIO_ACTIONS or self.action in REGISTRY_ACTIONS


def label_studio_hint(body: bytes, *, project: str | None = None) -> Hint:
    """Args:
        body: as Label Studio posts it.
        project: id of the project, for webhooks without a payload, which tell the action only.

    Raises:
        DeliveryError: `malformed` (no JSON), `not-understood` (no object, action, project, or an id that is none).
    """
    payload = _parsed(body)
    action = payload.get("action")
    if not (isinstance(action, str) and _ACTION.fullmatch(action)):
        raise DeliveryError("not-understood", "'action' is not there, or is no action of Label Studio")
    tasks, annotations = (_ids(payload, names) for names in (("task", "tasks"), ("annotation", "annotations")))
    detail = {"task_ids": tasks, "annotation_ids": annotations}
    if len(tasks) + len(annotations) > MOST_IDS:
        detail = {"task_ids": [], "annotation_ids": []}
    return Hint(LABEL_STUDIO, str(_project(payload.get("project"), project)), action, detail)


def registry_hint(body: bytes) -> Hint | None:
    """The hint in a delivery of MLflow; None if it is about something other than models, such as prompts.

    Raises:
        DeliveryError: `malformed`, `not-understood`.
    """
    payload = _parsed(body)
    entity, action, data = (payload.get(name) for name in ("entity", "action", "data"))
    if not (isinstance(entity, str) and isinstance(action, str) and isinstance(data, dict)):
        raise DeliveryError("not-understood", "'entity', 'action' and 'data' are not all there")
    event = f"{entity}.{action}"
    if not _EVENT.fullmatch(event):
        return None
    found = {
        name: data[key] for name, key in (("version", "version"), ("alias", "alias"), ("tag", "key")) if key in data
    }
    for key, value in (("name", data.get("name")), *found.items()):
        if not (isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME):
            raise DeliveryError("not-understood", f"'data.{key}' is no text of 1 to {_LONGEST_NAME} characters")
    return Hint(MLFLOW, data["name"], event, found)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"at line {error.lineno}, column {error.colno}" if body else "but empty"
        raise DeliveryError("malformed", f"the body is no JSON, {where}") from None  # it would quote the body
    if not isinstance(payload, dict):
        raise DeliveryError("not-understood", "the body is JSON, but no object")
    return payload


def _project(held: Any, named: str | None) -> int:
    """The project's id out of the payload; `named`, out of the URL, where the payload has none."""
    inside = held.get("id") if isinstance(held, dict) else held
    if inside is None and named is None:
        raise DeliveryError(
            "not-understood", "'project' is not there; without a payload, put ?project=<id> in the URL"
        )
    return _id(named if inside is None else inside, "project")


def _ids(payload: Mapping[str, Any], names: Iterable[str]) -> list[int]:
    """Sorted ids of the objects under these names, of which Label Studio has one or a list."""
    found = set()
    for name in names:
        held = payload.get(name) or []
        for item in held if isinstance(held, list) else [held]:
            found.add(_id(item.get("id") if isinstance(item, dict) else item, name))
    return sorted(found)


def _id(value: Any, where: str) -> int:
    """A number, also one in quotes."""
    text = value if isinstance(value, str) else str(value)
    if not _ID.fullmatch(text):
        raise DeliveryError("not-understood", f"'{where}': its id is no whole number")
    return int(text)
