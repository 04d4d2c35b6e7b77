"""From raw records to faces: each is read, checked against every rule, and either used or listed with the reason.

The unit that is counted is an annotation: one face in a Sloth entry, one annotation of a Label Studio task. A record
in which none can be told apart counts as one. So read = accepted + rejected + superseded + skipped, always.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from schemas.annotation import NOT_REJECTED
from schemas.config import ValidationRules
from schemas.errors import SourceEmptyError, ViolationsError
from schemas.raw import RawRecord
from schemas.records import Face, Violation, violations_to_table
from schemas.storage import atomic_path
from tasks.candidates import Batch
from tasks.images import ImageIndex, Progress
from tasks.ledger import Ledger

_BATCH = 4096  # annotations whose images are looked at together


@dataclass(frozen=True)
class Counts:
    """How many records came in, and what became of the annotations in them."""

    records: int
    accepted: int
    rejected: int
    superseded: int
    skipped: int

    @property
    def annotations(self) -> int:
        return self.accepted + self.rejected + self.superseded + self.skipped

    @property
    def rejected_share(self) -> float:
        """Of the annotations that were meant to be used."""
        return self.rejected / max(1, self.annotations - self.skipped)


@dataclass(frozen=True)
class Validation:
    """Outcome of `validate`.

    Attributes:
        faces: accepted, sorted by source key. They lie on disk: each is made when it is asked for.
        superseded: sound annotations of faces for which another one is used; kept to measure agreement.
        violations: every broken rule, the reason of every skipped annotation, and what is noted of used ones
            (`schemas.annotation.NOTED`), sorted.
        counts: adds up to everything that was read.
    """

    faces: Sequence[Face]
    superseded: Sequence[Face]
    violations: list[Violation]
    counts: Counts


def validate(
    records: Iterable[RawRecord],
    *,
    num_keypoints: int,
    rules: ValidationRules,
    index: ImageIndex,
    violations_path: Path | None = None,
    progress: Progress | None = None,
    expected: int = 0,
) -> Validation:
    """Read and check every record; write the violations to `violations_path` (Parquet) whatever the outcome.

    Memory holds some thousands of annotations at a time, about a hundred bytes of each sound one, and all that is
    wrong. The sound ones are kept in a file without a name, beside `violations_path` if that is given.

    Args:
        progress: called with images that were looked at, and images known of.
        expected: records that will come, as far as is known, for `progress`.

    Raises:
        SourceEmptyError: there are no records.
        ViolationsError: more than `rules.max_rejected_share` of the annotations is rejected.
        StorageError: the disk is full.
    """
    ledger = Ledger(violations_path.parent if violations_path else None)
    violations: list[Violation] = []
    number = looked_at = rejected = skipped = 0
    with _collector_paused():
        for batch in _batches(records, num_keypoints, rules):
            watch = _offset(progress, looked_at, expected) if progress else None
            findings = batch.find(index.inspect(batch.images(), progress=watch))
            ledger.enter(findings)
            violations += findings.violations
            number, looked_at = number + batch.records, looked_at + len(batch)
            rejected, skipped = rejected + findings.rejected, skipped + findings.skipped
    if not looked_at:
        raise SourceEmptyError("there are no annotations to validate; check what the sources point to")
    accepted, superseded, of_several = ledger.close()
    violations = sorted(violations + of_several, key=lambda v: (v.record, v.code, v.keypoint or "", v.value))
    counts = Counts(number, len(accepted), rejected + len(of_several), len(superseded), skipped)
    outcome = Validation(accepted, superseded, violations, counts)
    if violations_path is not None:
        with atomic_path(violations_path) as temporary:
            pq.write_table(violations_to_table(outcome.violations), temporary)
    if outcome.counts.rejected_share > rules.max_rejected_share:
        raise ViolationsError(_complaint(outcome, rules, violations_path))
    return outcome


def summary(violations: Sequence[Violation]) -> str:
    """The most frequent codes with their numbers, and the first violation, for a message; there is at least one."""
    codes = Counter(violation.code for violation in violations)
    shown = ", ".join(f"{code} {number}" for code, number in codes.most_common(5))
    return f"{shown}. The first: {violations[0]}"


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collector: parsed records hold no cycles, and it would look at all of them over and over again."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def _batches(records: Iterable[RawRecord], num_keypoints: int, rules: ValidationRules) -> Iterator[Batch]:
    batch = Batch(num_keypoints, rules)
    for record in records:
        batch.add(record)
        if len(batch) >= _BATCH:
            yield batch
            batch = Batch(num_keypoints, rules)
    if len(batch):
        yield batch


def _offset(progress: Progress, before: int, expected: int) -> Progress:
    """Tells `progress` of a batch that comes after others."""
    return lambda done, of: progress(before + done, max(before + of, expected))


def _complaint(outcome: Validation, rules: ValidationRules, violations_path: Path | None) -> str:
    counts = outcome.counts
    reasons = summary([violation for violation in outcome.violations if violation.code not in NOT_REJECTED])
    used = counts.annotations - counts.skipped
    table = f" All are listed in {violations_path}." if violations_path else ""
    return (
        f"{counts.rejected} of {used} annotations rejected ({counts.rejected_share:.1%}, allowed "
        f"{rules.max_rejected_share:.1%}): {reasons}.{table} Correct them "
        "at the source, or raise validation.max_rejected_share"
    )
