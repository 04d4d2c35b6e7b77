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
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from deploy.pointers import (
    STAGES,
    Action,
    Event,
    Pointer,
    Promoted,
    Stage,
    StagedEngine,
    StageStatus,
    complete_log,
    new_event,
    point,
    read_log,
    read_pointer,
)
from schemas.errors import InputError, StorageError
from schemas.storage import make_folder, sha256_file, write_bytes


def stage(targets: Path, target: str, directory: Path, *, by: str, why: str) -> Pointer:
    """Point `staging` at the engine in `directory` (as `deploy.engine.write_manifest` left it).

    Raises:
        StorageError: the engine's bytes are not those that were built; or the pointer can't be written.
    """
    make_folder(targets / target)
    with _changing(targets, target) as place:
        engine = _described(directory, place)
        _verify(engine, place)
        current = read_pointer(place, "staging")
        if current is not None and _is_unchanged(engine, current.engine, place):
            return current
        event = new_event(place, "stage", engine, current and current.engine, by, why)
        return point(place, "staging", Pointer(event=event))


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
        expected: SHA-256 of the engine that is meant; None takes whichever is there.
        allow: asked before anything changes; it raises where the engine may not come there, and returns what the log
            is to note.

    Raises:
        InputError: nothing is at the stage before; or `canary` is asked for without canary devices; or another
            engine than the expected one is there.
        StorageError: the engine's file or its manifest is gone or was changed since it was staged.
    """
    with _changing(targets, target) as place:
        engine, current, note = _promotable(place, target, to, has_canaries, expected, allow)
        if current is not None and engine.is_same(current.engine):
            return current
        earlier = _earlier(current, engine) if current and to == "production" else []
        action: Action = "canary" if to == "canary" else "promote"
        event = new_event(place, action, engine, current and current.engine, by, why, note)
        return point(place, to, Pointer(event=event, earlier=earlier))


def promotable(
    targets: Path,
    target: str,
    *,
    to: Promoted = "production",
    has_canaries: bool = False,
    allow: Callable[[StagedEngine], str] | None = None,
) -> StagedEngine:
    """The engine that `promote` would take to a stage. Nothing changes.

    Raises:
        InputError, StorageError: as `promote`.
    """
    with _changing(targets, target) as place:
        return _promotable(place, target, to, has_canaries, None, allow)[0]


def rollback(targets: Path, target: str, *, by: str, why: str) -> Pointer:
    """End a canary that is newer than production, or else point `production` at the engine before this one.

    `event.before` of the result is the engine taken back, `event.action` tells which of the two was done.

    Raises:
        InputError: there is no such canary, and no engine was in production before this one.
        StorageError: the file or the manifest of the engine to go back to is gone or was changed. Nothing changes.
    """
    with _changing(targets, target) as place:
        current, canary = read_pointer(place, "production"), _stage(place, "canary")
        if canary is not None and _is_newer(canary, current):
            if current is not None:
                _verify(current.engine, place)
            note = f"canary devices go back to {current.engine}" if current else "canary devices run nothing any more"
            event = new_event(place, "end", canary.engine, canary.engine, by, why, note)
            return point(place, "canary", Pointer(event=event))
        if current is None or not current.earlier:
            held = "nothing is in production" if current is None else f"{current.engine} is the first"
            raise InputError(f"target '{target}': there is no earlier production engine to go back to: {held}")
        _verify(current.earlier[-1], place)
        event = new_event(place, "rollback", current.earlier[-1], current.engine, by, why)
        return point(place, "production", Pointer(event=event, earlier=current.earlier[:-1]))


def status(targets: Path, target: str) -> StageStatus:
    """What a target's stages hold."""
    place = targets / target
    return StageStatus(target, *(_stage(place, name) for name in STAGES), ended=_ended(place))


def manifest_path(targets: Path, target: str, engine: StagedEngine) -> Path:
    """Where the manifest lies that an engine was staged with."""
    return _manifest_path(targets / target, engine)


def history(targets: Path, target: str) -> list[Event]:
    """Every change of a target, oldest first.

    Raises:
        StorageError: the log is damaged.
    """
    if not (targets / target).is_dir():
        return []
    with _changing(targets, target) as place:
        return read_log(place)


NOTHING_STAGED = (
    "target '{target}': nothing is staged: `fpenet run retrain` with this target in the configuration builds and "
    "stages its engine, or `fpenet run rollout` after an approval, where a device builds it"
)
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
        raise InputError(NOTHING_STAGED.format(target=target))
    with FileLock(place / ".lock"):
        complete_log(place)
        yield place


def _promotable(
    place: Path,
    target: str,
    to: Promoted,
    has_canaries: bool,
    expected: str | None,
    allow: Callable[[StagedEngine], str] | None,
) -> tuple[StagedEngine, Pointer | None, str]:
    """The engine, what the stage holds now, and what is to be noted."""
    engine, note = _candidate(place, target, to, has_canaries)
    if expected is not None and engine.engine_sha256 != expected:
        raise InputError(
            f"target '{target}': {engine} came between; another engine was to go to {to}, and nothing changed"
        )
    _verify(engine, place)
    current = _stage(place, to)
    if allow is not None and not (current and engine.is_same(current.engine)):
        note = "; ".join(filter(None, (note, allow(engine))))
    return engine, current, note


def _candidate(place: Path, target: str, to: Promoted, has_canaries: bool) -> tuple[StagedEngine, str]:
    """The engine at the stage before, and what is to be noted."""
    if to == "canary" and not has_canaries:
        raise InputError(_NO_CANARY_DEVICES.format(target=target))
    source: Stage = "canary" if to == "production" and has_canaries else "staging"
    pointer = _stage(place, source)
    if pointer is None:
        raise InputError((NOTHING_STAGED if source == "staging" else _NO_CANARY).format(target=target))
    return pointer.engine, "" if has_canaries else "without a canary: the target has no canary devices"


def _stage(place: Path, name: Stage) -> Pointer | None:
    """What a stage holds. A canary is over when it was ended, and with the rollback that follows it."""
    pointer = read_pointer(place, name)
    if name != "canary" or pointer is None:
        return pointer
    over = pointer.event.action == "end" or _was_rolled_back(place, since=pointer.event.number)
    return None if over else pointer


def _was_rolled_back(place: Path, *, since: int) -> bool:
    """Whether production was, after event `since`; by its pointer where the log lacks the line yet."""
    production = read_pointer(place, "production")
    later = read_log(place, since=since)
    if production is not None and production.event.number > since:
        later.append(production.event)
    return any(event.action == "rollback" for event in later)


def _ended(place: Path) -> Pointer | None:
    canary, production = read_pointer(place, "canary"), read_pointer(place, "production")
    if canary is None or canary.event.action != "end":
        return None
    overtaken = production is not None and production.event.number > canary.event.number
    return None if overtaken else canary


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
    return place / "manifests" / f"{engine.manifest_sha256}.json"


def _verify(engine: StagedEngine, place: Path) -> None:
    """That its file, and the manifest that it was staged with, are there as they were."""
    path = place / engine.engine
    if not path.is_file():
        raise StorageError(f"{engine}: its file {path.resolve()} is gone; run the flow again to build it")
    if sha256_file(path) != engine.engine_sha256:
        raise StorageError(
            f"{engine}: {path.resolve()} is not the file that was built and checked (SHA-256 differs); "
            "run the flow again to build it anew"
        )
    if not _has_manifest(engine, place):
        raise StorageError(
            f"{engine}: {_manifest_path(place, engine)} is not the manifest that it was staged with; run the flow "
            "again to stage it anew"
        )


def _has_manifest(engine: StagedEngine, place: Path) -> bool:
    """Whether the manifest that it was staged with is there and unchanged."""
    path = _manifest_path(place, engine)
    return path.is_file() and sha256_file(path) == engine.manifest_sha256
