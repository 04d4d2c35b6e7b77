import numpy as np
import pytest

from model.slices import all_slices, occlusion_slices, yaw_slices
from schemas.records import Flag


def members(slices):
    return {part.name: np.flatnonzero(part.faces_F).tolist() for part in slices}


def test_yaw_bins_hold_each_face_once_and_the_most_turned_fifth_stands_beside_them():
    yaw = np.array([0.0, -14.9, 15.0, -29, 31, 44, -46, 59, 60, -90])
    found = members(yaw_slices(yaw))
    assert found == {
        "0° to 15°": [0, 1],
        "15° to 30°": [2, 3],
        "30° to 45°": [4, 5],
        "45° to 60°": [6, 7],
        "over 60°": [8, 9],
        "most turned fifth": [8, 9],
    }


def test_bins_without_faces_are_left_out():
    assert list(members(yaw_slices(np.array([1.0, 2.0])))) == ["0° to 15°", "most turned fifth"], (
        "a name that rules can say"
    )


def test_occlusion_bins_take_faces_whose_flags_are_all_known():
    flags = np.zeros((7, 10), np.int8)
    for face, occluded in enumerate((0, 1, 2, 3, 6, 7)):
        flags[face, :occluded] = Flag.OCCLUDED
    flags[6, 0], flags[6, 1:3] = Flag.UNKNOWN, Flag.OCCLUDED
    assert members(occlusion_slices(flags)) == {
        "none": [0],
        "up to 10 %": [1],
        "over 10 % to 30 %": [2, 3],
        "over 30 % to 60 %": [4],
        "over 60 %": [5],
    }
    assert occlusion_slices(np.full((3, 10), Flag.UNKNOWN)) == []


@pytest.mark.parametrize("num_keypoints", [5, 68])
def test_dimensions_that_tell_nothing_are_left_out(num_keypoints):
    points = np.random.default_rng(0).uniform(0, 80, (4, num_keypoints, 2))
    unknown = np.full((4, num_keypoints), Flag.UNKNOWN)
    subjects = ["a/1", "a/1", "a/2", "a/3"]
    alone = all_slices(points, unknown, subjects, ["one"] * 4)
    assert list(alone) == (["yaw"] if num_keypoints == 68 else [])
    mixed = all_slices(points, unknown, ["a/1", "b/1", "a/2", "a/1"], ["x", "x", "", "y"])
    assert members(mixed["set"]) == {"unknown": [2], "x": [0, 1], "y": [3]}
    assert members(mixed["dataset"]) == {"a": [0, 2, 3], "b": [1]}
    same = all_slices(points, unknown, ["a/1", "b/1", "a/2", "a/1"], ["x", "y", "x", "x"])
    assert "dataset" in same and "set" not in same
    assert "dataset" not in all_slices(points, unknown, ["a/1", "", "b/2", "a/1"], ["x"] * 4)
