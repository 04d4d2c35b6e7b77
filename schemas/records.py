"""Typed records: a face, a violation, and the Parquet tables that hold them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from operator import attrgetter

import numpy as np
import pyarrow as pa

from schemas.geometry import Box

SCHEMA_VERSION = 1
"""Of the face table. Part of every snapshot id; raise it when a column changes its meaning."""


_PACK_BOX = struct.Struct("<4f").pack


class Flag(IntEnum):
    """What an annotator said of one keypoint."""

    UNKNOWN = -1
    VISIBLE = 0
    OCCLUDED = 1


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    KPI = "kpi"


@dataclass(frozen=True, eq=False)
class Face:
    """One annotated face.

    Attributes:
        source_key: raw record it comes from: source + task id + annotation id, unique in a snapshot.
        image: path or URL of the frame as this machine finds it.
        image_name: the name in the annotation, which is what TFRecords carry.
        image_sha256: of the file's bytes, hex.
        frame_width, frame_height: in pixels, as decoded.
        subject: `<dataset>/<id>`, or None where the source does not say.
        set_id: the source's own grouping (a TAO set, a Label Studio project).
        points_N2: float32, x and y in source pixels (`schemas.geometry`).
        flags_N: int8, `Flag` values.
        tight_box, outer_box: face boxes as annotated, source pixels; None where absent.
        session, camera, illumination: capture conditions where known.
        annotator, annotation_id, annotated_at: who, which, when (ISO 8601) where known.
    """

    source_key: str
    image: str
    image_name: str
    image_sha256: str
    frame_width: int
    frame_height: int
    subject: str | None
    set_id: str
    points_N2: np.ndarray
    flags_N: np.ndarray
    tight_box: Box | None = None
    outer_box: Box | None = None
    session: str | None = None
    camera: str | None = None
    illumination: str | None = None
    annotator: str | None = None
    annotation_id: str | None = None
    annotated_at: str | None = None

    @property
    def num_keypoints(self) -> int:
        return len(self.points_N2)

    @property
    def occlusion_known(self) -> bool:
        return bool((self.flags_N != Flag.UNKNOWN).all())

    def content_hash(self) -> str:
        """What makes two annotations the same: image bytes, subject, layout, points, flags, boxes.

        Names, paths, times and people stay out of it: they differ between machines and pulls.
        """
        return content_hash(
            self.image_sha256,
            self.subject,
            points=np.asarray(self.points_N2, "<f4").tobytes(),
            flags=np.asarray(self.flags_N, "i1").tobytes(),
            tight_box=self.tight_box,
            outer_box=self.outer_box,
        )


def content_hash(
    image_sha256: str,
    subject: str | None,
    *,
    points: bytes,
    flags: bytes,
    tight_box: Box | None,
    outer_box: Box | None,
) -> str:
    """`Face.content_hash` of what a face holds: `points` are 2N little-endian float32, `flags` N int8.

    The same as `sha256_of([image_sha256, subject, N, points.hex(), flags.hex(), tight, outer])`, of which the JSON
    is written here by hand: this runs once for every face that comes in.
    """
    text = (
        f'["{image_sha256}",{_json_text(subject)},{len(flags)},"{points.hex()}","{flags.hex()}"'
        f",{_json_box(tight_box)},{_json_box(outer_box)}]"
    )
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=65536)
def _json_text(text: str | None) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json_box(box: Box | None) -> str:
    return "null" if box is None else f'"{box_bytes(box).hex()}"'


def box_bytes(box: Box | tuple[float, ...]) -> bytes:
    """Four little-endian float32: what of a box counts in a content hash."""
    try:
        return _PACK_BOX(*box)
    except OverflowError:  # NumPy writes infinity
        with np.errstate(over="ignore"):
            return np.asarray(box, "<f4").tobytes()


@dataclass(frozen=True)
class Violation:
    """One broken rule in one record.

    Attributes:
        code: stable kebab-case name of the rule, such as `keypoint-outside-frame`.
        record: source key of the record.
        image: image name, or None.
        keypoint: label such as `P7`, or None where the whole record is meant.
        value: what was found, as text.
        rule: what must hold, in words.
        hint: what to do about it.
    """

    code: str
    record: str
    image: str | None
    keypoint: str | None
    value: str
    rule: str
    hint: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.record, self.keypoint) if part)
        return f"{where}: {self.code}: {self.value} ({self.rule}); {self.hint}"


VIOLATION_TABLE = pa.schema([(f.name, pa.string()) for f in dataclasses.fields(Violation)])


def violations_to_table(violations: list[Violation]) -> pa.Table:
    return pa.Table.from_pylist([dataclasses.asdict(v) for v in violations], schema=VIOLATION_TABLE)


def violations_from_table(table: pa.Table) -> list[Violation]:
    return [Violation(**row) for row in table.to_pylist()]


_BOX = pa.list_(pa.float32())  # four values or null; Parquet does not read null lists of a fixed size back


def face_table_schema(num_keypoints: int) -> pa.Schema:
    """Columns of the face table; `points` is x0, y0, x1, y1, ... as in TAO's TFRecords."""
    return pa.schema(
        [
            ("content_hash", pa.string()),
            ("split", pa.string()),
            ("subject", pa.string()),
            ("set_id", pa.string()),
            ("source_key", pa.string()),
            ("image", pa.string()),
            ("image_name", pa.string()),
            ("image_sha256", pa.string()),
            ("frame_width", pa.int32()),
            ("frame_height", pa.int32()),
            ("points", pa.list_(pa.float32(), 2 * num_keypoints)),
            ("flags", pa.list_(pa.int8(), num_keypoints)),
            ("tight_box", _BOX),
            ("outer_box", _BOX),
            ("session", pa.string()),
            ("camera", pa.string()),
            ("illumination", pa.string()),
            ("annotator", pa.string()),
            ("annotation_id", pa.string()),
            ("annotated_at", pa.string()),
        ]
    )


_MADE_COLUMNS = {"content_hash", "split", "points", "flags", "tight_box", "outer_box"}


def faces_to_table(faces: Iterable[Face], splits: Iterable[Split], num_keypoints: int) -> pa.Table:
    """The face table of `faces`, which are gone through once."""
    schema = face_table_schema(num_keypoints)
    plain = [name for name in schema.names if name not in _MADE_COLUMNS]
    values_of = attrgetter(*plain)
    rows, hashes, points, flags, boxes = [], [], [], [], []
    for face in faces:
        rows.append(values_of(face))
        hashes.append(face.content_hash())
        points.append(np.asarray(face.points_N2, np.float32))
        flags.append(np.asarray(face.flags_N, np.int8))
        boxes.append((face.tight_box, face.outer_box))
    tight, outer = zip(*boxes, strict=True) if boxes else ((), ())
    columns = dict(zip(plain, zip(*rows, strict=True) if rows else [()] * len(plain), strict=True)) | {
        "content_hash": hashes,
        "split": [str(split) for split in splits],
        "points": _fixed_lists(points, schema.field("points").type),
        "flags": _fixed_lists(flags, schema.field("flags").type),
        "tight_box": tight,
        "outer_box": outer,
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _fixed_lists(arrays: list[np.ndarray], kind: pa.FixedSizeListType) -> pa.Array:
    flat = np.concatenate([array.reshape(-1) for array in arrays]) if arrays else np.empty(0)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), type=kind)


def faces_from_table(table: pa.Table) -> tuple[list[Face], list[Split]]:
    points_BN2 = _flat(table["points"]).reshape(len(table), -1, 2) if len(table) else []
    flags_BN = _flat(table["flags"]).reshape(len(table), -1) if len(table) else []
    plain = [name for name in table.column_names if name not in _MADE_COLUMNS]
    rows = zip(*(table[name].to_pylist() for name in plain), strict=True)
    boxes = zip(*(map(_box, table[name].to_pylist()) for name in ("tight_box", "outer_box")), strict=True)
    faces = [
        Face(
            **dict(zip(plain, row, strict=True)),
            points_N2=points_N2,
            flags_N=flags_N,
            tight_box=tight,
            outer_box=outer,
        )
        for row, points_N2, flags_N, (tight, outer) in zip(rows, points_BN2, flags_BN, boxes, strict=True)
    ]
    return faces, [Split(split) for split in table["split"].to_pylist()]


def _flat(lists: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([chunk.flatten().to_numpy() for chunk in lists.chunks])


def _box(sides: list[float] | None) -> Box | None:
    return None if sides is None else Box(*sides)
