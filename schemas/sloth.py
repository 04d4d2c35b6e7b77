"""The Sloth/TAO ground-truth format: a JSON list of images, each with `FaceBbox` and `FiducialPoints` chunks.

    {"class": "image", "filename": "a.png", "annotations": [
        {"class": "FaceBbox", "face_tight_bboxx": 9, "face_tight_bboxy": 8, "face_tight_bboxwidth": 70, ...},
        {"class": "FiducialPoints", "P1x": 10.5, "P1y": 20, "P1occluded": true, ...}]}

Pixel centres are at integers, so coordinates are taken as they stand. Like the reference, the class of a chunk may
be any text that contains `fiducialpoints` or `facebbox` in any case, numbers may be strings, any prefix may stand
before a keypoint's number, and keypoints above N are ignored (a file of 104 points serves a network of 80). Where
the reference guesses (a missing point at (0, 0), `"False"` as true, one face's points in the next), this reader
reports a problem or reads what is meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from schemas.annotation import AnnotatedFace, Problem, collect_points, duplicate_label, schema_problem
from schemas.geometry import Box
from schemas.json_lists import read_list
from schemas.records import Flag

_KEYPOINT_KEY = re.compile(r"^\D*?(?P<number>\d+)[_ -]?(?P<what>x|y|occ[a-z]*)$", re.IGNORECASE)
_NOT_ABOUT_KEYPOINTS = ("class", "version")
_BOX_SIDES = ("x", "y", "width", "height")
_CONDITIONS = ("session", "camera", "illumination")


def read_entries(path: Path) -> Iterator[Any]:
    """The image entries of a ground-truth file, not yet checked one by one; a few are in memory at a time.

    A key given twice in one object has the list of its values, for `read` to report.

    Raises:
        AnnotationFileError: see `schemas.json_lists.read_list`.
    """
    return read_list(path, of="images", parse=_parse)


def load_sloth_file(path: Path) -> list[Any]:
    """All that `read_entries` gives."""
    return list(read_entries(path))


def read(payload: Any, *, num_keypoints: int, flags_known: bool) -> tuple[list[AnnotatedFace], list[Problem]]:
    """Read one image entry: a face for every chunk of keypoints. See `schemas.annotation`.

    Problems beside those of `collect_points`: `schema`, `unknown-key`, `degenerate-face-box`, `not-annotated`.
    """
    if problems := _broken_rules(payload):
        return [], problems
    chunks = _chunks(payload, "fiducialpoints")
    if not chunks:
        return [], [_not_annotated()]
    boxes, problems = _face_boxes(payload)
    faces = []
    for index, chunk in enumerate(chunks):
        suffix = f"/face{index + 1}" if len(chunks) > 1 else ""
        points_N2, flags_N, found = _keypoints(chunk, num_keypoints, flags_known, suffix)
        problems += found
        box = _box_of_face(index, points_N2, boxes, len(chunks))
        faces.append(
            AnnotatedFace(
                image_name=payload["filename"],
                frame_size=None,
                points_N2=points_N2,
                flags_N=flags_N,
                tight_box=box.get("tight"),
                outer_box=box.get("outer"),
                key_suffix=suffix,
                face_index=index,
                annotated_at=payload.get("annotated_at"),
                **{name: _text_of(payload.get(name)) for name in ("annotator", *_CONDITIONS)},
            )
        )
    return faces, problems


def flags_known_in(entry: Any, otherwise: bool) -> bool:
    """What a keypoint without a flag means in this entry, by its key `occlusion`: `flagged` visible (True), `unknown`
    (False), and without that key what the source says."""
    told = entry.get("occlusion") if isinstance(entry, dict) else None
    return {"flagged": True, "unknown": False}.get(str(told), otherwise)


def has_flags(payload: Any) -> bool:
    """True if an image entry says of any keypoint whether it is occluded."""
    if not _image_validator().is_valid(payload):
        return False
    keys = (key for chunk in _chunks(payload, "fiducialpoints") for key in chunk)
    return any((match := _KEYPOINT_KEY.match(key)) and match["what"].lower() not in "xy" for key in keys)


def read_face_boxes(payload: Any) -> tuple[str, list[Box], list[Problem]]:
    """An entry for inference: the image's name, '' where it has none, and the tight face box of every `FaceBbox`
    chunk. As by the reference, nothing else of it is looked at."""
    if isinstance(payload, dict):
        payload = {key: payload[key] for key in ("filename", "annotations") if key in payload}
        if isinstance(chunks := payload.get("annotations"), list):
            payload["annotations"] = [
                chunk for chunk in chunks if not isinstance(chunk, dict) or _is_of_kind(chunk, "facebbox")
            ]
    if problems := _broken_rules(payload):
        name = payload.get("filename") if isinstance(payload, dict) else None
        return name if isinstance(name, str) else "", [], problems
    boxes, problems = _face_boxes(payload)
    return payload["filename"], [box["tight"] for box in boxes if "tight" in box], problems


def face_to_sloth(
    points_N2: np.ndarray, flags_N: np.ndarray, *, tight_box: Box | None = None, outer_box: Box | None = None
) -> list[dict[str, Any]]:
    """The chunks of one face: `FaceBbox` if there is a box, and `FiducialPoints`.

    An occluded point has `P7occluded: true`. A visible one has no flag, unless other points of the face have an
    unknown one, which are the ones without a flag then.
    """
    keypoints: dict[str, Any] = {"class": "FiducialPoints"}
    some_unknown = bool((np.asarray(flags_N) == Flag.UNKNOWN).any())
    for number, ((x, y), flag) in enumerate(zip(points_N2, flags_N, strict=True), start=1):
        keypoints |= {f"P{number}x": _shortest(x), f"P{number}y": _shortest(y)}
        if flag == Flag.OCCLUDED or (some_unknown and flag == Flag.VISIBLE):
            keypoints[f"P{number}occluded"] = bool(flag == Flag.OCCLUDED)
    boxes = {
        f"face_{kind}_bbox{side}": float(value)
        for kind, box in (("tight", tight_box), ("outer", outer_box))
        if box is not None
        for side, value in zip(_BOX_SIDES, box, strict=True)
    }
    return [{"class": "FaceBbox", **boxes}, keypoints] if boxes else [keypoints]


def image_entry(filename: str, faces: Iterable[list[dict[str, Any]]], **conditions: str | None) -> dict[str, Any]:
    """One entry of a ground-truth file: the chunks of its faces, and what is known beside: `session`, `camera`,
    `illumination`, `annotator`, `annotated_at`, `subject`, `occlusion` (see `flags_known_in`)."""
    known = {name: value for name, value in conditions.items() if value is not None}
    return {
        "class": "image",
        "filename": filename,
        **known,
        "annotations": [chunk for face in faces for chunk in face],
    }


@lru_cache
def _image_validator() -> Any:
    import jsonschema_rs

    schema = json.loads(Path(__file__).with_name("sloth.schema.json").read_bytes())
    return jsonschema_rs.Draft202012Validator({"$ref": "#/$defs/image", "$defs": schema["$defs"]})


def _broken_rules(payload: Any) -> list[Problem]:
    return [_problem(error) for error in _image_validator().iter_errors(payload)]


def _problem(error: Any) -> Problem:
    key = str(error.instance_path[-1]) if error.instance_path else ""
    match = _KEYPOINT_KEY.match(key)
    label = f"P{int(match['number'])}" if match else None
    if label and isinstance(error.instance, list):
        return duplicate_label(label)
    return replace(schema_problem(error), keypoint=label)


def _parse(text: bytes) -> Any:
    """JSON with the keys that are given twice, which parsers drop but the last.

    The slow parser that keeps them is needed only where there may be one. Every key of an object has a colon behind
    it in the text, so if there are no more colons than keys and colons in texts, no key was dropped. (A text may
    write a colon as `\\u003a`, hence the look for that.)
    """
    value = orjson.loads(text)
    colons = np.count_nonzero(np.frombuffer(text, np.uint8) == ord(":"))
    if colons == _counted_colons(value) and b"\\u003" not in text:
        return value
    return json.loads(text, object_pairs_hook=_keep_doubled)


def _counted_colons(entries: Any) -> int:
    """Colons that the text of the entries must have, as far as a glance tells: too few where it is unusual."""
    if not isinstance(entries, list):
        return 0
    count = 0
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        count += len(entry) + sum([text.count(":") for text in entry.values() if type(text) is str])
        chunks = entry.get("annotations")
        if isinstance(chunks, list):
            count += sum([len(chunk) for chunk in chunks if type(chunk) is dict])
    return count


def _keep_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, with the list of its values for a key that is given twice."""
    unique = dict(pairs)
    if len(unique) != len(pairs):
        for doubled in unique:
            values = [value for key, value in pairs if key == doubled]
            unique[doubled] = values if len(values) > 1 else values[0]
    return unique


def _chunks(payload: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    return [chunk for chunk in payload["annotations"] if _is_of_kind(chunk, kind)]


def _is_of_kind(chunk: Mapping[str, Any], kind: str) -> bool:
    return kind in str(chunk.get("class")).lower()


def _keypoints(
    chunk: Mapping[str, Any], num_keypoints: int, flags_known: bool, face: str
) -> tuple[np.ndarray, np.ndarray, list[Problem]]:
    xs: dict[int, list[float]] = {}
    ys: dict[int, list[float]] = {}
    flagged: set[int] = set()
    flags_N = np.full(num_keypoints, Flag.VISIBLE if flags_known else Flag.UNKNOWN, np.int8)
    problems = []
    for key, value in chunk.items():
        match = _KEYPOINT_KEY.match(key)
        if match is None:
            if _looks_like_keypoint(key):
                problems.append(_unknown_key(key, face))
            continue
        number, what = int(match["number"]), match["what"].lower()
        if number > num_keypoints:
            continue
        if what == "x":
            xs.setdefault(number, []).append(float(value))
        elif what == "y":
            ys.setdefault(number, []).append(float(value))
        elif number in flagged:
            problems.append(duplicate_label(f"P{number}", face))
        elif number > 0:
            flagged.add(number)
            flags_N[number - 1] = Flag.OCCLUDED if _is_true(value) else Flag.VISIBLE
    found = [  # half of a second place is a duplicate, too
        (f"P{number}", x, y)
        for number in xs
        if number in ys
        for x, y in zip_longest(xs[number], ys[number], fillvalue=np.nan)
    ]
    points_N2, of_points = collect_points(found, num_keypoints, face)
    return points_N2, flags_N, problems + of_points


def _looks_like_keypoint(key: str) -> bool:
    return any(c.isdigit() for c in key) and not any(word in key.lower() for word in _NOT_ABOUT_KEYPOINTS)


def _is_true(value: bool | int | str) -> bool:
    return value.lower() in ("true", "1") if isinstance(value, str) else bool(value)


def _face_boxes(payload: Mapping[str, Any]) -> tuple[list[dict[str, Box]], list[Problem]]:
    boxes, problems = [], []
    for chunk in _chunks(payload, "facebbox"):
        found = {}
        for kind in ("tight", "outer"):
            if f"face_{kind}_bboxx" in chunk:
                box = Box(*(float(chunk[f"face_{kind}_bbox{side}"]) for side in _BOX_SIDES))
                if box.has_area:
                    found[kind] = box
                else:
                    problems.append(_degenerate_box(kind, box))
        boxes.append(found)
    return boxes, problems


def _box_of_face(index: int, points_N2: np.ndarray, boxes: list[dict[str, Box]], num_faces: int) -> dict[str, Box]:
    """Boxes and faces of one image come in the same order; if their numbers differ, the one box around the face."""
    if len(boxes) == num_faces:
        return boxes[index]
    centre = points_N2.mean(axis=0)
    around = [box for box in boxes if "tight" in box and _holds(box["tight"], centre)]
    return around[0] if len(around) == 1 else {}


def _holds(box: Box, point: np.ndarray) -> bool:
    x, y = point - (box.x, box.y)
    return bool(0 <= x <= box.width and 0 <= y <= box.height)


def _text_of(value: str | int | None) -> str | None:
    return None if value is None else str(value)


def _shortest(value: np.float32) -> float:
    """The shortest decimal that reads back to the same float32."""
    return float(str(np.float32(value)))


def _unknown_key(key: str, face: str) -> Problem:
    return Problem(
        code="unknown-key",
        value=key,
        rule="keys of a keypoint are P<number>x, P<number>y and P<number>occluded",
        hint="correct the key's spelling or delete it",
        face=face,
    )


def _degenerate_box(kind: str, box: Box) -> Problem:
    return Problem(
        code="degenerate-face-box",
        value=f"{kind} box of {box.width:g} x {box.height:g}",
        rule="a face box has an area",
        hint="draw the box again or delete it",
    )


def _not_annotated() -> Problem:
    return Problem(
        code="not-annotated",
        value="no FiducialPoints",
        rule="an image to learn from has at least one face with keypoints",
        hint="annotate the image or leave it out",
    )
