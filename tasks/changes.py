"""What differs between two sets of faces."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.records import Face, box_bytes, faces_from_table
from tasks.snapshot import Snapshot


class Kind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Identity(NamedTuple):
    """Which face it is, whatever was annotated: the image's bytes, and whose face it shows there."""

    image_sha256: str
    subject: str | None


@dataclass(frozen=True)
class FaceChange:
    """One face that is not as it was.

    Attributes:
        kind: added, removed or changed.
        source_key: of the face as it is now; as it was, where it was removed.
        moved: number of keypoints that are elsewhere; all of them if there are more or fewer than before.
        furthest_px: largest move of a keypoint in source pixels; 0 where none moved or the numbers differ.
        flags: number of keypoints whose occlusion flag differs.
        boxes: whether a face box differs.
    """

    kind: Kind
    source_key: str
    moved: int = 0
    furthest_px: float = 0.0
    flags: int = 0
    boxes: bool = False

    @property
    def source(self) -> str:
        return self.source_key.partition(":")[0]


@dataclass(frozen=True)
class Changes:
    """All that differs, sorted by source key.

    Attributes:
        before, after: number of faces.
        faces: those that were added, removed or changed.
    """

    before: int
    after: int
    faces: tuple[FaceChange, ...]

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def share(self) -> float:
        """Of the faces that there were."""
        return len(self.faces) / max(1, self.before)

    def by_source(self) -> dict[str, Counter[Kind]]:
        """Source -> number of faces of each kind; only sources in which something changed."""
        counts: dict[str, Counter[Kind]] = defaultdict(Counter)
        for face in self.faces:
            counts[face.source][face.kind] += 1
        return dict(sorted(counts.items()))


def compare(before: Sequence[Face], after: Sequence[Face]) -> Changes:
    """Tell faces apart by `Identity`, and whether they changed by their content hash.

    Order, annotators, times, names and places are no content. Several faces of one identity (an image with several
    unknown people) are matched by where they are.
    """
    old, new = _without_equals(before, after)
    of_old, of_new = _by_identity(old), _by_identity(new)
    changes = [
        change
        for identity in sorted(of_old.keys() | of_new.keys(), key=str)
        for change in _changes_of_one(of_old.get(identity, []), of_new.get(identity, []))
    ]
    return Changes(
        len(before), len(after), tuple(sorted(changes, key=lambda change: (change.source_key, change.kind)))
    )


def changes_since(snapshot: Snapshot, faces: Sequence[Face]) -> Changes:
    """`compare` with a snapshot, of which only those faces are read that are not there any more."""
    known = Counter(pq.read_table(snapshot.table, columns=["content_hash"])["content_hash"].to_pylist())
    hashes = [face.content_hash() for face in faces]
    fresh = [face for face, digest in zip(faces, hashes, strict=True) if digest not in known]
    gone = pa.array(sorted(known.keys() - set(hashes)), pa.string())
    table = pq.read_table(snapshot.table, filters=pc.field("content_hash").isin(gone))
    return Changes(known.total(), len(faces), compare(faces_from_table(table)[0], fresh).faces)


def _without_equals(before: Iterable[Face], after: Iterable[Face]) -> tuple[list[Face], list[Face]]:
    """Both without the faces that the other has too; of several equal ones, as many as the other has."""
    old = [(face.content_hash(), face) for face in before]
    new = [(face.content_hash(), face) for face in after]
    return _surplus(old, Counter(digest for digest, _ in new)), _surplus(new, Counter(digest for digest, _ in old))


def _surplus(faces: Iterable[tuple[str, Face]], others: Counter[str]) -> list[Face]:
    surplus = []
    for digest, face in faces:
        if others[digest]:
            others[digest] -= 1
        else:
            surplus.append(face)
    return surplus


def _by_identity(faces: Iterable[Face]) -> Mapping[Identity, list[Face]]:
    grouped: dict[Identity, list[Face]] = defaultdict(list)
    for face in faces:
        grouped[Identity(face.image_sha256, face.subject)].append(face)
    return grouped


def _changes_of_one(old: Sequence[Face], new: Sequence[Face]) -> Iterator[FaceChange]:
    pairs = _nearest(old, new)
    for i, j in pairs:
        yield _difference(old[i], new[j])
    matched_old, matched_new = {i for i, _ in pairs}, {j for _, j in pairs}
    for i, face in enumerate(old):
        if i not in matched_old:
            yield FaceChange(Kind.REMOVED, face.source_key)
    for j, face in enumerate(new):
        if j not in matched_new:
            yield FaceChange(Kind.ADDED, face.source_key)


def _nearest(old: Sequence[Face], new: Sequence[Face]) -> list[tuple[int, int]]:
    """As many pairs as there can be, their centres the least far apart in sum."""
    if len(old) == len(new) == 1:
        return [(0, 0)]
    if not old or not new:
        return []
    from scipy.optimize import linear_sum_assignment

    centres_old, centres_new = (np.array([f.points_N2.mean(axis=0) for f in faces]) for faces in (old, new))
    apart_px = np.linalg.norm(centres_old[:, None] - centres_new[None, :], axis=-1)
    return list(zip(*(found.tolist() for found in linear_sum_assignment(apart_px)), strict=True))


def _difference(old: Face, new: Face) -> FaceChange:
    boxes = _boxes(old) != _boxes(new)
    if old.num_keypoints != new.num_keypoints:
        every = max(old.num_keypoints, new.num_keypoints)
        return FaceChange(Kind.CHANGED, new.source_key, moved=every, flags=every, boxes=boxes)
    moves_N = np.linalg.norm(np.asarray(new.points_N2, np.float64) - old.points_N2, axis=1)
    return FaceChange(
        Kind.CHANGED,
        new.source_key,
        moved=int((moves_N > 0).sum()),
        furthest_px=float(moves_N.max()),
        flags=int((old.flags_N != new.flags_N).sum()),
        boxes=boxes,
    )


def _boxes(face: Face) -> tuple[bytes | None, ...]:
    """As they count in a content hash, whether they come from a snapshot's float32 or from a reader."""
    return tuple(box and box_bytes(box) for box in (face.tight_box, face.outer_box))
