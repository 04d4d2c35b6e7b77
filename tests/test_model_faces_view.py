from dataclasses import replace

import numpy as np
import pytest

from model.faces.expression import EXPRESSIONS, Expression
from model.faces.features import features_of
from model.faces.identity import Identity, sample_identity
from model.faces.landmarks import chart_points
from model.faces.scene import Light, Pose, Scene, keypoints
from model.faces.view import view
from schemas.layouts import layout

FRAME = 160
EVEN = Light(flash=0.0, room=0.9)
"""No flash, so that darkness is paint, not shadow."""


def seen(scene, *, channels=1):
    return view(scene, frame_width=FRAME, frame_height=FRAME, channels=channels)


def posed(**changes):
    return Pose(**{"centre": (80.0, 76.0), "scale": 5.6} | changes)


def a_scene(seed, **changes):
    rng = np.random.default_rng(seed)
    pose = posed(yaw=float(rng.uniform(-60, 60)), pitch=float(rng.uniform(-6, 6)), roll=float(rng.uniform(-5, 5)))
    act = EXPRESSIONS[list(EXPRESSIONS)[seed % 6]]
    return Scene(sample_identity(rng), act, pose, Light(azimuth=30.0, elevation=20.0), **changes)


def mirrored(scene):
    """The scene whose picture is this one's mirror image."""
    who, pose = scene.identity, scene.pose
    skews = {name: -getattr(who, name) for name in ("parting", "mouth_skew", "brow_skew", "nose_skew")}
    return replace(
        scene,
        identity=replace(who, **skews),
        expression=replace(scene.expression, gaze_x=-scene.expression.gaze_x),
        pose=replace(pose, yaw=-pose.yaw, roll=-pose.roll, centre=(FRAME - 1 - pose.centre[0], pose.centre[1])),
        light=replace(scene.light, azimuth=-scene.light.azimuth),
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_mirror_image_is_the_scene_mirrored(seed):
    scene = a_scene(seed, worn=("mask",) if seed == 5 else ())
    one, other = seen(scene), seen(mirrored(scene))

    for number in (68, 80, 104):
        flip = list(layout(number).flip)
        flipped = one.points_N2[:number][flip] * (-1, 1) + (FRAME - 1, 0)
        assert np.allclose(other.points_N2[:number], flipped, atol=1e-9)
        assert (other.occluded_N[:number] == one.occluded_N[:number][flip]).all()
    difference = np.abs(other.light_HWC - one.light_HWC[:, ::-1])
    assert difference.mean() < 0.01 and (difference > 0.1).mean() < 0.001


def test_in_profile_the_far_side_is_hidden_and_the_near_side_is_not():
    far_left = [36, 37, 41, 68, 69, 71, 76, 77, *range(5), 17, 18]
    near_right = [45, 46, 78, 79, *range(12, 17), 25, 26, 54]

    right = seen(Scene(pose=posed(yaw=-80.0))).occluded_N
    left = seen(Scene(pose=posed(yaw=80.0))).occluded_N

    # Turned to the image's left, the face hides what a frontal view has on the left.
    assert right[far_left].all() and not right[near_right].any()
    flip = list(layout(104).flip)
    assert left[[flip.index(i) for i in far_left]].all()
    assert not left[[flip.index(i) for i in near_right]].any()


def test_nothing_but_lids_hides_a_frontal_face():
    view_ = seen(Scene(pose=posed()))
    ears = [76, 77, 78, 79]
    assert not np.delete(view_.occluded_N, ears).any()


def test_points_turn_with_the_head():
    frontal, turned_ = (keypoints(Scene(pose=posed(yaw=yaw))) for yaw in (0.0, 30.0))
    nose, chin = 30, 8
    assert turned_[nose, 0] - frontal[nose, 0] > 15
    assert turned_[chin, 0] - frontal[chin, 0] > 10
    up, clockwise = keypoints(Scene(pose=posed(pitch=10.0))), keypoints(Scene(pose=posed(roll=10.0)))
    assert up[nose, 1] < frontal[nose, 1] - 3
    assert clockwise[45, 1] > clockwise[36, 1] + 3


@pytest.mark.parametrize(
    ("worn", "hidden", "free"),
    [
        ("mask", [*range(30, 36), *range(48, 68), 8], [*range(17, 27), *range(36, 48)]),
        ("sunglasses", [*range(36, 48), *range(68, 76), 102, 103], [*range(48, 68), 8, 30]),
    ],
)
@pytest.mark.parametrize("yaw", [-20.0, 0.0, 20.0])
def test_what_is_worn_hides_what_is_behind_it(worn, hidden, free, yaw):
    bare = seen(Scene(pose=posed(yaw=yaw))).occluded_N
    dressed = seen(Scene(pose=posed(yaw=yaw), worn=(worn,))).occluded_N
    inner_corner_beside_the_lens = {"sunglasses": {-20.0: [39], 20.0: [42]}}.get(worn, {}).get(yaw, [])
    assert dressed[[i for i in hidden if i not in inner_corner_beside_the_lens]].all()
    assert (dressed[free] == bare[free]).all()


def test_spectacles_hide_nothing_and_long_hair_hides_the_near_ear():
    bare, glasses, hair = (
        seen(Scene(identity=who, pose=posed(yaw=45.0)))
        for who in (Identity(), Identity(glasses=True), Identity(long_hair=True))
    )
    assert (bare.occluded_N == glasses.occluded_N).all()
    assert np.abs(bare.light_HWC - glasses.light_HWC).max() > 0.1
    assert not bare.occluded_N[[76, 77]].any()
    assert hair.occluded_N[[76, 77]].all()


@pytest.mark.parametrize("gaze", [-0.25, 0.0, 0.25])
@pytest.mark.parametrize("yaw", [-25.0, 0.0, 25.0])
def test_pupil_points_surround_the_middle_of_the_iris_as_drawn(gaze, yaw):
    act = Expression(eyes_open=0.6, lower_lid_raise=-0.2, gaze_x=gaze)
    pale, dark = (
        seen(Scene(Identity(iris=colour), act, posed(yaw=yaw, scale=6.8), EVEN)).light_HWC[..., 0]
        for colour in ((0.9, 0.9, 0.9), (0.01, 0.01, 0.01))
    )
    iris, picture = pale - dark, seen(Scene(Identity(), act, posed(yaw=yaw, scale=6.8), EVEN))
    x, y = np.meshgrid(np.arange(FRAME), np.arange(FRAME))
    middle = picture.points_N2[[102, 103], 0].mean()
    for eye, pupil, centre in ((x < middle, slice(68, 72), 102), (x > middle, slice(72, 76), 103)):
        weight = iris * eye
        drawn = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        # The half of the iris that is turned away is narrower, so its centre of area is not its middle.
        assert (np.abs(picture.points_N2[pupil].mean(0) - drawn) < (0.6, 0.2)).all()
        assert (np.abs(picture.points_N2[centre] - drawn) < (0.6, 0.2)).all()
        left, top, right, bottom = picture.points_N2[pupil]
        assert left[0] < drawn[0] < right[0] and top[1] < drawn[1] < bottom[1]


def test_the_pupil_is_the_darkest_of_the_open_eye():
    picture = seen(Scene(Identity(), Expression(eyes_open=0.6), posed(scale=6.8), EVEN))
    for centre, white in ((102, (36, 39)), (103, (42, 45))):
        pupil = colour_at(picture, picture.points_N2[centre])[0]
        for corner in white:
            between = 0.55 * picture.points_N2[corner] + 0.45 * picture.points_N2[centre]
            assert pupil < 0.4 * colour_at(picture, between)[0]


def colour_at(picture, at):
    x, y = np.round(at).astype(int)
    return picture.light_HWC[y, x]


def test_lip_points_lie_on_the_border_of_the_red():
    picture = seen(Scene(Identity(lip_fullness=1.4), pose=posed(scale=6.8), light=EVEN), channels=3)
    redness = lambda at: (lambda c: c[0] / c[1])(colour_at(picture, at))  # noqa: E731
    for outer, inner in ((50, 61), (51, 62), (52, 63), (56, 65), (57, 66), (58, 67)):
        edge, seam = picture.points_N2[outer], picture.points_N2[inner]
        across = (edge - seam) / np.linalg.norm(edge - seam)
        assert redness(edge - 1.6 * across) > redness(edge + 1.6 * across) + 0.25


def test_brow_points_lie_on_dark_hair():
    picture = seen(Scene(Identity(hair=(0.02, 0.015, 0.01)), pose=posed(scale=6.8), light=EVEN))
    for point in picture.points_N2[18:26]:
        brow = colour_at(picture, point)[0]
        assert brow < 0.6 * colour_at(picture, point - (0, 6))[0]


def test_the_frontal_chin_lies_on_the_edge_of_the_face():
    picture = seen(Scene(pose=posed(), light=Light(azimuth=0.0, elevation=40.0, flash=1.0, room=0.2)))
    for point in picture.points_N2[5:12]:
        outward = (point - picture.points_N2[30]) / np.linalg.norm(point - picture.points_N2[30])
        assert colour_at(picture, point - 3 * outward)[0] > 1.5 * colour_at(picture, point + 3 * outward)[0]


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_points_of_eyes_and_mouth_keep_their_order(name):
    points = chart_points(features_of(Identity(), EXPRESSIONS[name]))
    h = points[:, 1]
    assert (h[49:54] >= h[61:64].min()).all() and (h[55:60] <= h[65:68].max()).all()
    for top, bottom in ((61, 67), (62, 66), (63, 65), (37, 41), (38, 40), (43, 47), (44, 46)):
        assert h[top] > h[bottom]


def test_closing_the_eyes_covers_the_pupils():
    squinting = Expression(eyes_open=-0.95, lower_lid_raise=0.3)
    assert seen(Scene(expression=squinting, pose=posed())).occluded_N[[69, 71, 73, 75]].all()
