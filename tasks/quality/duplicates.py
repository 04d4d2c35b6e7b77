"""The same picture under two subjects or in two splits: what is learnt from it is then tested on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import combinations
from pathlib import Path

import numpy as np

from model.near_duplicates import similar_pairs, whole_distance
from schemas.config import QualitySettings
from schemas.records import Face, Split
from tasks.quality.findings import DuplicatePair, Duplicates
from tasks.quality.signatures import Signature, SignatureStore

MOST_PAIRS = 10_000
"""That are listed: n copies of one picture make n (n - 1) / 2."""

_Pair = tuple[int, int]


@dataclass
class _Seen:
    """Numbers of pairs, listed or not: all, files of the same bytes, by what they cross, and of two subjects in one
    split."""

    pairs: int = 0
    same: int = 0
    crossing: Counter[str | None] = field(default_factory=Counter)
    within: int = 0


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
    seen, unread = _Seen(), sum(signature is None for signature in signatures)
    found = _counted(_found(ordered, ordered_splits, signatures, settings), seen)
    pairs = nsmallest(MOST_PAIRS, found, key=_order)
    return Duplicates(tuple(pairs), tuple(_notes(seen, unread)))


def _found(
    faces: Sequence[Face],
    splits: Sequence[Split] | None,
    signatures: Sequence[Signature | None],
    settings: QualitySettings,
) -> Iterator[tuple[DuplicatePair, bool]]:
    """Every pair once, and whether it is files of the same bytes."""
    for pair in _same_files(faces):
        yield _described(faces, splits, pair, 0), True
    for pair in _alike(faces, signatures, settings):
        yield _described(faces, splits, pair, _distance(signatures, pair)), False


def _counted(found: Iterable[tuple[DuplicatePair, bool]], seen: _Seen) -> Iterator[DuplicatePair]:
    for pair, same in found:
        seen.pairs += 1
        seen.same += same
        seen.crossing[pair.crosses] += 1
        seen.within += pair.crosses is None and pair.subjects_known
        yield pair


def _same_files(faces: Sequence[Face]) -> Iterator[_Pair]:
    by_image: dict[str, list[int]] = {}
    for row, face in enumerate(faces):
        by_image.setdefault(face.image_sha256, []).append(row)
    for rows in by_image.values():
        yield from (pair for pair in combinations(rows, 2) if not _one_subject(faces, pair))


def _alike(
    faces: Sequence[Face], signatures: Sequence[Signature | None], settings: QualitySettings
) -> Iterator[_Pair]:
    """Of files that differ."""
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
    for pair in ((rows[first], rows[second]) for first, second in found):
        if len({faces[row].image_sha256 for row in pair}) == 2:
            yield pair


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
        subjects_known=None not in (first.subject, second.subject),
        crosses=None if splits is None else _crossing({splits[row] for row in pair}),
    )


def _crossing(splits: set[Split]) -> str | None:
    return "-".join(split for split in Split if split in splits) if len(splits) > 1 else None


def _order(pair: DuplicatePair) -> tuple[bool, bool, int, str, str]:
    return pair.crosses is None, not pair.subjects_known, pair.distance, pair.first, pair.second


def _notes(seen: _Seen, unread: int) -> Iterator[str]:
    if seen.pairs:
        yield f"{seen.same} pairs are files of the same bytes, {seen.pairs - seen.same} only look the same"
    if seen.pairs > MOST_PAIRS:
        yield f"of {seen.pairs} pairs the first {MOST_PAIRS} are listed"
    for crossing, number in sorted((crossing, n) for crossing, n in seen.crossing.items() if crossing):
        yield f"{number} pairs cross {crossing}: a model is judged on pictures that it learnt from"
    if seen.within:
        yield f"{seen.within} pairs are of different subjects: one person under two names, or one photograph twice"
    if unread:
        yield f"{unread} faces' images can't be decoded and were not compared"
