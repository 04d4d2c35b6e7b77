"""TAO's `dataset_convert`: ground-truth files of named sets to one TFRecord file a set, and a report.

Paths are joined as TAO joins them: a later absolute part replaces the earlier ones.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from schemas import sloth
from schemas.annotation import NOTED
from schemas.config import DatasetConvertSpec, ValidationRules
from schemas.errors import AnnotationFileError, FpenetError, InputError, SourceEmptyError, ViolationsError
from schemas.raw import RawRecord
from schemas.records import Violation
from schemas.storage import make_folder, remove_half_written, sha256_file, write_json
from tasks.face_records import BoxedFace, embedded_records, face_records
from tasks.faceboxes import FaceBoxer
from tasks.images import ImageIndex, Progress
from tasks.pull_files import sloth_record
from tasks.subjects import BY_ENTRY, SubjectOf, subject_finder
from tasks.validate import Counts, Validation, summary, validate

REPORT, INDEX, LOCK = "dataset_convert.json", "image-index.sqlite", ".dataset_convert.lock"
_RULES = ValidationRules(max_rejected_share=1.0, require_subject=False)


@dataclass(frozen=True)
class ConvertedSet:
    """One set: where its records are, and what became of its annotations.

    Attributes:
        records: faces in the file.
        violations: why faces were left out, and what is noted of others.
        unreachable_share: of the keypoints, see `tasks.faceboxes`.
    """

    set_id: str
    file: Path
    sha256: str
    records: int
    counts: Counts
    violations: list[Violation]
    unreachable_share: float


@dataclass(frozen=True)
class FailedSet:
    """A set of which nothing was written, and why; its earlier file, if there is one, stays.

    Attributes:
        violations: why each face was left out; none where its files can't be read.
    """

    set_id: str
    error: FpenetError
    violations: Sequence[Violation] = ()


def dataset_convert(
    spec: DatasetConvertSpec, results_dir: Path | None = None, *, progress: Progress | None = None
) -> list[ConvertedSet]:
    """Convert every set of `spec`, and write a report into `results_dir` (by default beside the sets).

    Beside the report lies an index of the images, by which the next run reads only those that are new or changed.
    A set that can't be converted keeps none of the others from it; why it can't is raised at the end.

    Args:
        progress: called for every set with images looked at and images in all.

    Raises:
        AnnotationFileError: a set has no folder, or a file of it is broken (with line and column).
        SourceEmptyError: a set holds no annotation.
        ViolationsError: no face of a set could be used; the message says why.
        InputError: several sets can't be converted; a line for each.
        SpecError: the subject rule can't be applied.
        ImageError: with `embed_crops`, an image can't be decoded, or changes while it is read.
        StorageError: the disk is full; nothing half-written is left.
    """
    save_root = Path(spec.save_root_path or "", spec.save_path)
    results = results_dir or save_root
    subject_of = subject_finder(spec.subject or BY_ENTRY)
    make_folder(save_root)
    with FileLock(save_root / LOCK), closing(ImageIndex(results / INDEX)) as index:
        ended = [_convert_set(spec, set_id, save_root, subject_of, index, progress) for set_id in spec.sets]
    write_json(results / REPORT, {"spec": spec.model_dump(mode="json"), "sets": [_row(one) for one in ended]})
    if errors := [one.error for one in ended if isinstance(one, FailedSet)]:
        raise errors[0] if len(errors) == 1 else InputError("\n".join(map(str, errors)))
    return [one for one in ended if isinstance(one, ConvertedSet)]


def _convert_set(
    spec: DatasetConvertSpec,
    set_id: str,
    save_root: Path,
    subject_of: SubjectOf,
    index: ImageIndex,
    progress: Progress | None,
) -> ConvertedSet | FailedSet:
    from model.tfrecords import write_records

    try:
        outcome = validate(
            _records(spec, set_id, subject_of),
            num_keypoints=spec.num_keypoints,
            rules=_RULES,
            index=index,
            progress=progress,
        )
    except (AnnotationFileError, SourceEmptyError) as error:
        return FailedSet(set_id, error)
    boxer = FaceBoxer(enlarge_ratio=spec.bbox_enlarge_ratio, outside_frame=spec.box_outside_frame)
    boxed = _some(boxer.box(outcome.faces), set_id, outcome, boxer)
    records = embedded_records(boxed, color="gray", index=index) if spec.embed_crops else face_records(boxed)
    file = save_root / set_id / spec.tfrecord_folder / spec.tfrecord_name
    remove_half_written(file.parent)
    try:
        written = write_records(file, records)
    except ViolationsError as error:
        return FailedSet(set_id, error, outcome.violations + boxer.dropped)
    return ConvertedSet(
        set_id=set_id,
        file=file,
        sha256=sha256_file(file),
        records=written,
        counts=outcome.counts,
        violations=outcome.violations + boxer.dropped,
        unreachable_share=boxer.unreachable_share,
    )


def _some(boxed: Iterator[BoxedFace], set_id: str, outcome: Validation, boxer: FaceBoxer) -> Iterator[BoxedFace]:
    """The same faces; if there is none, an error instead of a file without records."""
    yield from boxed
    if not boxer.faces:
        number = outcome.counts.annotations
        reasons = summary([found for found in outcome.violations + boxer.dropped if found.code not in NOTED])
        raise ViolationsError(f"set {set_id}: none of {number} annotations can be used: {reasons}")


def _records(spec: DatasetConvertSpec, set_id: str, subject_of: SubjectOf) -> Iterator[RawRecord]:
    folder = Path(spec.gt_root_path or "", spec.gt_path, set_id)
    if not folder.is_dir():
        raise AnnotationFileError(folder, f"no such folder for the set {set_id}; check gt_root_path and gt_path")
    files = sorted(path for path in folder.iterdir() if ".json" in path.name and path.is_file())
    find_image = partial(os.path.join, spec.image_root_path or "")
    empty = True
    for path in files:
        for index, entry in enumerate(sloth.read_entries(path)):
            empty = False
            yield sloth_record(
                entry,
                source="dataset_convert",
                set_id=set_id,
                key=f"{set_id}/{path.name}#{index:07d}",
                find_image=find_image,
                flags_are_known=True,
                subject_of=subject_of,
            )
    if empty:
        raise SourceEmptyError(f"{folder}: no annotation in {len(files)} JSON files; check gt_root_path and gt_path")


def _row(one: ConvertedSet | FailedSet) -> dict[str, Any]:
    reasons = Counter(violation.code for violation in one.violations)
    row = {
        "set": one.set_id,
        "reasons": dict(sorted(reasons.items())),
        "violations": [asdict(violation) for violation in one.violations],
    }
    if isinstance(one, FailedSet):
        return row | {"error": str(one.error)}
    return row | {
        "file": str(one.file),
        "sha256": one.sha256,
        "records": one.records,
        "counts": asdict(one.counts),
        "unreachable_share": one.unreachable_share,
    }
