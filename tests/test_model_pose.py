import numpy as np
import pytest

from model.faces.expression import EXPRESSIONS
from model.faces.identity import sample_identity
from model.faces.scene import CAMERA_DISTANCE_CM, Pose, Scene, keypoints
from model.pose import yaw_degrees
from schemas.layouts import layout

FACE_BEFORE_AXIS_CM = 9.0


def rendered(number, seed=0):
    """Keypoints (F, 104, 2) of rendered heads, and their yaw to the line of sight (F,)."""
    rng = np.random.default_rng(seed)
    acts = list(EXPRESSIONS.values())
    points, yaws = [], []
    for i in range(number):
        pose = Pose(yaw=rng.uniform(-75, 75), pitch=rng.uniform(-15, 15), roll=rng.uniform(-20, 20))
        points.append(keypoints(Scene(sample_identity(rng), acts[i % len(acts)], pose)))
        yaws.append(pose.yaw + seen_from_the_side(pose.yaw))
    return np.array(points), np.array(yaws)


def seen_from_the_side(yaw):
    """A turned face stands beside the axis of the camera, which sees it from further round."""
    x, z = FACE_BEFORE_AXIS_CM * np.sin(np.radians(yaw)), FACE_BEFORE_AXIS_CM * np.cos(np.radians(yaw))
    return np.degrees(np.arctan2(x, CAMERA_DISTANCE_CM - z))


def test_rendered_heads_are_turned_as_they_were_told():
    points, expected = rendered(200)
    wrong = np.abs(yaw_degrees(points[:, :68]) - expected)
    assert wrong.mean() < 2.2
    assert np.quantile(wrong, 0.9) < 7
    assert wrong.max() < 15


@pytest.mark.parametrize("num_keypoints", [80, 104])
def test_only_the_first_68_points_count(num_keypoints):
    points, _ = rendered(5)
    np.testing.assert_array_equal(yaw_degrees(points[:, :num_keypoints]), yaw_degrees(points[:, :68]))


def test_neither_scale_nor_place_matter():
    points, _ = rendered(5)
    np.testing.assert_allclose(yaw_degrees(points * 7.5 - 300), yaw_degrees(points), atol=1e-6)


def test_a_mirrored_face_is_turned_the_other_way():
    points, _ = rendered(20)
    mirrored = points[:, list(layout(104).flip)] * (-1, 1)
    np.testing.assert_allclose(yaw_degrees(mirrored), -yaw_degrees(points), atol=1e-6)


def test_towards_the_right_of_the_image_is_positive():
    turned = keypoints(Scene(pose=Pose(yaw=40.0)))
    assert yaw_degrees(turned[None])[0] > 30


def test_a_layout_that_is_no_face_has_no_yaw():
    assert yaw_degrees(np.zeros((3, 5, 2))) is None
