"""Writing for Label Studio: tasks that can be imported into a project with the config of
`schemas.label_studio_config`. `schemas.label_studio` reads what comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from schemas.geometry import Box, pixels_to_percent
from schemas.label_studio import FACE_BOX_LABEL, OCCLUDED_CHOICE
from schemas.label_studio_config import BOX_CONTROL, IMAGE_CONTROL, KEYPOINT_CONTROL, OCCLUSION_CONTROL
from schemas.records import Flag

_DOT_PERCENT = 0.4
"""Diameter of a keypoint in the editor, percent of the frame."""


def build_task(
    data: Mapping[str, str],
    points_N2: np.ndarray,
    flags_N: np.ndarray,
    *,
    frame_size: tuple[int, int],
    tight_box: Box | None = None,
) -> dict[str, Any]:
    """A task with one annotation, for Label Studio's import.

    Args:
        data: fields of the task; `image` is where the server finds the frame.
        points_N2: source pixels; a NaN point is left out.
        flags_N: `Flag` values. If any is unknown, the task gets the field `occlusion: unknown`.
        frame_size: width and height in pixels.
        tight_box: drawn as `FaceBbox`.
    """
    fields = dict(data)
    if (np.asarray(flags_N) == Flag.UNKNOWN).any():
        fields["occlusion"] = "unknown"
    regions = face_regions(points_N2, flags_N, frame_size=frame_size, tight_box=tight_box)
    # Label Studio takes an imported annotation for a reviewed one unless it is told otherwise.
    annotation = {"result": regions, "ground_truth": False, "was_cancelled": False}
    return {"data": fields, "annotations": [annotation]}


def face_regions(
    points_N2: np.ndarray,
    flags_N: np.ndarray,
    *,
    frame_size: tuple[int, int],
    tight_box: Box | None = None,
    origin: Literal["manual", "prediction"] = "manual",
) -> list[dict[str, Any]]:
    """The regions of a face, for the `result` of an annotation or a prediction; arguments as of `build_task`.

    The face box comes last: in the editor the regions that come first lie on top, and a click on a point that a box
    covers takes hold of the box.

    Args:
        origin: who placed them.
    """
    regions: list[dict[str, Any]] = []
    percent_N2 = pixels_to_percent(points_N2, np.array(frame_size))
    for number, (xy, flag) in enumerate(zip(percent_N2, flags_N, strict=True), start=1):
        if np.isfinite(xy).all():
            regions += _keypoint_regions(number, xy, flag == Flag.OCCLUDED, frame_size)
    if tight_box is not None:
        regions.append(_box_region(tight_box, frame_size))
    return [region | {"origin": origin} for region in regions]


def _box_region(box: Box, frame_size: tuple[int, int]) -> dict[str, Any]:
    width, height = frame_size
    value = {
        "x": float(box.x) * 100 / width,
        "y": float(box.y) * 100 / height,
        "width": float(box.width) * 100 / width,
        "height": float(box.height) * 100 / height,
        "rotation": 0,
    }
    return _region(
        FACE_BOX_LABEL, "rectanglelabels", BOX_CONTROL, value | {"rectanglelabels": [FACE_BOX_LABEL]}, frame_size
    )


def _keypoint_regions(
    number: int, percent: np.ndarray, occluded: bool, frame_size: tuple[int, int]
) -> list[dict[str, Any]]:
    label = f"P{number}"
    value = {"x": float(percent[0]), "y": float(percent[1]), "width": _DOT_PERCENT}
    regions = [_region(label, "keypointlabels", KEYPOINT_CONTROL, value | {"keypointlabels": [label]}, frame_size)]
    if occluded:
        regions.append(
            _region(label, "choices", OCCLUSION_CONTROL, value | {"choices": [OCCLUDED_CHOICE]}, frame_size)
        )
    return regions


def _region(
    identity: str, kind: str, control: str, value: dict[str, Any], frame_size: tuple[int, int]
) -> dict[str, Any]:
    """A region; the label is its id, which is unique in an annotation and what keypoint and choice share."""
    return {
        "id": identity,
        "type": kind,
        "from_name": control,
        "to_name": IMAGE_CONTROL,
        "original_width": frame_size[0],
        "original_height": frame_size[1],
        "image_rotation": 0,
        "value": value,
    }
