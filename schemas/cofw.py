"""COFW, Caltech Occluded Faces in the Wild: 29 points, each with a flag, in MATLAB files that hold the images too.

`COFW_train_color.mat` has the arrays `IsTr` (images), `phisTr` and `bboxesTr`, `COFW_test_color.mat` the same without
the last two letters `r` (`IsT`, ...). A row of `phis` has the x of all points, then their y, then 1 for each that is
occluded; one of `bboxes` x, y, width and height (Burgos-Artizzu, Perona and Dollár, "Robust face landmark estimation
under occlusion", ICCV 2013). Coordinates start at 1, as in MATLAB.

COFW68 (Ghiasi and Fowlkes, 2015) has 68 points of 300-W's layout for the test images: `<n>_points.mat` with `Points`
(68 x 2) and `Occ` for the n-th image. They come to this reader in a row of the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.annotation import AnnotatedFace, Problem
from schemas.landmarks import WrittenPoint, face_box, malformed, read_points
from schemas.records import Flag


def read(payload: Any, *, num_keypoints: int, flags_known: bool) -> tuple[list[AnnotatedFace], list[Problem]]:
    """Read one row: `image` (name), `phis`, `bbox` or null; null stands for NaN. See `schemas.annotation`.

    Every point has a flag, so `flags_known` is of no account. Problems beside those of `schemas.landmarks`:
    `malformed`, `unknown-flag`.
    """
    phis = payload["phis"]
    if not phis or len(phis) % 3:
        return [], [malformed(f"{len(phis)} numbers", "a face of COFW has x, y and a flag for every point")]
    columns = len(phis) // 3
    written = [WrittenPoint(_value(phis[i]), _value(phis[columns + i]), f"point {i + 1}") for i in range(columns)]
    points_N2, problems = read_points(written, num_keypoints)
    flags_N = np.full(num_keypoints, Flag.UNKNOWN, np.int8)
    for index, flag in enumerate(phis[2 * columns :][:num_keypoints]):
        if flag in (0, 1):
            flags_N[index] = Flag.OCCLUDED if flag else Flag.VISIBLE
        else:
            problems.append(_unknown_flag(flag, f"P{index + 1}"))
    tight_box = None
    if payload["bbox"] is not None:
        tight_box, of_box = face_box(payload["bbox"], "bbox")
        problems += of_box
    return [AnnotatedFace(payload["image"], None, points_N2, flags_N, tight_box=tight_box)], problems


def _value(value: float | None) -> float:
    return float("nan") if value is None else value


def _unknown_flag(flag: float | None, label: str) -> Problem:
    return Problem(
        code="unknown-flag",
        keypoint=label,
        value=f"{flag}",
        rule="a keypoint's flag is 1 if it is occluded and 0 if it is visible",
        hint="correct the flag in the file, or leave the image out",
    )
