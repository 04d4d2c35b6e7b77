"""The rules about one annotation and its image, and which annotation of a face is used.

Annotations are looked at some thousands at a time: the facts about their images are found, and the rules that most of
them keep are tried on all at once. Which rule an annotation breaks is found out one by one. The annotations of a
record stay together, so a batch leaves nothing behind but its sound faces and what is wrong with the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from schemas import coco_keypoints, cofw, label_studio, label_studio_quick, multipie, pts, sloth, sloth_quick, wflw
from schemas.annotation import NOTED, SKIPPED, AnnotatedFace, Problem, Reader
from schemas.config import ValidationRules
from schemas.plain_face import PlainFace, QuickReader
from schemas.raw import RawFormat, RawRecord
from schemas.records import Violation
from tasks.image_facts import ImageFacts
from tasks.rules import check_frame, check_shape, check_subject, image_missing, nothing_read, obviously_sound
from tasks.spool import FaceRow

READERS: dict[RawFormat, Reader] = {
    "sloth": sloth.read,
    "label_studio": label_studio.read,
    "pts": pts.read,
    "wflw": wflw.read,
    "cofw": cofw.read,
    "coco": coco_keypoints.read,
}
QUICK_READERS: dict[RawFormat, Callable[[int], QuickReader]] = {
    "sloth": sloth_quick.quick_reader,
    "label_studio": label_studio_quick.quick_reader,
}

_NO_SIZE = (-1, -1)  # no point is inside of that

Facts = Mapping[str, ImageFacts | Problem]


@dataclass(frozen=True)
class Origin:
    """What a record says beside its payload."""

    source_key: str
    image: str | None
    subject: str | None
    set_id: str


@dataclass
class Candidate:
    """One annotation on its way through the rules; `row` is None until it has passed them all."""

    origin: Origin
    annotated: AnnotatedFace | None
    suffix: str
    problems: list[Problem]
    row: FaceRow | None = None

    @property
    def key(self) -> str:
        return self.origin.source_key + self.suffix

    @property
    def skipped(self) -> bool:
        return bool(self.problems) and all(problem.code in SKIPPED for problem in self.problems)

    def violations(self) -> Iterator[Violation]:
        image = self.origin.image
        name = self.annotated.image_name if self.annotated else image and Path(image).name
        for problem in self.problems:
            yield replace(problem, face=self.suffix).in_record(self.origin.source_key, name)


@dataclass
class Findings:
    """What became of a batch.

    Attributes:
        rows: sound annotations, as the fields of a `FaceRow`.
        superseded: for each row, whether another annotation of its face is used.
        violations: of the others, and what is noted of these.
        rejected, skipped: how many annotations those are.
    """

    rows: list[tuple] = field(default_factory=list)
    superseded: list[bool] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    rejected: int = 0
    skipped: int = 0


class Batch:
    """Annotations that were read, and wait for the facts about their images.

    Attributes:
        records: how many records they come from.
    """

    def __init__(self, num_keypoints: int, rules: ValidationRules) -> None:
        self.records = 0
        self._num_keypoints, self._rules = num_keypoints, rules
        self._quick = {name: make(num_keypoints) for name, make in QUICK_READERS.items()}
        self._plain: list[tuple[PlainFace, str, str, str | None, str]] = []
        self._others: list[Candidate] = []

    def __len__(self) -> int:
        return len(self._plain) + len(self._others)

    def add(self, record: RawRecord) -> None:
        """Read a record; its payload is not kept."""
        self.records += 1
        quick = None if record.origin else self._quick.get(record.format)
        faces = quick(record.payload, record.flags_known) if quick else None
        image = record.image
        if faces is not None and _has_rules_of_names(record):
            faces = [face._replace(**_by_name(record, face)) for face in faces]
        if faces is None:
            self._others += _read(record, self._num_keypoints)
        elif image is None or (len(faces) > 1 and _compete(faces)):
            self._others += [Candidate(_origin(record), face.annotated(), face.key_suffix, []) for face in faces]
        else:
            self._plain += [(face, record.source_key, image, record.subject, record.set_id) for face in faces]

    def images(self) -> list[str]:
        """The images of the annotations, some more than once."""
        return [image for _, _, image, _, _ in self._plain] + [c.origin.image for c in self._others if c.origin.image]

    def find(self, facts: Facts) -> Findings:
        """Apply every rule about one annotation, and choose among those of one face.

        Args:
            facts: about all of `images()`.
        """
        findings = Findings()
        doubtful = self._pass_plain(facts, findings)
        for candidate in (candidates := self._others + doubtful):
            _check(candidate, facts, self._rules)
        losers = _losers(candidates)
        for candidate in candidates:
            findings.violations += candidate.violations()
            if candidate.row is not None:
                findings.rows.append(tuple(candidate.row))
                findings.superseded.append(candidate.key in losers)
            else:
                findings.skipped += candidate.skipped
                findings.rejected += not candidate.skipped
        return findings

    def _pass_plain(self, facts: Facts, findings: Findings) -> list[Candidate]:
        """Let the sound ones among the plain faces pass, and give back the others."""
        doubtful = []
        passed = self._passed(facts)
        for sound, (face, source_key, image, subject, set_id) in zip(passed, self._plain, strict=True):
            if sound:
                name, _, points, flags, tight, outer, suffix, _, _, annotator, identity, at, *conditions = face
                known = facts[image]
                findings.rows.append(
                    (
                        source_key + suffix, image, name, known.sha256, known.width, known.height, subject, set_id,
                        points, flags, tight and (*tight,), outer and (*outer,), *conditions, annotator, identity, at,
                    )
                )  # fmt: skip
            else:
                origin = Origin(source_key, image, subject, set_id)
                doubtful.append(Candidate(origin, face.annotated(), face.key_suffix, []))
        findings.superseded = [False] * len(findings.rows)
        return doubtful

    def _passed(self, facts: Facts) -> list[bool]:
        """For each plain face, whether it breaks no rule."""
        if not self._plain:
            return []
        subjects = {subject: not check_subject(subject, self._rules) for _, _, _, subject, _ in self._plain}
        sizes = [
            (known.width, known.height) if isinstance(known := facts[image], ImageFacts) else _NO_SIZE
            for _, _, image, _, _ in self._plain
        ]
        points = b"".join([face.points for face, *_ in self._plain])
        points_BN2 = np.frombuffer(points, "<f4").reshape(len(self._plain), self._num_keypoints, 2)
        return [
            sound and subjects[subject] and face.frame_size in (None, size)
            for sound, size, (face, _, _, subject, _) in zip(
                obviously_sound(points_BN2, np.array(sizes)).tolist(), sizes, self._plain, strict=True
            )
        ]


def _origin(record: RawRecord) -> Origin:
    return Origin(record.source_key, record.image, record.subject, record.set_id)


def _compete(faces: list[PlainFace]) -> bool:
    return len({face.face_index for face in faces}) < len(faces)


def _read(record: RawRecord, num_keypoints: int) -> list[Candidate]:
    reader = READERS[record.format]
    faces, problems = reader(record.payload, num_keypoints=num_keypoints, flags_known=record.flags_known)
    if record.origin:
        faces = [face.counted_from(record.origin) for face in faces]
    if _has_rules_of_names(record):
        faces = [replace(face, **_by_name(record, face)) for face in faces]
    origin = _origin(record)
    by_suffix = defaultdict(list)
    for problem in problems:
        by_suffix[problem.face].append(problem)
    of_record = by_suffix.pop("", [])
    candidates = [
        Candidate(origin, face, face.key_suffix, of_record + by_suffix.pop(face.key_suffix, [])) for face in faces
    ]
    candidates += [Candidate(origin, None, suffix, of_record + found) for suffix, found in by_suffix.items()]
    return candidates or [Candidate(origin, None, "", of_record or [nothing_read()])]


def _has_rules_of_names(record: RawRecord) -> bool:
    return record.name_format is not None or record.image_field != label_studio.IMAGE_FIELD


def _by_name(record: RawRecord, face: PlainFace | AnnotatedFace) -> dict[str, str]:
    """The image's name in the field that the source says, and what it tells of the capture and the annotation does
    not."""
    image_name = face.image_name
    if record.image_field != label_studio.IMAGE_FIELD:
        image_name = label_studio.image_name(record.payload["data"], record.image_field)
    parsed = multipie.parse_name(image_name) if record.name_format is not None else None
    conditions = parsed.conditions if parsed else {}
    told = {condition: value for condition, value in conditions.items() if getattr(face, condition) is None}
    return told | {"image_name": image_name}


def _check(candidate: Candidate, facts: Facts, rules: ValidationRules) -> None:
    """Every rule is applied, so that one look finds all there is to mend."""
    annotated, image = candidate.annotated, candidate.origin.image
    if candidate.skipped or annotated is None:
        return
    problems = candidate.problems
    known = facts[image] if image else image_missing(annotated)
    if isinstance(known, Problem):
        problems.append(known)
    else:
        problems += check_frame(annotated, known)
    problems += check_shape(annotated)
    problems += check_subject(candidate.origin.subject, rules)
    if all(problem.code in NOTED for problem in problems):
        candidate.row = _row(candidate, annotated, known)


def _losers(candidates: list[Candidate]) -> set[str]:
    """Keys of the sound annotations of a face that lose: ground truth wins, then the latest submitted."""
    competing: dict[tuple[str, int], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.row is not None and candidate.annotated is not None:
            competing[candidate.origin.source_key, candidate.annotated.face_index].append(candidate)
    return {c.key for group in competing.values() for c in sorted(group, key=_preference)[:-1]}


def _preference(candidate: Candidate) -> tuple:
    annotated = candidate.annotated
    assert annotated is not None
    identifier = annotated.annotation_id or ""
    return annotated.ground_truth, annotated.annotated_at or "", len(identifier), identifier, candidate.key


def _row(candidate: Candidate, annotated: AnnotatedFace, facts: ImageFacts) -> FaceRow:
    origin = candidate.origin
    assert origin.image is not None
    return FaceRow(
        source_key=candidate.key,
        image=origin.image,
        image_name=annotated.image_name,
        image_sha256=facts.sha256,
        frame_width=facts.width,
        frame_height=facts.height,
        subject=origin.subject,
        set_id=origin.set_id,
        points=np.asarray(annotated.points_N2, "<f4").tobytes(),
        flags=annotated.flags_N.tobytes(),
        tight_box=annotated.tight_box and tuple(map(float, annotated.tight_box)),
        outer_box=annotated.outer_box and tuple(map(float, annotated.outer_box)),
        session=annotated.session,
        camera=annotated.camera,
        illumination=annotated.illumination,
        annotator=annotated.annotator,
        annotation_id=annotated.annotation_id,
        annotated_at=annotated.annotated_at,
    )
