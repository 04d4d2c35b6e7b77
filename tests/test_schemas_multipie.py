import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.faces.capture import CAMERAS, FLASHES, RECORDINGS, Capture
from schemas.multipie import CAMERA_YAW, MultiPieName, parse_name
from schemas.sources import SlothSource, SubjectRule
from tasks.subjects import subject_finder

NAME = "session01/multiview/001/01/05_1/001_01_01_051_07.png"
captures = st.builds(
    lambda subject, recording, camera, flash: Capture(f"{subject:03d}", *recording, camera, flash),
    st.integers(1, 346), st.sampled_from(sorted(RECORDINGS)), st.sampled_from(sorted(CAMERAS)),
    st.sampled_from(sorted(FLASHES)),
)  # fmt: skip


@pytest.mark.parametrize("folder", ["", "session01/multiview/001/01/05_1/", "/data/copied/"])
def test_a_name_in_any_folder(folder):
    found = parse_name(f"{folder}001_01_02_051_07.png")
    assert found == MultiPieName("001", "01", "02", "05_1", "07")
    assert found.conditions == {"session": "01", "camera": "05_1", "illumination": "07"}


@given(captures)
def test_the_renderer_s_names_are_read(capture):
    found = parse_name(capture.file_name)
    assert (found.subject, found.session, found.recording) == (capture.subject, capture.session, capture.recording)
    assert found.illumination == capture.illumination
    assert CAMERA_YAW[found.camera] == capture.yaw


@pytest.mark.parametrize(
    "name",
    ["", "001.png", "01_01_01_051_07.png", "001_01_01_051_07", "x001_01_01_051_07.png", "001_01_01_05_1_07.png"],
)
def test_other_names(name):
    assert parse_name(name) is None


def test_cameras_are_every_15_degrees_and_two_above_have_no_yaw():
    assert sorted(CAMERA_YAW.values()) == list(range(-90, 91, 15))
    above = [parse_name(f"001_01_01_{camera}_07.png").camera for camera in ("081", "191")]
    assert above == ["08_1", "19_1"] and CAMERA_YAW.keys().isdisjoint(above)


def test_a_source_takes_the_subject_from_the_name():
    source = SlothSource(kind="sloth", name="pie", root="pie", name_format="multipie")
    assert subject_finder(source.subject)(NAME, {}) == "multipie/001"
    rule = SubjectRule(dataset="mine", csv="people.csv")
    assert SlothSource(kind="sloth", name="pie", root="pie", name_format="multipie", subject=rule).subject == rule
