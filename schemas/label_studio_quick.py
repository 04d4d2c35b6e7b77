"""The quick reader of Label Studio tasks, see `schemas.plain_face`; `schemas.label_studio.read` is the whole one.

Plain here: submitted annotations, each with every keypoint once, at most one upright face box, `occluded` at
keypoints only, and all regions on one frame that was not turned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from operator import itemgetter
from typing import Any

import numpy as np

from schemas.geometry import Box, percent_to_pixels
from schemas.label_studio import FACE_BOX_LABEL, OCCLUDED_CHOICE, annotator_of, image_name
from schemas.plain_face import NOT_PLAIN, NotPlain, PlainFace, QuickReader
from schemas.records import Flag

_CONDITIONS = ("session", "camera", "illumination")
_NUMBERS = frozenset({int, float})
_TURNS = _NUMBERS | {type(None)}
_PLACE = itemgetter("id", "original_width", "original_height")
_XY, _SIDES = itemgetter("x", "y"), itemgetter("x", "y", "width", "height")
_MAX_PERCENT, _MAX_PIXELS = 10_000, 1_000_000


def quick_reader(num_keypoints: int) -> QuickReader:
    """The quick reader for N keypoints."""
    indices = {f"P{i + 1}": i for i in range(num_keypoints)}

    def read_plain(payload: Any, flags_known: bool) -> list[PlainFace] | None:
        try:
            return _faces(payload, indices, num_keypoints, flags_known)
        except NOT_PLAIN:
            return None

    return read_plain


def _faces(
    payload: dict[str, Any], indices: dict[str, int], num_keypoints: int, flags_known: bool
) -> list[PlainFace]:
    data, annotations = payload["data"], payload["annotations"]
    if type(data) is not dict or type(annotations) is not list or not annotations:
        raise NotPlain
    if "id" in payload and type(payload["id"]) is not int:
        raise NotPlain
    name = image_name(data)
    conditions = [text if isinstance(text := data.get(key), str) else None for key in _CONDITIONS]
    faces = []
    for position, annotation in enumerate(annotations):
        _require_usable(annotation)
        drawn = _sorted_regions(annotation["result"])
        frame_size = _frame_size(drawn.keypoints + drawn.boxes)
        points, index_of = _points(drawn.keypoints, indices, frame_size)
        flags = _flags(drawn.occluded, index_of, num_keypoints, flags_known)
        identity = str(annotation["id"]) if "id" in annotation else None
        faces.append(
            PlainFace(
                name, frame_size, points, flags, _box(drawn.boxes, frame_size), None,
                f"/annotation/{position if identity is None else identity}", 0,
                annotation.get("ground_truth") is True, annotator_of(annotation.get("completed_by")), identity,
                annotation.get("updated_at") or annotation.get("created_at"), *conditions,
            )
        )  # fmt: skip
    return faces


def _require_usable(annotation: dict[str, Any]) -> None:
    """Submitted, and of the types that the schema asks for."""
    usual = (
        type(annotation["result"]) is list
        and annotation.get("was_cancelled") in (None, False)
        and type(annotation.get("was_cancelled")) is not int
        and type(annotation.get("ground_truth")) in (bool, type(None))
        and type(annotation.get("id", 0)) is int
        and type(annotation.get("completed_by")) in (int, dict, type(None))
        and type(annotation.get("created_at", "")) is type(annotation.get("updated_at", "")) is str
    )
    if not usual:
        raise NotPlain


@dataclass
class _Drawn:
    """The regions of an annotation, by what they hold; the checks come after, on all at once."""

    keypoints: list[dict[str, Any]]
    boxes: list[dict[str, Any]]
    occluded: list[str]


def _sorted_regions(result: list[dict[str, Any]]) -> _Drawn:
    drawn = _Drawn([], [], [])
    for region in result:
        kind = region["type"]
        if kind == "keypointlabels":
            drawn.keypoints.append(region)
        elif kind == "choices":
            if region["value"]["choices"] != [OCCLUDED_CHOICE]:
                raise NotPlain
            drawn.occluded.append(region["id"])
        elif kind == "rectanglelabels":
            drawn.boxes.append(region)
        elif type(kind) is not str:
            raise NotPlain
    return drawn


def _frame_size(regions: list[dict[str, Any]]) -> tuple[int, int]:
    """The one frame size of all regions, none of which may be turned."""
    identities, widths, heights = zip(*map(_PLACE, regions), strict=True)
    turns = [region.get("image_rotation") for region in regions]
    if any(turns) or not _TURNS.issuperset(map(type, turns)) or {*map(type, identities)} != {str}:
        raise NotPlain
    if {*map(type, widths), *map(type, heights)} != {int} or len({*widths}) > 1 or len({*heights}) > 1:
        raise NotPlain
    if not (1 <= widths[0] <= _MAX_PIXELS and 1 <= heights[0] <= _MAX_PIXELS):
        raise NotPlain
    return widths[0], heights[0]


def _points(
    keypoints: list[dict[str, Any]], indices: Mapping[str, int], frame_size: tuple[int, int]
) -> tuple[bytes, dict[str, int]]:
    """Bytes of the points, and the index of the keypoint that has a region's id."""
    values = [region["value"] for region in keypoints]
    labels = [value["keypointlabels"] for value in values]
    if {*map(type, labels)} != {list} or {*map(len, labels)} != {1}:
        raise NotPlain
    places = [indices[label] for (label,) in labels]
    if len(places) != len(indices) or len({*places}) != len(places):
        raise NotPlain
    xy = [*map(_XY, values)]
    _require_percent(number for point in xy for number in point)
    percent_N2 = np.empty((len(indices), 2))
    percent_N2[places] = xy
    pixels_N2 = percent_to_pixels(percent_N2, np.array(frame_size))
    index_of = {region["id"]: place for region, place in zip(keypoints, places, strict=True)}
    return pixels_N2.astype("<f4").tobytes(), index_of


def _flags(occluded: list[str], index_of: Mapping[str, int], num_keypoints: int, flags_known: bool) -> bytes:
    flags_N = np.full(num_keypoints, Flag.VISIBLE if flags_known else Flag.UNKNOWN, np.int8)
    flags_N[[index_of[identity] for identity in occluded]] = Flag.OCCLUDED
    return flags_N.tobytes()


def _box(boxes: list[dict[str, Any]], frame_size: tuple[int, int]) -> Box | None:
    if not boxes:
        return None
    (value,) = (region["value"] for region in boxes)
    sides = _SIDES(value)
    _require_percent([*sides, value.get("rotation", 0)])
    if value["rectanglelabels"] != [FACE_BOX_LABEL] or value.get("rotation", 0) != 0:
        raise NotPlain
    width, height = (side / 100.0 for side in frame_size)
    box = Box(sides[0] * width, sides[1] * height, sides[2] * width, sides[3] * height)
    if not box.has_area:
        raise NotPlain
    return box


def _require_percent(numbers: Iterable[Any]) -> None:
    listed = [*numbers]
    if not _NUMBERS.issuperset(map(type, listed)):
        raise NotPlain
    if not (min(listed) >= -_MAX_PERCENT and max(listed) <= _MAX_PERCENT and isfinite(sum(listed))):
        raise NotPlain
