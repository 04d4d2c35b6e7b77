"""What still carries something of a forgotten subject, and can't be purged: models that learnt from it, engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.stages import status
from schemas.config import Tracking
from schemas.records import Split
from tasks.tracking import mlflow_client
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
    """An engine at a stage that was built from such a model."""

    target: str
    stage: str
    build_key: str
    model: str
    learnt: bool

    def __str__(self) -> str:
        return f"{self.target} {self.stage}: engine {self.build_key} of {self.model}"


def affected_models(
    snapshots: Mapping[str, Mapping[str, int]], tracking: Tracking, workspace: Workspace
) -> list[AffectedModel]:
    """Versions of the registered model by snapshot; none without snapshots.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
    """
    if not snapshots:
        return []
    with mlflow_client(tracking, workspace) as client:
        name = tracking.registered_model
        found = [
            AffectedModel(
                name,
                str(version.version),
                tuple(client.get_model_version(name, version.version).aliases),
                learnt_from(splits),
            )
            for snapshot, splits in snapshots.items()
            for version in client.search_model_versions(f"name='{name}' and tags.snapshot_id='{snapshot}'")
        ]
    return sorted(found, key=lambda model: int(model.version))


def affected_engines(snapshots: Mapping[str, Mapping[str, int]], targets: Path) -> list[AffectedEngine]:
    """Engines that a stage points to, by snapshot."""
    return [engine for place in sorted(targets.glob("*/")) for engine in _of_target(snapshots, targets, place.name)]


def _of_target(snapshots: Mapping[str, Mapping[str, int]], targets: Path, target: str) -> Iterator[AffectedEngine]:
    held = status(targets, target)
    for stage, pointer in (("production", held.production), ("staging", held.staging)):
        if pointer is not None and pointer.engine.snapshot_id in snapshots:
            engine = pointer.engine
            model = f"{engine.model_name} version {engine.model_version}"
            learnt = learnt_from(snapshots[engine.snapshot_id])
            yield AffectedEngine(target, stage, engine.build_key, model, learnt)


def learnt_from(splits: Mapping[str, int]) -> bool:
    return bool({Split.TRAIN, Split.VALIDATION}.intersection(splits))
