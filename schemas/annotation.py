"""What a reader of an annotation format hands on, whatever the format.

A reader is a pure function

    read(payload, *, num_keypoints, flags_known) -> tuple[list[AnnotatedFace], list[Problem]]

It checks the payload against the format's JSON Schema and converts coordinates into `schemas.geometry`, as if the
file gave 0 to the centre of the top-left pixel (`RawRecord.origin` says what it gives). It reports
what only the format can show (schema, unknown or doubled labels, values that are no numbers, missing points) and
leaves NaN where a point could not be read. Rules about the frame, the image and the subject come later, in
`tasks.validate`. Every problem is reported; the first never ends the reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from schemas.geometry import Box
from schemas.records import Violation

SKIPPED = frozenset({"annotation-cancelled", "not-annotated"})
"""Codes of problems that say why there is nothing to use. They count as skipped, not as rejected."""

NOTED = frozenset({"keypoints-beyond-layout", "degenerate-face-box"})
"""Codes of what is listed and counted, and keeps no annotation from being used."""

NOT_REJECTED = SKIPPED | NOTED

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Problem:
    """A `Violation` that does not know its record and image yet.

    Attributes:
        code, keypoint, value, rule, hint: as in `Violation`.
        face: `key_suffix` of the face it is about; empty for the whole record.
    """

    code: str
    value: str
    rule: str
    hint: str
    keypoint: str | None = None
    face: str = ""

    def in_record(self, record: str, image: str | None) -> Violation:
        """The row of the violations table: `record` is the source key, the face's suffix is added to it."""
        return Violation(self.code, record + self.face, image, self.keypoint, self.value, self.rule, self.hint)


@dataclass(frozen=True, eq=False)
class AnnotatedFace:
    """One annotation of one face, as far as it could be read.

    Attributes:
        image_name: name of the frame in the annotation.
        frame_size: width and height that the annotation states, or None.
        points_N2: float32, source pixels; NaN where a point is missing or unreadable.
        flags_N: int8, `schemas.records.Flag`.
        tight_box, outer_box: face boxes in source pixels, or None.
        key_suffix: added to the record's key where a record holds several annotations (`/annotation/7`, `/face2`).
        face_index: which face of the frame; annotations of the same face compete, and one is used.
        ground_truth: reviewed; preferred over annotations that are not.
        annotator, annotation_id, annotated_at: who, which, when it was last submitted (ISO 8601), where known.
        session, camera, illumination: capture conditions where known.
    """

    image_name: str
    frame_size: tuple[int, int] | None
    points_N2: np.ndarray
    flags_N: np.ndarray
    tight_box: Box | None = None
    outer_box: Box | None = None
    key_suffix: str = ""
    face_index: int = 0
    ground_truth: bool = False
    annotator: str | None = None
    annotation_id: str | None = None
    annotated_at: str | None = None
    session: str | None = None
    camera: str | None = None
    illumination: str | None = None

    def counted_from(self, origin: float) -> AnnotatedFace:
        """The face, in whose coordinates the centre of the top-left pixel is `origin`, with 0 there."""
        boxes = {
            name: box and box._replace(x=box.x - origin, y=box.y - origin)
            for name, box in (("tight_box", self.tight_box), ("outer_box", self.outer_box))
        }
        return replace(self, points_N2=self.points_N2 - np.float32(origin), **boxes)


class Reader(Protocol):
    """A function that reads one payload of a format."""

    def __call__(
        self, payload: Any, *, num_keypoints: int, flags_known: bool
    ) -> tuple[list[AnnotatedFace], list[Problem]]: ...


def collect_points(
    found: Iterable[tuple[str, float, float]], num_keypoints: int, face: str = ""
) -> tuple[np.ndarray, list[Problem]]:
    """Points (label, x, y) into an (N, 2) float32 array; NaN where a label is absent.

    Problems: `unknown-label`, `duplicate-label`, `keypoint-not-finite`, and one `wrong-keypoint-count` that names
    what is missing.
    """
    points_N2 = np.full((num_keypoints, 2), np.nan, np.float32)
    seen: set[str] = set()
    problems = []
    indices = {f"P{i + 1}": i for i in range(num_keypoints)}
    for label, x, y in found:
        if label not in indices:
            problems.append(_unknown_label(label, num_keypoints, face))
        elif label in seen:
            problems.append(duplicate_label(label, face))
        elif not (is_coordinate(x) and is_coordinate(y)):
            problems.append(not_finite(label, f"({x}, {y})", face))
        else:
            points_N2[indices[label]] = x, y
        seen.add(label)
    missing = [label for label in indices if label not in seen]
    if missing:
        problems.append(_wrong_count(missing, num_keypoints, face))
    return points_N2, problems


def schema_problems(validator: Any, payload: Any) -> list[Problem]:
    """What a `jsonschema_rs` validator finds in `payload`, one problem each, with the place in the record."""
    return [schema_problem(error) for error in validator.iter_errors(payload)]


def schema_problem(error: Any) -> Problem:
    """One `jsonschema_rs.ValidationError`."""
    return Problem(
        code="schema",
        value=f"{_json_path(error.instance_path)}: {error.message}",
        rule="a record follows the JSON Schema of its format",
        hint="correct the record where it was annotated or exported",
    )


def duplicate_label(label: str, face: str = "") -> Problem:
    """A keypoint that is placed more than once in a face."""
    return Problem(
        code="duplicate-label",
        keypoint=label,
        value=f"{label} more than once",
        rule="every keypoint is placed once",
        hint="delete the wrong one",
        face=face,
    )


def _json_path(parts: list[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _unknown_label(label: str, num_keypoints: int, face: str) -> Problem:
    return Problem(
        code="unknown-label",
        keypoint=label,
        value=label,
        rule=f"keypoints are labelled P1 to P{num_keypoints}",
        hint="rename or delete the keypoint, or correct num_keypoints",
        face=face,
    )


def is_coordinate(value: float) -> bool:
    """Whether float32 holds it: points are kept so."""
    return abs(value) <= _LARGEST


def not_finite(label: str, value: str, face: str = "") -> Problem:
    """A coordinate that is infinite, or not a number by its own account."""
    return Problem(
        code="keypoint-not-finite",
        keypoint=label,
        value=value,
        rule="coordinates are finite numbers",
        hint="place the keypoint again",
        face=face,
    )


def _wrong_count(missing: list[str], num_keypoints: int, face: str) -> Problem:
    shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
    return Problem(
        code="wrong-keypoint-count",
        keypoint=missing[0] if len(missing) == 1 else None,
        value=f"{num_keypoints - len(missing)} of {num_keypoints}; missing {shown}",
        rule=f"a face has {num_keypoints} distinct keypoints",
        hint="place the missing keypoints; mark those that can't be seen as occluded",
        face=face,
    )
