from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.curves import BOUNDS, error_curve
from model.region_error import FaceErrors, Unit

BOUND = BOUNDS[Unit.CROP]


def errors_of(means, subjects=None):
    """Faces with these mean errors in crop pixels, spread unevenly over two points."""
    error_BK = np.asarray(means, np.float64)[:, None] * (0.5, 1.5)
    subjects = subjects or tuple(f"s/{i}" for i in range(len(error_BK)))
    return FaceErrors(error_BK, error_BK, np.full_like(error_BK, np.nan), np.zeros_like(error_BK), subjects)


def test_the_curve_counts_faces():
    curve = error_curve(errors_of([0.0, 1.0, 3.0, 5.0]), Unit.CROP)
    x, share = np.array(curve.points).T
    np.testing.assert_allclose(x[[0, 25, 50, 100]], [0, 0.5 * BOUND, BOUND, 2 * BOUND])
    assert share[[0, 25, 50, 100]].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.failure_rate == 0.25
    assert curve.auc == pytest.approx((1 + 0.75 + 0.25 + 0) / 4)


@given(st.lists(st.floats(0, 3 * BOUND), min_size=1, max_size=40))
def test_the_area_is_that_under_the_curve(means):
    curve = error_curve(errors_of(means), Unit.CROP)
    x, share = np.array(curve.points).T
    assert (np.diff(share) >= 0).all() and share[-1] <= 1
    within = x <= BOUND + 1e-9
    assert curve.auc == pytest.approx(np.trapezoid(share[within], x[within]) / BOUND, abs=0.02)
    assert curve.failure_rate == pytest.approx(np.mean(np.array(means) > BOUND))


def test_intervals_hold_the_number_and_need_subjects():
    errors = errors_of(np.random.default_rng(0).gamma(4, 1, 60))
    curve = error_curve(errors, Unit.CROP)
    assert curve.auc_interval.low < curve.auc < curve.auc_interval.high
    assert curve.failure_interval.low < curve.failure_rate < curve.failure_interval.high
    assert error_curve(replace(errors, subjects=("s/1",) * 60), Unit.CROP).auc_interval is None


def test_faces_without_an_inter_ocular_distance_are_not_counted():
    errors = errors_of([1.0, 2.0, 3.0])
    assert error_curve(errors, Unit.INTER_OCULAR) is None
    known = np.full((3, 2), np.nan)
    known[0] = 4.0
    curve = error_curve(replace(errors, inter_ocular_BK=known), Unit.INTER_OCULAR)
    assert (curve.faces, curve.auc, curve.points[-1][1]) == (1, 0.5, 1.0)
