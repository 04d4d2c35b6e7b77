"""The files of a target's stages: a pointer per stage, replaced in one step, and a log that is only added to.

A change is one atomic replacement of a pointer file. The log line follows it; if a process dies between the two,
the next change, or `history`, adds the line first, from what the pointer holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from deploy.devices import Ring
from schemas.errors import StorageError
from schemas.storage import canonical_json, write_bytes, write_json
from schemas.yamlspec import SpecModel

Action = Literal["stage", "canary", "end", "promote", "rollback"]
Stage = Literal["staging", "canary", "production"]
Promoted = Literal["canary", "production"]
STAGES: tuple[Stage, ...] = ("staging", "canary", "production")


class StagedEngine(SpecModel):
    """An engine that a pointer can name.

    Attributes:
        build_key, engine_sha256: which engine.
        engine: its file, relative to the directory of the target.
        model_name, model_version, snapshot_id: where its model comes from.
        check: `passed`, or why it was not run.
        manifest_sha256: of its manifest when it was staged.
    """

    build_key: str
    engine: str
    engine_sha256: str
    model_name: str
    model_version: str
    snapshot_id: str
    check: str
    manifest_sha256: str

    def is_same(self, other: StagedEngine | None) -> bool:
        """Whether it is the same engine of the same model version: a check that was repeated makes it no other."""
        return other is not None and self._identity == other._identity

    @property
    def _identity(self) -> tuple[str, ...]:
        return self.engine_sha256, self.model_name, self.model_version, self.snapshot_id

    def __str__(self) -> str:
        version = f" version {self.model_version}" if self.model_version else ""
        return f"{self.model_name}{version}, engine {self.build_key} ({self.check})"


class Event(SpecModel):
    """One change. `number` counts those of a target from 1; `at` is UTC, ISO 8601; `note` is what was special.
    `end`, of a canary, leaves nothing at its stage: `engine` and `before` are the one that was tried."""

    number: int
    action: Action
    at: str
    by: str
    why: str
    engine: StagedEngine
    before: StagedEngine | None
    note: str = ""


class Pointer(SpecModel):
    """A stage: the event that made it what it is, and, for production, earlier engines, the latest last."""

    event: Event
    earlier: list[StagedEngine] = []

    @property
    def engine(self) -> StagedEngine:
        return self.event.engine


@dataclass(frozen=True)
class StageStatus:
    """A target's stages; None where a stage holds nothing.

    Attributes:
        ended: the canary that was ended last, if nothing came to canary or production since.
    """

    target: str
    staging: Pointer | None
    canary: Pointer | None
    production: Pointer | None
    ended: Pointer | None = None

    @property
    def held(self) -> Iterator[tuple[Stage, Pointer]]:
        """Stages that hold an engine, the one that most devices have first."""
        found = ((name, self.pointer(name)) for name in reversed(STAGES))
        return ((name, pointer) for name, pointer in found if pointer is not None)

    def pointer(self, stage: Stage) -> Pointer | None:
        return {"staging": self.staging, "canary": self.canary, "production": self.production}[stage]

    def wanted(self, ring: Ring) -> tuple[Stage, Pointer] | None:
        """What devices of a ring ought to run: canary devices what changed last, others what is in production."""
        found = [(name, pointer) for name, pointer in self.held if name == "production" or name == ring]
        return max(found, key=lambda item: item[1].event.number, default=None)


def utc_now() -> str:
    """The time, as records of stages, devices and rollouts have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_event(
    place: Path,
    action: Action,
    engine: StagedEngine,
    before: StagedEngine | None,
    by: str,
    why: str,
    note: str = "",
) -> Event:
    """The next change of a target, which `point` makes."""
    number = len(log_lines(place)) + 1
    return Event(number=number, action=action, at=utc_now(), by=by, why=why, engine=engine, before=before, note=note)


def point(place: Path, name: Stage, pointer: Pointer) -> Pointer:
    """Replace a stage's pointer in one step, and add its line to the log."""
    write_json(place / f"{name}.json", pointer.model_dump(mode="json"))
    _append(place, pointer.event)
    return pointer


def read_pointer(place: Path, name: Stage) -> Pointer | None:
    """What a stage's file holds, or None.

    Raises:
        StorageError: it is no pointer.
    """
    path = place / f"{name}.json"
    try:
        return Pointer.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError as error:
        raise StorageError(f"{path}: not a pointer of this project; restore it from log.jsonl beside it") from error


def log_lines(place: Path) -> list[bytes]:
    """JSON of every `Event` of a target, oldest first."""
    log = place / "log.jsonl"
    return log.read_bytes().splitlines() if log.is_file() else []


def read_log(place: Path, *, since: int = 0) -> list[Event]:
    """The changes of a target after the first `since`, oldest first.

    Raises:
        StorageError: a line is no event.
    """
    events = []
    for number, line in enumerate(log_lines(place)[since:], start=since + 1):
        try:
            events.append(Event.model_validate_json(line))
        except ValidationError as error:
            raise StorageError(
                f"{place / 'log.jsonl'}:{number}: not a change of this project; restore the file from a backup"
            ) from error
    return events


def _append(place: Path, event: Event) -> None:
    lines = [*log_lines(place), canonical_json(event.model_dump(mode="json"))]
    write_bytes(place / "log.jsonl", b"".join(line + b"\n" for line in lines))


def complete_log(place: Path) -> None:
    """Add the line of a change whose process died before it could."""
    pointers = (read_pointer(place, name) for name in STAGES)
    events = sorted((pointer.event for pointer in pointers if pointer), key=lambda event: event.number)
    for event in events:
        if event.number > len(log_lines(place)):
            _append(place, event)
