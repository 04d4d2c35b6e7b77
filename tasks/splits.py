"""Who is tested on, who steers training, who is learnt from: always whole subjects."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from schemas.config import SplitPolicy
from schemas.errors import SpecError, SplitError, SubjectLeakError
from schemas.records import Face, Split
from schemas.texts import composed, read_text


class Owned(Protocol):
    """As much of a face as tells whose it is."""

    @property
    def subject(self) -> str | None: ...
    @property
    def image_sha256(self) -> str: ...
    @property
    def image_name(self) -> str: ...


_TRAINING_WORDS = {"train", "training", "val", "validation"}


def kpi_subjects(policy: SplitPolicy) -> frozenset[str]:
    """The subjects of the policy's list and of its files, composed as those of faces are.

    Raises:
        SpecError: a file can't be read, or an entry is not `<dataset>/<id>`.
    """
    listed = list(policy.kpi_subjects)
    for dataset, name in sorted(policy.kpi_subject_files.items()):
        lines = read_text(name, named_by=f"split.kpi_subject_files.{dataset}").splitlines()
        listed += [f"{dataset}/{line.strip()}" for line in lines if line.strip() and not line.startswith("#")]
    subjects = frozenset(map(composed, listed))
    if wrong := sorted(subject for subject in subjects if subject.count("/") != 1):
        raise SpecError("split", f"KPI subject '{wrong[0]}' is not <dataset>/<id>")
    return subjects


def assign_splits(faces: Sequence[Face], policy: SplitPolicy) -> list[Split]:
    """The split of every face.

    Subjects of the KPI list go to `kpi`. Of the others, those go to `validation` whose hash is below
    `validation_share`, so a subject stays where it is when others come; at least one does, if a share is asked for
    and there are two. Faces without a subject can only be trained on.

    Raises:
        SplitError: too few KPI subjects, or nothing to train on.
        SubjectLeakError: a source keeps a KPI subject in a set that it calls training or validation.
        SpecError: see `kpi_subjects`.
    """
    kpi = kpi_subjects(policy)
    _refuse_declared_leaks(faces, kpi)
    present = {face.subject for face in faces if face.subject is not None}
    validation = _validation_subjects(present - kpi, policy)
    splits = [_split_of(face.subject, kpi, validation) for face in faces]
    _require_both_ends(present, kpi, splits, policy)
    return splits


def refuse_leaks(faces: Iterable[Owned], splits: Iterable[Split], kpi: Iterable[str], place: str) -> None:
    """Stop if a KPI subject, or an image of one, is in training or validation; `place` says where in the message.

    Raises:
        SubjectLeakError: naming the subjects and the split.
    """
    pairs = list(zip(faces, splits, strict=True))
    held_out = set(kpi) | {face.subject for face, split in pairs if split is Split.KPI}
    images = {face.image_sha256 for face, split in pairs if split is Split.KPI}
    for split in (Split.TRAIN, Split.VALIDATION):
        leaked = {
            face.subject or f"(no subject, image {face.image_name})"
            for face, own in pairs
            if own is split and (face.subject in held_out or face.image_sha256 in images)
        }
        if leaked:
            raise SubjectLeakError(leaked, f"{place}, split {split}")


def _split_of(subject: str | None, kpi: frozenset[str], validation: frozenset[str]) -> Split:
    if subject in kpi:
        return Split.KPI
    return Split.VALIDATION if subject in validation else Split.TRAIN


def _validation_subjects(subjects: Iterable[str], policy: SplitPolicy) -> frozenset[str]:
    draws = sorted((_draw(subject, policy.seed), subject) for subject in subjects)
    chosen = frozenset(subject for draw, subject in draws if draw < policy.validation_share)
    if not chosen and policy.validation_share > 0 and len(draws) > 1:
        return frozenset({draws[0][1]})
    return chosen


def _draw(subject: str, seed: int) -> float:
    """Uniform in [0, 1), the same on every machine."""
    digest = hashlib.sha256(f"{seed}:{subject}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _refuse_declared_leaks(faces: Iterable[Face], kpi: frozenset[str]) -> None:
    leaked: dict[str, set[str]] = {}
    for face in faces:
        if face.subject in kpi and _TRAINING_WORDS & set(re.split(r"[^a-z]+", face.set_id.lower())):
            leaked.setdefault(f"{face.source_key.partition(':')[0]}, set {face.set_id}", set()).add(str(face.subject))
    for place, subjects in sorted(leaked.items()):
        raise SubjectLeakError(subjects, place)


def _require_both_ends(present: set[str], kpi: frozenset[str], splits: list[Split], policy: SplitPolicy) -> None:
    found = present & kpi
    if len(found) < policy.kpi_min_subjects:
        raise SplitError(
            f"{len(found)} KPI subjects among the records, {policy.kpi_min_subjects} needed. Listed are "
            f"{_examples(kpi)}; the records have {_examples(present)}. Correct split.kpi_subjects or "
            "split.kpi_subject_files, or the sources' subject rules"
        )
    counts = Counter(splits)
    if not counts[Split.TRAIN]:
        raise SplitError(
            f"no face is left to train on: {counts[Split.KPI]} are for the KPI and {counts[Split.VALIDATION]} for "
            "validation; add records, or lower split.validation_share"
        )


def _examples(subjects: Iterable[str]) -> str:
    ordered = sorted(subjects)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "") or "none"
