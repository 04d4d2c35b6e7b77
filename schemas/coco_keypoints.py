"""COCO keypoint files: images, and annotations that point to them.

    {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}],
     "annotations": [{"id": 7, "image_id": 1, "keypoints": [x1, y1, v1, ...], "bbox": [x, y, width, height]}]}

A keypoint's place counts from 0; v is 0 where it is not labelled, 1 where it is labelled but not visible (occluded
here), 2 where it is visible (COCO's page "Data format"). COCO-WholeBody has the 68 points of 300-W's layout in
`face_kpts`, the box in `face_box`, and `face_valid` is false where nobody labelled the face; its v may be another
number above 0, which says how reliable the point is, and nothing of occlusion (its `data_format.md`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from schemas.annotation import AnnotatedFace, Problem
from schemas.errors import AnnotationFileError
from schemas.landmarks import WrittenPoint, face_box, malformed, not_annotated, number, read_points
from schemas.records import Flag

_BOX_OF = {"keypoints": "bbox", "face_kpts": "face_box"}
_UNLABELLED, _OCCLUDED, _VISIBLE = 0, 1, 2


@dataclass(frozen=True)
class ImageAnnotations:
    """An image of a file and what is annotated in it.

    Attributes:
        place: `images[3]`, or `annotations[8]` for one whose image is not in the file.
        image: as in the file; None for the latter.
        annotations: as in the file, by their position there.
    """

    place: str
    image: dict[str, Any] | None
    annotations: dict[str, Any]


def read_images(path: Path) -> Iterator[ImageAnnotations]:
    """All images of a file, in order, then the annotations whose `image_id` is no image's. The file is in memory.

    Raises:
        AnnotationFileError: the file can't be read, is not JSON, or no COCO file; the message has line and column, or
            the place in the JSON.
    """
    images, annotations = _lists(path)
    places: dict[Any, int] = {}
    for index, image in enumerate(images):
        if not isinstance(image, dict) or not _is_id(image.get("id")):
            raise AnnotationFileError(path, f"$.images[{index}] is no object with an id")
        if image["id"] in places:
            raise AnnotationFileError(
                path, f"$.images[{index}].id {image['id']!r} is that of $.images[{places[image['id']]}] already"
            )
        places[image["id"]] = index
    by_image: dict[int | None, dict[str, Any]] = defaultdict(dict)
    for index, annotation in enumerate(annotations):
        identity = annotation.get("image_id") if isinstance(annotation, dict) else None
        by_image[places.get(identity) if _is_id(identity) else None][str(index)] = annotation
    for index, image in enumerate(images):
        yield ImageAnnotations(f"images[{index}]", image, by_image[index])
    for index, annotation in by_image[None].items():
        yield ImageAnnotations(f"annotations[{index}]", None, {index: annotation})


def read(payload: Any, *, num_keypoints: int, flags_known: bool) -> tuple[list[AnnotatedFace], list[Problem]]:
    """Read one image: `image`, `annotations` (as in `ImageAnnotations`), `field`. See `schemas.annotation`.

    A keypoint says itself whether it is occluded, so `flags_known` is of no account. Problems beside those of
    `schemas.landmarks`: `malformed`, `unknown-image`, `keypoint-not-labelled`, `unknown-flag`, `not-annotated`.
    """
    image, annotations = payload["image"], payload["annotations"]
    if image is None:
        return [], [_unknown_image(annotation) for annotation in annotations.values()]
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        return [], [malformed(f"file_name is {name!r}", "an image of a COCO file has a file_name")]
    if not annotations:
        return [], [not_annotated("no annotation of this image")]
    faces, problems = [], []
    for index, (place, annotation) in enumerate(annotations.items()):
        suffix = f"/annotations[{place}]"
        face, found = _face(annotation, payload, num_keypoints, suffix, index)
        faces += [face] if face else []
        problems += found
    return faces, problems


def _face(
    annotation: dict[str, Any], payload: Mapping[str, Any], num_keypoints: int, suffix: str, index: int
) -> tuple[AnnotatedFace | None, list[Problem]]:
    field, image = payload["field"], payload["image"]
    values = annotation.get(field)
    if values is None or (field == "face_kpts" and annotation.get("face_valid") is False):
        return None, [not_annotated(f"no {field}", suffix)]
    if not isinstance(values, list) or len(values) % 3:
        shown = f"{len(values)} numbers" if isinstance(values, list) else type(values).__name__
        return None, [malformed(f"{field}: {shown}", f"{field} is a list of x, y, v of every keypoint", suffix)]
    if not any(values[2::3]):
        return None, [not_annotated(f"{field}: no keypoint is labelled", suffix)]
    written = [WrittenPoint(*values[i : i + 2], f"{field}[{i}]") for i in range(0, len(values), 3)]
    points_N2, problems = read_points(written, num_keypoints, face=suffix)
    flags_N, of_flags = _flags(values[2::3], num_keypoints, suffix)
    tight_box, of_box = None, []
    if (sides := annotation.get(_BOX_OF[field])) is not None:
        tight_box, of_box = face_box(sides if isinstance(sides, list) else [sides], _BOX_OF[field], suffix)
    face = AnnotatedFace(
        image_name=image["file_name"],
        frame_size=_frame_size(image),
        points_N2=points_N2,
        flags_N=flags_N,
        tight_box=tight_box,
        key_suffix=suffix,
        face_index=index,
        annotation_id=str(annotation["id"]) if "id" in annotation else None,
    )
    return face, problems + of_flags + of_box


def _flags(values: list[Any], num_keypoints: int, face: str) -> tuple[np.ndarray, list[Problem]]:
    flags_N = np.full(num_keypoints, Flag.UNKNOWN, np.int8)
    problems = []
    for index, value in enumerate(values[:num_keypoints]):
        v, label = number(value), f"P{index + 1}"
        if v is None or not 0 <= v < np.inf:
            problems.append(_unknown_flag(value, label, face))
        elif v == _UNLABELLED:
            problems.append(_not_labelled(label, face))
        elif v in (_OCCLUDED, _VISIBLE):
            flags_N[index] = Flag.OCCLUDED if v == _OCCLUDED else Flag.VISIBLE
    return flags_N, problems


def _frame_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    size = image.get("width"), image.get("height")
    return size if all(type(side) is int for side in size) else None  # type: ignore[return-value]


def _lists(path: Path) -> tuple[list[Any], list[Any]]:
    try:
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise AnnotationFileError(path, f"can't be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise AnnotationFileError(path, f"not JSON: {error.msg}", line=error.lineno, column=error.colno) from error
    for name in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise AnnotationFileError(path, f"$.{name} is no list: this is not a COCO annotation file")
    return content["images"], content["annotations"]


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _unknown_image(annotation: Any) -> Problem:
    shown = f"image_id {annotation.get('image_id')!r}" if isinstance(annotation, dict) else repr(annotation)[:60]
    return Problem(
        code="unknown-image",
        value=shown,
        rule="an annotation's image_id is the id of one of the file's images",
        hint="add the image to the file, or delete the annotation",
    )


def _not_labelled(label: str, face: str) -> Problem:
    return Problem(
        code="keypoint-not-labelled",
        keypoint=label,
        value="v is 0",
        rule="all keypoints of a face are labelled",
        hint="place the keypoint; mark one that can't be seen as not visible (v = 1)",
        face=face,
    )


def _unknown_flag(value: Any, label: str, face: str) -> Problem:
    return Problem(
        code="unknown-flag",
        keypoint=label,
        value=f"v is {value!r}",
        rule="a keypoint's v is 0, 1 or 2, or another number above 0 that says how reliable it is",
        hint="correct v in the file",
        face=face,
    )
