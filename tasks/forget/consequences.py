"""What still carries something of a forgotten subject, and can't be purged: models that learnt from it, engines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.bundle.archive import ENGINE_MANIFEST, is_archive, read_bundle
from deploy.stages import status
from schemas.config import Tracking
from schemas.errors import SignatureError
from schemas.records import Split
from tasks.fleet.deliveries import read_records
from tasks.mlflow_client import mlflow_client
from tasks.workspace import Workspace


@dataclass(frozen=True)
class AffectedModel:
    """A version in the registry whose snapshot held the subject.

    Attributes:
        learnt: True if it was trained or validated on the subject; False if the subject was only tested on.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    learnt: bool

    def __str__(self) -> str:
        held = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.name} version {self.version}{held}"


@dataclass(frozen=True)
class AffectedEngine:
    """An engine that was built from such a model, and is at a stage or on a device.

    Attributes:
        stages: that hold it; none for one that devices only keep, for a rollback.
        devices: that run it or keep it.
    """

    target: str
    stages: tuple[str, ...]
    build_key: str
    model: str
    learnt: bool
    devices: tuple[str, ...] = ()

    def __str__(self) -> str:
        held = ", ".join(self.stages) or "at no stage"
        there = f", to be taken off {', '.join(self.devices)}" if self.devices else ""
        return f"{self.target} {held}: engine {self.build_key} of {self.model}{there}"


@dataclass(frozen=True)
class AffectedBundle:
    """A bundle in the workspace with such an engine.

    Attributes:
        path: folder or archive.
        build_key, model: of its engine; '' for a bundle that can't be read, which may be such a one.
        learnt: as of `AffectedEngine`; True for one that can't be read.
    """

    path: str
    build_key: str
    model: str
    learnt: bool

    def __str__(self) -> str:
        if not self.build_key:
            return f"bundle {self.path}: can't be read; see what it holds, or remove it"
        return f"bundle {self.path}: engine {self.build_key} of {self.model}; remove it, here and where it was sent"


def affected_models(
    snapshots: Mapping[str, Mapping[str, int]], tracking: Tracking, workspace: Workspace
) -> list[AffectedModel]:
    """Versions by snapshot, of whichever registered model: the configuration may have named another one when they
    were trained. None without snapshots.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
    """
    if not snapshots:
        return []
    with mlflow_client(tracking, workspace) as client:
        found = [
            AffectedModel(
                version.name,
                str(version.version),
                tuple(client.get_model_version(version.name, version.version).aliases),
                learnt_from(splits),
            )
            for snapshot, splits in snapshots.items()
            for version in client.search_model_versions(f"tags.snapshot_id='{snapshot}'")
        ]
    return sorted(found, key=lambda model: (model.name, int(model.version)))


def affected_engines(snapshots: Mapping[str, Mapping[str, int]], targets: Path) -> list[AffectedEngine]:
    """Engines by snapshot that a stage points to, or that a device has as far as is known."""
    return [engine for place in sorted(targets.glob("*/")) for engine in _of_target(snapshots, targets, place.name)]


def affected_bundles(snapshots: Mapping[str, Mapping[str, int]], bundles: Path) -> list[AffectedBundle]:
    """Bundles by the snapshot of their engine; none without snapshots. Those written elsewhere are not known."""
    if not snapshots:
        return []
    places = sorted(path for path in bundles.glob("[!.]*") if path.is_dir() or is_archive(path))
    found = (_of_bundle(snapshots, path) for path in places)
    return [bundle for bundle in found if bundle is not None]


def _of_bundle(snapshots: Mapping[str, Mapping[str, int]], path: Path) -> AffectedBundle | None:
    """None for one without an engine, or with another's."""
    try:
        content = read_bundle(path).get(ENGINE_MANIFEST)
        if content is None:
            return None
        manifest = json.loads(content)
        origin = manifest["provenance"]
        if origin["snapshot_id"] not in snapshots:
            return None
        return AffectedBundle(
            path=str(path),
            build_key=manifest["build_key"],
            model=f"{origin['model_name']} version {origin['model_version']}",
            learnt=learnt_from(snapshots[origin["snapshot_id"]]),
        )
    except (SignatureError, ValueError, KeyError, TypeError):  # a folder's manifest is as somebody left it
        return AffectedBundle(str(path), "", "", learnt=True)


def _of_target(snapshots: Mapping[str, Mapping[str, int]], targets: Path, target: str) -> Iterator[AffectedEngine]:
    held = [(stage, pointer.engine) for stage, pointer in status(targets, target).held]
    there = [(record.device, engine) for record in read_records(targets, target) for engine in record.kept]
    found = {engine.build_key: engine for _, engine in (*there, *held) if engine.snapshot_id in snapshots}
    for key, engine in found.items():
        yield AffectedEngine(
            target=target,
            stages=tuple(stage for stage, other in held if other.build_key == key),
            build_key=key,
            model=f"{engine.model_name} version {engine.model_version}",
            learnt=learnt_from(snapshots[engine.snapshot_id]),
            devices=tuple(device for device, other in there if other.build_key == key),
        )


def learnt_from(splits: Mapping[str, int]) -> bool:
    return bool({Split.TRAIN, Split.VALIDATION}.intersection(splits))
