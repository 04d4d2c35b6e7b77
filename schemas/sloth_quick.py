"""The quick reader of Sloth/TAO image entries, see `schemas.plain_face`; `schemas.sloth.read` is the whole one.

Plain here: chunks of the classes `FaceBbox` and `FiducialPoints`, keys `P7x`, `P7y` and `P7occluded`, numbers that
are numbers, flags that are booleans or 0 and 1. A face of 80 points takes about a tenth of the time of `read`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from math import isfinite
from operator import itemgetter
from typing import Any

import orjson

from schemas.geometry import Box
from schemas.layouts import FACE_SIZES
from schemas.plain_face import NOT_PLAIN, NotPlain, PlainFace, QuickReader
from schemas.records import Flag

_CONDITIONS = ("annotator", "annotated_at", "session", "camera", "illumination")
_NO_CONDITIONS = [None] * len(_CONDITIONS)
_USUAL_KEYS = frozenset({"class", "filename", "annotations"})
_OCCLUSION = ("flagged", "unknown")
_NUMBERS = frozenset({int, float})
_SIDES = ("x", "y", "width", "height")
_BOX_KEYS = {kind: tuple(f"face_{kind}_bbox{side}" for side in _SIDES) for kind in ("tight", "outer")}
_tight_sides, _outer_sides = (itemgetter(*keys) for keys in _BOX_KEYS.values())
_KNOWN_BOX_KEYS = frozenset({"class"}.union(*_BOX_KEYS.values()))
_ZERO, _ONE = (struct.pack("<f", 0.0), struct.pack("<f", 1.0))


def quick_reader(num_keypoints: int) -> QuickReader:
    """The quick reader for N keypoints. Make a new one for every few thousand records, see `_interned`."""
    visible, unknown = (bytes([flag & 0xFF]) * num_keypoints for flag in (Flag.VISIBLE, Flag.UNKNOWN))
    shapes = _Shapes(num_keypoints)

    def read_plain(payload: Any, flags_known: bool) -> list[PlainFace] | None:
        try:
            return _faces(payload, shapes, visible if flags_known else unknown)
        except NOT_PLAIN:
            return None

    return read_plain


class _Shape:
    """The keys of a chunk with the keypoints P1 to PM, and how to take their values out."""

    def __init__(self, number: int) -> None:
        coordinates = _interned(f"P{i}{axis}" for i in range(1, number + 1) for axis in "xy")
        occluded = _interned(f"P{i}occluded" for i in range(1, number + 1))
        self.size = 1 + len(coordinates)  # with the class
        self.coordinates_of = itemgetter(*coordinates)
        self.index_of_flag = {key: i for i, key in enumerate(occluded)}
        self.flag_keys = frozenset(occluded)
        self.keys = self.flag_keys.union(coordinates, ("class",))
        self.pack = struct.Struct(f"<{2 * number}f").pack


class _Shapes:
    """The shapes of chunks that serve a network of N keypoints: those of N, and of the larger known faces."""

    def __init__(self, num_keypoints: int) -> None:
        self._larger = [(f"P{size}y", size) for size in reversed(FACE_SIZES) if size > num_keypoints]
        self._known = {num_keypoints: _Shape(num_keypoints)}
        self._smallest = self._known[num_keypoints]

    def of(self, chunk: dict[str, Any]) -> _Shape:
        if len(chunk) > self._smallest.size:
            for last, size in self._larger:
                if last in chunk:
                    return self._known.get(size) or self._known.setdefault(size, _Shape(size))
        return self._smallest


def _interned(keys: Any) -> tuple[str, ...]:
    """The keys as the very strings that orjson gives for them, which saves comparing 160 keys letter by letter.

    It remembers some thousand keys for a while, so the strings are of use for a while.
    """
    return tuple(orjson.loads(orjson.dumps(dict.fromkeys(keys))))


def _faces(payload: dict[str, Any], shapes: _Shapes, flagless: bytes) -> list[PlainFace]:
    name = payload["filename"]
    conditions = _NO_CONDITIONS
    if payload.keys() - _USUAL_KEYS:
        conditions = [_text(payload, key) for key in _CONDITIONS]
        if payload.get("occlusion", "flagged") not in _OCCLUSION:
            raise NotPlain
    if type(name) is not str or not name or payload.get("class", "image") != "image":
        raise NotPlain
    if type(chunks := payload["annotations"]) is not list:
        raise NotPlain
    points, boxes = [], []
    for chunk in chunks:
        kind = chunk["class"]
        if kind == "FiducialPoints":
            points.append(_keypoints(chunk, shapes, flagless))
        elif kind == "FaceBbox":
            boxes.append(_boxes(chunk))
        else:
            raise NotPlain
    if not points or (boxes and len(boxes) != len(points)):
        raise NotPlain
    several = len(points) > 1
    return [
        PlainFace(
            name, None, *points[i], *(boxes[i] if boxes else (None, None)), f"/face{i + 1}" if several else "", i,
            False, conditions[0], None, *conditions[1:],
        )
        for i in range(len(points))
    ]  # fmt: skip


def _text(payload: dict[str, Any], key: str) -> str | None:
    if key not in payload:
        return None
    if type(text := payload[key]) is not str:
        raise NotPlain
    return text


def _keypoints(chunk: dict[str, Any], shapes: _Shapes, flagless: bytes) -> tuple[bytes, bytes]:
    """Bytes of the points and of the flags."""
    shape = shapes.of(chunk)
    values = shape.coordinates_of(chunk)
    packed = shape.pack(*values)
    if not isfinite(sum(values)) or (_maybe_boolean(packed) and not _NUMBERS.issuperset(map(type, values))):
        raise NotPlain
    flagged = shape.flag_keys & chunk.keys()
    if len(chunk) != shape.size + len(flagged):
        _require_plain(chunk.keys() - shape.keys)
    return packed[: 8 * len(flagless)], _flags(chunk, flagged, shape.index_of_flag, flagless) if flagged else flagless


def _flags(chunk: dict[str, Any], flagged: Iterable[str], index_of: Mapping[str, int], flagless: bytes) -> bytes:
    values = [chunk[key] for key in flagged]
    flags = bytearray(flagless.ljust(len(index_of)))
    if (occluded := values.count(True)) == len(values):  # counts 1, too, which means the same
        for index in map(index_of.__getitem__, flagged):
            flags[index] = 1
    elif occluded + values.count(False) == len(values):
        for index, value in zip(map(index_of.__getitem__, flagged), values, strict=True):
            flags[index] = bool(value)
    else:
        raise NotPlain
    return bytes(flags[: len(flagless)])


def _maybe_boolean(packed: bytes) -> bool:
    """`struct` takes True for 1.0; only where a 0 or a 1 may stand, it is worth looking at 160 types."""
    return b"\0\0" in packed and (_ZERO in packed or _ONE in packed)


def _boxes(chunk: dict[str, Any]) -> tuple[Box | None, Box | None]:
    tight = _box(_tight_sides(chunk)) if "face_tight_bboxx" in chunk else None
    outer = _box(_outer_sides(chunk)) if "face_outer_bboxx" in chunk else None
    if len(chunk) != 1 + 4 * (tight is not None) + 4 * (outer is not None):
        _require_plain(chunk.keys() - _KNOWN_BOX_KEYS)
        if (tight is None and not chunk.keys().isdisjoint(_BOX_KEYS["tight"])) or (
            outer is None and not chunk.keys().isdisjoint(_BOX_KEYS["outer"])
        ):
            raise NotPlain
    return tight, outer


def _box(sides: tuple[Any, ...]) -> Box:
    if not _NUMBERS.issuperset(map(type, sides)):
        raise NotPlain
    box = Box._make(map(float, sides))
    if not (box.has_area and isfinite(sum(box))):
        raise NotPlain
    return box


def _require_plain(keys: set[str]) -> None:
    """Keys without a digit, such as `tool-version`, are about something else; others may be misspelt."""
    if any(c.isdigit() for key in keys for c in key):
        raise NotPlain
