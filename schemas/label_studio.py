"""Reading a Label Studio task with its annotations.

A keypoint is a region of the control KeyPointLabels with a label `P7`; a per-region choice `occluded` that shares
the region's id says that it can't be seen. The tight face box is a rectangle labelled `FaceBbox`. Coordinates are
percent of the frame, from its edges. A task shows one face, and each of its annotations is one annotator's view of
it. Drafts and predictions are not read, and regions of other controls are not ours to judge.

Keypoints above N are left aside and noted, not rejected: the first points of a larger face are those of a smaller
one, so annotations of 80 points serve a network of 68, and labels left over in a project's config do no harm.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from schemas.annotation import AnnotatedFace, Problem, collect_points, schema_problems
from schemas.geometry import Box, percent_to_pixels
from schemas.json_lists import read_list
from schemas.layouts import FACE_SIZES
from schemas.records import Flag

FACE_BOX_LABEL = "FaceBbox"
OCCLUDED_CHOICE = "occluded"
IMAGE_FIELD = "image"
"""Field of a task with the image, unless its source says another one."""

_KEYPOINT_LABEL = re.compile(r"^P([1-9][0-9]{0,5})$")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm")
_CONDITIONS = ("session", "camera", "illumination")

_RULES = {
    "not-annotated": ("a task has a submitted annotation", "annotate and submit the task"),
    "annotation-cancelled": ("a skipped annotation is not used", "submit it if the face should be used"),
    "frame-size-conflict": (
        "all regions of an annotation state the same frame size",
        "delete the regions that were drawn on another version of the image, and place them again",
    ),
    "rotated-image": (
        "keypoints are placed on the image as it is stored",
        "turn the image back in Label Studio and save, or store it upright",
    ),
    "occluded-without-keypoint": (
        f"the choice '{OCCLUDED_CHOICE}' belongs to a keypoint",
        "select the keypoint that was meant, and take the choice off the other region",
    ),
    "unknown-choice": (
        f"the only choice of a keypoint is '{OCCLUDED_CHOICE}'",
        "use the labelling config that this project writes",
    ),
    "unknown-label": (
        f"the only rectangle is {FACE_BOX_LABEL}; keypoints are placed with the keypoint control",
        "delete the rectangle, and place the keypoint if one was meant",
    ),
    "keypoints-beyond-layout": (
        "keypoints above the network's number are left aside",
        "nothing, if the project is labelled for a larger face; else delete them, and their labels in the config",
    ),
    "several-face-boxes": ("a task shows one face", "delete the other boxes; give a second face a task of its own"),
    "rotated-face-box": ("a face box is upright", "draw the box again without turning it"),
    "degenerate-face-box": ("a face box has an area", "draw the box again"),
}
"""Code -> rule and hint of the problems that only this format can have."""


def read_tasks(path: Path) -> Iterator[Any]:
    """The tasks of a JSON export, not yet checked one by one; a few are in memory at a time.

    Raises:
        AnnotationFileError: see `schemas.json_lists.read_list`.
    """
    return read_list(path, of="tasks")


def read(payload: Any, *, num_keypoints: int, flags_known: bool) -> tuple[list[AnnotatedFace], list[Problem]]:
    """Read one task: a face for every submitted annotation. See `schemas.annotation`.

    An annotation that breaks the schema is reported and left out; the others of its task are read.

    Problems beside those of `collect_points`: `schema`, `not-annotated`, `annotation-cancelled`, `rotated-image`,
    `frame-size-conflict`, `keypoints-beyond-layout`, `unknown-label`, `several-face-boxes`, `rotated-face-box`,
    `degenerate-face-box`, `unknown-choice`, `occluded-without-keypoint`.
    """
    if problems := schema_problems(_validator("task"), payload):
        return [], problems
    if not payload["annotations"]:
        return [], [_problem("not-annotated", "no annotations")]
    faces = []
    for position, annotation in enumerate(payload["annotations"]):
        suffix = f"/annotation/{annotation.get('id', position)}"
        found = _unreadable(annotation, suffix)
        if not found:
            face, found = _face(payload["data"], annotation, suffix, num_keypoints, flags_known)
            faces.append(face)
        problems += found
    return faces, problems


def image_name(data: Mapping[str, Any], image_field: str = IMAGE_FIELD) -> str:
    """Name of a task's frame: its field `name`, else the file name in the field that holds the image.

    A task without the field `image` has its name in any field that holds a file name; but where a source says that
    its images are in another field, that one alone counts: the others may show somebody else. Label Studio's own
    additions (route, storage parameter, the prefix of an upload) are taken off.
    """
    if isinstance(data.get("name"), str):
        return data["name"]
    told = isinstance(data.get(image_field), str) or image_field != IMAGE_FIELD
    values = [data.get(image_field)] if told else data.values()
    names = [_file_name(value) for value in values if isinstance(value, str)]
    return next((name for name in names if name.lower().endswith(_IMAGE_SUFFIXES)), "")


def has_flags(payload: Any) -> bool:
    """True if any annotation of a task says of any keypoint that it is occluded."""
    if not _validator("task").is_valid(payload):
        return False
    regions = (
        region
        for annotation in payload["annotations"]
        if not _unreadable(annotation, "")
        for region in annotation["result"]
    )
    return any(region["type"] == "choices" and OCCLUDED_CHOICE in region["value"]["choices"] for region in regions)


@lru_cache
def _validator(definition: str) -> Any:
    import jsonschema_rs

    schema = json.loads(Path(__file__).with_name("label_studio.schema.json").read_bytes())
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]})


def _file_name(value: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError:  # such as http://[
        return value
    query = parse_qs(parts.query)
    if "d" in query:
        return query["d"][0]
    if "fileuri" in query:
        return _key_in_bucket(query["fileuri"][0])
    return _UPLOAD_PREFIX.sub("", unquote(parts.path).rsplit("/", 1)[-1])


def _key_in_bucket(encoded: str) -> str:
    """`set/a.jpg` of `s3://bucket/set/a.jpg`, which Label Studio's links to a bucket hold in base 64."""
    try:
        return urlsplit(base64.urlsafe_b64decode(encoded).decode()).path.lstrip("/")
    except ValueError:
        return ""


def _unreadable(annotation: Mapping[str, Any], face: str) -> list[Problem]:
    """Why an annotation gives no face: skipped by its annotator, or of the wrong form."""
    if annotation.get("was_cancelled") is True:
        return [_problem("annotation-cancelled", "skipped by its annotator", face)]
    problems = schema_problems(_validator("annotation"), annotation)
    return [dataclasses.replace(problem, face=face) for problem in problems]


def _face(
    data: Mapping[str, Any], annotation: Mapping[str, Any], face: str, num_keypoints: int, flags_known: bool
) -> tuple[AnnotatedFace, list[Problem]]:
    keypoints = [region for region in annotation["result"] if region["type"] == "keypointlabels"]
    rectangles = [region for region in annotation["result"] if region["type"] == "rectanglelabels"]
    frame_size, problems = _frame(keypoints + rectangles, face)
    beyond = [label for label in map(_label, keypoints) if num_keypoints < _number(label) <= max(FACE_SIZES)]
    if beyond:
        shown = f"{len(beyond)} keypoints, {min(beyond, key=_number)} to {max(beyond, key=_number)}"
        problems.append(_problem("keypoints-beyond-layout", shown, face))
    ours = [region for region in keypoints if _label(region) not in beyond]
    points_N2, of_points = collect_points(map(_labelled_point, ours), num_keypoints, face)
    flags_N, of_flags = _flags(annotation["result"], keypoints, num_keypoints, flags_known, face)
    tight_box, of_box = _face_box(rectangles, face)
    read_face = AnnotatedFace(
        image_name=image_name(data),
        frame_size=frame_size,
        points_N2=points_N2,
        flags_N=flags_N,
        tight_box=tight_box,
        key_suffix=face,
        ground_truth=annotation.get("ground_truth") is True,
        annotator=annotator_of(annotation.get("completed_by")),
        annotation_id=str(annotation["id"]) if "id" in annotation else None,
        annotated_at=annotation.get("updated_at") or annotation.get("created_at"),
        **{name: data[name] for name in _CONDITIONS if isinstance(data.get(name), str)},
    )
    return read_face, problems + of_points + of_flags + of_box


def _label(region: Mapping[str, Any]) -> str:
    return region["value"][region["type"]][0]


def _number(label: str) -> int:
    """7 for `P7`, 0 for a label that is no keypoint's."""
    match = _KEYPOINT_LABEL.match(label)
    return int(match[1]) if match else 0


def _labelled_point(region: Mapping[str, Any]) -> tuple[str, float, float]:
    percent = np.array([region["value"]["x"], region["value"]["y"]], np.float64)
    x, y = percent_to_pixels(percent, _size(region))
    return _label(region), float(x), float(y)


def _size(region: Mapping[str, Any]) -> np.ndarray:
    return np.array([region["original_width"], region["original_height"]])


def _frame(regions: list[dict[str, Any]], face: str) -> tuple[tuple[int, int] | None, list[Problem]]:
    """The frame size that all regions state, and whether the frame was turned under them."""
    sizes = sorted({(region["original_width"], region["original_height"]) for region in regions})
    turns = {region.get("image_rotation") or 0 for region in regions}
    problems = []
    if len(sizes) > 1:
        shown = " and ".join(f"{width} x {height}" for width, height in sizes)
        problems.append(_problem("frame-size-conflict", shown, face))
    if turned := sorted(turn for turn in turns if turn % 360):
        problems.append(_problem("rotated-image", f"turned by {turned[0]} degrees", face))
    return (sizes[0] if len(sizes) == 1 else None), problems


def _flags(
    result: list[dict[str, Any]],
    keypoints: list[dict[str, Any]],
    num_keypoints: int,
    flags_known: bool,
    face: str,
) -> tuple[np.ndarray, list[Problem]]:
    flags_N = np.full(num_keypoints, Flag.VISIBLE if flags_known else Flag.UNKNOWN, np.int8)
    label_of = {region["id"]: _label(region) for region in keypoints}
    problems = []
    for region in result:
        if region["type"] != "choices":
            continue
        label, choices = label_of.get(region.get("id")), region["value"]["choices"]
        if label is None:
            if OCCLUDED_CHOICE in choices:
                problems.append(_problem("occluded-without-keypoint", f"region {region.get('id')}", face))
        elif choices not in ([], [OCCLUDED_CHOICE]):
            problems.append(_problem("unknown-choice", ", ".join(choices), face, label))
        elif choices and 1 <= (number := _number(label)) <= num_keypoints:
            flags_N[number - 1] = Flag.OCCLUDED
    return flags_N, problems


def _face_box(rectangles: list[dict[str, Any]], face: str) -> tuple[Box | None, list[Problem]]:
    boxes = [region for region in rectangles if _label(region) == FACE_BOX_LABEL]
    problems = [
        _problem("unknown-label", f"rectangle labelled {label}", face, label if _number(label) else None)
        for label in map(_label, rectangles)
        if label != FACE_BOX_LABEL
    ]
    if len(boxes) > 1:
        problems.append(_problem("several-face-boxes", f"{len(boxes)} rectangles {FACE_BOX_LABEL}", face))
    if len(boxes) != 1:
        return None, problems
    value, (width, height) = boxes[0]["value"], (_size(boxes[0]) / 100.0).tolist()
    box = Box(value["x"] * width, value["y"] * height, value["width"] * width, value["height"] * height)
    if value.get("rotation", 0) % 360:
        problems.append(_problem("rotated-face-box", f"turned by {value['rotation']:g} degrees", face))
    if not box.has_area:
        return None, [*problems, _problem("degenerate-face-box", f"{box.width:g} x {box.height:g}", face)]
    return box, problems


def annotator_of(completed_by: int | Mapping[str, Any] | None) -> str | None:
    """The user's id: lists and exports give the number, a single task gives an object."""
    if isinstance(completed_by, Mapping):
        completed_by = completed_by["id"]
    return None if completed_by is None else str(completed_by)


def _problem(code: str, value: str, face: str = "", keypoint: str | None = None) -> Problem:
    rule, hint = _RULES[code]
    return Problem(code=code, value=value, rule=rule, hint=hint, keypoint=keypoint, face=face)
