"""What a workspace keeps for nobody: found, measured, and removed.

Everything of a version that somebody may still want stays: of the champion and the challenger, of what was accepted
and is rolled out, of engines that a stage or a device has or may go back to, of the newest versions, and whatever is
young. What goes is either made again when it is asked for, from the snapshots, which all stay, or was shown to people
long ago. Evaluations go by their age alone: they take a minute, and what they said stands in the reports.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.delivery import CurrentEngine
from deploy.engine_directory import RECORD
from deploy.pointers import StagedEngine
from deploy.stages import status
from schemas.config import Tracking
from schemas.errors import StorageError
from schemas.storage import read_json
from tasks.fleet.deliveries import read_records
from tasks.fleet.pending import current_rollout
from tasks.lease import alone
from tasks.lineage.engines import engines_of
from tasks.lineage.versions import VersionRecord, recorded_versions
from tasks.mlflow_client import mlflow_client
from tasks.report import PAGE
from tasks.review.aliases import CHALLENGER, CHAMPION, recorded_version
from tasks.review.approval import accepted_version
from tasks.workspace import Workspace

DAY_S = 24 * 60 * 60
_MANIFEST = "manifest.json"
_DOOMED = ".pruned"
_ROLLBACKS = 2
"""Engines that a target can go back to, one after the other."""

Version = tuple[str, str]
"""Name and version of a registered model."""


@dataclass(frozen=True)
class Retention:
    """What stays.

    Attributes:
        versions: the newest ones of every registered model.
        days: whatever was written in these.
    """

    versions: int = 5
    days: float = 30


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go.

    Attributes:
        kind: what it is, for people.
        path: where.
        size: in bytes, of all files in it.
    """

    kind: str
    path: Path
    size: int


@dataclass(frozen=True)
class Pruning:
    """What goes, and the versions that stay, with the reason."""

    leftovers: list[Leftover]
    kept: dict[Version, str]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(found.size for found in self.leftovers)


def find_leftovers(workspace: Workspace, tracking: Tracking, retention: Retention) -> Pruning:
    """What can go; nothing is changed.

    Raises:
        InputError: a flow is at work in the workspace.
        TrackingError: MLflow can't say which version is the champion.
        ReviewError, StorageError: a record can't be read.
    """
    with alone(workspace.lease):
        return _found(workspace, tracking, retention)


def prune_workspace(workspace: Workspace, tracking: Tracking, retention: Retention) -> Pruning:
    """Remove what can go. A run that is killed has removed a part; the next one finds the rest.

    Raises:
        InputError, TrackingError, ReviewError: as `find_leftovers`.
        StorageError: the same, or something can't be removed.
    """
    with alone(workspace.lease):
        found = _found(workspace, tracking, retention)
        for leftover in found.leftovers:
            _remove(leftover.path)
        return found


def _found(workspace: Workspace, tracking: Tracking, retention: Retention) -> Pruning:
    search = _Search(workspace, tracking, retention)
    kept = sorted(search.versions.items(), key=lambda found: (found[0][0], len(found[0][1]), found[0][1]))
    return Pruning(list(search.leftovers()), dict(kept))


class _Search:
    def __init__(self, workspace: Workspace, tracking: Tracking, retention: Retention) -> None:
        self._workspace, self._retention = workspace, retention
        self._oldest_ns = time.time_ns() - int(retention.days * DAY_S * 1e9)
        self._engines = list(_engines_in_use(workspace.targets))
        records = recorded_versions(workspace)
        self.versions = dict(self._kept_versions(records, tracking))
        self._records = [record for record in records if (record.name, record.version) in self.versions]
        self._models = {record.onnx_sha256 for record in self._records}

    def leftovers(self) -> Iterator[Leftover]:
        place = self._workspace
        yield from self._broken_off()
        yield from self._folders("trainings", place.training, {record.training for record in self._records})
        yield from self._folders("evaluations", place.evaluation, set())
        yield from self._folders("ONNX exports", place.exports, set(self._exports()))
        yield from self._folders("engines", place.engines, set(self._engine_keys()), holds=RECORD)
        yield from self._folders("files fetched from MLflow", place.models, set(self._fetched()))
        yield from self._folders("runs of quality", place.quality, _newest(place.quality), holds=PAGE)
        yield from self._folders(
            "pages of runs", place.reports, _newest(place.reports) | set(self._reports()), holds=PAGE
        )
        conversions = set(self._conversions())
        yield from self._folders("conversions", place.conversions, conversions)
        yield from self._shards(conversions)

    def _kept_versions(self, records: list[VersionRecord], tracking: Tracking) -> Iterator[tuple[Version, str]]:
        """The same version more than once: the last reason, the weightiest, counts."""
        for name in sorted({record.name for record in records}):
            own = [record for record in records if record.name == name]
            for record in own[-self._retention.versions :]:
                yield (name, record.version), "new"
        for engine in self._engines:
            yield (engine.model_name, engine.model_version), "on devices, or to go back to"
        if (rollout := current_rollout(self._workspace.rollouts)) is not None:
            yield (rollout.model_name, rollout.model_version), "rolled out last"
        if (accepted := accepted_version(self._workspace)) is not None:
            yield (accepted.name, accepted.version), "accepted"
        with mlflow_client(tracking, self._workspace) as client:
            for name in sorted({record.name for record in records} | {tracking.registered_model}):
                for alias in (CHALLENGER, CHAMPION):
                    if (version := recorded_version(client, name, alias)) is not None:
                        yield (name, version), alias

    def _folders(self, kind: str, place: Path, kept: set[str], *, holds: str = _MANIFEST) -> Iterator[Leftover]:
        """Folders that are not kept, if they hold a file of that name: so that nobody else's go."""
        for path in sorted(file.parent for file in place.glob(f"[!.]*/{holds}")):
            if path.name not in kept and self._is_old(path):
                yield _leftover(kind, path)

    def _exports(self) -> Iterator[str]:
        for key, manifest in _manifests(self._workspace.exports):
            if self._models & set(manifest["files"].values()):
                yield key

    def _engine_keys(self) -> Iterator[str]:
        yield from (engine.build_key for engine in self._engines)
        for engine in engines_of(self._workspace):
            if engine.stages or engine.devices or engine.onnx_sha256 in self._models:
                yield engine.build_key

    def _fetched(self) -> Iterator[str]:
        """Copies of files of a version: its name and number stand in the name of the folder."""
        for path in self._workspace.models.glob("[!.]*/"):
            if any(f"{name}-{version}-" in path.name for name, version in self.versions):
                yield path.name

    def _reports(self) -> Iterator[str]:
        told = {f"{name}/{version}" for name, version in self.versions}
        for path in self._workspace.reports.glob("*/summary.json"):
            if read_json(path).get("model_version") in told:
                yield path.parent.name

    def _conversions(self) -> Iterator[str]:
        """Those of kept versions; the last one, of which the next conversion takes its records; and young ones."""
        snapshots = {record.snapshot for record in self._records} | {engine.snapshot_id for engine in self._engines}
        for key, manifest in _manifests(self._workspace.conversions):
            if manifest["result"]["snapshot"] in snapshots or not self._is_old(self._workspace.conversions / key):
                yield key
        yield from _newest(self._workspace.conversions)

    def _shards(self, conversions: Iterable[str]) -> Iterator[Leftover]:
        named = {
            Path(file["file"]).stem
            for key in conversions
            for split in read_json(self._workspace.conversions / key / _MANIFEST)["result"]["splits"].values()
            for file in split["files"]
        }
        for path in sorted(self._workspace.shards.glob("[!.]*")):
            if path.stem not in named and self._is_old(path):
                yield _leftover("shards", path)

    def _broken_off(self) -> Iterator[Leftover]:
        """What no run has gone on with, and what a pruning that was killed had begun to remove."""
        for path in sorted(self._workspace.root.glob(f"*/.*{_DOOMED}")):
            yield _leftover("broken off", path)
        for path in sorted(self._workspace.root.glob("*/.*.partial")):
            if all(map(self._is_old, [path, *path.rglob("*")])):
                yield _leftover("broken off", path)

    def _is_old(self, path: Path) -> bool:
        return path.stat().st_mtime_ns < self._oldest_ns


def _engines_in_use(targets: Path) -> Iterator[StagedEngine | CurrentEngine]:
    """Engines that a stage points to or can go back to, and those on devices."""
    for target in sorted(path.name for path in targets.glob("[!.]*/")):
        for _, pointer in status(targets, target).held:
            yield pointer.engine
            yield from pointer.earlier[-_ROLLBACKS:]
        for record in read_records(targets, target):
            yield from record.kept


def _manifests(place: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of every finished output, with its key."""
    for path in sorted(place.glob(f"[!.]*/{_MANIFEST}")):
        yield path.parent.name, read_json(path)


def _newest(place: Path) -> set[str]:
    """The folder that was written last; none where there is none."""
    folders = sorted(place.glob("[!.]*/"), key=lambda path: path.stat().st_mtime_ns)
    return {path.name for path in folders[-1:]}


def _leftover(kind: str, path: Path) -> Leftover:
    files = path.rglob("*") if path.is_dir() else [path]
    return Leftover(kind, path, sum(file.stat().st_size for file in files if file.is_file()))


def _remove(path: Path) -> None:
    """A folder goes in one step, so that nobody takes a half of it for an output."""
    try:
        if not path.is_dir():
            path.unlink()
            return
        doomed = path if path.name.endswith(_DOOMED) else path.with_name(f".{path.name}{_DOOMED}")
        path.replace(doomed)
        shutil.rmtree(doomed)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: can't be removed: {error.strerror}; see to that, and run this again") from error
