"""The quick reader of Sloth/TAO entries gives what the whole reader gives, or leaves the entry to it."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.geometry import Box
from schemas.sloth import face_to_sloth, image_entry, read
from schemas.sloth_quick import quick_reader
from tests.quick_readers import assert_same_faces

N = 4
coordinates = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1.0, -0.0])
boxes = st.none() | st.builds(Box, coordinates, coordinates, st.floats(1, 500), st.floats(1, 500))


@st.composite
def sound_entries(draw):
    """What our own writer makes of one to three faces, with N keypoints or as many as a file of 68 has."""
    number = draw(st.sampled_from([N, N, 68]))
    faces = [
        face_to_sloth(
            draw(hnp.arrays(np.float32, (number, 2), elements=coordinates)),
            draw(hnp.arrays(np.int8, number, elements=st.sampled_from([-1, 0, 1]))),
            tight_box=draw(boxes),
            outer_box=draw(boxes),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    names = st.sampled_from(["session", "camera", "illumination", "annotator", "annotated_at", "note"])
    return image_entry("a.png", faces) | draw(st.dictionaries(names, st.text(max_size=3), max_size=3))


values = st.sampled_from(
    [True, False, None, 0, 1, 2, 7.25, 0.0, 1.0, -3, 10**18, 1e30, 1e39, -1e300, "1.5", " 2e0", "x", "true", [], {}]
)
keys = st.sampled_from(
    ["P1x", "P2y", "P4x", "P5x", "P5y", "P68x", "p3X", "P1occluded", "P3Occ", "P9occluded", "P0x", "class",
     "tool-version", "version2", "note", "P1xy", "٣x", "face_tight_bboxx", "face_tight_bboxwidth", "face_outer_bboxy"]
)  # fmt: skip
classes = st.sampled_from(["FaceBbox", "FiducialPoints", "fiducialpoints", "FaceBboxFiducialPoints", "Other", 3])


@st.composite
def damaged_entries(draw):
    """Sound entries with a few values replaced, added and taken away, at every level."""
    entry = draw(sound_entries())
    chunks = entry["annotations"]
    for _ in range(draw(st.integers(1, 4))):
        chunk = draw(st.sampled_from(chunks)) if chunks else {}
        match draw(st.sampled_from(["set", "set", "drop", "chunk", "class", "entry", "lose"])):
            case "set":
                chunk[draw(keys)] = draw(values)
            case "drop":
                chunk.pop(draw(keys), None)
            case "chunk":
                chunks.insert(draw(st.integers(0, len(chunks))), dict(draw(st.sampled_from([chunk, {}]))))
            case "class":
                chunk["class"] = draw(classes)
            case "entry":
                entry[draw(st.sampled_from(["filename", "class", "session", "annotations"]))] = draw(values)
            case "lose":
                entry.pop(draw(st.sampled_from(["filename", "class", "annotations"])), None)
        if not isinstance(entry.get("annotations"), list):
            break
    return entry


def assert_same_as_read(entry, flags_known) -> bool:
    """True if the quick reader read it."""
    payload = orjson.loads(orjson.dumps(entry))
    quick = quick_reader(N)(payload, flags_known)
    if quick is None:
        return False
    assert_same_faces(quick, read(payload, num_keypoints=N, flags_known=flags_known))
    return True


@given(entry=sound_entries(), flags_known=st.booleans())
def test_sound_entries_are_read_quickly_and_the_same(entry, flags_known):
    chunks = [chunk["class"] for chunk in entry["annotations"]]
    boxes_fit = chunks.count("FaceBbox") in (0, chunks.count("FiducialPoints"))
    assert assert_same_as_read(entry, flags_known) == boxes_fit


@given(entry=damaged_entries(), flags_known=st.booleans())
@example(entry=[], flags_known=True)
@example(entry={"filename": "a", "annotations": "FiducialPoints"}, flags_known=True)
def test_damaged_entries_are_read_the_same_or_left_to_the_whole_reader(entry, flags_known):
    assert_same_as_read(entry, flags_known)


def plain_entry(**changes):
    face = {"class": "FiducialPoints"} | {f"P{i}{axis}": i + 0.5 for i in range(1, N + 1) for axis in "xy"}
    return {"filename": "a.png", "annotations": [face | changes]}


@pytest.mark.parametrize(
    "change",
    [
        {"P1x": 3},
        {"P2occluded": False},
        {"P2occluded": 1, "P3occluded": 0},
        {"P2occluded": 1.0, "P1occluded": -0.0},
        {"tool-version": "1.0"},
        {"P2x": 1.0},
    ],
)
def test_common_forms_are_read_quickly(change):
    assert assert_same_as_read(plain_entry(**change), True)


@pytest.mark.parametrize(
    "change", [{"P1x": True}, {"P1x": False}, {"P1x": "3"}, {"P2occluded": 2}, {"p1X": 3}, {"P9x": 1}, {"P1x": None}]
)
def test_other_forms_are_left_to_the_whole_reader(change):
    assert not assert_same_as_read(plain_entry(**change), True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_values_that_no_float32_holds_are_left_to_the_whole_reader(value):
    assert quick_reader(N)(plain_entry(P1x=value), True) is None
