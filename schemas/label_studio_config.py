"""The labelling config of a Label Studio project; `schemas.label_studio_drift` compares a project's own with it.

One face a task: a face box, keypoints P1 to PN, and for each keypoint the choice whether it is occluded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from schemas.errors import AnnotationFileError
from schemas.label_studio import FACE_BOX_LABEL, IMAGE_FIELD, OCCLUDED_CHOICE
from schemas.layouts import layout

IMAGE_CONTROL, BOX_CONTROL, KEYPOINT_CONTROL, OCCLUSION_CONTROL = "image", "bbox", "kp", "occ"
"""Names of the config's parts, which every stored region repeats."""

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
_DIGITS = 10


def labelling_config(num_keypoints: int) -> str:
    """XML of a labelling config for one face a task.

    A face box (hotkey `b`), keypoints P1 to PN grouped and coloured by region, each of which can be placed once, and
    for a selected keypoint the choice `occluded` (hotkey `o`). With the editor's setting "Select region after
    creating" a point can be placed and marked without a click between.

    Hotkeys of labels: 1 to 9 and 0 are P1 to P10, and `f`, the number and Enter are any point. The editor gives
    letters of its own to those that come next, until it has none left.
    """
    root = ElementTree.Element("View", style="display: flex")
    frame = ElementTree.SubElement(root, "View", style="flex: 1; min-width: 0")
    _add_occlusion_control(frame)
    _add_image(frame)
    panel = ElementTree.SubElement(root, "View", style="flex: 0 0 20rem; max-height: 88vh; overflow: auto")
    _add_box_control(panel)
    _add_keypoint_control(panel, num_keypoints)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def point_groups(num_keypoints: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Title, indices and colour of each group of labels, in the order of the points."""
    face = layout(num_keypoints)
    if not face.is_face:
        yield f"P1 to P{num_keypoints}", tuple(range(num_keypoints)), _OTHER_COLOUR
        return
    parts = [(part, name) for name in _REGION_COLOURS for part in _consecutive(face.regions.get(name, ()))]
    for part, name in sorted(parts):
        yield f"{name} P{part[0] + 1} to P{part[-1] + 1}", part, _REGION_COLOURS[name]


def offers_occluded(label_config: str) -> bool:
    """True if a labelling config has a per-region choice `occluded`, so that a keypoint without it is visible.

    Raises:
        AnnotationFileError: the config is not XML.
    """
    return any(
        choice.get("value") == OCCLUDED_CHOICE
        for choices in parse_config(label_config).iter("Choices")
        if choices.get("perRegion", "").lower() == "true"
        for choice in choices.iter("Choice")
    )


def config_labels(label_config: str) -> set[str]:
    """The keypoint labels of a labelling config.

    Raises:
        AnnotationFileError: the config is not XML.
    """
    controls = parse_config(label_config).iter("KeyPointLabels")
    return {label.get("value", "") for control in controls for label in control.iter("Label")}


def _consecutive(indices: Iterable[int]) -> list[tuple[int, ...]]:
    parts: list[list[int]] = []
    for i in indices:
        if parts and parts[-1][-1] == i - 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    return [tuple(part) for part in parts]


def parse_config(label_config: str) -> ElementTree.Element:
    """The XML of a labelling config.

    Raises:
        AnnotationFileError: it is not XML.
    """
    try:
        return ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise AnnotationFileError("labelling config", f"not XML: {error}", line=line, column=column) from error


def _add_image(frame: ElementTree.Element) -> None:
    ElementTree.SubElement(
        frame,
        "Image",
        name=IMAGE_CONTROL,
        value=f"${IMAGE_FIELD}",
        zoom="true",
        zoomControl="true",
        rotateControl="false",  # keypoints are placed on the image as it is stored
        brightnessControl="true",
        contrastControl="true",
        defaultZoom="fit",
    )


def _add_occlusion_control(frame: ElementTree.Element) -> None:
    """Above the image, in a place that is kept for it: nothing moves when a point is selected."""
    place = ElementTree.SubElement(frame, "View", style="height: 4.5rem; overflow: hidden")
    control = ElementTree.SubElement(
        place,
        "Choices",
        name=OCCLUSION_CONTROL,
        toName=IMAGE_CONTROL,
        perRegion="true",
        choice="multiple",
        showInline="true",
        visibleWhen="region-selected",
        whenTagName=KEYPOINT_CONTROL,
    )
    ElementTree.SubElement(control, "Choice", value=OCCLUDED_CHOICE, hotkey="o")


def _add_box_control(panel: ElementTree.Element) -> None:
    control = ElementTree.SubElement(
        panel, "RectangleLabels", name=BOX_CONTROL, toName=IMAGE_CONTROL, canRotate="false", opacity="0"
    )
    ElementTree.SubElement(control, "Label", value=FACE_BOX_LABEL, background=_BOX_COLOUR, hotkey="b")


def _add_keypoint_control(panel: ElementTree.Element, num_keypoints: int) -> None:
    labels = layout(num_keypoints).labels
    ElementTree.SubElement(
        panel,
        "Filter",
        name="find",
        toName=KEYPOINT_CONTROL,
        minlength="0",
        hotkey="f",
        placeholder="f, number of the point, Enter",
    )
    control = ElementTree.SubElement(
        panel, "KeyPointLabels", name=KEYPOINT_CONTROL, toName=IMAGE_CONTROL, maxUsages="1", showInline="true"
    )
    for title, indices, colour in point_groups(num_keypoints):
        group = ElementTree.SubElement(control, "View")
        ElementTree.SubElement(group, "Header", size="5", value=title)
        for i in indices:
            hotkey = {"hotkey": str((i + 1) % 10)} if i < _DIGITS else {}
            ElementTree.SubElement(group, "Label", value=labels[i], background=colour, **hotkey)
