"""Log a candidate to MLflow and register it as the challenger.

A candidate is logged once: its model version carries the candidate's key as a tag, written in the same step that
makes the version. A rerun finds the version by the tag and changes nothing. A run that died before it got there is
closed as KILLED, and the candidate is logged anew.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from model.region_error import Unit
from schemas.config import Tracking
from schemas.experiment import ExperimentSpec
from schemas.storage import canonical_json, sha256_of
from schemas.yamlspec import dump_spec
from tasks.mlflow_client import mlflow_client
from tasks.review.aliases import CHALLENGER, CHAMPION, finish, lock, move, recorded_version
from tasks.review.tags import REJECTED, REVIEW
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

KEY_TAG = "candidate_key"
SPEC_ARTIFACT, ONNX_ARTIFACT = "experiment_spec.yaml", "onnx/model.onnx"
"""In the run that made a version: what others read again."""
PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 100, 1000
"""MLflow's limits on one request."""
DIGEST_LENGTH = 36
"""MLflow's limit on a dataset's digest; the whole snapshot id is in a tag."""


@dataclass(frozen=True)
class Candidate:
    """A trained, evaluated and exported model.

    Attributes:
        key: names everything that went in; the same key is the same candidate.
        spec: as it was trained with.
        snapshot_id: of the annotations.
        snapshot: the snapshot's directory.
        split_counts: split -> number of faces.
        history: `model.checkpoint.EpochResult`s as mappings.
        report: the evaluation's `report.json`.
        keras_model, onnx_model: files.
        evaluation: directory with the evaluation's files.
        figures: directory with pictures to look at.
        versions: further tags, such as `code_version` and `git_commit`; None where unknown.
    """

    key: str
    spec: ExperimentSpec
    snapshot_id: str
    snapshot: Path
    split_counts: Mapping[str, int]
    history: Sequence[Mapping[str, Any]]
    report: Mapping[str, Any]
    keras_model: Path
    onnx_model: Path
    evaluation: Path
    figures: Path
    versions: Mapping[str, str | None]

    @property
    def tags(self) -> dict[str, str]:
        known = {name: value for name, value in self.versions.items() if value is not None}
        return known | {
            KEY_TAG: self.key,
            "snapshot_id": self.snapshot_id,
            "report_sha256": sha256_of(self.report),
        }


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in MLflow's registry.

    Attributes:
        created: False where an earlier run had registered it.
        code_version, git_commit: of the code that registered it; None where unknown.
    """

    name: str
    version: str
    run_id: str
    created: bool
    code_version: str | None = None
    git_commit: str | None = None


def register_candidate(candidate: Candidate, tracking: Tracking, workspace: Workspace) -> RegisteredVersion:
    """The version of this candidate, logged and registered if it isn't yet, with the alias `challenger`.

    Without `tracking.uri`, MLflow is a SQLite file in the workspace, its artifacts beside it. The champion keeps its
    alias and doesn't become its own challenger; a version that was rejected doesn't come back.

    Raises:
        TrackingError: the server can't be reached, or refuses a request.
    """
    name = tracking.registered_model
    with mlflow_client(tracking, workspace) as client:
        version = _find_version(client, name, candidate.key)
        created = version is None
        if version is None:
            version = _log_and_register(client, candidate, tracking, workspace)
        with lock(workspace):
            _make_challenger(client, version)
        if client.get_run(version.run_id).info.status == "RUNNING":
            client.set_terminated(version.run_id)
    made_by = (version.tags.get(tag) for tag in ("code_version", "git_commit"))
    return RegisteredVersion(name, str(version.version), version.run_id, created, *made_by)


def _make_challenger(client: MlflowClient, version: ModelVersion) -> None:
    name, number = version.name, str(version.version)
    finish(client, name)
    placed = {recorded_version(client, name, alias) for alias in (CHAMPION, CHALLENGER)}
    if number not in placed and version.tags.get(REVIEW, "").strip().lower() != REJECTED:
        move(client, name, CHALLENGER, number)


def _find_version(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name='{name}' and tags.{KEY_TAG}='{key}'")
    return max(found, key=lambda version: int(version.version), default=None)


def _log_and_register(
    client: MlflowClient, candidate: Candidate, tracking: Tracking, workspace: Workspace
) -> ModelVersion:
    import mlflow

    experiment = _experiment(client, tracking, workspace)
    for run in client.search_runs([experiment], f"tags.{KEY_TAG}='{candidate.key}' and status='RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")
    with mlflow.start_run(experiment_id=experiment, run_name=candidate.key, tags=candidate.tags) as run:
        run_id = run.info.run_id
        _log_numbers(client, run_id, candidate)
        _log_snapshot(client, run_id, candidate)
        _log_files(client, run_id, candidate)
        model_id = _log_keras_model(candidate)
        return _create_version(client, tracking.registered_model, run_id, model_id, candidate)


def _experiment(client: MlflowClient, tracking: Tracking, workspace: Workspace) -> str:
    found = client.get_experiment_by_name(tracking.experiment)
    if found is not None:
        return found.experiment_id
    location = None if tracking.uri else workspace.artifacts.resolve().as_uri()
    return client.create_experiment(tracking.experiment, artifact_location=location)


def _log_numbers(client: MlflowClient, run_id: str, candidate: Candidate) -> None:
    from mlflow.entities import Metric, Param

    now_ms = time.time_ns() // 1_000_000
    spec = candidate.spec.model_dump(mode="json", by_alias=True)
    parameters = [Param(key, str(value)) for key, value in _flatten(spec)]
    metrics = [
        Metric(_sanitised(name), float(value), now_ms, row["epoch"])
        for row in candidate.history
        for name, value in _flatten(row)
        if value is not None
    ]
    metrics += [Metric(_sanitised(name), value, now_ms, 0) for name, value in kpi_metrics(candidate.report)]
    for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_AT_ONCE])
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])


def kpi_metrics(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield `kpi/crop_px/all/Eyes` and its interval's `/low` and `/high`, where they are numbers; `kpi/auc/crop_px`,
    the area under the curve of errors; `kpi/confidence_auc`, how well the confidence tells occluded points."""
    for name in ("faces", "subjects", "unreachable_share"):
        yield f"kpi/{name}", float(report[name])
    for region, units in report["regions"].items():
        for unit in Unit:
            for points, cell in units.get(unit.value, {}).items():
                for suffix, key in (("", "error"), ("/low", "low"), ("/high", "high")):
                    if cell[key] is not None:
                        yield f"kpi/{unit.value}/{points}/{region}{suffix}", float(cell[key])
    for unit, curve in report["curves"].items():
        yield f"kpi/auc/{unit}", float(curve["auc"])
    if "All" in report["confidence"]:
        yield "kpi/confidence_auc", float(report["confidence"]["All"]["auc"])


def _log_snapshot(client: MlflowClient, run_id: str, candidate: Candidate) -> None:
    from mlflow.entities import Dataset, DatasetInput

    dataset = Dataset(
        name="faces",
        digest=candidate.snapshot_id[:DIGEST_LENGTH],
        source_type="local",
        source=canonical_json({"uri": candidate.snapshot.resolve().as_uri()}).decode(),
        profile=canonical_json({"faces": dict(candidate.split_counts)}).decode(),
    )
    client.log_inputs(run_id, [DatasetInput(dataset)])


def _log_files(client: MlflowClient, run_id: str, candidate: Candidate) -> None:
    client.log_text(run_id, dump_spec(candidate.spec), SPEC_ARTIFACT)
    client.log_artifact(run_id, str(candidate.onnx_model), str(PurePosixPath(ONNX_ARTIFACT).parent))
    client.log_artifacts(run_id, str(candidate.evaluation), "evaluation")
    client.log_artifacts(run_id, str(candidate.figures), "figures")


def _log_keras_model(candidate: Candidate) -> str:
    """Log the Keras model of the active run; return the id of MLflow's logged model."""
    import keras
    import numpy as np
    import tensorflow

    import model.network  # noqa: F401 - registers the layers that a saved model names

    with warnings.catch_warnings():  # advice on type hints in MLflow's own code
        warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
        import mlflow.keras
        import mlflow.pyfunc  # loaded by mlflow.keras when first used
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

    network = keras.models.load_model(candidate.keras_model, compile=False)
    shape = tuple(-1 if side is None else side for side in network.inputs[0].shape)
    info = mlflow.keras.log_model(
        network,
        name="model",
        signature=ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), shape)])),
        pip_requirements=[f"keras=={keras.__version__}", f"tensorflow=={tensorflow.__version__}"],
    )
    return info.model_id


def _create_version(
    client: MlflowClient, name: str, run_id: str, model_id: str, candidate: Candidate
) -> ModelVersion:
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=candidate.tags, model_id=model_id
    )


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` -> `("a.b", 1)`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _sanitised(name: str) -> str:
    """MLflow allows letters, digits and `_ - . space : /` in the name of a metric."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
