"""Which version has which alias. Only flows move aliases.

What a flow sets is written down in a tag of the registered model, `fpenet.champion` and `fpenet.challenger`, which
every workspace and configuration on the same registry sees. The tag is what counts: an alias that points elsewhere
was moved by hand, is reported, and not followed. (It is not moved back either: whoever did it is told what to do.)

A move is several requests. `fpenet.moving` is set before the first and deleted after the last, so that the next flow
finishes what a killed one began instead of taking it for a move by hand. Whoever moves or finishes holds the `lock`,
or would finish what another is still at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from schemas.errors import ReviewError
from schemas.storage import canonical_json, make_folder
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION, CHALLENGER = "champion", "challenger"
MOVING = "fpenet.moving"

Found = TypeVar("Found")


@dataclass(frozen=True)
class MovedByHand:
    """An alias that does not point where a flow left it.

    Attributes:
        name, alias: of the registered model.
        recorded, found: the version that flows gave it to, and the one that has it; None for nowhere.
        deleted: whether the recorded version is not in the registry any more.
        told: whether people were told (`note_told`).
    """

    name: str
    alias: str
    recorded: str | None
    found: str | None
    deleted: bool = False
    told: bool = False

    def __str__(self) -> str:
        if self.deleted:
            return (
                f"version {self.recorded} of {self.name}, which flows made the {self.alias}, was deleted from the "
                f"registry: there is no {self.alias} now{self._not_followed}"
            )
        return (
            f"alias {self.alias} of {self.name} was moved by hand: it points to version {self.found or 'none'}, "
            f"flows set it to {self.recorded or 'none'}. It is not followed; {self._remedy}"
        )

    @property
    def _not_followed(self) -> str:
        others = "" if self.found is None else f", and version {self.found}, which has the alias, is not followed"
        return others + ("; approve a version by tags" if self.alias == CHAMPION else "")

    @property
    def _remedy(self) -> str:
        back = f"put it back to {self.recorded}" if self.recorded else "delete it"
        wanted = f", or approve version {self.found} by tags" if self.found and self.alias == CHAMPION else ""
        return back + wanted


def record_tag(alias: str) -> str:
    return f"fpenet.{alias}"


@contextmanager
def lock(workspace: Workspace) -> Iterator[None]:
    """One at a time in a workspace; the others wait."""
    make_folder(workspace.review)
    with FileLock(workspace.review / "lock"):
        yield


def recorded(client: MlflowClient, name: str, alias: str) -> dict[str, Any] | None:
    """What a flow wrote down when it last moved the alias: `version` and what else `move` was given.

    None if no flow ever moved it, or the version was deleted since.

    Raises:
        ReviewError: the tag was changed by somebody, and can't be read.
    """
    model = _registered(client, name)
    record = None if model is None else _record(model, alias)
    return record if record is not None and _is_there(client, name, record["version"]) else None


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
    """Finish a move that was interrupted, unless its version was deleted since. Hold the `lock`."""
    model = _registered(client, name)
    if model is None or (alias := model.tags.get(MOVING)) not in (CHAMPION, CHALLENGER):
        return
    record = _record(model, alias)
    if record is None or not _is_there(client, name, record["version"]):
        drop(client, name, alias)
    else:
        move(client, name, alias, **record)


def moved_by_hand(client: MlflowClient, name: str) -> list[MovedByHand]:
    """Aliases that do not point where flows left them, or whose version was deleted. Call `finish` first."""
    model = _registered(client, name)
    if model is None:
        return []
    found = []
    for alias in (CHAMPION, CHALLENGER):
        record = _record(model, alias)
        wanted, actual = record and record["version"], model.aliases.get(alias)
        deleted = wanted is not None and not _is_there(client, name, wanted)
        if deleted or wanted != (actual and str(actual)):
            moved = MovedByHand(name, alias, wanted, actual and str(actual), deleted)
            found.append(replace(moved, told=model.tags.get(_told_tag(alias)) == str(moved)))
    return found


def note_told(client: MlflowClient, name: str, moved: Sequence[MovedByHand]) -> None:
    """Write down that people were told of these, and that no other alias is amiss: each change is told once."""
    model, words = _registered(client, name), {found.alias: str(found) for found in moved}
    for alias in (CHAMPION, CHALLENGER) if model else ():
        tag, now = _told_tag(alias), words.get(alias)
        if now is None and tag in model.tags:
            client.delete_registered_model_tag(name, tag)
        elif now is not None and now != model.tags.get(tag):
            client.set_registered_model_tag(name, tag, now)


def no_record(name: str, alias: str) -> ReviewError:
    return ReviewError(
        f"the tag {record_tag(alias)} of {name} is no record of a flow: somebody changed it; delete it, and approve "
        "the version in use again"
    )


def _told_tag(alias: str) -> str:
    return f"{record_tag(alias)}.told"


def _is_there(client: MlflowClient, name: str, version: str) -> bool:
    return _unless_missing(client.get_model_version, name, version) is not None


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    return _unless_missing(client.get_registered_model, name)


def _unless_missing(get: Callable[..., Found], *names: str) -> Found | None:
    from mlflow.exceptions import MlflowException

    try:
        return get(*names)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _record(model: RegisteredModel, alias: str) -> dict[str, Any] | None:
    text = model.tags.get(record_tag(alias))
    if text is None:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    version = record.get("version") if isinstance(record, Mapping) else None
    if not isinstance(version, str) or not version.isdecimal():
        raise no_record(model.name, alias)
    return dict(record)
