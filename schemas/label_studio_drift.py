"""How a project's own labelling config differs from `schemas.label_studio_config.labelling_config`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree

from schemas.label_studio_config import labelling_config, parse_config

_ITEM_NOUNS = {"background": "colour", "hotkey": "hotkey"}
_READ = ("Image", "Choices", "RectangleLabels", "KeyPointLabels")
_NOT_DRIFT = ("name", "showInline", "zoom", "zoomControl")
"""Attributes of controls whose change loses no label; a name is compared by itself."""


def config_drift(actual_xml: str, num_keypoints: int) -> list[str]:
    """What a project's labelling config has otherwise than `labelling_config(num_keypoints)`, a sentence each.

    Looked at are controls and their names, labels with their order, colours and hotkeys, and the choice `occluded`;
    how the screen is laid out is left to the people who use it. Empty if nothing drifted.

    Raises:
        AnnotationFileError: the config is not XML.
    """
    wanted, actual = _controls(parse_config(labelling_config(num_keypoints))), _controls(parse_config(actual_xml))
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


def _controls(root: ElementTree.Element) -> list[ElementTree.Element]:
    """What shows the data and what collects answers; a filter only helps to find a label."""
    return [node for node in root.iter() if node.tag in _READ or (node.get("toName") and node.tag != "Filter")]


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
    noun = _item(ours).lower()
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
    return [node.get("value", "") for node in control.iter(_item(control))]


def _items(control: ElementTree.Element) -> dict[str, Mapping[str, str]]:
    return {node.get("value", ""): node.attrib for node in control.iter(_item(control))}


def _item(control: ElementTree.Element) -> str:
    """The tag of what a person may pick in a control."""
    return "Label" if control.tag.endswith("Labels") else "Choice"


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
