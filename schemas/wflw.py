"""WFLW's annotation lists: a line for each face, fields separated by blanks.

    x0 y0 ... x97 y97  x_min y_min x_max y_max  pose expression illumination make-up occlusion blur  image name

98 points, the corners of a detector's rectangle, six attributes that are 0 or 1, and the image below `WFLW_images`
(the README of WFLW's annotations; Wu et al., "Look at Boundary", CVPR 2018). The lists of `list_98pt_test` have
neither rectangle nor attributes, and are read too. Coordinates are fractions of a pixel; WFLW does not say where they
start, and those who train on it take the top-left pixel for (0, 0), as the source's `origin` does by default.

Occlusion is told of a face, not of its points: whose attribute is 0 may be taken to have all points visible
(`occlusion: flagged`), of the others it is not known which are hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.annotation import AnnotatedFace, Problem
from schemas.geometry import Box
from schemas.landmarks import WrittenPoint, face_box, malformed, number, read_points
from schemas.records import Flag

NUM_POINTS = 98
_COORDINATES, _SIDES, _ATTRIBUTES = 2 * NUM_POINTS, 4, 6
_OCCLUSION = _COORDINATES + _SIDES + 4
_WIDTHS = (_COORDINATES + 1, _COORDINATES + _SIDES + _ATTRIBUTES + 1)

AS_68 = (
    *range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60),
    60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75, *range(76, 96),
)  # fmt: skip
"""Indices of the 98 points that stand where those of 300-W's 68 stand: every second one of the chin, the upper edge
of the eyebrows, nose and mouth whole, six of the eight of each eye; the choice that tools for both datasets share."""


def read(payload: Any, *, num_keypoints: int, flags_known: bool) -> tuple[list[AnnotatedFace], list[Problem]]:
    """Read one line: `line`. See `schemas.annotation`.

    Problems beside those of `schemas.landmarks`: `malformed`.
    """
    fields = payload["line"].split()
    if len(fields) not in _WIDTHS:
        shown = " or ".join(map(str, _WIDTHS))
        return [], [malformed(f"{len(fields)} fields", f"a line of WFLW has {shown} fields")]
    written = [WrittenPoint(*fields[i : i + 2], f"field {i + 1}") for i in range(0, _COORDINATES, 2)]
    if num_keypoints == len(AS_68):
        written = [written[index] for index in AS_68]
    points_N2, problems = read_points(written, num_keypoints)
    tight_box = None
    if len(fields) > _WIDTHS[0]:
        tight_box, of_box = _rectangle(fields[_COORDINATES : _COORDINATES + _SIDES])
        problems += of_box + _attributes(fields[_COORDINATES + _SIDES : -1])
    visible = flags_known and not (len(fields) > _WIDTHS[0] and fields[_OCCLUSION] != "0")
    flags_N = np.full(num_keypoints, Flag.VISIBLE if visible else Flag.UNKNOWN, np.int8)
    return [AnnotatedFace(fields[-1], None, points_N2, flags_N, tight_box=tight_box)], problems


def image_name(line: str) -> str:
    """The image of a line; empty if the line is."""
    fields = line.split()
    return fields[-1] if fields else ""


def _rectangle(corners: list[str]) -> tuple[Box | None, list[Problem]]:
    values = [number(corner) for corner in corners]
    if any(value is None for value in values):
        return face_box(corners, "rectangle")
    x0, y0, x1, y1 = values
    return face_box((x0, y0, x1 - x0, y1 - y0), "rectangle")


def _attributes(fields: list[str]) -> list[Problem]:
    if set(fields) <= {"0", "1"}:
        return []
    return [malformed(f"attributes {' '.join(fields)}", "the six attributes of a line are 0 or 1")]
