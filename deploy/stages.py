"""What runs where: per target a pointer to an engine at each stage, and a log of every change.

`<targets>/<target>/` holds

    staging.json      the engine that waits for review
    canary.json       the engine that the canary devices try
    production.json   the engine that all devices get, and the ones before it, for `rollback`
    log.jsonl         one line per change; lines are only ever added
    manifests/        the manifest of each engine as it was when it was staged, by its SHA-256

The manifest beside an engine may be written anew while a pointer names the engine: for another version of the same
network, or when a rollout checks it again. What a pointer's engine was found to be is what it was staged with.

An engine goes from `staging` to `canary` to `production`; a target without canary devices skips `canary`, and its log
says so. A rollback ends a canary that is newer than production: its devices get what is in production again, or
nothing. The next one takes production back.

A change is one atomic replacement of a pointer file. The log line follows it; if a process dies between the two,
the next change, or `history`, adds the line first, from what the pointer holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import ValidationError

from deploy.devices import Ring
from schemas.errors import InputError, StorageError
from schemas.storage import canonical_json, sha256_file, write_bytes, write_json
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
        manifest_sha256: of its manifest when it was staged; '' in pointers that an earlier release has written.
    """

    build_key: str
    engine: str
    engine_sha256: str
    model_name: str
    model_version: str
    snapshot_id: str
    check: str
    manifest_sha256: str = ""

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
        ended: the engine of the canary that was ended last, if nothing came to canary or production since.
    """

    target: str
    staging: Pointer | None
    canary: Pointer | None
    production: Pointer | None
    ended: StagedEngine | None = None

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
        if current is not None and _is_unchanged(engine, current.engine, place):
            return current
        event = _event(place, "stage", engine, current and current.engine, by, why)
        return _point(place, "staging", Pointer(event=event))


def promote(
    targets: Path,
    target: str,
    *,
    by: str,
    why: str,
    to: Promoted = "production",
    has_canaries: bool = False,
    expected: str | None = None,
    allow: Callable[[StagedEngine], str] | None = None,
) -> Pointer:
    """Point `canary` at the engine at `staging`, or `production` at the one at `canary`. Nothing changes if it is
    there already.

    Args:
        has_canaries: whether the target has canary devices; without them production takes what is at `staging`.
        expected: build key of the engine that is meant; None takes whichever is there.
        allow: asked before anything changes; it raises where the engine may not come there, and returns what the log
            is to note.

    Raises:
        InputError: nothing is at the stage before; or `canary` is asked for without canary devices; or another
            engine than the expected one is there.
        StorageError: the engine's file or its manifest is gone or was changed since it was staged.
    """
    with _changing(targets, target) as place:
        engine, note = _candidate(place, target, to, has_canaries)
        if expected is not None and engine.build_key != expected:
            raise InputError(
                f"target '{target}': {engine} came between; engine {expected} was to go to {to}, and nothing changed"
            )
        _verify(engine, place)
        _verify_manifest(engine, place)
        current = _stage(place, to)
        if current is not None and engine.is_same(current.engine):
            return current
        note = "; ".join(filter(None, (note, allow(engine) if allow else "")))
        earlier = _earlier(current, engine) if current and to == "production" else []
        action: Action = "canary" if to == "canary" else "promote"
        event = _event(place, action, engine, current and current.engine, by, why, note)
        return _point(place, to, Pointer(event=event, earlier=earlier))


def rollback(targets: Path, target: str, *, by: str, why: str) -> Pointer:
    """End a canary that is newer than production, or else point `production` at the engine before this one.

    `event.before` of the result is the engine taken back, `event.action` tells which of the two was done.

    Raises:
        InputError: there is no such canary, and no engine was in production before this one.
        StorageError: the earlier engine's file is gone or was changed.
    """
    with _changing(targets, target) as place:
        current, canary = _read(place, "production"), _stage(place, "canary")
        if canary is not None and _is_newer(canary, current):
            note = f"canary devices go back to {current.engine}" if current else "canary devices run nothing any more"
            event = _event(place, "end", canary.engine, canary.engine, by, why, note)
            return _point(place, "canary", Pointer(event=event))
        if current is None or not current.earlier:
            held = "nothing is in production" if current is None else f"{current.engine} is the first"
            raise InputError(f"target '{target}': there is no earlier production engine to go back to: {held}")
        _verify(current.earlier[-1], place)
        event = _event(place, "rollback", current.earlier[-1], current.engine, by, why)
        return _point(place, "production", Pointer(event=event, earlier=current.earlier[:-1]))


def status(targets: Path, target: str) -> StageStatus:
    """What a target's stages hold."""
    place = targets / target
    return StageStatus(target, *(_stage(place, name) for name in STAGES), ended=_ended(place))


def manifest_path(targets: Path, target: str, engine: StagedEngine) -> Path:
    """Where the manifest lies that an engine was staged with; beside the engine for an earlier release's pointer."""
    return _manifest_path(targets / target, engine)


def history(targets: Path, target: str) -> list[Event]:
    """Every change of a target, oldest first."""
    if not (targets / target).is_dir():
        return []
    with _changing(targets, target) as place:
        return [Event.model_validate_json(line) for line in _log_lines(place)]


_NOTHING = "target '{target}': nothing is staged; run the flow `retrain` with this target first"
_NO_CANARY = (
    "target '{target}': nothing is at canary; an engine comes into production by way of the canary devices: "
    "`fpenet promote --target {target} --to canary --config FILE` first"
)
_NO_CANARY_DEVICES = "target '{target}' has no canary devices; list one in the devices file, or promote to production"


@contextmanager
def _changing(targets: Path, target: str) -> Iterator[Path]:
    """Hold the target's lock, with the log complete: one change at a time, whoever makes it."""
    place = targets / target
    if not place.is_dir():
        raise InputError(_NOTHING.format(target=target))
    with FileLock(place / ".lock"):
        _complete_log(place)
        yield place


def _candidate(place: Path, target: str, to: Promoted, has_canaries: bool) -> tuple[StagedEngine, str]:
    """The engine at the stage before, and what is to be noted."""
    if to == "canary" and not has_canaries:
        raise InputError(_NO_CANARY_DEVICES.format(target=target))
    source: Stage = "canary" if to == "production" and has_canaries else "staging"
    pointer = _stage(place, source)
    if pointer is None:
        raise InputError((_NOTHING if source == "staging" else _NO_CANARY).format(target=target))
    return pointer.engine, "" if has_canaries else "without a canary: the target has no canary devices"


def _stage(place: Path, name: Stage) -> Pointer | None:
    """What a stage holds. A canary is over when it was ended, and with the rollback that follows it."""
    pointer = _read(place, name)
    if name != "canary" or pointer is None:
        return pointer
    if pointer.event.action == "end":
        return None
    production = _read(place, "production")
    if production is None or production.event.number < pointer.event.number:
        return pointer
    return None if production.event.action == "rollback" else pointer


def _ended(place: Path) -> StagedEngine | None:
    canary, production = _read(place, "canary"), _read(place, "production")
    if canary is None or canary.event.action != "end":
        return None
    overtaken = production is not None and production.event.number > canary.event.number
    return None if overtaken else canary.engine


def _is_newer(canary: Pointer, production: Pointer | None) -> bool:
    """Whether canary devices try something that is not in production yet."""
    if production is None:
        return True
    later = canary.event.number > production.event.number
    return later and canary.engine.engine_sha256 != production.engine.engine_sha256


def _is_unchanged(engine: StagedEngine, current: StagedEngine, place: Path) -> bool:
    return engine.is_same(current) and engine.check == current.check and _has_manifest(current, place)


def _earlier(production: Pointer, engine: StagedEngine) -> list[StagedEngine]:
    """Where a rollback can go to. One under another version of the model is no other engine to go back to."""
    if production.engine.engine_sha256 == engine.engine_sha256:
        return production.earlier
    return [*production.earlier, production.engine]


def _described(directory: Path, place: Path) -> StagedEngine:
    if not (directory / "manifest.json").is_file():
        raise StorageError(f"{directory}: no manifest.json; an engine is checked before it is staged")
    content = (directory / "manifest.json").read_bytes()
    manifest = json.loads(content)
    check = manifest["check"]
    engine = StagedEngine(
        build_key=manifest["build_key"],
        engine=os.path.relpath((directory / manifest["engine"]).resolve(), place.resolve()),
        engine_sha256=manifest["engine_sha256"],
        **manifest["provenance"],
        check=f"{check['state']}: {check['reason']}" if check["reason"] else check["state"],
        manifest_sha256=hashlib.sha256(content).hexdigest(),
    )
    write_bytes(_manifest_path(place, engine), content)
    return engine


def _manifest_path(place: Path, engine: StagedEngine) -> Path:
    if not engine.manifest_sha256:
        return (place / engine.engine).resolve().parent / "manifest.json"
    return place / "manifests" / f"{engine.manifest_sha256}.json"


def _verify(engine: StagedEngine, place: Path) -> None:
    path = place / engine.engine
    if not path.is_file():
        raise StorageError(f"{engine}: its file {path.resolve()} is gone; run the flow again to build it")
    if sha256_file(path) != engine.engine_sha256:
        raise StorageError(
            f"{engine}: {path.resolve()} is not the file that was built and checked (SHA-256 differs); "
            "run the flow again to build it anew"
        )


def _verify_manifest(engine: StagedEngine, place: Path) -> None:
    if not _has_manifest(engine, place):
        raise StorageError(
            f"{engine}: {_manifest_path(place, engine)} is not the manifest that it was staged with; run the flow "
            "again to stage it anew"
        )


def _has_manifest(engine: StagedEngine, place: Path) -> bool:
    """Whether the manifest that it was staged with is there and unchanged, as far as the pointer knows."""
    path, sha256 = _manifest_path(place, engine), engine.manifest_sha256
    return not sha256 or (path.is_file() and sha256_file(path) == sha256)


def _event(
    place: Path,
    action: Action,
    engine: StagedEngine,
    before: StagedEngine | None,
    by: str,
    why: str,
    note: str = "",
) -> Event:
    number = len(_log_lines(place)) + 1
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Event(number=number, action=action, at=now, by=by, why=why, engine=engine, before=before, note=note)


def _point(place: Path, name: Stage, pointer: Pointer) -> Pointer:
    write_json(place / f"{name}.json", pointer.model_dump(mode="json"))
    _append(place, pointer.event)
    return pointer


def _read(place: Path, name: Stage) -> Pointer | None:
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
    pointers = (_read(place, name) for name in STAGES)
    events = sorted((pointer.event for pointer in pointers if pointer), key=lambda event: event.number)
    for event in events:
        if event.number > len(_log_lines(place)):
            _append(place, event)
