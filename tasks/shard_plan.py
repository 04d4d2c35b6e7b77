"""Which faces of a snapshot go into which shard, found from a few columns of its table.

Legend: F faces of the snapshot, S faces of a shard, N keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.config import ConversionSettings
from schemas.geometry import Box
from schemas.records import Face, Split, faces_from_table
from schemas.storage import sha256_of
from tasks.faceboxes import Boxes, boxes_of, outside_frame
from tasks.reuse import KEY_LENGTH, code_version
from tasks.snapshot import Snapshot
from tasks.splits import refuse_leaks

_COLUMNS = ("content_hash", "split", "subject", "set_id", "source_key", "image_name", "image_sha256",
            "frame_width", "frame_height")  # fmt: skip
_AT_A_TIME = 8192


@dataclass(frozen=True, eq=False)
class PlannedShard:
    """What a shard is to hold.

    Attributes:
        rows_S: rows of the snapshot's table, by image and content.
        boxes_S4: their face boxes.
        record_keys: for every record, a hash of all that decides its bytes: the annotation and its image, their
            names, the box, the pixels wanted, the code.
        subjects: sorted; '' stands for faces without one.
    """

    split: Split
    rows_S: np.ndarray
    boxes_S4: np.ndarray
    record_keys: list[str]
    subjects: list[str]

    @property
    def key(self) -> str:
        """Names the shard: its bytes are decided by its records'."""
        return sha256_of(self.record_keys)[:KEY_LENGTH]


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a snapshot, by split and bucket.

    Attributes:
        dropped: JSON of a violation for every face that is in no shard.
        unreachable_share: of the keypoints, see `tasks.faceboxes`.
    """

    shards: list[PlannedShard]
    dropped: list[dict[str, Any]]
    unreachable_share: float

    @property
    def faces(self) -> int:
        return sum(len(shard.rows_S) for shard in self.shards)


@dataclass(frozen=True)
class _Owner:
    """As much of a face as `refuse_leaks` looks at."""

    subject: str | None
    image_sha256: str
    image_name: str


def plan_shards(snapshot: Snapshot, settings: ConversionSettings) -> ShardPlan:
    """Divide the faces of a snapshot.

    Raises:
        SubjectLeakError: a KPI subject in training or validation.
    """
    table = pq.read_table(snapshot.table, columns=list(_COLUMNS))
    columns = {name: table[name].to_pylist() for name in _COLUMNS}
    splits = [Split(split) for split in columns["split"]]
    owners = map(_Owner, columns["subject"], columns["image_sha256"], columns["image_name"])
    refuse_leaks(owners, splits, snapshot.kpi_subjects, f"snapshot {snapshot.id[:12]}")
    boxes = _boxes(snapshot, settings.bbox_enlarge_ratio)
    kept_F = boxes.inside_B | (settings.box_outside_frame == "pad")
    keypoints = max(1, int(kept_F.sum())) * snapshot.num_keypoints
    return ShardPlan(
        shards=list(_shards(columns, boxes.boxes_B4, np.flatnonzero(kept_F), settings)),
        dropped=[_dropped(columns, row, boxes) for row in np.flatnonzero(~kept_F).tolist()],
        unreachable_share=int(boxes.unreachable_B[kept_F].sum()) / keypoints,
    )


class SnapshotFaces:
    """Faces of a snapshot by row; the table is read when the first is asked for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._table: pa.Table | None = None

    def of(self, shard: PlannedShard, positions: list[int]) -> Iterator[tuple[Face, Box]]:
        """The faces at these positions of a shard, with their boxes."""
        if self._table is None:
            self._table = pq.read_table(self._snapshot.table)
        faces, _ = faces_from_table(self._table.take(shard.rows_S[positions]))
        yield from zip(faces, (Box(*box) for box in shard.boxes_S4[positions].tolist()), strict=True)


def _boxes(snapshot: Snapshot, enlarge_ratio: float) -> Boxes:
    """Of all faces; their points are looked at some thousands at a time."""
    found = [boxes_of(np.empty((0, 1, 2)), np.empty((0, 2)), enlarge_ratio=enlarge_ratio)]
    names = ["points", "frame_width", "frame_height"]
    for batch in pq.ParquetFile(snapshot.table).iter_batches(_AT_A_TIME, columns=names):
        points, widths, heights = (batch.column(name) for name in names)
        points_BN2 = points.flatten().to_numpy().reshape(len(points), -1, 2)
        frames_B2 = np.stack([widths.to_numpy(), heights.to_numpy()], axis=1)
        found.append(boxes_of(points_BN2, frames_B2, enlarge_ratio=enlarge_ratio))
    return Boxes(*(np.concatenate(parts) for parts in zip(*(vars(boxes).values() for boxes in found), strict=True)))


def _shards(
    columns: dict[str, list[Any]], boxes_F4: np.ndarray, rows: np.ndarray, settings: ConversionSettings
) -> Iterator[PlannedShard]:
    splits, images, contents = columns["split"], columns["image_sha256"], columns["content_hash"]
    bucket_of = {image: int(image[:15], 16) % settings.buckets for image in images}
    place = [(splits[row], bucket_of[images[row]], images[row], contents[row], row) for row in rows.tolist()]
    made_by = f"{settings.embed_crops} {settings.color} {code_version('model.tfrecords')}"
    for (split, _), own in groupby(sorted(place), key=lambda entry: entry[:2]):
        rows_S = np.array([entry[-1] for entry in own])
        boxes_S4 = boxes_F4[rows_S]
        keys = [
            _record_key(contents[row], columns["image_name"][row], columns["set_id"][row], box, made_by)
            for row, box in zip(rows_S.tolist(), boxes_S4.tolist(), strict=True)
        ]
        subjects = sorted({columns["subject"][row] or "" for row in rows_S.tolist()})
        yield PlannedShard(Split(split), rows_S, boxes_S4, keys, subjects)


def _record_key(content: str, name: str, set_id: str, box: list[int], made_by: str) -> str:
    """Lengths stand before the texts, so that no two records give the same."""
    text = f"{content} {box} {len(name)} {name} {len(set_id)} {set_id} {made_by}"
    return sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _dropped(columns: dict[str, list[Any]], row: int, boxes: Boxes) -> dict[str, Any]:
    record, image, width, height = (
        columns[name][row] for name in ("source_key", "image_name", "frame_width", "frame_height")
    )
    return asdict(outside_frame(record, image, boxes.squares_B4[row].tolist(), width, height))
