import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.label_errors import Kind, changes, folds, rank_label_errors, surprise
from schemas.layouts import FACE_SIZES, layout
from tests.rendered_shapes import blobs_of_flags, rendered_shapes

NUMBER = 120
UNKNOWN = np.full((NUMBER, 68), -1, np.int8)


def faces(num_keypoints=68):
    points, subjects = rendered_shapes(NUMBER)
    return points[:, :num_keypoints].copy(), subjects


def first(ranking, face):
    return next((finding for finding in ranking.findings if finding.face == face), None)


@pytest.mark.parametrize("part", ["All", "Eyes", "Eyebrows", "Mouth"])
@pytest.mark.parametrize("num_keypoints", FACE_SIZES)
def test_swapped_sides_are_found_and_named(num_keypoints, part):
    points, subjects = faces(num_keypoints)
    chosen = list(layout(num_keypoints).regions[part])
    points[17, chosen] = points[17, np.array(layout(num_keypoints).flip)[chosen]]
    top = rank_label_errors(points, np.full(points.shape[:2], -1, np.int8), subjects).findings[0]
    assert (top.face, top.kind, top.part, top.point) == (17, Kind.SWAPPED_SIDES, part, None)


@pytest.mark.parametrize(("part", "step"), [("P37-P42", 1), ("P1-P17", 2), ("P49-P60", -1), ("All", 1)])
def test_shifted_order_is_found_and_named(part, step):
    points, subjects = faces()
    first_point, last = (0, 67) if part == "All" else (int(label[1:]) - 1 for label in part.split("-"))
    points[30, first_point : last + 1] = np.roll(points[30, first_point : last + 1], step, axis=0)
    top = rank_label_errors(points, UNKNOWN, subjects).findings[0]
    assert (top.face, top.kind, top.part) == (30, Kind.SHIFTED_ORDER, part)


@pytest.mark.parametrize("point", [8, 30, 39, 57])
def test_a_point_that_is_off_is_found_and_named(point):
    points, subjects = faces()
    points[44, point] += (0.2 * np.linalg.norm(points[44, 36] - points[44, 45]), 0.0)
    top = rank_label_errors(points, UNKNOWN, subjects).findings[0]
    assert (top.face, top.kind, top.part, top.point) == (44, Kind.POINT_OFF, f"P{point + 1}", point)


def test_a_wrong_flag_is_found_and_named():
    points, subjects = faces()
    flags = blobs_of_flags(points)
    flags[20, 27] = 1
    ranking = rank_label_errors(points, flags, subjects)
    found = [finding for finding in ranking.findings if finding.face == 20]
    assert (found[0].kind, found[0].part) == (Kind.WRONG_FLAG, "P28")
    assert all(finding.gain > 0 for finding in ranking.findings), "a flag that the others expect is no error"
    assert not ranking.notes


def test_faces_that_are_all_alike_have_no_wrong_labels():
    points = np.repeat(faces()[0][:1], NUMBER, axis=0)
    assert not rank_label_errors(points, UNKNOWN, [f"s/{number}" for number in range(NUMBER)]).findings


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(angle=st.floats(-3, 3), scale=st.floats(0.1, 50), shift=st.floats(-1000, 1000))
def test_turning_moving_and_scaling_images_changes_nothing(angle, scale, shift):
    points, subjects = faces()
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points.copy()
    moved[::3] = moved[::3] @ turn.T + shift
    before, after = (rank_label_errors(some, UNKNOWN, subjects).findings for some in (points, moved))
    assert [(f.face, f.kind, f.part) for f in before] == [(f.face, f.kind, f.part) for f in after]
    np.testing.assert_allclose([f.score for f in after], [f.score for f in before], rtol=1e-4, atol=1e-6)


def test_the_further_a_point_is_off_the_higher_its_face_ranks():
    scores = []
    for share in (0.0, 0.1, 0.2, 0.4):
        points, subjects = faces()
        points[50, 33] += (0.0, share * np.linalg.norm(points[50, 36] - points[50, 45]))
        scores.append(first(rank_label_errors(points, UNKNOWN, subjects), 50).score)
    assert scores == sorted(scores)


def test_a_sound_copy_never_ranks_above_the_broken_one():
    points, subjects = faces()
    doubled = np.concatenate([points, points[:10]])
    for copy in range(NUMBER, NUMBER + 10):
        doubled[copy, 6 * (copy - NUMBER)] += (20.0, -10.0)
    ranking = rank_label_errors(doubled, np.full(doubled.shape[:2], -1, np.int8), [*subjects, *subjects[:10]])
    order = list(dict.fromkeys(finding.face for finding in ranking.findings))
    assert all(order.index(NUMBER + face) < order.index(face) for face in range(10) if face in order)
    assert set(order[:10]) == set(range(NUMBER, NUMBER + 10))


def test_the_order_of_the_faces_does_not_matter():
    points, subjects = faces()
    points[3, 40] += 9.0
    back = rank_label_errors(points[::-1], UNKNOWN, subjects[::-1]).findings[0]
    there = rank_label_errors(points, UNKNOWN, subjects).findings[0]
    assert (NUMBER - 1 - back.face, back.part) == (there.face, there.part) == (3, "P41")


def test_an_unknown_layout_has_points_that_are_off_but_no_sides():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 30, (10, 2)) + rng.normal(0, 0.3, (60, 10, 2))
    points[11, 2] += 8
    ranking = rank_label_errors(points, np.full((60, 10), -1, np.int8), [f"s/{i}" for i in range(60)])
    assert (ranking.findings[0].face, ranking.findings[0].part) == (11, "P3")
    assert {finding.kind for finding in ranking.findings} == {Kind.POINT_OFF}
    assert any("swaps and shifts can't be found" in note for note in ranking.notes)


def test_few_faces_or_points_are_said_to_be_too_few():
    points, subjects = faces()
    assert "30 faces of 15 subjects" in rank_label_errors(points[:30], UNKNOWN[:30], subjects[:30]).notes[0]
    of_four = [f"s/{face % 4}" for face in range(NUMBER)]
    assert "120 faces of 4 subjects" in rank_label_errors(points, UNKNOWN, of_four).notes[0]
    assert rank_label_errors(points[:40], UNKNOWN[:40], subjects[:40]).findings
    ranking = rank_label_errors(points[:, :3], UNKNOWN[:, :3], subjects)
    assert not ranking.findings and "with 3 keypoints" in ranking.notes[0]


def test_a_subject_is_in_one_fold_and_folds_are_even():
    names = [f"d/{number // 3}" for number in range(300)]
    fold = folds(names)
    assert all(len(set(fold[start : start + 3])) == 1 for start in range(0, 300, 3))
    np.testing.assert_array_equal(np.bincount(fold), [60] * 5)


@pytest.mark.parametrize("num_keypoints", FACE_SIZES)
def test_every_change_is_a_permutation_that_moves_something(num_keypoints):
    same = np.arange(num_keypoints)
    orders = [tuple(change.order_N) for change in changes(num_keypoints)]
    assert all(sorted(order) == same.tolist() and order != tuple(same) for order in orders)
    assert len({change.part for change in changes(num_keypoints)}) > 15


def test_surprise_is_the_chance_of_an_exponential_tail():
    draws = np.random.default_rng(0).exponential(3.0, 200_000)
    for threshold in (5.0, 15.0):
        chance = (draws > threshold).mean()
        assert surprise(np.append(draws, threshold))[-1] == pytest.approx(-np.log(chance), abs=0.15)


def test_where_all_are_alike_a_hair_s_breadth_is_no_surprise():
    assert surprise(np.append(np.zeros(99), 0.01))[-1] < 1
