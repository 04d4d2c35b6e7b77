"""The labelling config, and what is named when somebody changes it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import AnnotationFileError
from schemas.label_studio_config import config_labels, labelling_config, offers_occluded, point_groups
from schemas.label_studio_drift import config_drift

N = 80


def changed(change):
    """The drift that a change of the XML tree of the config for N keypoints makes."""
    root = ElementTree.fromstring(labelling_config(N))
    change(root)
    return config_drift(ElementTree.tostring(root, encoding="unicode"), N)


def only(root, tag):
    (found,) = root.iter(tag)
    return found


def label(root, value):
    return next(node for node in root.iter("Label") if node.get("value") == value)


def parent(root, child):
    return next(node for node in root.iter() if child in list(node))


@pytest.mark.parametrize("num_keypoints", [1, 5, 68, 80, 104])
def test_it_has_what_reading_needs(num_keypoints):
    config = labelling_config(num_keypoints)
    assert offers_occluded(config)
    assert config_labels(config) == {f"P{number + 1}" for number in range(num_keypoints)}
    assert config.count('value="FaceBbox"') == 1
    assert config_drift(config, num_keypoints) == []


@given(st.integers(1, 130))
def test_every_point_is_in_one_group_and_in_order(num_keypoints):
    groups = list(point_groups(num_keypoints))
    assert [i for _, indices, _ in groups for i in indices] == list(range(num_keypoints))


def test_groups_of_a_face():
    assert [title for title, _, _ in point_groups(104)] == [
        "Chin P1 to P17", "Eyebrows P18 to P27", "Nose P28 to P36", "Eyes P37 to P48", "Mouth P49 to P68",
        "Pupil P69 to P76", "Ears P77 to P80", "Eyes P81 to P104",
    ]  # fmt: skip


def test_regions_are_told_apart_by_colour():
    root = ElementTree.fromstring(labelling_config(N))
    colours = {label(root, value).get("background") for value in ("P1", "P18", "P28", "P37", "P49", "P69", "P77")}
    assert len(colours) == 7


def test_hotkeys_are_unique():
    root = ElementTree.fromstring(labelling_config(N))
    keys = [node.get("hotkey") for node in root.iter() if node.get("hotkey")]
    assert sorted(keys) == sorted([*"1234567890", "b", "o", "f"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: label(r, "P7").set("value", "tip"), ["label P7 is called 'tip'"]),
        (
            lambda r: [parent(r, label(r, v)).remove(label(r, v)) for v in ("P3", "P70", "P71")],
            ["label P3, P70 to P71 of KeyPointLabels 'kp' is missing"],
        ),
        (
            lambda r: ElementTree.SubElement(only(r, "KeyPointLabels"), "Label", value="wart"),
            ["label wart of KeyPointLabels 'kp' is one too many, and not used"],
        ),
        (lambda r: label(r, "P3").set("background", "#000000"), ["label P3 has another colour"]),
        (lambda r: label(r, "P3").set("hotkey", "k"), ["label P3 has another hotkey"]),
        (lambda r: only(r, "Choice").set("hotkey", "k"), ["choice occluded has another hotkey"]),
        (lambda r: only(r, "Choice").set("value", "hidden"), ["choice occluded is called 'hidden'"]),
        (
            lambda r: setattr(only(r, "Choice"), "tag", "Label"),
            ["choice occluded of Choices 'occ' is missing"],
        ),
        (
            lambda r: only(r, "Choices").set("perRegion", "false"),
            ["Choices 'occ' has perRegion='false' instead of 'true'"],
        ),
        (
            lambda r: parent(r, only(r, "Choices")).remove(only(r, "Choices")),
            ["Choices 'occ' is missing"],
        ),
        (
            lambda r: only(r, "KeyPointLabels").set("name", "points"),
            ["KeyPointLabels 'kp' is called 'points'; regions that are stored keep the old name"],
        ),
        (
            lambda r: only(r, "KeyPointLabels").attrib.pop("maxUsages"),
            ["KeyPointLabels 'kp' has maxUsages='' instead of '1'"],
        ),
        (
            lambda r: only(r, "Image").set("value", "$photo"),
            ["Image 'image' has value='$photo' instead of '$image'"],
        ),
        (
            lambda r: ElementTree.SubElement(r, "TextArea", name="note", toName="image"),
            ["TextArea 'note' is not of this project; what it collects is not read"],
        ),
        (
            lambda r: ElementTree.SubElement(r, "RectangleLabels", name="eye", toName="image"),
            ["RectangleLabels 'eye' is not of this project; what it collects is not read"],
        ),
        (
            lambda r: setattr(r, "tag", "KeyPointLabels"),
            ["KeyPointLabels 'None' is not of this project; what it collects is not read"],
        ),
        (
            lambda r: parent(r, label(r, "P1")).append(label(r, "P2")),
            ["label P2 of KeyPointLabels 'kp' stands there more than once"],
        ),
        (
            lambda r: parent(r, label(r, "P1")).insert(1, label(parent(r, label(r, "P1")), "P17")),
            [
                "label P17 of KeyPointLabels 'kp' stands there more than once",
                "the labels of KeyPointLabels 'kp' stand in another order",
            ],
        ),
    ],
)
def test_drift_is_named(change, expected):
    assert changed(change) == expected


def test_how_the_screen_looks_is_left_to_people():
    def rearrange(root):
        root.set("style", "display: block")
        only(root, "Image").set("zoom", "false")
        for header in root.iter("Header"):
            header.set("value", "Kinn")
        label(root, "P3").set("background", label(root, "P3").get("background").upper())

    assert changed(rearrange) == []


def test_a_config_of_a_larger_or_smaller_face():
    assert config_drift(labelling_config(80), 68) == [
        "label P69 to P80 is beyond P68: such points are counted, and not used"
    ]
    assert config_drift(labelling_config(68), 80) == ["label P69 to P80 of KeyPointLabels 'kp' is missing"]


def test_an_empty_config_lacks_everything():
    assert [text.split()[0] for text in config_drift("<View/>", N)] == [
        "Choices",
        "Image",
        "RectangleLabels",
        "KeyPointLabels",
    ]


@st.composite
def edited_configs(draw):
    """A config with a few elements and attributes taken away, doubled or renamed."""
    root = ElementTree.fromstring(labelling_config(5))
    for _ in range(draw(st.integers(0, 4))):
        node, other = (draw(st.sampled_from(list(root.iter()))) for _ in range(2))
        match draw(st.sampled_from(["drop", "double", "attribute", "rename", "tag"])):
            case "drop" if len(node):
                node.remove(draw(st.sampled_from(list(node))))
            case "double" if node not in other.iter():
                node.append(ElementTree.fromstring(ElementTree.tostring(other)))
            case "attribute" if node.attrib:
                node.attrib.pop(draw(st.sampled_from(sorted(node.attrib))))
            case "rename" if node.attrib:
                node.set(draw(st.sampled_from(sorted(node.attrib))), draw(st.sampled_from(["", "P1", "kp", "image"])))
            case "tag":
                node.tag = other.tag
    return ElementTree.tostring(root, encoding="unicode")


@given(edited_configs())
def test_any_xml_is_compared_and_without_drift_it_has_what_reading_needs(text):
    if not config_drift(text, 5):
        assert config_labels(text) == {f"P{number}" for number in range(1, 6)} and offers_occluded(text)


def test_a_config_without_a_choice_per_region_offers_no_flag():
    assert not offers_occluded('<View><Choices name="c" toName="i"><Choice value="occluded"/></Choices></View>')


@pytest.mark.parametrize("read", [offers_occluded, config_labels, lambda xml: config_drift(xml, N)])
def test_a_config_that_is_not_xml(read):
    with pytest.raises(AnnotationFileError, match=r"labelling config:1:6: not XML"):
        read("<View>")
