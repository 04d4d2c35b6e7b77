import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.faces.capture import CAMERAS, FLASHES, RECORDINGS, Capture, sample_captures
from model.faces.expression import EXPRESSIONS
from model.faces.scene import keypoints
from model.faces.sitting import FRAME_SIZE, Sitting
from schemas.geometry import tight_square

captures = st.builds(
    lambda recording, camera, flash: Capture("079", *recording, camera, flash),
    st.sampled_from(sorted(RECORDINGS)),
    st.sampled_from(sorted(CAMERAS)),
    st.sampled_from(sorted(FLASHES)),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31), captures)
def test_the_square_of_every_layout_is_inside_the_frame(seed, capture):
    points = keypoints(Sitting("079", seed).scene(capture))
    for number in (68, 80, 104):
        assert tight_square(points[:number]).inside(FRAME_SIZE, FRAME_SIZE)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), captures)
def test_the_face_fills_a_third_to_three_quarters_of_the_frame(seed, capture):
    side = tight_square(keypoints(Sitting("079", seed).scene(capture))).width
    assert FRAME_SIZE / 3 <= side <= FRAME_SIZE * 3 / 4


def test_cameras_and_flashes_are_the_protocol():
    assert sorted(CAMERAS.values()) == list(range(-90, 91, 15))
    assert sorted(FLASHES) == [f"{k:02d}" for k in range(19)]
    assert set(RECORDINGS.values()) == set(EXPRESSIONS)
    assert Capture("079", "01", "01", "051", "07").file_name == "079_01_01_051_07.png"
    assert Capture("079", "01", "01", "051", "07").yaw == 0


def test_most_captures_are_near_the_front_and_profiles_exist():
    drawn = [c for k in range(40) for c in sample_captures("001", 30, np.random.default_rng(k))]
    turned = np.abs([c.yaw for c in drawn])
    assert 0.7 < (turned <= 45).mean() < 0.95
    assert (turned == 90).any() and {c.expression for c in drawn} == set(EXPRESSIONS)


def test_captures_do_not_repeat_and_have_a_limit():
    drawn = sample_captures("001", 200, np.random.default_rng(0))
    assert len(set(drawn)) == 200 and drawn == sorted(drawn)
    with pytest.raises(ValueError, match="1 to 2717, not 2718"):
        sample_captures("001", 2718, np.random.default_rng(0))


def test_a_subject_keeps_its_face_and_a_recording_its_expression():
    one, again, other, reseeded = Sitting("079", 1), Sitting("079", 1), Sitting("080", 1), Sitting("079", 2)
    assert one.identity == again.identity
    assert one.identity != other.identity != reseeded.identity != one.identity
    scenes = [one.scene(capture) for capture in one.captures(40)]
    assert {scene.identity for scene in scenes} == {one.identity}
    assert len({scene.expression for scene in scenes}) <= len(RECORDINGS)
    assert len({scene.pose for scene in scenes}) == 40


def test_equal_seeds_give_equal_photographs():
    capture = Sitting("079", 5).captures(1)[0]
    first, second = (Sitting("079", 5).photograph(capture, channels=1) for _ in range(2))
    assert (first.image == second.image).all()
    assert (first.points_N2 == second.points_N2).all() and (first.occluded_N == second.occluded_N).all()
