"""The `.pts` files of 300-W and its relatives: one face, a point a line.

    version: 1
    n_points: 68
    {
    446.000 91.000
    ...
    }

The format is loose: other tools leave the header and the braces out, or add a third column, 1 for an occluded point
(`x y occluded`); both are read. A file that opens the braces must close them, and hold as many points as it says.

Coordinates start at 1: 300-W's were placed with MATLAB. That is how menpo, the library of those who made 300-W, reads
them (`menpo.io.input.landmark.pts_importer` takes 1 off), and so does a source of such files by default.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from schemas.annotation import AnnotatedFace, Problem
from schemas.landmarks import WrittenPoint, malformed, number, read_points
from schemas.records import Flag

_HEADER = re.compile(r"^(version|n_points)\s*:\s*(\S+)$", re.IGNORECASE)
_RULE = "a .pts file has a header of version and n_points, and that many lines `x y` or `x y occluded` in braces"


class _Line(NamedTuple):
    number: int
    fields: list[str]


def read(payload: Any, *, num_keypoints: int, flags_known: bool) -> tuple[list[AnnotatedFace], list[Problem]]:
    """Read one file: `image` (name), `text`. See `schemas.annotation`.

    Problems beside those of `schemas.landmarks.read_points`: `malformed`, `unknown-flag`.
    """
    lines, problems = _points(payload["text"])
    if problems:
        return [], problems
    written = [WrittenPoint(*line.fields[:2], f"line {line.number}") for line in lines]
    points_N2, problems = read_points(written, num_keypoints)
    flags_N = np.full(num_keypoints, Flag.VISIBLE if flags_known else Flag.UNKNOWN, np.int8)
    for index, line in enumerate(lines[:num_keypoints]):
        if len(line.fields) == 3:
            flag = number(line.fields[2])
            if flag in (0, 1):
                flags_N[index] = Flag.OCCLUDED if flag else Flag.VISIBLE
            else:
                problems.append(_unknown_flag(line, f"P{index + 1}"))
    return [AnnotatedFace(payload["image"], None, points_N2, flags_N)], problems


def has_flags(text: str) -> bool:
    """True if any point of a file has a third column."""
    return any(len(line.fields) == 3 for line in _points(text)[0])


def _points(text: str) -> tuple[list[_Line], list[Problem]]:
    """The lines with points, or what is wrong with the file."""
    lines = [_Line(i, fields) for i, raw in enumerate(text.splitlines(), 1) if (fields := raw.split())]
    header: dict[str, str] = {}
    while lines and (match := _HEADER.match(" ".join(lines[0].fields))):
        header[match[1].lower()] = match[2]
        lines = lines[1:]
    if lines and lines[0].fields == ["{"]:
        end = next((i for i, line in enumerate(lines) if line.fields == ["}"]), None)
        if end is None:
            return [], [malformed(f"no closing brace; the file ends after line {lines[-1].number}", _RULE)]
        lines = lines[1:end]
    bad = [line for line in lines if len(line.fields) not in (2, 3)]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        return [], [malformed(f"line {bad[0].number}: '{' '.join(bad[0].fields)[:60]}'{more}", _RULE)]
    if header.get("n_points", str(len(lines))) != str(len(lines)):
        return [], [malformed(f"n_points is {header['n_points']}, {len(lines)} points follow", _RULE)]
    return lines, []


def _unknown_flag(line: _Line, label: str) -> Problem:
    return Problem(
        code="unknown-flag",
        keypoint=label,
        value=f"line {line.number}: '{line.fields[2]}'",
        rule="the third column is 1 for an occluded keypoint and 0 for a visible one",
        hint="correct the flag, or take the column off",
    )
