"""What a rollout takes of a registered version: its ONNX graph, and the faces to calibrate and compare on.

Graph and experiment spec come from the artifacts of the version's run, once, and are verified before they are used
again. Faces come from the TFRecord shards of the version's snapshot in this workspace and are not copied anywhere,
so that a withdrawal finds them where it looks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from deploy.engine import Provenance
from deploy.pointers import StagedEngine
from schemas.config import ConversionSettings, Tracking
from schemas.errors import SourceEmptyError, TrackingError
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import make_folder, read_json, sha256_file
from schemas.yamlspec import load_spec
from tasks.calibration import CalibrationCrops
from tasks.convert import Conversion
from tasks.evaluate import KpiCrops
from tasks.mlflow_client import mlflow_client
from tasks.reuse import reuse_or_run
from tasks.tracking import ONNX_ARTIFACT, SPEC_ARTIFACT
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from deploy.builders.base import Predictions
    from deploy.calibration import Crops


@dataclass(frozen=True, eq=False)
class Material:
    """A version, ready to be built for any target.

    Attributes:
        provenance: name, version and snapshot of the model.
        onnx: the exported graph, FP32.
        kpi: crops that engines are compared on.
        calibration: training crops for INT8.
    """

    provenance: Provenance
    onnx: Path
    kpi: Crops
    calibration: Crops

    @cached_property
    def expected(self) -> Predictions:
        """What the FP32 graph says of the KPI crops in ONNX Runtime; export has compared it with Keras."""
        from deploy.builders.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(self.onnx).predict(self.kpi())


MaterialOf = Callable[[StagedEngine], Material]


def fetch_material(name: str, version: str, tracking: Tracking, workspace: Workspace) -> Material:
    """All that a rollout needs of a registered version.

    Raises:
        TrackingError: MLflow can't be reached, has no such version, or not its files.
        SourceEmptyError: this workspace does not have the faces of its snapshot.
    """
    folder, snapshot_id = fetch_files(name, version, tracking, workspace)
    spec = load_spec(ExperimentSpec, folder / SPEC_ARTIFACT)
    conversion = find_conversion(snapshot_id, spec, workspace)
    return Material(
        provenance=Provenance(name, version, snapshot_id),
        onnx=folder / ONNX_ARTIFACT,
        kpi=KpiCrops(conversion, spec),
        calibration=CalibrationCrops(conversion, spec),
    )


def materials(tracking: Tracking, workspace: Workspace) -> MaterialOf:
    """`fetch_material` of the version of an engine, once for each version."""
    alone = Lock()

    @cache
    def fetched(name: str, version: str) -> Material:
        return fetch_material(name, version, tracking, workspace)

    def material_of(engine: StagedEngine) -> Material:
        with alone:  # devices ask for it all at once
            return fetched(engine.model_name, engine.model_version)

    return material_of


def find_conversion(snapshot_id: str, spec: ExperimentSpec, workspace: Workspace) -> Conversion:
    """The shards of a snapshot that hold the crops of this spec: those that were written last and are whole.

    Raises:
        SourceEmptyError: there are none.
    """
    for manifest in sorted(workspace.conversions.glob("*/manifest.json"), key=_age, reverse=True):
        result = read_json(manifest)["result"]
        if result["snapshot"] != snapshot_id or not _fits(result, spec):
            continue
        if all(_is_whole(workspace.shards / entry["file"], entry["sha256"]) for entry in _needed(result)):
            return _as_conversion(manifest.parent.name, result, workspace)
    raise SourceEmptyError(
        f"{workspace.conversions}: no whole TFRecords of snapshot {snapshot_id[:12]} with the crops of this "
        "version to compare on; roll out in the workspace that the version was trained in, or, if someone in it has "
        "withdrawn since, run `retrain` and have the new version reviewed"
    )


def fetch_files(name: str, version: str, tracking: Tracking, workspace: Workspace) -> tuple[Path, str]:
    """Folder with the version's ONNX file and experiment spec, and the id of its snapshot.

    Raises:
        TrackingError: MLflow can't be reached, has no such version, or not its files.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with mlflow_client(tracking, workspace) as client:
        found = client.get_model_version(name, version)
        snapshot_id = found.tags.get("snapshot_id")
        if not (found.run_id and snapshot_id):
            raise TrackingError(
                f"{name} version {version} was not registered by this project: it has no run, or no tag snapshot_id; "
                "approve a version that the flow `retrain` made"
            )

        def download(directory: Path) -> dict[str, Any]:
            for artifact in (ONNX_ARTIFACT, SPEC_ARTIFACT):
                try:
                    fetched = Path(client.download_artifacts(found.run_id, artifact, str(directory)))
                except OSError as error:
                    raise TrackingError(
                        f"{name} version {version}: {artifact} can't be fetched from its run ({error}); see that the "
                        "artifacts of the registry are where they were"
                    ) from error
                make_folder((directory / artifact).parent)
                fetched.replace(directory / artifact)  # some stores leave out the folders
            return {}

        output = reuse_or_run(workspace.models, f"onnx-{name}-{version}-{found.run_id}", download)
    return output.directory, snapshot_id


def _fits(result: dict[str, Any], spec: ExperimentSpec) -> bool:
    settings, asked = ConversionSettings.model_validate(result["settings"]), spec.dataloader
    same_crop = settings.bbox_enlarge_ratio == asked.bbox_enlarge_ratio
    in_colour = asked.image_info.image.channel <= settings.channels
    return result["num_keypoints"] == spec.num_keypoints and same_crop and in_colour


def _needed(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for split in (Split.KPI, Split.TRAIN):
        yield from result["splits"][split]["files"]


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _as_conversion(key: str, result: dict[str, Any], workspace: Workspace) -> Conversion:
    splits = {split: result["splits"][split]["files"] for split in Split}
    files = {split: [workspace.shards / entry["file"] for entry in entries] for split, entries in splits.items()}
    return Conversion(key, files, result, written=0, reused=sum(map(len, files.values())))


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
