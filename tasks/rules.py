"""Rules that a JSON Schema can't say: an annotation's frame, shape and subject, and several together."""

from __future__ import annotations

import re

import numpy as np

from schemas.annotation import AnnotatedFace, Problem
from schemas.config import ValidationRules
from schemas.geometry import tight_square
from tasks.images import ImageFacts

_SUBJECT = re.compile(r"^[^/\s]+/[^/\s]+$")


def check_frame(annotated: AnnotatedFace, facts: ImageFacts) -> list[Problem]:
    """The image has the stated size, and every keypoint lies on it: -0.5 <= x <= W - 0.5, and the same for y."""
    problems = []
    if annotated.frame_size not in (None, (facts.width, facts.height)):
        problems.append(_other_size(annotated.frame_size, facts))
    upper = np.array([facts.width, facts.height]) - 0.5
    outside_N = ((annotated.points_N2 < -0.5) | (annotated.points_N2 > upper)).any(axis=1)
    return problems + [_outside(i, annotated.points_N2[i], facts) for i in np.flatnonzero(outside_N)]


def obviously_sound(points_BN2: np.ndarray, sizes_B2: np.ndarray) -> np.ndarray:
    """True for each of B faces of finite points that `check_frame` and `check_shape` let pass; sizes are W and H."""
    lowest_B2 = np.stack([points_BN2[..., axis].min(axis=1) for axis in (0, 1)], axis=1)
    highest_B2 = np.stack([points_BN2[..., axis].max(axis=1) for axis in (0, 1)], axis=1)
    inside_B = (lowest_B2 >= -0.5).all(axis=1) & (highest_B2 <= sizes_B2 - 0.5).all(axis=1)
    return inside_B & (np.ceil(highest_B2) > np.floor(lowest_B2)).any(axis=1)


def check_shape(annotated: AnnotatedFace) -> list[Problem]:
    """The keypoints are not all in one place."""
    if not np.isfinite(annotated.points_N2).all() or tight_square(annotated.points_N2).width > 0:
        return []
    x, y = annotated.points_N2[0]
    return [
        Problem(
            code="degenerate-face",
            value=f"all keypoints at ({x:g}, {y:g})",
            rule="the box around the keypoints has an area",
            hint="place the keypoints again",
        )
    ]


def check_subject(subject: str | None, rules: ValidationRules) -> list[Problem]:
    """The subject is known, where that is required, and of the form `<dataset>/<id>`."""
    if subject is None and rules.require_subject:
        return [
            Problem(
                code="subject-unknown",
                value="no subject",
                rule="it is known whose face it is, so that nobody is both trained and tested on",
                hint="complete the source's subject rule, or set validation.require_subject to false",
            )
        ]
    if subject is not None and not _SUBJECT.match(subject):
        return [
            Problem(
                code="subject-malformed",
                value=subject,
                rule="a subject is <dataset>/<id> without spaces",
                hint="correct the source's subject rule; without one an entry says it by its own key `subject`: "
                "write it <dataset>/<id>, or give a subject rule",
            )
        ]
    return []


def image_missing(annotated: AnnotatedFace) -> Problem:
    """The source could not say which file holds the image."""
    return Problem(
        code="image-missing",
        value=f"no file for {annotated.image_name}",
        rule="every annotation has its image",
        hint="check the source's image folder or field; of a server's images, its pull.json says what is wrong",
    )


def two_subjects(subjects: set[str]) -> Problem:
    """The same image bytes are annotated as several people: one of them could leak into a split of the other."""
    return Problem(
        code="image-under-two-subjects",
        value=" and ".join(sorted(subjects)),
        rule="the same image shows the same subject",
        hint="correct the subject, or take the image out of one source",
    )


def duplicate_face(first: str) -> Problem:
    """The same content as the annotation `first`."""
    return Problem(
        code="duplicate-face",
        value=f"same image, subject, points and flags as {first}",
        rule="a face counts once",
        hint="delete one of the two",
    )


def nothing_read() -> Problem:
    """The reader gave neither a face nor a reason."""
    return Problem("not-annotated", "no face", "a record holds at least one face", "annotate it or leave it out")


def _other_size(stated: tuple[int, int] | None, facts: ImageFacts) -> Problem:
    assert stated is not None
    turned = stated == (facts.height, facts.width)
    return Problem(
        code="image-size-mismatch",
        value=f"{facts.width} x {facts.height}, annotated as {stated[0]} x {stated[1]}",
        rule="the image has the size on which it was annotated",
        hint="store the image upright, without an EXIF rotation" if turned else "find the image that was annotated",
    )


def _outside(index: int, point: np.ndarray, facts: ImageFacts) -> Problem:
    return Problem(
        code="keypoint-outside-frame",
        keypoint=f"P{index + 1}",
        value=f"({point[0]:.2f}, {point[1]:.2f}) in {facts.width} x {facts.height}",
        rule="keypoints lie inside the frame",
        hint="move the keypoint to the frame's edge and mark it as occluded, or leave the image out",
    )
