"""`fpenet forget`: take a subject out of a workspace, keep it out, and say what must be retrained and withdrawn.

First a tombstone, so that no pull brings anything back; then what is known of the subject is written down; then every
file is purged; then every file is searched again. Whatever interrupts it, the same command goes on from there. Of
what was written down, hashes and numbers stay, under the tombstone's mark.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.config import Tracking
from schemas.errors import InputError, StorageError
from schemas.storage import fsync_directory, read_json, write_json
from schemas.texts import composed, spellings
from tasks.forget.artifacts import purge_artifacts
from tasks.forget.consequences import (
    AffectedBundle,
    AffectedEngine,
    AffectedModel,
    affected_bundles,
    affected_engines,
    affected_models,
)
from tasks.forget.files import files_below, purge_file, still_tells
from tasks.forget.search import find_traces, raw_records
from tasks.forget.traces import Traces
from tasks.label_studio.pull import IMAGES
from tasks.lease import alone
from tasks.lineage.index import drop_index
from tasks.progress import StepProgress, silent
from tasks.quality.page import DATA as QUALITY_LIST
from tasks.snapshot import load_snapshot
from tasks.tombstones import FILE, KEY_FILE, Tombstones
from tasks.workspace import Workspace

_SETS = ("images", "figures", "names", "records", "contents")
_KEPT = ("images", "contents")
"""Hashes that stay, so that one can tell later which frames and annotations were withdrawn."""


@dataclass(frozen=True)
class Forgotten:
    """What was done.

    Attributes:
        mark: stands for the subject in what was kept.
        faces: snapshot id -> split -> number of faces that were in it.
        images: frames that are known by their hash.
        changed: files that were changed or removed.
        models, engines, bundles: what must be trained again or evaluated anew, what to take off devices, and what
            to remove.
        kpi_snapshots: snapshots whose policy holds the subject out by name: the configuration may name it too.
    """

    mark: str
    faces: dict[str, dict[str, int]]
    images: int
    changed: tuple[str, ...]
    models: tuple[AffectedModel, ...]
    engines: tuple[AffectedEngine, ...]
    bundles: tuple[AffectedBundle, ...]
    kpi_snapshots: int


def forget_subject(
    subject: str,
    workspace: Workspace,
    tracking: Tracking,
    *,
    also: Sequence[Path] = (),
    by: str,
    why: str,
    progress: StepProgress = silent,
) -> Forgotten:
    """Purge a subject from a workspace and from the folders `also`, such as results of TAO's commands.

    Raises:
        InputError: not a subject, a folder that is not there, or a flow is at work in the workspace.
        StorageError: a file can't be read or written, or still tells of the subject after all was purged.
        TrackingError: MLflow can't say which models learnt from the subject.
    """
    subject, folders = composed(subject), [workspace.root, *also]
    _refuse_nonsense(subject, folders)
    with alone(workspace.lease):
        return _forget(subject, workspace, tracking, folders, by=by, why=why, progress=progress)


def _forget(
    subject: str,
    workspace: Workspace,
    tracking: Tracking,
    folders: Sequence[Path],
    *,
    by: str,
    why: str,
    progress: StepProgress,
) -> Forgotten:
    tombstones = Tombstones.of(workspace.root).with_grave(subject, by=by, why=why)
    mark = tombstones.redacted(subject)
    record = workspace.forgotten / f"{mark.removeprefix('redacted/')}.json"
    held_out = _holding_out(subject, workspace)
    traces = _remember(record, find_traces(workspace, folders, subject=subject, mark=mark))
    models = affected_models(traces.snapshots, tracking, workspace)
    _drop_caches(workspace)
    changed = [str(path) for path in _purge(_files(folders, record), traces, progress)]
    if tracking.uri:
        changed += purge_artifacts(traces, tracking, workspace)
    drop_index(workspace)  # somebody may have asked for lineage meanwhile
    _refuse_remains(_files(folders, record), traces, progress)
    done = _outcome(traces, models, workspace, changed=changed, held_out=held_out)
    _keep_hashes(record, traces, done)
    return done


def preview(subject: str, workspace: Workspace, tracking: Tracking, *, also: Sequence[Path] = ()) -> Forgotten:
    """What `forget_subject` would find; nothing is changed.

    Raises:
        InputError, TrackingError: as `forget_subject`.
        StorageError: a file can't be read.
    """
    subject, folders = composed(subject), [workspace.root, *also]
    _refuse_nonsense(subject, folders)
    traces = find_traces(workspace, folders, subject=subject, mark="")
    models = affected_models(traces.snapshots, tracking, workspace)
    return _outcome(traces, models, workspace, changed=(), held_out=_holding_out(subject, workspace))


def _outcome(
    traces: Traces, models: Sequence[AffectedModel], workspace: Workspace, *, changed: Sequence[str], held_out: int
) -> Forgotten:
    return Forgotten(
        mark=traces.mark,
        faces={identity: dict(splits) for identity, splits in traces.snapshots.items()},
        images=len(traces.images),
        changed=tuple(changed),
        models=tuple(models),
        engines=tuple(affected_engines(traces.snapshots, workspace.targets)),
        bundles=tuple(affected_bundles(traces.snapshots, workspace.bundles)),
        kpi_snapshots=held_out,
    )


def _holding_out(subject: str, workspace: Workspace) -> int:
    """Number of snapshots whose policy keeps the subject out of training."""
    manifests = workspace.snapshots.glob("*/manifest.json")
    return sum(bool(spellings(subject) & load_snapshot(path.parent).kpi_subjects) for path in manifests)


def _refuse_nonsense(subject: str, folders: Sequence[Path]) -> None:
    dataset, _, identity = subject.partition("/")
    if not (dataset and identity):
        raise InputError(f"'{subject}' is no subject; one is written <dataset>/<id>, such as multipie/079")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")


def _remember(record: Path, traces: Traces) -> Traces:
    """The traces, with those that an earlier attempt had found before it took them out."""
    if record.is_file():
        known = read_json(record)
        sets = {name: getattr(traces, name) | frozenset(known.get(name, ())) for name in _SETS}
        traces = dataclasses.replace(traces, **sets, snapshots={**traces.snapshots, **known["snapshots"]})
    write_json(record, _as_json(traces, _SETS) | {"state": "begun"})
    return traces


def _as_json(traces: Traces, sets: Sequence[str]) -> dict[str, Any]:
    return {name: sorted(getattr(traces, name)) for name in sets} | {"snapshots": traces.snapshots}


def _files(folders: Sequence[Path], record: Path) -> list[Path]:
    """Every file to look at: not the tombstones, nor what is written down meanwhile."""
    own = {record, folders[0] / FILE, folders[0] / KEY_FILE}
    return [path for folder in folders for path in files_below(folder) if path not in own]


def _drop_caches(workspace: Workspace) -> None:
    """What only saves time, and may show faces whose frames nobody knows any more, or name people."""
    drop_index(workspace)
    _drop_unknown_frames(workspace)
    for path in workspace.root.glob(f"{workspace.face_signatures.name}*"):  # with what SQLite left beside it
        path.unlink()
    shutil.rmtree(workspace.labelling / ".images", ignore_errors=True)
    for run in workspace.quality.glob("*/"):
        if not (run / QUALITY_LIST).is_file():  # killed before it wrote whom its pictures show
            shutil.rmtree(run)


def _drop_unknown_frames(workspace: Workspace) -> None:
    """A pull that was broken off has stored images, and not yet whose they are; the next one fetches them again."""
    known = {Path(record.image).absolute() for record in raw_records(workspace) if record.image}
    for images in workspace.of_every_pull(IMAGES):
        for path in images.glob("*/*"):
            if path.absolute() not in known:
                path.unlink()


def _purge(files: Sequence[Path], traces: Traces, progress: StepProgress) -> list[Path]:
    changed = []
    for done, path in enumerate(files, start=1):
        if path.exists() and purge_file(path, traces):
            changed.append(path)
            fsync_directory(path.parent)
        progress("purged", done, len(files))
    return changed


def _refuse_remains(files: Sequence[Path], traces: Traces, progress: StepProgress) -> None:
    remains = []
    for done, path in enumerate(files, start=1):
        if path.exists() and still_tells(path, traces):
            remains.append(path)
        progress("searched", done, len(files))
    if remains:
        shown = ", ".join(map(str, remains[:10])) + (" ..." if len(remains) > 10 else "")
        raise StorageError(
            f"{len(remains)} files still tell of {traces.mark}: {shown}. Remove them if they are not needed, and run "
            "the same command again"
        )


def _keep_hashes(record: Path, traces: Traces, done: Forgotten) -> None:
    told = {
        "state": "redacted",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": len(done.changed),
        "models": [dataclasses.asdict(model) for model in done.models],
        "engines": [dataclasses.asdict(engine) for engine in done.engines],
        "bundles": [dataclasses.asdict(bundle) for bundle in done.bundles],
    }
    write_json(record, _as_json(traces, _KEPT) | told)
