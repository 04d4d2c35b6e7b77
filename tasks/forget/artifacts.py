"""Taking a subject out of what a tracking server keeps. Those in the workspace are files like others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from schemas.config import Tracking
from tasks.forget.files import can_tell, purge_file
from tasks.forget.traces import Traces
from tasks.tracking import mlflow_client
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


def purge_artifacts(traces: Traces, tracking: Tracking, workspace: Workspace) -> list[str]:
    """Purge the artifacts of all runs on the server whose snapshot held the subject, those that were killed too.

    Returns:
        The places that were changed or removed.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
    """
    changed = []
    with mlflow_client(tracking, workspace) as client, tempfile.TemporaryDirectory() as folder:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        for run_id in _runs(client, traces, tracking):
            repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
            for place in _artifacts(client, run_id):
                local = Path(client.download_artifacts(run_id, place, folder))
                if not purge_file(local, traces):
                    continue
                repository.delete_artifacts(place)
                if local.is_file():
                    parent = str(PurePosixPath(place).parent)
                    client.log_artifact(run_id, str(local), None if parent == "." else parent)
                changed.append(f"{run_id}/{place}")
    return changed


def _runs(client: MlflowClient, traces: Traces, tracking: Tracking) -> list[str]:
    experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment is None:
        return []
    found = (
        run.info.run_id
        for snapshot in traces.snapshots
        for run in client.search_runs([experiment.experiment_id], f"tags.snapshot_id = '{snapshot}'")
    )
    return sorted(set(found))


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    """Files that could tell of a person; not the models."""
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _artifacts(client, run_id, entry.path)
        elif can_tell(Path(entry.path)):
            yield entry.path
