"""What the readers of landmark datasets share: numbers and boxes as they are written, and what is wrong with them.

The datasets number their points but do not label them, so a face has all its keypoints or the file is of another
layout: unlike a Sloth file, which says P1 to PN, one of 98 points does not serve a network of 68.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schemas.annotation import Problem, is_coordinate, not_finite
from schemas.geometry import Box


class WrittenPoint(NamedTuple):
    """A point as it stands in a file: `x` and `y` are texts or JSON values, `place` says where: `line 7`."""

    x: Any
    y: Any
    place: str


def read_points(
    written: Sequence[WrittenPoint], num_keypoints: int, *, face: str = ""
) -> tuple[np.ndarray, list[Problem]]:
    """Points (N, 2), float32, as they stand; NaN where one can't be read, all of them if there are not N.

    Problems: `wrong-keypoint-count`, `not-a-number`, `keypoint-not-finite`.
    """
    points_N2 = np.full((num_keypoints, 2), np.nan, np.float32)
    if len(written) != num_keypoints:
        return points_N2, [wrong_count(len(written), num_keypoints, face)]
    problems = []
    for index, point in enumerate(written):
        label, x, y = f"P{index + 1}", number(point.x), number(point.y)
        if x is None or y is None:
            problems.append(not_a_number(f"{point.place}: {point.x!r}, {point.y!r}", label, face))
        elif not (is_coordinate(x) and is_coordinate(y)):
            problems.append(not_finite(label, f"{point.place}: ({x}, {y})", face))
        else:
            points_N2[index] = x, y
    return points_N2, problems


def number(value: Any) -> float | None:
    """A JSON number, or a text that is one (NaN and infinity, too); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):  # which Python's own numbers may have
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def face_box(sides: Sequence[Any], place: str, face: str = "") -> tuple[Box | None, list[Problem]]:
    """A box of x, y, width and height as they are written. Problems: `not-a-number`, `degenerate-face-box`."""
    values = [number(side) for side in sides]
    if len(values) != 4 or any(value is None or not math.isfinite(value) for value in values):
        return None, [not_a_number(f"{place}: {', '.join(map(str, sides))}", None, face)]
    box = Box(*(value for value in values if value is not None))
    return (box, []) if box.has_area else (None, [_degenerate_box(box, place, face)])


def wrong_count(found: int, num_keypoints: int, face: str = "") -> Problem:
    """The file is of another layout, or incomplete."""
    return Problem(
        code="wrong-keypoint-count",
        value=f"{found} points",
        rule=f"a face has {num_keypoints} keypoints",
        hint=f"complete the face, or leave it out; if all have {found}, set num_keypoints to {found}",
        face=face,
    )


def not_a_number(value: str, keypoint: str | None = None, face: str = "") -> Problem:
    """Something else where a number belongs; `value` says what and where."""
    return Problem(
        code="not-a-number",
        keypoint=keypoint,
        value=value,
        rule="coordinates are numbers with a decimal point",
        hint="correct the annotation where it was made",
        face=face,
    )


def malformed(value: str, rule: str, face: str = "") -> Problem:
    """An annotation that is not of its format's form."""
    return Problem(
        code="malformed", value=value, rule=rule, hint="copy the annotation again, whole, or correct it", face=face
    )


def not_annotated(value: str, face: str = "") -> Problem:
    """A face or image without keypoints, which is no fault."""
    return Problem(
        code="not-annotated",
        value=value,
        rule="an image to learn from has at least one face with keypoints",
        hint="annotate it or leave it out",
        face=face,
    )


def _degenerate_box(box: Box, place: str, face: str) -> Problem:
    return Problem(
        code="degenerate-face-box",
        value=f"{place}: {box.width:g} x {box.height:g}",
        rule="a face box has an area",
        hint="draw the box again or delete it",
        face=face,
    )
