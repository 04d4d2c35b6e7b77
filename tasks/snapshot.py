"""From accepted faces to an immutable snapshot, named by its content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import SplitPolicy
from schemas.records import (
    SCHEMA_VERSION,
    Face,
    Split,
    Violation,
    faces_from_table,
    faces_to_table,
    violations_from_table,
    violations_to_table,
)  # fmt: skip
from schemas.storage import read_json, sha256_of, write_bytes, write_json
from tasks.reuse import StepOutput, reuse_or_run
from tasks.splits import assign_splits, kpi_subjects, refuse_leaks
from tasks.validate import Validation

FACES, SUPERSEDED, VIOLATIONS = "faces.parquet", "superseded.parquet", "violations.parquet"
PROVENANCE = "provenance.json"
ROW_GROUP = 8192  # faces; who needs a few reads the groups that hold them


@dataclass(frozen=True)
class Snapshot:
    """A snapshot's directory. Faces and violations are read from it when they are first asked for; who needs a few
    columns of a million faces reads those from `table` instead.

    Attributes:
        id: hex SHA-256 of the canonical content, the split policy and the schema version.
        kpi_subjects: everybody who must never be trained on, present or not.
    """

    id: str
    directory: Path
    num_keypoints: int
    kpi_subjects: frozenset[str]

    @property
    def table(self) -> Path:
        """Parquet, see `schemas.records.face_table_schema`; sorted by content hash."""
        return self.directory / FACES

    @cached_property
    def faces(self) -> list[Face]:
        return faces_from_table(pq.read_table(self.table))[0]

    @cached_property
    def splits(self) -> list[Split]:
        """Of every face."""
        return [Split(split) for split in pq.read_table(self.table, columns=["split"])["split"].to_pylist()]

    @cached_property
    def superseded(self) -> list[Face]:
        """Sound annotations that were not used."""
        return faces_from_table(pq.read_table(self.directory / SUPERSEDED))[0]

    @cached_property
    def violations(self) -> list[Violation]:
        return violations_from_table(pq.read_table(self.directory / VIOLATIONS))


def snapshot_id(faces: list[Face], policy: SplitPolicy) -> str:
    """The same for the same annotations on any machine, in any order, wherever images lie and whoever drew them."""
    return sha256_of(
        {
            "schema_version": SCHEMA_VERSION,
            "split": _canonical(policy),
            "faces": sorted(face.content_hash() for face in faces),
        }
    )


def take_snapshot(
    validation: Validation,
    *,
    policy: SplitPolicy,
    num_keypoints: int,
    snapshots: Path,
    provenance: Mapping[str, Any],
) -> StepOutput:
    """Write `<snapshots>/<id>/`, or find it there.

    It holds the faces with their splits, the superseded ones, the violations, and beside them the provenance: not
    part of the id. Content that is there already but whose images have moved, or whose annotators, times or rejected
    records differ, is written again under its id; the old one stays until the new one is complete.

    Args:
        provenance: JSON: where the annotations come from, parent snapshot, watermarks. No secrets.

    Returns:
        `result` has `snapshot`, `num_keypoints`, `counts`, `splits` (faces, subjects and images of each),
        `rejected` (violations by code) and `unknown_flags` (share of the keypoints).

    Raises:
        SplitError, SubjectLeakError, SpecError: see `tasks.splits.assign_splits`.
        StorageError: the snapshot can't be written.
    """
    faces = sorted(validation.faces, key=lambda face: face.content_hash())
    superseded = sorted(validation.superseded, key=lambda face: face.source_key)
    all_splits = assign_splits([*faces, *superseded], policy)
    splits = all_splits[: len(faces)]
    refuse_leaks(faces, splits, kpi_subjects(policy), "snapshot")
    files = {
        FACES: _parquet(faces_to_table(faces, splits, num_keypoints)),
        SUPERSEDED: _parquet(faces_to_table(superseded, all_splits[len(faces) :], num_keypoints)),
        VIOLATIONS: _parquet(violations_to_table(validation.violations)),
    }
    identity = snapshot_id(faces, policy)

    def write(directory: Path) -> dict[str, Any]:
        for name, data in files.items():
            write_bytes(directory / name, data)
        taken = {"taken_at": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(directory / PROVENANCE, {**provenance, **taken})
        return _summary(identity, validation, faces, splits, policy, num_keypoints)

    def is_current(written: Mapping[str, str]) -> bool:
        return all(written[name] == sha256(data).hexdigest() for name, data in files.items())

    return reuse_or_run(snapshots, identity, write, is_current=is_current)


def load_snapshot(directory: Path) -> Snapshot:
    """What `take_snapshot` wrote."""
    result = read_json(directory / "manifest.json")["result"]
    return Snapshot(
        id=result["snapshot"],
        directory=directory,
        num_keypoints=result["num_keypoints"],
        kpi_subjects=frozenset(result["policy"]["kpi_subjects"]),
    )


def _canonical(policy: SplitPolicy) -> dict[str, Any]:
    """The policy without the names of files: who is in them counts."""
    return {
        "kpi_subjects": sorted(kpi_subjects(policy)),
        "validation_share": policy.validation_share,
        "seed": policy.seed,
    }


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    return sink.getvalue().to_pybytes()


def _summary(
    identity: str,
    validation: Validation,
    faces: list[Face],
    splits: list[Split],
    policy: SplitPolicy,
    num_keypoints: int,
) -> dict[str, Any]:
    unknown = sum(int((face.flags_N < 0).sum()) for face in faces)
    return {
        "snapshot": identity,
        "schema_version": SCHEMA_VERSION,
        "num_keypoints": num_keypoints,
        "policy": _canonical(policy),
        "counts": asdict(validation.counts),
        "splits": {str(split): _split_summary(faces, splits, split) for split in Split},
        "rejected": dict(sorted(Counter(violation.code for violation in validation.violations).items())),
        "unknown_flags": unknown / (len(faces) * num_keypoints),
    }


def _split_summary(faces: list[Face], splits: list[Split], split: Split) -> dict[str, int]:
    own = [face for face, of_face in zip(faces, splits, strict=True) if of_face is split]
    return {
        "faces": len(own),
        "subjects": len({face.subject for face in own} - {None}),
        "images": len({face.image_sha256 for face in own}),
    }
