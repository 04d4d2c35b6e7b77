"""The labelling config of a Label Studio project, and how a project's own config differs from it.

One face a task: a face box, keypoints P1 to PN, and for each keypoint the choice whether it is occluded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.etree import ElementTree

from schemas.errors import AnnotationFileError
from schemas.label_studio import FACE_BOX_LABEL, OCCLUDED_CHOICE
from schemas.layouts import layout

IMAGE_FIELD = "image"
"""Field of a task's data that says where its frame is."""

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
_ITEMS = ("Label", "Choice")
_ITEM_NOUNS = {"background": "colour", "hotkey": "hotkey"}
_NOT_DRIFT = ("name", "showInline", "zoom", "zoomControl")
"""Attributes of controls whose change loses no label; a name is compared by itself."""


def labelling_config(num_keypoints: int) -> str:
    """XML of a labelling config for one face a task.

    A face box (hotkey `b`), keypoints P1 to PN coloured by region, each of which can be placed once, and for a
    selected keypoint the choice `occluded` (hotkey `o`). With the editor's setting "Select region after creating"
    a point can be placed and marked without a click between.
    """
    root = ElementTree.Element("View", style="display: flex")
    frame = ElementTree.SubElement(root, "View", style="flex: 1")
    ElementTree.SubElement(
        frame,
        "Image",
        name=IMAGE_CONTROL,
        value=f"${IMAGE_FIELD}",
        zoom="true",
        zoomControl="true",
        rotateControl="false",
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


def config_drift(actual_xml: str, num_keypoints: int) -> list[str]:
    """What a project's labelling config has otherwise than `labelling_config(num_keypoints)`, a sentence each.

    Looked at are controls and their names, labels with their order, colours and hotkeys, and the choice `occluded`;
    how the screen is laid out is left to the people who use it. Empty if nothing drifted.

    Raises:
        AnnotationFileError: the config is not XML.
    """
    wanted, actual = _controls(_parse(labelling_config(num_keypoints))), _controls(_parse(actual_xml))
    drift: list[str] = []
    for ours in wanted:
        alike = [control for control in actual if control.tag == ours.tag]
        same = [control for control in alike if control.get("name") == ours.get("name")]
        theirs = (same or alike or [None])[0]
        if theirs is None:
            drift.append(f"{_named(ours)} is missing")
            continue
        actual.remove(theirs)
        drift += _control_drift(ours, theirs)
    return drift + [f"{_named(extra)} is not of this project; what it collects is not read" for extra in actual]


def _parse(label_config: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise AnnotationFileError("labelling config", f"not XML: {error}", line=line, column=column) from error


def _controls(root: ElementTree.Element) -> list[ElementTree.Element]:
    """What shows the data and what collects answers; a filter only helps to find a label."""
    return [node for node in root.iter() if node.tag == "Image" or (node.get("toName") and node.tag != "Filter")]


def _named(control: ElementTree.Element) -> str:
    return f"{control.tag} '{control.get('name')}'"


def _control_drift(ours: ElementTree.Element, theirs: ElementTree.Element) -> list[str]:
    drift = []
    if ours.get("name") != theirs.get("name"):
        drift.append(f"{_named(ours)} is called '{theirs.get('name')}'; regions that are stored keep the old name")
    for key, value in ours.items():
        found = theirs.get(key, "")
        if key not in _NOT_DRIFT and found.lower() != value.lower():
            drift.append(f"{_named(ours)} has {key}='{found}' instead of '{value}'")
    return drift + _item_drift(ours, theirs)


def _item_drift(ours: ElementTree.Element, theirs: ElementTree.Element) -> list[str]:
    """How the labels or choices of a control differ."""
    wanted, found = _items(ours), _items(theirs)
    renamed = _renamed(list(wanted), list(found))
    missing = [value for value in wanted if value not in found and value not in renamed]
    extra = [value for value in found if value not in wanted and value not in renamed.values()]
    noun = "label" if ours.tag.endswith("Labels") else "choice"
    drift = [f"{noun} {old} is called '{new}'" for old, new in renamed.items()]
    if missing:
        drift.append(f"{noun} {_listed(missing)} of {_named(ours)} is missing")
    if extra:
        drift.append(f"{noun} {_listed(extra)} of {_named(ours)} is one too many")
    common = [value for value in found if value in wanted]
    if common != [value for value in wanted if value in found]:
        drift.append(f"the {noun}s of {_named(ours)} stand in another order")
    for key, what in _ITEM_NOUNS.items():
        other = [value for value in common if wanted[value].get(key, "").lower() != found[value].get(key, "").lower()]
        if other:
            drift.append(f"{noun} {_listed(other)} has another {what}")
    return drift


def _items(control: ElementTree.Element) -> dict[str, Mapping[str, str]]:
    return {node.get("value", ""): node.attrib for node in control.iter() if node.tag in _ITEMS}


def _renamed(wanted: list[str], found: list[str]) -> dict[str, str]:
    """Items that stand where another one should, where neither is anywhere else."""
    return {
        old: new
        for old, new in zip(wanted, found, strict=False)
        if old != new and old not in found and new not in wanted
    }


def _listed(values: Iterable[str]) -> str:
    """`P3, P7 to P9` for numbered labels that follow each other; others as they are."""
    runs: list[list[str]] = []
    for value in values:
        if runs and _follows(runs[-1][-1], value):
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _follows(one: str, other: str) -> bool:
    return one[:1] == other[:1] == "P" and one[1:].isdecimal() and other[1:] == str(int(one[1:]) + 1)


def _add_box_control(panel: ElementTree.Element) -> None:
    ElementTree.SubElement(panel, "Header", value="Face box")
    control = ElementTree.SubElement(
        panel, "RectangleLabels", name=BOX_CONTROL, toName=IMAGE_CONTROL, canRotate="false"
    )
    ElementTree.SubElement(control, "Label", value=FACE_BOX_LABEL, background=_BOX_COLOUR, hotkey="b")


def _add_occlusion_control(panel: ElementTree.Element) -> None:
    shown = ElementTree.SubElement(panel, "View", visibleWhen="region-selected", whenTagName=KEYPOINT_CONTROL)
    ElementTree.SubElement(shown, "Header", value="Selected keypoint")
    control = ElementTree.SubElement(
        shown,
        "Choices",
        name=OCCLUSION_CONTROL,
        toName=IMAGE_CONTROL,
        perRegion="true",
        choice="multiple",
        showInline="true",
    )
    ElementTree.SubElement(control, "Choice", value=OCCLUDED_CHOICE, hotkey="o")


def _add_keypoint_control(panel: ElementTree.Element, num_keypoints: int) -> None:
    face = layout(num_keypoints)
    colours = {i: _REGION_COLOURS[name] for name in _REGION_COLOURS for i in face.regions.get(name, ())}
    ElementTree.SubElement(panel, "Header", value=f"Keypoints {face.labels[0]} to {face.labels[-1]}")
    ElementTree.SubElement(panel, "Filter", name="find", toName=KEYPOINT_CONTROL, minlength="0", placeholder="P17")
    control = ElementTree.SubElement(
        panel, "KeyPointLabels", name=KEYPOINT_CONTROL, toName=IMAGE_CONTROL, maxUsages="1", showInline="true"
    )
    for i, label in enumerate(face.labels):
        ElementTree.SubElement(control, "Label", value=label, background=colours.get(i, _OTHER_COLOUR))
