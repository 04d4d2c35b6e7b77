"""What people decided in the registry, and what flows make of it: the one place where the champion changes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from schemas.config import ReviewSettings, Tracking
from schemas.storage import append_bytes, canonical_json, write_json
from tasks.mlflow_client import all_pages, mlflow_client
from tasks.review import aliases
from tasks.review.aliases import CHALLENGER, CHAMPION, MovedByHand
from tasks.review.approval import (
    Accepted,
    Decision,
    Standing,
    decide,
    fingerprint,
    override_of,
    stamp,
    stamped,
)
from tasks.review.tags import BY, GATE, NOTED, REASON, REPORT_HASH, STATE, USED
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Reviewed:
    """A version and where it stands.

    Attributes:
        gate: what the gate said; None where it was never judged.
        by: who decided; None where nobody did.
        told: what the version's `review.state` says; None where nothing was written yet.
    """

    name: str
    version: str
    gate: str | None
    by: str | None
    decision: Decision
    told: str | None

    def __str__(self) -> str:
        return f"{self.name} version {self.version}: {self.decision}"


@dataclass(frozen=True)
class Inbox:
    """The registry as a review run left it, or as it found it.

    Attributes:
        versions: all of the registered model, the newest first.
        champion: what the flows wrote down of it; None if no version was ever accepted, or it was deleted since.
        moved: aliases that were moved by hand, or whose version was deleted.
        accepted: those that became the champion in this run, in order.
    """

    versions: tuple[Reviewed, ...]
    champion: Accepted | None
    moved: tuple[MovedByHand, ...]
    accepted: tuple[Accepted, ...] = ()

    @property
    def open(self) -> list[Reviewed]:
        """What somebody has to know or do about: not those that are settled, or older than the champion."""
        champion = int(self.champion.version) if self.champion else 0
        return [
            found
            for found in self.versions
            if found.decision.standing in (Standing.APPROVED, Standing.REFUSED, Standing.CHAMPION)
            or (found.decision.standing is Standing.WAITING and int(found.version) > champion)
        ]

    def __str__(self) -> str:
        accepted = "; ".join(f"accepted {accepted}" for accepted in self.accepted) or "nothing accepted"
        refused = sum(found.decision.standing is Standing.REFUSED for found in self.versions)
        return (
            f"{accepted}; champion: {self.champion or 'none'}; {refused} refused, "
            f"{len(self.moved)} aliases moved by hand"
        )


def look(tracking: Tracking, workspace: Workspace, settings: ReviewSettings) -> Inbox:
    """How the registry stands; changes nothing.

    Raises:
        ReviewError: what a flow wrote down was changed by somebody.
        TrackingError: the server can't be reached, or refuses a request.
    """
    with mlflow_client(tracking, workspace) as client:
        return _seen(client, tracking.registered_model, settings, datetime.now(UTC))


def settle(
    tracking: Tracking, workspace: Workspace, settings: ReviewSettings, *, now: datetime | None = None
) -> Inbox:
    """Act on every decision: approvals that hold move the alias `champion`, the newest version first.

    Every version's `review.state` says what became of it. The version in use is written into the workspace
    (`tasks.review.approval.accepted_version`), also where another workspace accepted it. Of two runs one waits for
    the other. Interrupted anywhere, the next run goes on.

    Raises:
        ReviewError, TrackingError: as `look`.
        StorageError: the workspace can't be written.
    """
    now, name = now or datetime.now(UTC), tracking.registered_model
    with aliases.lock(workspace), mlflow_client(tracking, workspace) as client:
        aliases.finish(client, name)
        _note_new(client, name, now)
        _use_up(client, name, now)
        accepted: list[Accepted] = []
        while held := _approved(inbox := _seen(client, name, settings, now)):
            if done := _accept(client, held, settings, now):
                accepted.append(done)
                _log(workspace, "accepted", dataclasses.asdict(done))
        _drop_rejected(client, inbox)
        for found in inbox.versions:
            _answer(client, workspace, found, inbox.champion, now)
        if inbox.champion is not None:
            write_json(workspace.accepted, dataclasses.asdict(inbox.champion))
        else:
            workspace.accepted.unlink(missing_ok=True)  # it was deleted, and can't be brought to devices
        return dataclasses.replace(inbox, moved=tuple(aliases.moved_by_hand(client, name)), accepted=tuple(accepted))


def note_told(inbox: Inbox, tracking: Tracking, workspace: Workspace) -> None:
    """Write down that people were told of `inbox.moved`: the next run finds `told` on them, until they change.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
    """
    with mlflow_client(tracking, workspace) as client:
        aliases.note_told(client, tracking.registered_model, inbox.moved)


def _seen(client: MlflowClient, name: str, settings: ReviewSettings, now: datetime) -> Inbox:
    record = aliases.recorded(client, name, CHAMPION)
    champion = record and record["version"]
    versions = tuple(
        Reviewed(
            name,
            str(version.version),
            version.tags.get(GATE),
            version.tags.get(BY, "").strip() or None,
            _decision(version, champion, settings, now),
            version.tags.get(STATE),
        )
        for version in _versions(client, name)
    )
    in_use = None if record is None else _as_accepted(name, record)
    return Inbox(versions, in_use, tuple(aliases.moved_by_hand(client, name)))


def _decision(version: ModelVersion, champion: str | None, settings: ReviewSettings, now: datetime) -> Decision:
    number, days = str(version.version), settings.valid_days
    return decide(version.tags, version=number, champion=champion, now=now, valid_days=days)


def _as_accepted(name: str, record: dict[str, Any]) -> Accepted:
    try:
        return TypeAdapter(Accepted).validate_python({"name": name} | record)
    except ValidationError as error:
        raise aliases.no_record(name, CHAMPION) from error


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    found = all_pages(partial(client.search_model_versions, f"name='{name}'"))
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def _note_new(client: MlflowClient, name: str, now: datetime) -> None:
    """Note when a decision was first seen; what is noted of another decision counts no more."""
    for version in _versions(client, name):
        if fingerprint(version.tags) and stamped(version.tags, NOTED) is None:
            client.set_model_version_tag(name, version.version, NOTED, stamp(now, version.tags))


def _approved(inbox: Inbox) -> Reviewed | None:
    return next((found for found in inbox.versions if found.decision.standing is Standing.APPROVED), None)


def _accept(client: MlflowClient, held: Reviewed, settings: ReviewSettings, now: datetime) -> Accepted | None:
    """Make the version the champion; None if its tags were changed meanwhile, and the approval does not hold now."""
    name, version = held.name, held.version
    found = client.get_model_version(name, version)
    champion = aliases.recorded_version(client, name, CHAMPION)
    if _decision(found, champion, settings, now).standing is not Standing.APPROVED:
        return None
    tags = found.tags
    accepted = Accepted(
        name=name,
        version=version,
        report=tags[REPORT_HASH],
        by=tags[BY].strip(),
        reason=tags[REASON].strip(),
        override=override_of(tags),
        at=now.isoformat(timespec="seconds"),
    )
    if aliases.recorded_version(client, name, CHALLENGER) == version:
        aliases.drop(client, name, CHALLENGER)
    details = {key: value for key, value in dataclasses.asdict(accepted).items() if key not in ("name", "version")}
    aliases.move(client, name, CHAMPION, version, **details)
    _use_up(client, name, now)
    return accepted


def _use_up(client: MlflowClient, name: str, now: datetime) -> None:
    """Mark what is decided about the champion as used: once it is replaced, its approval must not bring it back."""
    version = aliases.recorded_version(client, name, CHAMPION)
    if version is None:
        return
    tags = client.get_model_version(name, version).tags
    if fingerprint(tags) and stamped(tags, USED) is None:
        client.set_model_version_tag(name, version, USED, stamp(now, tags))


def _drop_rejected(client: MlflowClient, inbox: Inbox) -> None:
    """Take the alias `challenger` from a version that was rejected."""
    rejected = {(v.name, v.version) for v in inbox.versions if v.decision.standing is Standing.REJECTED}
    for name in sorted({name for name, _ in rejected}):
        if (name, aliases.recorded_version(client, name, CHALLENGER)) in rejected:
            aliases.drop(client, name, CHALLENGER)


def _answer(
    client: MlflowClient, workspace: Workspace, found: Reviewed, champion: Accepted | None, now: datetime
) -> None:
    """Write onto the version where it stands, unless nobody waits for it any more."""
    standing = found.decision.standing
    outdated = champion is not None and int(found.version) < int(champion.version)
    if found.told == str(found.decision) or (standing is Standing.WAITING and outdated):
        return
    client.set_model_version_tag(found.name, found.version, STATE, str(found.decision))
    if standing is not Standing.WAITING:
        row = {"version": found.version, "by": found.by, "words": found.decision.words}
        _log(workspace, str(standing), row | {"at": now.isoformat(timespec="seconds")})


def _log(workspace: Workspace, what: str, row: dict[str, Any]) -> None:
    append_bytes(workspace.review / "log.jsonl", canonical_json({"what": what} | row) + b"\n")
