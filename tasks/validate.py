"""From raw records to faces: each is read, checked against every rule, and either used or listed with the reason.

The unit that is counted is an annotation: one face in a Sloth entry, one annotation of a Label Studio task. A record
in which none can be told apart counts as one. So read = accepted + rejected + superseded + skipped, always.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from schemas import label_studio, sloth
from schemas.annotation import SKIPPED, AnnotatedFace, Problem, Reader
from schemas.config import ValidationRules
from schemas.errors import SourceEmptyError, ViolationsError
from schemas.raw import RawRecord
from schemas.records import Face, Violation, violations_to_table
from schemas.storage import atomic_path
from tasks.images import ImageFacts, ImageIndex, Progress
from tasks.rules import (
    check_frame,
    check_shape,
    check_subject,
    duplicate_face,
    image_missing,
    nothing_read,
    two_subjects,
)

READERS: dict[str, Reader] = {"sloth": sloth.read, "label_studio": label_studio.read}


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
        faces: accepted, sorted by source key.
        superseded: sound annotations of faces for which another one is used; kept to measure agreement.
        violations: every broken rule, and the reason of every skipped annotation, sorted.
        counts: adds up to everything that was read.
    """

    faces: list[Face]
    superseded: list[Face]
    violations: list[Violation]
    counts: Counts


@dataclass
class _Candidate:
    """One annotation on its way through the rules; `face` is None where nothing could be read."""

    record: RawRecord
    annotated: AnnotatedFace | None
    suffix: str
    problems: list[Problem]
    face: Face | None = None

    @property
    def key(self) -> str:
        return self.record.source_key + self.suffix

    @property
    def skipped(self) -> bool:
        return bool(self.problems) and all(problem.code in SKIPPED for problem in self.problems)

    @property
    def sound(self) -> bool:
        return not self.problems

    def violations(self) -> Iterator[Violation]:
        name = self.annotated.image_name if self.annotated else self.record.image and Path(self.record.image).name
        for problem in self.problems:
            yield replace(problem, face=self.suffix).in_record(self.record.source_key, name)


def validate(
    records: Iterable[RawRecord],
    *,
    num_keypoints: int,
    rules: ValidationRules,
    index: ImageIndex,
    violations_path: Path | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Read and check every record; write the violations to `violations_path` (Parquet) whatever the outcome.

    Raises:
        SourceEmptyError: there are no records.
        ViolationsError: more than `rules.max_rejected_share` of the annotations is rejected.
    """
    candidates: list[_Candidate] = []
    number = 0
    for record in records:
        number += 1
        candidates += _read(record, num_keypoints)
    if not candidates:
        raise SourceEmptyError("there are no annotations to validate; check what the sources point to")
    candidates.sort(key=lambda candidate: candidate.key)
    _check_each(candidates, rules, index, progress)
    superseded = _choose(candidates)
    _check_together(candidates, superseded)
    outcome = _outcome(number, candidates, superseded)
    if violations_path is not None:
        with atomic_path(violations_path) as temporary:
            pq.write_table(violations_to_table(outcome.violations), temporary)
    if outcome.counts.rejected_share > rules.max_rejected_share:
        raise ViolationsError(_complaint(outcome, rules, violations_path))
    return outcome


def _read(record: RawRecord, num_keypoints: int) -> list[_Candidate]:
    reader = READERS[record.format]
    faces, problems = reader(record.payload, num_keypoints=num_keypoints, flags_known=record.flags_known)
    slim = replace(record, payload={})  # a million payloads do not fit in memory
    by_suffix = defaultdict(list)
    for problem in problems:
        by_suffix[problem.face].append(problem)
    of_record = by_suffix.pop("", [])
    candidates = [
        _Candidate(slim, face, face.key_suffix, of_record + by_suffix.pop(face.key_suffix, [])) for face in faces
    ]
    candidates += [_Candidate(slim, None, suffix, of_record + found) for suffix, found in by_suffix.items()]
    return candidates or [_Candidate(slim, None, "", of_record or [nothing_read()])]


def _check_each(
    candidates: list[_Candidate], rules: ValidationRules, index: ImageIndex, progress: Progress | None
) -> None:
    """Rules about one annotation and its image. Every one is applied, so that one look finds all there is to mend."""
    images = index.inspect((c.record.image for c in candidates if c.record.image), progress=progress)
    for candidate in candidates:
        if candidate.skipped or candidate.annotated is None:
            continue
        record, annotated, problems = candidate.record, candidate.annotated, candidate.problems
        facts = images[record.image] if record.image else image_missing(annotated)
        if isinstance(facts, Problem):
            problems.append(facts)
        else:
            problems += check_frame(annotated, facts)
        problems += check_shape(annotated)
        problems += check_subject(record.subject, rules)
        if not problems:
            candidate.face = _face(record, annotated, facts)


def _choose(candidates: list[_Candidate]) -> set[str]:
    """Keys of the sound annotations that lose: ground truth wins, then the latest submitted."""
    competing: dict[tuple[str, int], list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.sound and candidate.annotated is not None:
            competing[candidate.record.source_key, candidate.annotated.face_index].append(candidate)
    return {c.key for group in competing.values() for c in sorted(group, key=_preference)[:-1]}


def _preference(candidate: _Candidate) -> tuple:
    annotated = candidate.annotated
    assert annotated is not None
    identifier = annotated.annotation_id or ""
    return annotated.ground_truth, annotated.annotated_at or "", len(identifier), identifier, candidate.key


def _check_together(candidates: list[_Candidate], superseded: set[str]) -> None:
    """Rules about several annotations: an image shows one subject, and no face is there twice."""
    used = [c for c in candidates if c.face is not None and c.key not in superseded]
    subjects: dict[str, set[str]] = defaultdict(set)
    for face in (c.face for c in used if c.face is not None):
        subjects[face.image_sha256].add(face.subject or "unknown")
    first_with: dict[str, str] = {}
    for candidate in used:
        face = candidate.face
        assert face is not None
        if len(subjects[face.image_sha256]) > 1:
            candidate.problems.append(two_subjects(subjects[face.image_sha256]))
        elif (first := first_with.setdefault(face.content_hash(), candidate.key)) != candidate.key:
            candidate.problems.append(duplicate_face(first))


def _outcome(records: int, candidates: list[_Candidate], superseded: set[str]) -> Validation:
    accepted = [c.face for c in candidates if c.sound and c.face is not None and c.key not in superseded]
    others = [c.face for c in candidates if c.face is not None and c.key in superseded]
    skipped = sum(candidate.skipped for candidate in candidates)
    violations = [violation for candidate in candidates for violation in candidate.violations()]
    violations.sort(key=lambda v: (v.record, v.code, v.keypoint or "", v.value))
    rejected = len(candidates) - len(accepted) - len(others) - skipped
    return Validation(accepted, others, violations, Counts(records, len(accepted), rejected, len(others), skipped))


def _face(record: RawRecord, annotated: AnnotatedFace, facts: ImageFacts) -> Face:
    assert record.image is not None
    return Face(
        source_key=record.source_key + annotated.key_suffix,
        image=record.image,
        image_name=annotated.image_name,
        image_sha256=facts.sha256,
        frame_width=facts.width,
        frame_height=facts.height,
        subject=record.subject,
        set_id=record.set_id,
        points_N2=annotated.points_N2,
        flags_N=annotated.flags_N,
        tight_box=annotated.tight_box,
        outer_box=annotated.outer_box,
        session=annotated.session,
        camera=annotated.camera,
        illumination=annotated.illumination,
        annotator=annotated.annotator,
        annotation_id=annotated.annotation_id,
        annotated_at=annotated.annotated_at,
    )


def _complaint(outcome: Validation, rules: ValidationRules, violations_path: Path | None) -> str:
    counts = outcome.counts
    codes = Counter(v.code for v in outcome.violations if v.code not in SKIPPED)
    shown = ", ".join(f"{code} {number}" for code, number in sorted(codes.items(), key=lambda item: -item[1])[:5])
    first = next(v for v in outcome.violations if v.code not in SKIPPED)
    used = counts.annotations - counts.skipped
    table = f" All are listed in {violations_path}." if violations_path else ""
    return (
        f"{counts.rejected} of {used} annotations rejected ({counts.rejected_share:.1%}, allowed "
        f"{rules.max_rejected_share:.1%}): {shown}. The first: {first}.{table} Correct them "
        "at the source, or raise validation.max_rejected_share"
    )
