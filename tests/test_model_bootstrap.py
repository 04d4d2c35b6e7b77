"""Intervals by bootstrap over subjects."""

import numpy as np
import pytest

from model.bootstrap import Estimate, estimates_of, intervals_of, ratio


def mean(sums_DX):
    """Of values in the first column, counted by the last."""
    return sums_DX[:, :-1] / sums_DX[:, -1:]


def counted(values_B):
    return np.column_stack([values_B, np.ones(len(values_B))])


def test_the_upper_end_covers_the_truth_as_often_as_it_says():
    """Simulated people, each with a difference of their own, 1 to 8 faces: the upper end of a two-sided 95 %
    interval should lie below the truth in 2.5 % of the samples; out of 20 subjects it does in about 4 %. Binomially,
    300 samples tell 4 % from less than 1.5 and more than 8 %."""
    random, samples, missed = np.random.default_rng(7), 300, 0
    for _ in range(samples):
        faces_S = random.integers(1, 9, 20)
        values_B = np.repeat(random.normal(0.0, 0.3, 20), faces_S) + random.normal(0.0, 0.5, faces_S.sum())
        names = np.repeat([f"{i:02d}" for i in range(20)], faces_S)
        (interval,) = intervals_of(names.tolist(), counted(values_B), mean, draws=300)
        missed += interval.high < 0.0
    assert 0.015 < missed / samples < 0.08


def test_faces_of_one_subject_are_drawn_together():
    """Four people, each with as many equal faces as you like: the interval is that of four numbers."""
    few = intervals_of(list("abcd"), counted(np.array([1.0, 2.0, 3.0, 6.0])), mean)
    many = intervals_of(list("abcd") * 50, counted(np.array([1.0, 2.0, 3.0, 6.0] * 50)), mean)
    assert few == many and 1.0 <= few[0].low < 2.0 and 4.0 < few[0].high <= 6.0


def test_without_two_known_subjects_there_is_a_value_and_no_interval():
    for subjects in (["a", "a"], ["a", ""]):
        (estimate,) = estimates_of(subjects, counted(np.array([1.0, 2.0])), mean)
        assert (estimate.value, estimate.low, estimate.high) == (1.5, None, None)


def test_a_statistic_that_some_draws_lack_has_the_interval_of_the_others():
    """Only one person has a point of the kind: draws without them have no mean."""
    values_BX = np.array([[3.0, 1.0], [0.0, 0.0]])

    def of_kind(sums_DX):
        return ratio(sums_DX[:, :1], sums_DX[:, 1:])

    (estimate,) = estimates_of(["a", "b"], values_BX, of_kind)
    assert (estimate.value, estimate.low, estimate.high) == (3.0, 3.0, 3.0)
    assert estimates_of(["a", "b"], 0 * values_BX, of_kind) == [Estimate(None)]


def test_an_interval_is_of_as_many_draws_as_were_asked_for():
    drawn = []

    def noted(sums_DX):
        drawn.extend(mean(sums_DX)[:, 0])
        return mean(sums_DX)

    (interval,) = intervals_of(list("abcdefg"), counted(np.arange(7.0) ** 2), noted, draws=41)
    assert len(drawn) == 41
    assert (interval.low, interval.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), rel=1e-12)
