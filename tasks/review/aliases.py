"""Which version has which alias. Only flows move aliases.

What a flow sets is written down in a tag of the registered model, `fpenet.champion` and `fpenet.challenger`, which
every workspace and configuration on the same registry sees. The tag is what counts: an alias that points elsewhere
was moved by hand, is reported, and not followed. (It is not moved back either: whoever did it is told what to do.)

A move is several requests. `fpenet.moving` is set before the first and deleted after the last, so that the next flow
finishes what a killed one began instead of taking it for a move by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import ReviewError
from schemas.storage import canonical_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION, CHALLENGER = "champion", "challenger"
MOVING = "fpenet.moving"


@dataclass(frozen=True)
class MovedByHand:
    """An alias that does not point where a flow left it; None stands for nowhere."""

    name: str
    alias: str
    recorded: str | None
    found: str | None

    def __str__(self) -> str:
        return (
            f"alias {self.alias} of {self.name} was moved by hand: it points to version {self.found or 'none'}, "
            f"flows set it to {self.recorded or 'none'}. It is not followed; {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        back = f"put it back to {self.recorded}" if self.recorded else "delete it"
        wanted = f", or approve version {self.found} by tags" if self.found and self.alias == CHAMPION else ""
        return back + wanted


def record_tag(alias: str) -> str:
    return f"fpenet.{alias}"


def recorded(client: MlflowClient, name: str, alias: str) -> dict[str, Any] | None:
    """What a flow wrote down when it last moved the alias: `version` and what else `move` was given.

    None if no flow ever moved it.

    Raises:
        ReviewError: the tag was changed by somebody, and can't be read.
    """
    model = _registered(client, name)
    return None if model is None else _record(model, alias)


def recorded_version(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that flows gave the alias to. Raises as `recorded`."""
    found = recorded(client, name, alias)
    return None if found is None else found["version"]


def move(client: MlflowClient, name: str, alias: str, version: str, **details: Any) -> None:
    """Give the alias to a version, and write that down with `details` (JSON)."""
    client.set_registered_model_tag(name, MOVING, alias)
    record = canonical_json({"version": version} | details).decode()
    client.set_registered_model_tag(name, record_tag(alias), record)
    client.set_registered_model_alias(name, alias, version)
    client.delete_registered_model_tag(name, MOVING)


def drop(client: MlflowClient, name: str, alias: str) -> None:
    """Take the alias from whichever version has it."""
    client.set_registered_model_tag(name, MOVING, alias)
    model = _registered(client, name)
    if model is not None and record_tag(alias) in model.tags:
        client.delete_registered_model_tag(name, record_tag(alias))
    if model is not None and alias in model.aliases:
        client.delete_registered_model_alias(name, alias)
    client.delete_registered_model_tag(name, MOVING)


def finish(client: MlflowClient, name: str) -> None:
    """Finish a move that was interrupted."""
    model = _registered(client, name)
    if model is None or (alias := model.tags.get(MOVING)) not in (CHAMPION, CHALLENGER):
        return
    record = _record(model, alias)
    if record is None:
        drop(client, name, alias)
    else:
        move(client, name, alias, **record)


def moved_by_hand(client: MlflowClient, name: str) -> list[MovedByHand]:
    """Aliases that do not point where flows left them. Call `finish` first."""
    model = _registered(client, name)
    if model is None:
        return []
    found = []
    for alias in (CHAMPION, CHALLENGER):
        record = _record(model, alias)
        wanted, actual = record and record["version"], model.aliases.get(alias)
        if wanted != (actual and str(actual)):
            found.append(MovedByHand(name, alias, wanted, actual and str(actual)))
    return found


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    found = client.search_registered_models(f"name='{name}'")
    return found[0] if found else None


def _record(model: RegisteredModel, alias: str) -> dict[str, Any] | None:
    text = model.tags.get(record_tag(alias))
    if text is None:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, Mapping) or not isinstance(record.get("version"), str):
        raise ReviewError(
            f"the tag {record_tag(alias)} of {model.name} is no record of a flow: somebody changed it; delete it, "
            "and approve the version in use again"
        )
    return dict(record)
