"""A workspace with KPI faces, and versions in its registry, for tests of the gate. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from model.evaluation_files import write_reference_files
from schemas.config import WorkflowConfig
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import sha256_file, sha256_of, write_json
from schemas.yamlspec import dump_spec
from tasks.convert import Conversion
from tasks.mlflow_client import mlflow_client
from tasks.reuse import StepOutput
from tasks.review.aliases import CHAMPION, move
from tasks.tracking import SPEC_ARTIFACT, Candidate, RegisteredVersion, register_candidate
from tasks.verdict import Verdict, judge
from tasks.workspace import Workspace
from tests.evaluation_sets import made_up_evaluation
from tests.shard_files import BlobFace, blob_face, small_spec, write_shard

RATIO = 1.3
KPI_FACES = 12
RULES = {
    "minimum_subjects": 3,
    "bootstrap": {"draws": 200},
    "allowance_crop_px": {"regions": {"All": 0.5}},
    "bounds_crop_px": {"All": 200.0},
}


@dataclass(frozen=True)
class GateCase:
    """A project whose KPI faces are 12 blob faces of 6 subjects."""

    folder: Path
    workspace: Workspace
    config: WorkflowConfig
    conversion: Conversion
    candidate: Candidate

    def register(self, network: keras.Model) -> RegisteredVersion:
        """A new version in the registry, of this network, with the KPI faces' own spec and snapshot."""
        snapshot_id = self.conversion.result["snapshot"]
        folder = self.folder / f"version-{len(list(self.folder.glob('version-*')))}"
        folder.mkdir()
        network.save(folder / "model.keras")
        candidate = replace(
            self.candidate, key=folder.name, snapshot_id=snapshot_id, keras_model=folder / "model.keras"
        )
        return register_candidate(candidate, self.config.tracking, self.workspace)

    def register_again(
        self, registered: RegisteredVersion, *, spec: ExperimentSpec | None = None, snapshot_id: str | None = None
    ) -> RegisteredVersion:
        """A version of the same logged network, as if trained by another spec or on another snapshot: in a moment."""
        name, tags = registered.name, {"snapshot_id": snapshot_id or self.conversion.result["snapshot"]}
        with mlflow_client(self.config.tracking, self.workspace) as client:
            model = client.get_model_version(name, registered.version)
            run_id = client.create_run(client.get_run(registered.run_id).info.experiment_id).info.run_id
            client.log_text(run_id, dump_spec(spec or gate_spec()), SPEC_ARTIFACT)
            version = client.create_model_version(name, model.source, run_id, tags, model_id=model.model_id)
        return RegisteredVersion(name, str(version.version), run_id, created=True)

    def crown(self, registered: RegisteredVersion) -> None:
        """Make it the champion, as the flow `review` does."""
        with mlflow_client(self.config.tracking, self.workspace) as client:
            move(client, registered.name, CHAMPION, registered.version)

    def judge(self, network: keras.Model, registered: RegisteredVersion, **changes) -> Verdict:
        directory = self.folder / f"trained-{registered.version}"
        if not directory.exists():  # a second file of the same network has other bytes
            directory.mkdir()
            network.save(directory / "model.keras")
        trained = StepOutput(directory.name, directory, {}, reused=False)
        case = {"spec": gate_spec(), "conversion": self.conversion, "trained": trained, "registered": registered}
        return judge(self.config, self.workspace, **(case | changes))


def gate_case(folder: Path, **rules) -> GateCase:
    """`rules`: keys of the rules file that are to be other than `RULES`."""
    workspace = Workspace(folder / "workspace")
    rules_file = folder / "rules.yaml"
    rules_file.write_text(yaml.safe_dump(RULES | rules, allow_unicode=True))
    source = {"kind": "sloth", "name": "faces", "root": str(folder)}
    config = WorkflowConfig.model_validate(
        {
            "workspace": str(workspace.root),
            "num_keypoints": 5,
            "sources": [source],
            "experiment_spec": "not read here",
            "promotion_rules": str(rules_file),
        }
    )
    faces = [blob_face(i, ratio=RATIO) for i in range(KPI_FACES)]
    shard = write_shard(workspace.shards / "kpi.tfrecords", faces)
    snapshot_id = write_snapshot(workspace, {Split.KPI: faces, Split.TRAIN: [blob_face(i) for i in range(20, 24)]})
    return GateCase(folder, workspace, config, conversion_of(shard, snapshot_id), _candidate(folder))


def gate_spec(*, ratio: float = RATIO, num_keypoints: int = 5, channel: int = 1) -> ExperimentSpec:
    spec = small_spec(num_keypoints=num_keypoints)
    info = spec.dataloader.image_info
    image = info.image.model_copy(update={"channel": channel})
    changed = {"bbox_enlarge_ratio": ratio, "image_info": info.model_copy(update={"image": image})}
    return spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update=changed)})


def conversion_of(shard: Path, snapshot_id: str) -> Conversion:
    entries = {split: [] for split in Split} | {Split.KPI: [{"file": shard.name, "sha256": sha256_file(shard)}]}
    result = {"snapshot": snapshot_id, "splits": {split: {"files": files} for split, files in entries.items()}}
    files = {split: [shard] if split is Split.KPI else [] for split in Split}
    return Conversion("conversion", files, result, written=1, reused=0)


def write_snapshot(workspace: Workspace, faces: dict[Split, Sequence[BlobFace]]) -> str:
    """A snapshot's manifest and the columns of its table that tell who is in it; its id."""
    rows = [(str(split), face.subject, sha256_of(face.name)) for split, found in faces.items() for face in found]
    identity = sha256_of(rows)
    directory = workspace.snapshots / identity
    directory.mkdir(parents=True, exist_ok=True)
    splits, subjects, images = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"split": splits, "subject": subjects, "image_sha256": images}), directory / "faces.parquet"
    )
    policy = {"kpi_subjects": sorted({face.subject for face in faces.get(Split.KPI, ())})}
    write_json(directory / "manifest.json", {"result": {"snapshot": identity, "num_keypoints": 5, "policy": policy}})
    return identity


def _candidate(folder: Path) -> Candidate:
    """What of a candidate the gate does not look at."""
    (folder / "model.onnx").write_bytes(b"stands for an ONNX file")
    for name in ("figures", "snapshot"):
        (folder / name).mkdir()
    (folder / "figures" / "curve.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return Candidate(
        key="",
        spec=gate_spec(),
        snapshot_id="",
        snapshot=folder / "snapshot",
        split_counts={"kpi": KPI_FACES},
        history=[{"epoch": 1, "loss": 3.0, "validation_error_px": None, "best": True}],
        report=write_reference_files(made_up_evaluation(num_keypoints=5), folder / "evaluation"),
        keras_model=folder / "model.keras",
        onnx_model=folder / "model.onnx",
        evaluation=folder / "evaluation",
        figures=folder / "figures",
        versions={},
    )


def tags_of(case: GateCase, registered: RegisteredVersion) -> dict[str, str]:
    with mlflow_client(case.config.tracking, case.workspace) as client:
        return dict(client.get_model_version(registered.name, registered.version).tags)
