"""Workspaces with a history, for tests: snapshots, versions, engines, stages and devices, written as the steps do."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from deploy.delivery import CurrentEngine
from deploy.pointers import Action, Event, Pointer, StagedEngine
from schemas.storage import write_json
from tasks.fleet.deliveries import DeviceRecord
from tasks.lineage.versions import VersionRecord, record_version
from tasks.workspace import Workspace

COLUMNS = ("source_key", "content_hash", "subject", "split", "image_sha256", "image_name")


@dataclass(frozen=True)
class Row:
    """A face in a snapshot; `used` is False where it was superseded."""

    annotation: str
    subject: str | None
    split: str
    content: str = "c0"
    used: bool = True

    @property
    def place(self) -> str:
        return self.split if self.used else "superseded"


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def write_snapshot(workspace: Workspace, name: str, rows: Sequence[Row], *, taken_at: str) -> None:
    folder = workspace.snapshots / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, used in (("faces.parquet", True), ("superseded.parquet", False)):
        values = [
            (
                row.annotation,
                digest(row.content, row.subject),
                row.subject,
                row.split,
                digest(row.annotation),
                row.annotation,
            )
            for row in rows
            if row.used == used
        ]
        columns = zip(*values, strict=True) if values else [()] * len(COLUMNS)
        arrays = [pa.array(column, pa.string()) for column in columns]
        (folder / file).unlink(missing_ok=True)
        pq.write_table(pa.table(arrays, names=list(COLUMNS)), folder / file)
    write_json(folder / "provenance.json", {"taken_at": taken_at})
    result = {"snapshot": name, "num_keypoints": 5, "policy": {"kpi_subjects": []}}
    write_json(folder / "manifest.json", {"key": name, "files": {}, "result": result})


def write_version(workspace: Workspace, name: str, version: int, snapshot: str, onnx: str) -> VersionRecord:
    record = VersionRecord(
        name, str(version), snapshot, run_id=f"run{version}", training=f"t{version}", onnx_sha256=onnx
    )
    record_version(workspace, record)
    return record


def write_engine(workspace: Workspace, target: str, record: VersionRecord) -> str:
    """A checked engine of a version; returns its build key."""
    key = digest(target, record.onnx_sha256)[:20]
    write_json(
        workspace.engines / key / "manifest.json",
        {
            "build_key": key,
            "engine": "engine.plan",
            "engine_sha256": digest(key, "engine"),
            "model_sha256": digest(key, "model"),
            "onnx_sha256": record.onnx_sha256,
            "target": {"name": target},
            "precision": "fp16",
            "builder": "tests",
            "provenance": {
                "model_name": record.name,
                "model_version": record.version,
                "snapshot_id": record.snapshot,
            },
        },
    )
    return key


def point_stage(
    workspace: Workspace, target: str, stage: str, key: str, *, number: int = 1, action: Action = "stage"
) -> None:
    write_pointer(workspace, target, stage, staged(key), number=number, action=action)


def staged(key: str, version: str = "3") -> StagedEngine:
    return StagedEngine(
        build_key=key, engine="e", engine_sha256=digest(key, "engine"), model_name="fpenet", model_version=version,
        snapshot_id="s", check="passed", manifest_sha256=digest(key, "manifest"),
    )  # fmt: skip


def write_pointer(
    workspace: Workspace, target: str, stage: str, engine: StagedEngine, *earlier: StagedEngine,
    number: int = 1, action: Action = "stage",
) -> None:  # fmt: skip
    event = Event(number=number, action=action, at="2026", by="tests", why="tests", engine=engine, before=None)
    pointer = Pointer(event=event, earlier=list(earlier))
    write_json(workspace.targets / target / f"{stage}.json", pointer.model_dump(mode="json"))


def write_device(workspace: Workspace, target: str, device: str, *kept: str, version: str = "3") -> None:
    """A device's record: it runs the last of the engines that it keeps."""
    engines = [
        CurrentEngine(
            build_key=key, engine="e", engine_sha256=digest(key, "engine"), precision="fp16",
            model_name="fpenet", model_version=version, snapshot_id="s",
        )
        for key in kept
    ]  # fmt: skip
    record = DeviceRecord(
        device=device, target=target, ring="main", outcome="active", stage="production", at="2026",
        current=engines[-1], kept=engines,
    )  # fmt: skip
    write_json(workspace.targets / target / "devices" / f"{device}.json", record.model_dump(mode="json"))


def count_places(rows: Sequence[Row]) -> dict[str, int]:
    return dict(Counter(row.place for row in rows))


def workspace_in(folder: Path) -> Workspace:
    folder.mkdir(parents=True, exist_ok=True)
    return Workspace(folder)
