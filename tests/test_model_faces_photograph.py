import numpy as np
import pytest

from model.faces.photograph import OCCLUDERS, occlude, photograph
from model.faces.scene import Pose, Scene
from model.faces.view import view


@pytest.fixture(scope="module")
def seen():
    return view(Scene(pose=Pose(yaw=15.0)), frame_width=192, frame_height=192)


@pytest.mark.parametrize("occluder", OCCLUDERS)
def test_exactly_the_keypoints_under_an_occluder_are_flagged(seen, occluder):
    hidden_in_all = 0
    for seed in range(8):
        light = np.full((192, 192, 1), 0.5, np.float32)
        hidden = occlude(light, seen, occluder, np.float32([0.0]), np.random.default_rng(seed))

        # A black occluder on even gray: what is darker than half-way is covered.
        x, y = np.round(seen.points_N2).astype(int).T
        assert (hidden == (light[y, x, 0] < 0.25)).all()
        assert 0.001 < (light < 0.25).mean() < 0.5
        hidden_in_all += hidden.sum()
    assert hidden_in_all > 5


def test_a_photograph_flags_what_geometry_or_an_occluder_hides(seen):
    plain, covered = (
        photograph(seen, occluder=occluder, colour=(0.4, 0.3, 0.2), rng=np.random.default_rng(3))
        for occluder in (None, "box")
    )
    assert (plain.occluded_N == seen.occluded_N).all()
    assert (covered.occluded_N >= seen.occluded_N).all()
    assert covered.occluded_N.sum() > seen.occluded_N.sum()
    assert plain.image.shape == (192, 192) and plain.image.dtype == np.uint8
    assert plain.image.std() > 10


def test_colour_photographs_are_bgr():
    scene = Scene(pose=Pose(yaw=15.0))
    seen = view(scene, frame_width=192, frame_height=192, channels=3)
    image = photograph(seen, occluder=None, colour=(0, 0, 0), rng=np.random.default_rng(3)).image
    x, y = np.round(seen.points_N2[30] + (0, -4)).astype(int)
    blue, _, red = image[y, x].astype(int)
    assert red > blue + 20


def test_an_unknown_occluder_is_named(seen):
    with pytest.raises(ValueError, match=r"unknown occluder 'umbrella'.*hand"):
        occlude(np.zeros((192, 192, 1), np.float32), seen, "umbrella", np.float32([0.0]), np.random.default_rng(0))
