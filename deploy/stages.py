"""What runs where: per target a pointer to an engine at each stage, and a log of every change.

`<targets>/<target>/` holds

    staging.json      the engine that waits for review
    production.json   the engine that devices fetch, and the ones before it, for `rollback`
    log.jsonl         one line per change; lines are only ever added

A change is one atomic replacement of a pointer file. The log line follows it; if a process dies between the two,
the next change, or `history`, adds the line first, from what the pointer holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import ValidationError

from schemas.errors import InputError, StorageError
from schemas.storage import canonical_json, read_json, sha256_file, write_bytes, write_json
from schemas.yamlspec import SpecModel

Action = Literal["stage", "promote", "rollback"]


class StagedEngine(SpecModel):
    """An engine that a pointer can name.

    Attributes:
        build_key, engine_sha256: which engine.
        engine: its file, relative to the directory of the target.
        model_name, model_version, snapshot_id: where its model comes from.
        check: `passed`, or why it was not run.
    """

    build_key: str
    engine: str
    engine_sha256: str
    model_name: str
    model_version: str
    snapshot_id: str
    check: str

    def __str__(self) -> str:
        version = f" version {self.model_version}" if self.model_version else ""
        return f"{self.model_name}{version}, engine {self.build_key} ({self.check})"


class Event(SpecModel):
    """One change. `number` counts the changes of a target from 1; `at` is UTC, ISO 8601."""

    number: int
    action: Action
    at: str
    by: str
    why: str
    engine: StagedEngine
    before: StagedEngine | None


class Pointer(SpecModel):
    """A stage: the event that made it what it is, and, for production, earlier engines, the latest last."""

    event: Event
    earlier: list[StagedEngine] = []

    @property
    def engine(self) -> StagedEngine:
        return self.event.engine


@dataclass(frozen=True)
class StageStatus:
    """A target's stages; None where a stage holds nothing."""

    target: str
    staging: Pointer | None
    production: Pointer | None


def stage(targets: Path, target: str, directory: Path, *, by: str, why: str) -> Pointer:
    """Point `staging` at the engine in `directory` (as `deploy.engine.write_manifest` left it).

    Raises:
        StorageError: the engine's bytes are not those that were built.
    """
    (targets / target).mkdir(parents=True, exist_ok=True)
    with _changing(targets, target) as place:
        engine = _described(directory, place)
        _verify(engine, place)
        current = _read(place, "staging")
        if current is not None and current.engine == engine:
            return current
        event = _event(place, "stage", engine, current and current.engine, by, why)
        return _point(place, "staging", Pointer(event=event))


def promote(targets: Path, target: str, *, by: str, why: str) -> Pointer:
    """Point `production` at the engine at `staging`. Nothing changes if it is there already.

    Raises:
        InputError: nothing is staged.
        StorageError: the engine's file is gone or was changed since it was staged.
    """
    with _changing(targets, target) as place:
        staged = _read(place, "staging")
        if staged is None:
            raise InputError(_NOTHING.format(target=target))
        _verify(staged.engine, place)
        current = _read(place, "production")
        if current is not None and current.engine == staged.engine:
            return current
        earlier = [] if current is None else [*current.earlier, current.engine]
        event = _event(place, "promote", staged.engine, current and current.engine, by, why)
        return _point(place, "production", Pointer(event=event, earlier=earlier))


def rollback(targets: Path, target: str, *, by: str, why: str) -> Pointer:
    """Point `production` at the engine before this one; `event.before` of the result is the engine taken back.

    Raises:
        InputError: no engine was in production before this one.
        StorageError: the earlier engine's file is gone or was changed.
    """
    with _changing(targets, target) as place:
        current = _read(place, "production")
        if current is None or not current.earlier:
            held = "nothing is in production" if current is None else f"{current.engine} is the first"
            raise InputError(f"target '{target}': there is no earlier production engine to go back to: {held}")
        _verify(current.earlier[-1], place)
        event = _event(place, "rollback", current.earlier[-1], current.engine, by, why)
        return _point(place, "production", Pointer(event=event, earlier=current.earlier[:-1]))


def status(targets: Path, target: str) -> StageStatus:
    """What a target's stages hold."""
    place = targets / target
    return StageStatus(target, _read(place, "staging"), _read(place, "production"))


def history(targets: Path, target: str) -> list[Event]:
    """Every change of a target, oldest first."""
    if not (targets / target).is_dir():
        return []
    with _changing(targets, target) as place:
        return [Event.model_validate_json(line) for line in _log_lines(place)]


_NOTHING = "target '{target}': nothing is staged; run the flow `retrain` with this target first"


@contextmanager
def _changing(targets: Path, target: str) -> Iterator[Path]:
    """Hold the target's lock, with the log complete: one change at a time, whoever makes it."""
    place = targets / target
    if not place.is_dir():
        raise InputError(_NOTHING.format(target=target))
    with FileLock(place / ".lock"):
        _complete_log(place)
        yield place


def _described(directory: Path, place: Path) -> StagedEngine:
    if not (directory / "manifest.json").is_file():
        raise StorageError(f"{directory}: no manifest.json; an engine is checked before it is staged")
    manifest = read_json(directory / "manifest.json")
    check = manifest["check"]
    return StagedEngine(
        build_key=manifest["build_key"],
        engine=os.path.relpath((directory / manifest["engine"]).resolve(), place.resolve()),
        engine_sha256=manifest["engine_sha256"],
        **manifest["provenance"],
        check=f"{check['state']}: {check['reason']}" if check["reason"] else check["state"],
    )


def _verify(engine: StagedEngine, place: Path) -> None:
    path = place / engine.engine
    if not path.is_file():
        raise StorageError(f"{engine}: its file {path.resolve()} is gone; run the flow again to build it")
    if sha256_file(path) != engine.engine_sha256:
        raise StorageError(
            f"{engine}: {path.resolve()} is not the file that was built and checked (SHA-256 differs); "
            "run the flow again to build it anew"
        )


def _event(
    place: Path, action: Action, engine: StagedEngine, before: StagedEngine | None, by: str, why: str
) -> Event:
    number = len(_log_lines(place)) + 1
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Event(number=number, action=action, at=now, by=by, why=why, engine=engine, before=before)


def _point(place: Path, name: str, pointer: Pointer) -> Pointer:
    write_json(place / f"{name}.json", pointer.model_dump(mode="json"))
    _append(place, pointer.event)
    return pointer


def _read(place: Path, name: str) -> Pointer | None:
    path = place / f"{name}.json"
    try:
        return Pointer.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError as error:
        raise StorageError(f"{path}: not a pointer of this project; restore it from log.jsonl beside it") from error


def _log_lines(place: Path) -> list[bytes]:
    log = place / "log.jsonl"
    return log.read_bytes().splitlines() if log.is_file() else []


def _append(place: Path, event: Event) -> None:
    lines = [*_log_lines(place), canonical_json(event.model_dump(mode="json"))]
    write_bytes(place / "log.jsonl", b"".join(line + b"\n" for line in lines))


def _complete_log(place: Path) -> None:
    """Add the line of a change whose process died before it could."""
    pointers = (_read(place, name) for name in ("staging", "production"))
    events = sorted((pointer.event for pointer in pointers if pointer), key=lambda event: event.number)
    for event in events:
        if event.number > len(_log_lines(place)):
            _append(place, event)
