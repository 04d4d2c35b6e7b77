"""Which faces of a snapshot go into which shard, found from a few columns of its table.

Legend: F faces of the snapshot, S faces of a shard, N keypoints, G row groups of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from schemas.config import ConversionSettings
from schemas.geometry import Box
from schemas.records import Face, Split, faces_from_table
from schemas.source_code import code_version
from schemas.storage import sha256_of
from tasks.faceboxes import Boxes, boxes_of, outside_frame
from tasks.reuse import KEY_LENGTH
from tasks.snapshot import Snapshot
from tasks.splits import refuse_leaks

_COLUMNS = ("content_hash", "split", "subject", "set_id", "image_name", "image_sha256")
_OF_DROPPED = ("source_key", "image_name", "frame_width", "frame_height")
_SPLITS = {str(split): split for split in Split}
_AT_A_TIME = 512  # faces; more of them would leave the processor's cache


@dataclass(frozen=True, eq=False)
class PlannedShard:
    """What a shard is to hold, by image and content.

    Attributes:
        rows_S: rows of the snapshot's table.
        boxes_S4: face boxes, int64.
        contents, names, sets: content hashes of the annotations, names of their images, their sets.
        made_by: what else decides the bytes of a record: the pixels wanted, the code.
        subjects: sorted; '' stands for faces without one.
    """

    split: Split
    rows_S: np.ndarray
    boxes_S4: np.ndarray
    contents: list[str]
    names: list[str]
    sets: list[str]
    made_by: str
    subjects: list[str]

    @cached_property
    def key(self) -> str:
        """Names the shard: of all that decides the bytes of its records."""
        return sha256_of([self.contents, self.names, self.sets, self.boxes_S4.tobytes().hex(), self.made_by])[
            :KEY_LENGTH
        ]

    @cached_property
    def record_keys(self) -> list[str]:
        """For every record, a hash of all that decides its bytes."""
        boxes = self.boxes_S4.tolist()
        parts = zip(self.contents, self.names, self.sets, boxes, strict=True)
        return [sha256_of([*part, self.made_by])[:KEY_LENGTH] for part in parts]


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


class _Owner(NamedTuple):
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
    splits = [_SPLITS[split] for split in columns["split"]]
    owners = map(_Owner, columns["subject"], columns["image_sha256"], columns["image_name"])
    refuse_leaks(owners, splits, snapshot.kpi_subjects, f"snapshot {snapshot.id[:12]}")
    boxes = _boxes(snapshot, settings.bbox_enlarge_ratio)
    kept_F = boxes.inside_B | (settings.box_outside_frame == "pad")
    keypoints = max(1, int(kept_F.sum())) * snapshot.num_keypoints
    return ShardPlan(
        shards=list(_shards(columns, boxes.boxes_B4, np.flatnonzero(kept_F), settings)),
        dropped=_dropped(snapshot, np.flatnonzero(~kept_F), boxes),
        unreachable_share=int(boxes.unreachable_B[kept_F].sum()) / keypoints,
    )


class SnapshotFaces:
    """Some faces of a snapshot; of its table, the row groups that hold any of them are read.

    Args:
        rows: of the faces, in any order.
    """

    def __init__(self, snapshot: Snapshot, rows: Sequence[np.ndarray]) -> None:
        file = pq.ParquetFile(snapshot.table)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends_G = np.cumsum(sizes)
        groups = np.unique(np.searchsorted(ends_G, np.concatenate([np.empty(0, int), *rows]), side="right")).tolist()
        self._table = file.read_row_groups(groups)
        self._place_F = np.full(sum(sizes), -1)
        read = 0
        for group in groups:
            self._place_F[ends_G[group] - sizes[group] : ends_G[group]] = np.arange(read, read + sizes[group])
            read += sizes[group]

    def of(self, shard: PlannedShard, positions: list[int]) -> Iterator[tuple[Face, Box]]:
        """The faces at these positions of a shard, with their boxes."""
        faces, _ = faces_from_table(self._table.take(self._place_F[shard.rows_S[positions]]))
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
        rows_S = [entry[-1] for entry in own]
        yield PlannedShard(
            split=_SPLITS[split],
            rows_S=np.array(rows_S),
            boxes_S4=boxes_F4[rows_S],
            contents=[contents[row] for row in rows_S],
            names=[columns["image_name"][row] for row in rows_S],
            sets=[columns["set_id"][row] for row in rows_S],
            made_by=made_by,
            subjects=sorted({columns["subject"][row] or "" for row in rows_S}),
        )


def _dropped(snapshot: Snapshot, rows: np.ndarray, boxes: Boxes) -> list[dict[str, Any]]:
    if not len(rows):
        return []
    table = pq.read_table(snapshot.table, columns=list(_OF_DROPPED)).take(rows)
    faces = zip(boxes.squares_B4[rows].tolist(), *(table[name].to_pylist() for name in _OF_DROPPED), strict=True)
    return [
        asdict(outside_frame(record, image, square, width, height)) for square, record, image, width, height in faces
    ]
