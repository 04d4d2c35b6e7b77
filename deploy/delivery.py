"""Engines on a device: copied, verified by what the device reads back, and made current in one step.

`<directory>/<target>/` on the device holds

    engines/<folder>/      the engine and its manifest.json; the last three that were current, for `rollback`
    activated.json         their folders, and the SHA-256 that current.json may have
    current.json           which one to run; replaced in one step

A folder is named by build key and the engine's bytes: built again of the same, an engine may have others, and is not
to be written over the one that runs.

Whoever runs the engine on the device reads `current.json` and nothing else. Its SHA-256 is written down before and
after it is replaced, so a step that was cut off is told apart from a file that somebody else changed.

Engines come here to be run by the device. To be measured they are copied elsewhere (`tasks.fleet.check`): whoever
activates an engine removes others here, and knows nothing of who measures one.

No lock is held on the device: whoever is killed would leave it behind. Workspaces that share a device remove nothing
that another may be bringing: an engine goes once the second activation finds that nobody has activated it, and a
temporary file once no copy can take that long.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from deploy.device.scratch import remove_cut_off
from deploy.shells.base import Shell
from schemas.errors import DeviceError, StorageError
from schemas.storage import canonical_json, read_json, sha256_file
from schemas.yamlspec import SpecModel

KEPT = 3
_NONE = ""
_SHA256_SHOWN = 12
"""Digits of the engine's SHA-256 in the name of its folder."""

CURRENT, ACTIVATED, MANIFEST = "current.json", "activated.json", "manifest.json"


class CurrentEngine(SpecModel):
    """What `current.json` holds.

    Attributes:
        engine: the engine's file, relative to `current.json`.
        engine_sha256: of its bytes.
        model_name, model_version, snapshot_id: where its model comes from.
    """

    build_key: str
    engine: str
    engine_sha256: str
    precision: str
    model_name: str
    model_version: str
    snapshot_id: str

    @property
    def folder(self) -> str:
        """Name of its folder on a device."""
        return PurePosixPath(self.engine).parent.name

    def __str__(self) -> str:
        version = f" version {self.model_version}" if self.model_version else ""
        return f"engine {self.build_key} of {self.model_name}{version}"

    @property
    def content(self) -> bytes:
        return canonical_json(self.model_dump(mode="json")) + b"\n"


class _Activated(SpecModel):
    """`kept`: folders whose engines were current, the latest last. `contents`: SHA-256 that `current.json` may have,
    and `_NONE` where it may be missing. `strange`: folders of engines that nobody has activated, as far as is known
    here; another workspace may be about to."""

    kept: list[str] = []
    contents: list[str] = []
    strange: list[str] = []


@dataclass(frozen=True)
class Delivery:
    """An engine that is whole on a device.

    Attributes:
        engine: as `current.json` would name it.
        found: what was wrong with the one that was there before, or ''.
    """

    engine: CurrentEngine
    found: str = ""


@dataclass(frozen=True)
class Activation:
    """An engine that a device was told to run.

    Attributes:
        kept: folders of the engines that it keeps, the current one last.
        found: what was wrong there, or ''.
    """

    engine: CurrentEngine
    kept: tuple[str, ...]
    found: str = ""


def described(directory: Path, manifest: Path) -> CurrentEngine:
    """The engine in a local directory (as `deploy.engine.write_manifest` left it), once its bytes are verified.

    Args:
        manifest: the one that it was staged with; every staging writes the one beside it anew.

    Raises:
        StorageError: there is none, or its bytes are not those that were built.
    """
    if not manifest.is_file():
        raise StorageError(f"{directory}: no {manifest.name}; an engine is checked before it is delivered")
    told = read_json(manifest)
    engine = directory / told["engine"]
    if not engine.is_file():
        raise StorageError(f"{engine} is gone; run the flow again to build it")
    if sha256_file(engine) != told["engine_sha256"]:
        raise StorageError(
            f"{engine} is not the file that was built and checked (SHA-256 differs); run the flow again to build it"
        )
    return _current_of(told)


def deliver(shell: Shell, directory: Path, target: str, *, manifest: Path) -> Delivery:
    """Bring the engine in a local directory to a device, unless it is whole there. The device runs what it ran.

    Args:
        manifest: as for `described`; what the device is told of the engine's model.

    Raises:
        StorageError: the local engine is not the one that was built; or the device's disk is full, and nothing that
            was copied is left there, unless it was whole there before, or is by now.
        DeviceError: the device refuses, or reads back other bytes than it was given.
        DeviceOfflineError: it went away; the same call completes the delivery when it is back.
    """
    engine = described(directory, manifest)
    place = _place(target, engine.folder)
    path = f"{target}/{engine.engine}"
    content = manifest.read_bytes()
    there = shell.sha256(path)
    copied = there != engine.engine_sha256
    if not copied and shell.read(f"{place}/{MANIFEST}") == content:
        return Delivery(engine)
    if copied:
        _put_engine(shell, directory / Path(engine.engine).name, place, engine.engine_sha256)
    try:
        shell.write(content, f"{place}/{MANIFEST}")
    except StorageError:
        if copied and shell.read(f"{place}/{MANIFEST}") is None:
            shell.remove(path)
        raise
    changed = copied and there is not None
    found = f"the file of {engine} was changed on the device; it is replaced" if changed else ""
    return Delivery(engine, found)


def put_whole(shell: Shell, local: Path, path: str, sha256: str) -> None:
    """Copy a file to a device, and have the device read it back.

    Raises:
        DeviceError: it reads back other bytes than those of this SHA-256; they are removed there.
    """
    shell.put(local, path)
    back = shell.sha256(path)
    if back != sha256:
        shell.remove(path)
        raise DeviceError(
            f"device '{shell.name}': {path} reads back with other bytes than it was given ({back}); check its disk"
        )


def _put_engine(shell: Shell, local: Path, place: str, sha256: str) -> None:
    """`put_whole` into the engine's folder, once what copies that were cut off have left there is gone."""
    young = remove_cut_off(shell, place)
    try:
        put_whole(shell, local, f"{place}/{local.name}", sha256)
    except StorageError as error:
        if not young:
            raise
        raise StorageError(
            f"{error}. In {place} there lie {len(young)} copies of the last hour that were cut off, or are being "
            "made: the delivery after that hour removes what is left of them"
        ) from error


def activate(shell: Shell, engine: CurrentEngine, target: str) -> Activation:
    """Have a device run an engine that was delivered to it. Removed there are engines before the last three, those
    that an earlier activation has found and nobody has activated since, and what was left of copies an hour ago.

    Raises:
        StorageError: the disk is full; it runs what it ran.
        DeviceError: the engine is not there whole, or `current.json` does not hold what was written.
        DeviceOfflineError: it went away; it runs the one or the other.
    """
    if shell.sha256(f"{target}/{engine.engine}") != engine.engine_sha256:
        raise DeviceError(f"device '{shell.name}' does not have {engine} as it was built; deliver it first")
    found = changed_by_hand(shell, target)
    before = None if found else current_engine(shell, target)
    activated, new = _activated(shell, target), _sha256(engine.content)
    earlier = [folder for folder in activated.kept if folder != engine.folder][-(KEPT - 1) :]
    remove_cut_off(shell, target)
    if before != engine:
        old = [_sha256(before.content)] if before else activated.contents or [_NONE]
        _write_activated(shell, target, activated.model_copy(update={"contents": [*old, new]}))
        shell.write(engine.content, f"{target}/{CURRENT}")
        if shell.read(f"{target}/{CURRENT}") != engine.content:
            raise DeviceError(
                f"device '{shell.name}': {target}/{CURRENT} reads back other than it was written; check its disk"
            )
    kept = [*earlier, engine.folder]
    others = [folder for folder in shell.list(f"{target}/engines") if folder not in kept]
    gone = [folder for folder in others if folder in (*activated.kept, *activated.strange)]
    done = _Activated(kept=kept, contents=[new], strange=[folder for folder in others if folder not in gone])
    if activated != done:
        _write_activated(shell, target, done)
    for folder in kept:
        remove_cut_off(shell, _place(target, folder))
    runs = current_engine(shell, target)  # another workspace's by now, perhaps, and one of those
    for folder in gone:
        if runs is None or folder != runs.folder:
            shell.remove(_place(target, folder))
    return Activation(engine, tuple(kept), found)


def deactivate(shell: Shell, target: str) -> str:
    """Have a device run nothing for a target; engines that it has stay there. What was wrong there, or ''.

    Raises:
        DeviceError: it refuses.
        DeviceOfflineError: it went away; it runs what it ran, or nothing.
    """
    found, activated = changed_by_hand(shell, target), _activated(shell, target)
    remove_cut_off(shell, target)
    _write_activated(shell, target, activated.model_copy(update={"contents": [*activated.contents, _NONE]}))
    shell.remove(f"{target}/{CURRENT}")
    _write_activated(shell, target, activated.model_copy(update={"contents": [_NONE]}))
    return found


def current_engine(shell: Shell, target: str) -> CurrentEngine | None:
    """What a device runs for a target; None for nothing, or where `current.json` can't be read."""
    content = shell.read(f"{target}/{CURRENT}")
    try:
        return None if content is None else CurrentEngine.model_validate_json(content)
    except ValidationError:
        return None


def changed_by_hand(shell: Shell, target: str) -> str:
    """What a device's `current.json` holds, if it is not what `activate` wrote; else ''."""
    content = shell.read(f"{target}/{CURRENT}")
    contents = _activated(shell, target).contents
    if content is None:
        missing = f"{target}/{CURRENT} on device '{shell.name}' was removed by hand"
        return missing if contents and _NONE not in contents else ""
    if _sha256(content) in contents:
        return ""
    names = current_engine(shell, target)
    held = f"it names {names}" if names else "it is not what this project writes"
    return f"{target}/{CURRENT} on device '{shell.name}' was changed by hand: {held}"


def inspect(shell: Shell, target: str) -> tuple[CurrentEngine | None, str]:
    """What a device runs, and what is wrong with it: `current.json`, or the engine's file; '' if nothing is."""
    current, found = current_engine(shell, target), changed_by_hand(shell, target)
    if current and not found and shell.sha256(f"{target}/{current.engine}") != current.engine_sha256:
        found = f"the file of {current} on device '{shell.name}' is gone or was changed by hand"
    return current, found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _current_of(manifest: dict[str, Any]) -> CurrentEngine:
    folder = f"{manifest['build_key']}-{manifest['engine_sha256'][:_SHA256_SHOWN]}"
    return CurrentEngine(
        build_key=manifest["build_key"],
        engine=f"engines/{folder}/{manifest['engine']}",
        engine_sha256=manifest["engine_sha256"],
        precision=manifest["precision"],
        **manifest["provenance"],
    )


def _place(target: str, folder: str) -> str:
    return f"{target}/engines/{folder}"


def _activated(shell: Shell, target: str) -> _Activated:
    """Empty if it is not there or was damaged: then the engine that comes is kept, and the others are strange."""
    content = shell.read(f"{target}/{ACTIVATED}")
    try:
        return _Activated() if content is None else _Activated.model_validate_json(content)
    except ValidationError:
        return _Activated()


def _write_activated(shell: Shell, target: str, activated: _Activated) -> None:
    shell.write(canonical_json(activated.model_dump(mode="json")), f"{target}/{ACTIVATED}")
