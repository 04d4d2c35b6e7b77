"""Writing for Label Studio: the labelling config of a project, and tasks that can be imported into it.

`schemas.label_studio` reads what comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np

from schemas.errors import AnnotationFileError
from schemas.geometry import Box, pixels_to_percent
from schemas.label_studio import FACE_BOX_LABEL, OCCLUDED_CHOICE
from schemas.layouts import layout
from schemas.records import Flag

IMAGE_FIELD = "image"
_IMAGE, _BOX, _KEYPOINTS, _OCCLUSION = "image", "bbox", "kp", "occ"
_DOT_PERCENT = 0.4
"""Diameter of a keypoint in the editor, percent of the frame."""

_BOX_COLOUR, _OTHER_COLOUR = "#2ca02c", "#1f77b4"
_REGION_COLOURS = {
    "Chin": "#1f77b4",
    "Eyebrows": "#ff7f0e",
    "Nose": "#17becf",
    "Eyes": "#d62728",
    "Mouth": "#9467bd",
    "Pupil": "#e377c2",
    "Ears": "#8c564b",
}


def labelling_config(num_keypoints: int) -> str:
    """XML of a labelling config for one face a task.

    A face box (hotkey `b`), keypoints P1 to PN coloured by region, each of which can be placed once, and for a
    selected keypoint the choice `occluded` (hotkey `o`). With the editor's setting "Select region after creating"
    a point can be placed and marked without a click between.
    """
    root = ElementTree.Element("View", style="display: flex")
    frame = ElementTree.SubElement(root, "View", style="flex: 1")
    ElementTree.SubElement(
        frame, "Image", name=_IMAGE, value=f"${IMAGE_FIELD}", zoom="true", zoomControl="true", rotateControl="false"
    )
    panel = ElementTree.SubElement(root, "View", style="flex: 0 0 20rem; max-height: 88vh; overflow: auto")
    _add_box_control(panel)
    _add_occlusion_control(panel)
    _add_keypoint_control(panel, num_keypoints)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def offers_occluded(label_config: str) -> bool:
    """True if a labelling config has a per-region choice `occluded`, so that a keypoint without it is visible.

    Raises:
        AnnotationFileError: the config is not XML.
    """
    return any(
        choice.get("value") == OCCLUDED_CHOICE
        for choices in _parse(label_config).iter("Choices")
        if choices.get("perRegion", "").lower() == "true"
        for choice in choices.iter("Choice")
    )


def config_labels(label_config: str) -> set[str]:
    """The keypoint labels of a labelling config.

    Raises:
        AnnotationFileError: the config is not XML.
    """
    controls = _parse(label_config).iter("KeyPointLabels")
    return {label.get("value", "") for control in controls for label in control.iter("Label")}


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
    regions = [] if tight_box is None else [_box_region(tight_box, frame_size)]
    percent_N2 = pixels_to_percent(points_N2, np.array(frame_size))
    for number, (xy, flag) in enumerate(zip(percent_N2, flags_N, strict=True), start=1):
        if np.isfinite(xy).all():
            regions += _keypoint_regions(number, xy, flag == Flag.OCCLUDED, frame_size)
    # Label Studio takes an imported annotation for a reviewed one unless it is told otherwise.
    annotation = {"result": regions, "ground_truth": False, "was_cancelled": False}
    return {"data": fields, "annotations": [annotation]}


def _parse(label_config: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise AnnotationFileError("labelling config", f"not XML: {error}", line=line, column=column) from error


def _add_box_control(panel: ElementTree.Element) -> None:
    ElementTree.SubElement(panel, "Header", value="Face box")
    control = ElementTree.SubElement(panel, "RectangleLabels", name=_BOX, toName=_IMAGE, canRotate="false")
    ElementTree.SubElement(control, "Label", value=FACE_BOX_LABEL, background=_BOX_COLOUR, hotkey="b")


def _add_occlusion_control(panel: ElementTree.Element) -> None:
    shown = ElementTree.SubElement(panel, "View", visibleWhen="region-selected", whenTagName=_KEYPOINTS)
    ElementTree.SubElement(shown, "Header", value="Selected keypoint")
    control = ElementTree.SubElement(
        shown, "Choices", name=_OCCLUSION, toName=_IMAGE, perRegion="true", choice="multiple", showInline="true"
    )
    ElementTree.SubElement(control, "Choice", value=OCCLUDED_CHOICE, hotkey="o")


def _add_keypoint_control(panel: ElementTree.Element, num_keypoints: int) -> None:
    face = layout(num_keypoints)
    colours = {i: _REGION_COLOURS[name] for name in _REGION_COLOURS for i in face.regions.get(name, ())}
    ElementTree.SubElement(panel, "Header", value=f"Keypoints {face.labels[0]} to {face.labels[-1]}")
    ElementTree.SubElement(panel, "Filter", name="find", toName=_KEYPOINTS, minlength="0", placeholder="P17")
    control = ElementTree.SubElement(
        panel, "KeyPointLabels", name=_KEYPOINTS, toName=_IMAGE, maxUsages="1", showInline="true"
    )
    for i, label in enumerate(face.labels):
        ElementTree.SubElement(control, "Label", value=label, background=colours.get(i, _OTHER_COLOUR))


def _box_region(box: Box, frame_size: tuple[int, int]) -> dict[str, Any]:
    width, height = frame_size
    value = {
        "x": float(box.x) * 100 / width,
        "y": float(box.y) * 100 / height,
        "width": float(box.width) * 100 / width,
        "height": float(box.height) * 100 / height,
        "rotation": 0,
    }
    return _region(FACE_BOX_LABEL, "rectanglelabels", _BOX, value | {"rectanglelabels": [FACE_BOX_LABEL]}, frame_size)


def _keypoint_regions(
    number: int, percent: np.ndarray, occluded: bool, frame_size: tuple[int, int]
) -> list[dict[str, Any]]:
    label = f"P{number}"
    value = {"x": float(percent[0]), "y": float(percent[1]), "width": _DOT_PERCENT}
    regions = [_region(label, "keypointlabels", _KEYPOINTS, value | {"keypointlabels": [label]}, frame_size)]
    if occluded:
        regions.append(_region(label, "choices", _OCCLUSION, value | {"choices": [OCCLUDED_CHOICE]}, frame_size))
    return regions


def _region(
    identity: str, kind: str, control: str, value: dict[str, Any], frame_size: tuple[int, int]
) -> dict[str, Any]:
    """A region; the label is its id, which is unique in an annotation and what keypoint and choice share."""
    return {
        "id": identity,
        "type": kind,
        "from_name": control,
        "to_name": _IMAGE,
        "origin": "manual",
        "original_width": frame_size[0],
        "original_height": frame_size[1],
        "image_rotation": 0,
        "value": value,
    }
