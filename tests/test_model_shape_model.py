import numpy as np
import pytest

from model.shape_model import aligned, complex_shapes, evidence_of, fit_shape_model
from tests.rendered_shapes import rendered_shapes


@pytest.fixture(scope="module")
def shapes():
    return complex_shapes(rendered_shapes(160)[0][:, :68])


def test_aligned_shapes_forget_where_and_how_large_a_face_is(shapes):
    moved = shapes * (3 * np.exp(0.7j)) + (40 - 12j)
    np.testing.assert_allclose(aligned(moved, shapes[0]), aligned(shapes, shapes[0]), atol=1e-12)


def test_a_mirrored_face_is_not_mirrored_back(shapes):
    mirrored = aligned(shapes[:1].conj(), aligned(shapes[:1], shapes[0])[0])
    assert np.abs(mirrored - aligned(shapes[:1], shapes[0])).max() > 0.1


def test_a_point_s_share_is_what_the_distance_falls_by_at_its_best_place(shapes):
    """Against a minimum found by trying: the quadratic form of a moved point, its alignment kept."""
    model = fit_shape_model(shapes)
    share = model.point_shares(shapes[:1])[0, 30]
    rest = aligned(shapes[:1], model.mean_N)[0] - model.mean_N
    offset = np.concatenate([rest.real, rest.imag]) - model.shift_D
    pair = [30, 30 + 68]
    inner = model.precision_DD[np.ix_(pair, pair)]
    best = offset.copy()
    best[pair] -= np.linalg.solve(inner, (model.precision_DD @ offset)[pair])
    before, after = (value @ model.precision_DD @ value for value in (offset, best))
    assert share == pytest.approx(before - after, rel=1e-6)
    assert model.distance(shapes[:1])[0] == pytest.approx(before, rel=1e-6)


def test_wrong_faces_pull_little_at_what_is_likely(shapes):
    wrong = shapes.copy()
    wrong[::20] = wrong[::20, ::-1]
    sound = np.delete(np.arange(len(shapes)), np.arange(0, len(shapes), 20))
    distance = fit_shape_model(wrong).distance(wrong)
    assert distance[::20].min() > 3 * np.quantile(distance[sound], 0.95)


def test_who_is_judged_was_not_learnt_from(shapes):
    """A face that is wrong in the same way three times, under one subject, does not excuse itself."""
    wrong = np.concatenate([shapes[1:], *[shapes[:1] + 0.0] * 3])
    wrong[-3:, 40] += 30 + 30j
    fold = np.arange(len(wrong)) % 5
    fold[-3:] = 0
    together = evidence_of(wrong, fold, []).point_gain_FN[-1, 40]
    fold[-3:] = [0, 1, 2]
    apart = evidence_of(wrong, fold, []).point_gain_FN[-1, 40]
    assert together > apart > 0


def test_one_shape_many_times_is_no_reason_to_fail():
    shapes = np.tile(np.array([0, 1, 1j, 2 + 1j, 3.0]), (10, 1))
    evidence = evidence_of(shapes, np.arange(10) % 2, [np.array([1, 0, 2, 3, 4])])
    np.testing.assert_allclose(evidence.point_gain_FN, 0.0, atol=1e-6)
    assert (evidence.order_gain_FH < 0).all()
