"""The labelling config of a Label Studio project, and how a project's own config differs from it.

One face a task: a face box, keypoints P1 to PN, and for each keypoint the choice whether it is occluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
_DIGITS = 10
_ITEMS = ("Label", "Choice")
_ITEM_NOUNS = {"background": "colour", "hotkey": "hotkey"}
_NOT_DRIFT = ("name", "showInline", "zoom", "zoomControl")
"""Attributes of controls whose change loses no label; a name is compared by itself."""


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


def _consecutive(indices: Iterable[int]) -> list[tuple[int, ...]]:
    parts: list[list[int]] = []
    for i in indices:
        if parts and parts[-1][-1] == i - 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    return [tuple(part) for part in parts]


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
    renamed = {} if len(wanted) != len(found) else _renamed(list(wanted), list(found))
    missing = [value for value in wanted if value not in found and value not in renamed]
    extra = [value for value in found if value not in wanted and value not in renamed.values()]
    noun = "label" if ours.tag.endswith("Labels") else "choice"
    drift = [f"{noun} {old} is called '{new}'" for old, new in renamed.items()]
    beyond = [value for value in extra if _number(value) > len(wanted)] if ours.tag == "KeyPointLabels" else []
    extra = [value for value in extra if value not in beyond]
    if missing:
        drift.append(f"{noun} {_listed(missing)} of {_named(ours)} is missing")
    if beyond:
        drift.append(f"label {_listed(beyond)} is beyond P{len(wanted)}: such points are counted, and not used")
    if extra:
        drift.append(f"{noun} {_listed(extra)} of {_named(ours)} is one too many, and not used")
    if twice := [value for value, number in Counter(_values(theirs)).items() if number > 1]:
        drift.append(f"{noun} {_listed(twice)} of {_named(ours)} stands there more than once")
    common = [value for value in found if value in wanted]
    if common != [value for value in wanted if value in found]:
        drift.append(f"the {noun}s of {_named(ours)} stand in another order")
    for key, what in _ITEM_NOUNS.items():
        other = [value for value in common if wanted[value].get(key, "").lower() != found[value].get(key, "").lower()]
        if other:
            drift.append(f"{noun} {_listed(other)} has another {what}")
    return drift


def _values(control: ElementTree.Element) -> list[str]:
    return [node.get("value", "") for node in control.iter() if node.tag in _ITEMS]


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
    return _number(one) > 0 and _number(other) == _number(one) + 1


def _number(label: str) -> int:
    """7 for `P7`, 0 for a label that is no keypoint's."""
    return int(label[1:]) if label[:1] == "P" and label[1:].isascii() and label[1:].isdecimal() else 0


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
