"""The same picture under two subjects or in two splits: what is learnt from it is then tested on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from model.near_duplicates import similar_pairs, whole_distance
from schemas.config import QualitySettings
from schemas.records import Face, Split
from tasks.quality.findings import DuplicatePair, Duplicates
from tasks.quality.signatures import Signature, SignatureStore

_Pair = tuple[int, int]


def find_duplicates(
    faces: Sequence[Face],
    settings: QualitySettings,
    *,
    splits: Sequence[Split] | None = None,
    memory: Path | None = None,
) -> Duplicates:
    """Faces of different subjects, or of an unknown one, that show the same picture.

    Files of the same bytes first, whatever is in them; then faces that look the same, see `model.near_duplicates`.
    Two pictures of one subject are no leak, because splits are made of whole subjects.

    Args:
        settings: `duplicate_bits` and `min_duplicate_correlation` bound what looks the same.
        splits: of every face, where they are known.
        memory: file of a `SignatureStore`, so that a later search reads new images only.

    Raises:
        StorageError: `memory` can't be written.
    """
    read = list(faces)  # a validation's faces lie in a file
    rows = sorted(range(len(read)), key=lambda row: read[row].source_key)
    ordered = [read[row] for row in rows]
    ordered_splits = None if splits is None else [splits[row] for row in rows]
    signatures = SignatureStore(memory).signatures(ordered)
    same = set(_same_files(ordered))
    alike = set(_alike(ordered, signatures, settings)) - same
    distances = dict.fromkeys(same, 0) | {pair: _distance(signatures, pair) for pair in alike}
    pairs = [_described(ordered, ordered_splits, pair, distances[pair]) for pair in sorted(distances)]
    pairs.sort(key=_order)
    unread = sum(signature is None for signature in signatures)
    return Duplicates(tuple(pairs), tuple(_notes(pairs, len(same), unread)))


def _same_files(faces: Sequence[Face]) -> Iterator[_Pair]:
    by_image: dict[str, list[int]] = {}
    for row, face in enumerate(faces):
        by_image.setdefault(face.image_sha256, []).append(row)
    for rows in by_image.values():
        yield from (pair for pair in combinations(rows, 2) if not _one_subject(faces, pair))


def _alike(
    faces: Sequence[Face], signatures: Sequence[Signature | None], settings: QualitySettings
) -> Iterator[_Pair]:
    known = [(row, signature) for row, signature in enumerate(signatures) if signature is not None]
    if len(known) < 2:
        return
    rows = [row for row, _ in known]
    found = similar_pairs(
        np.stack([signature.hashes_H for _, signature in known]),
        np.stack([signature.thumbnail_SS for _, signature in known]),
        _groups([faces[row] for row in rows]),
        bits=settings.duplicate_bits,
        correlation=settings.min_duplicate_correlation,
    )
    yield from ((rows[first], rows[second]) for first, second in found)


def _groups(faces: Sequence[Face]) -> np.ndarray:
    """A number for every subject; a face without one has its own."""
    numbers: dict[str, int] = {}
    names = [f"{row}" if face.subject is None else f"subject {face.subject}" for row, face in enumerate(faces)]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def _one_subject(faces: Sequence[Face], pair: _Pair) -> bool:
    first, second = (faces[row].subject for row in pair)
    return first is not None and first == second


def _distance(signatures: Sequence[Signature | None], pair: _Pair) -> int:
    first, second = (signatures[row] for row in pair)
    assert first is not None and second is not None  # only faces that could be read are compared
    return whole_distance(first.hashes_H, second.hashes_H)


def _described(faces: Sequence[Face], splits: Sequence[Split] | None, pair: _Pair, distance: int) -> DuplicatePair:
    first, second = (faces[row] for row in pair)
    return DuplicatePair(
        first=first.source_key,
        second=second.source_key,
        distance=distance,
        same_subject=None if None in (first.subject, second.subject) else False,
        crosses=None if splits is None else _crossing({splits[row] for row in pair}),
    )


def _crossing(splits: set[Split]) -> str | None:
    return "-".join(split for split in Split if split in splits) if len(splits) > 1 else None


def _order(pair: DuplicatePair) -> tuple[bool, bool, int, str, str]:
    return pair.crosses is None, pair.same_subject is None, pair.distance, pair.first, pair.second


def _notes(pairs: Sequence[DuplicatePair], same: int, unread: int) -> Iterator[str]:
    if pairs:
        yield f"{same} pairs are files of the same bytes, {len(pairs) - same} only look the same"
    for crossing, number in sorted(Counter(pair.crosses for pair in pairs if pair.crosses).items()):
        yield f"{number} pairs cross {crossing}: a model is judged on pictures that it learnt from"
    if within := sum(pair.crosses is None and pair.same_subject is False for pair in pairs):
        yield f"{within} pairs are of different subjects: one person under two names, or one photograph twice"
    if unread:
        yield f"{unread} faces' images can't be decoded and were not compared"
