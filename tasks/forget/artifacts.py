"""Taking a subject out of what a tracking server keeps. Those in the workspace are files like others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from schemas.config import Tracking
from schemas.errors import ShardError, StorageError
from tasks.forget.files import can_tell, purge_file
from tasks.forget.traces import Traces
from tasks.mlflow_client import all_pages, mlflow_client
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

_A_PAGE = 1000  # experiments or runs that the server is asked for at a time


def purge_artifacts(traces: Traces, tracking: Tracking, workspace: Workspace) -> list[str]:
    """Purge the artifacts of all runs on the server whose snapshot held the subject: in every experiment, and those
    that were killed or deleted too. An artifact that keeps a part is replaced; it is there at any time.

    Returns:
        The places that were changed or removed.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
        StorageError, ShardError: see `purge_file`; the artifact is named.
    """
    changed = []
    with mlflow_client(tracking, workspace) as client, tempfile.TemporaryDirectory() as folder:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        for run_id in _runs(client, traces):
            repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
            for place in _artifacts(client, run_id):
                local = Path(client.download_artifacts(run_id, place, folder))
                try:
                    found = purge_file(local, traces)
                except (StorageError, ShardError) as error:
                    told = str(error).replace(str(local), f"artifact {place} of MLflow's run {run_id}")
                    raise type(error)(told) from error
                if not found:
                    continue
                if local.is_file():
                    parent = str(PurePosixPath(place).parent)
                    repository.log_artifact(str(local), None if parent == "." else parent)
                else:
                    repository.delete_artifacts(place)
                changed.append(f"{run_id}/{place}")
    return changed


def _runs(client: MlflowClient, traces: Traces) -> list[str]:
    from mlflow.entities import ViewType

    experiments = [
        experiment.experiment_id
        for experiment in all_pages(partial(client.search_experiments, ViewType.ALL, _A_PAGE))
    ]
    found = (
        run.info.run_id
        for snapshot in traces.snapshots
        for run in all_pages(
            partial(client.search_runs, experiments, f"tags.snapshot_id = '{snapshot}'", ViewType.ALL, _A_PAGE)
        )
    )
    return sorted(set(found))


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    """Files that could tell of a person; not the models."""
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _artifacts(client, run_id, entry.path)
        elif can_tell(Path(entry.path)):
            yield entry.path
