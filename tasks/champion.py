"""The model that is in use: which version of the registry it is, its Keras file, and the spec it was trained with."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.config import Tracking
from schemas.errors import TrackingError
from schemas.experiment import ExperimentSpec
from schemas.urls import without_credentials
from schemas.yamlspec import parse_spec
from tasks.mlflow_client import mlflow_client
from tasks.reuse import reuse_or_run
from tasks.review.aliases import CHALLENGER, CHAMPION, recorded_version
from tasks.review.tags import REPORT_HASH
from tasks.tracking import SPEC_ARTIFACT
from tasks.workspace import Workspace

KERAS_FILE = "data/model.keras"
"""Where MLflow's Keras flavour keeps the network of a logged model."""


@dataclass(frozen=True)
class CurrentModel:
    """A version in the registry.

    Attributes:
        name, version: as in the registry.
        alias: `champion` or `challenger` where it was asked for as that; else None.
        snapshot_id: of the annotations it was trained on; None if it was registered by something else.
        run_id: of the run that made it; None if it was registered without one.
        reported: whether its review report was written, the last that a run does for it.
    """

    name: str
    version: str
    alias: str | None
    snapshot_id: str | None
    run_id: str | None
    reported: bool = False

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" + (f" ({self.alias})" if self.alias else "")


def current_model(tracking: Tracking, workspace: Workspace) -> CurrentModel | None:
    """The registered model's champion, else its newest version; None if it has no version.

    The champion is the version that a flow made it after review: an alias that was moved by hand is not followed, and
    a version that was deleted is none.

    Raises:
        ReviewError: what the flow wrote down can't be read.
        TrackingError: the server can't be reached, or refuses a request.
    """
    with mlflow_client(tracking, workspace) as client:
        champion = recorded_version(client, tracking.registered_model, CHAMPION)
        if champion is None:
            return _newest(client, tracking.registered_model)
        return _described(client.get_model_version(tracking.registered_model, champion), CHAMPION)


def challenger_model(tracking: Tracking, workspace: Workspace) -> CurrentModel | None:
    """The version that a flow made the challenger last; None if there is none.

    Raises: as `current_model`.
    """
    with mlflow_client(tracking, workspace) as client:
        challenger = recorded_version(client, tracking.registered_model, CHALLENGER)
        if challenger is None:
            return None
        return _described(client.get_model_version(tracking.registered_model, challenger), CHALLENGER)


def newest_model(tracking: Tracking, workspace: Workspace) -> CurrentModel | None:
    """The registered model's newest version, promoted or not; None if it has no version.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
    """
    with mlflow_client(tracking, workspace) as client:
        return _newest(client, tracking.registered_model)


def fetch_keras_model(current: CurrentModel, tracking: Tracking, workspace: Workspace) -> Path:
    """The version's `.keras` file, downloaded once; what is kept is verified before it is used again.

    Raises:
        TrackingError: the server can't be reached; it has no such file, or a damaged one.
        StorageError: the workspace can't be written.
    """
    key = "-".join((current.name, current.version, current.run_id or "without-run"))

    def download(directory: Path) -> dict[str, Any]:
        path = _download(current, tracking, workspace, directory)
        _refuse_damaged(path, current)
        return {"file": str(path.relative_to(directory))}

    output = reuse_or_run(workspace.models, key, download)
    return output.directory / output.result["file"]


def fetch_spec(current: CurrentModel, tracking: Tracking, workspace: Workspace) -> ExperimentSpec:
    """The experiment spec that the version was trained with: the crop that it expects is in there.

    Raises:
        SpecError: the spec can't be used.
        TrackingError: the server can't be reached, or the version's run has no spec.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with mlflow_client(tracking, workspace):
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            text = mlflow.artifacts.load_text(f"runs:/{current.run_id}/{SPEC_ARTIFACT}")
        except (MlflowException, OSError) as error:
            raise TrackingError(
                f"{current}: its run has no {SPEC_ARTIFACT} that could be read ({without_credentials(str(error))}), "
                "so nobody knows what crop it expects; put the artifacts of its run back"
            ) from None
    return parse_spec(ExperimentSpec, text, f"{SPEC_ARTIFACT} of {current}")


def _newest(client: Any, name: str) -> CurrentModel | None:
    found = client.search_model_versions(f"name='{name}'", max_results=1, order_by=["version_number DESC"])
    return _described(found[0], None) if found else None


def _described(version: Any, alias: str | None) -> CurrentModel:
    return CurrentModel(
        name=version.name,
        version=str(version.version),
        alias=alias,
        snapshot_id=version.tags.get("snapshot_id"),
        run_id=version.run_id or None,
        reported=REPORT_HASH in version.tags,
    )


def _download(current: CurrentModel, tracking: Tracking, workspace: Workspace, directory: Path) -> Path:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with mlflow_client(tracking, workspace):
        import mlflow
        from mlflow.exceptions import MlflowException

        uri = f"models:/{current.name}/{current.version}/{KERAS_FILE}"
        try:
            return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(directory)))
        except (MlflowException, OSError) as error:
            raise TrackingError(
                f"{current} has no file {KERAS_FILE} that could be fetched ({without_credentials(str(error))}); see "
                "that the artifacts of the registry are where they were, and that the version was registered by this "
                "project"
            ) from None


def _refuse_damaged(path: Path, current: CurrentModel) -> None:
    """A `.keras` file is a ZIP archive, which carries a checksum of each of its parts."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        damaged = str(error)
    if damaged:
        path.unlink()
        raise TrackingError(f"the model file of {current} is damaged ({damaged}); fetch it again or register it anew")
