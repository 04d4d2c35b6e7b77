"""How far counts have moved: what is no drift must rarely be called one, and what is must be seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.drift import BINS, independent_faces, quantile_edges, shift_of, stability_index

BOUND = 0.1


def hours_of(rng, shares_B, faces, hours=12):
    return rng.multinomial(faces // hours, shares_B, size=hours)


def low(reference_B, counts_HB, **changes):
    settings = {"independent": float(reference_B.sum()), "confidence": 0.99} | changes
    return shift_of(reference_B, counts_HB, **settings).low


@pytest.mark.parametrize("faces", [60, 600, 6000])
def test_false_alarms_are_rare_at_any_number_of_faces(faces):
    rng = np.random.default_rng(3)
    even_B = np.full(BINS, 1 / BINS)
    alarms = sum(low(rng.multinomial(700, even_B), hours_of(rng, even_B, faces)) > BOUND for _ in range(100))
    assert alarms <= 2


def test_the_same_few_people_hour_after_hour_are_no_drift():
    """Each hour shows one person, whose faces fall into two bins: taken for independent, they would alarm."""
    rng = np.random.default_rng(4)
    reference_B, alarms, naive = np.full(BINS, 70), 0, 0
    for _ in range(40):
        shares_HB = rng.dirichlet(np.full(BINS, 0.3), size=8)
        counts_HB = np.stack([rng.multinomial(100, shares_B) for shares_B in shares_HB])
        alarms += low(reference_B, counts_HB) > BOUND
        naive += low(reference_B, counts_HB.sum(axis=0, keepdims=True)) > BOUND
    assert alarms <= 2
    assert naive >= 20


@pytest.mark.parametrize("faces", [300, 3000])
def test_a_shift_is_seen_with_its_direction(faces):
    rng = np.random.default_rng(5)
    lower_B = np.linspace(2, 0.2, BINS)
    counts_HB = hours_of(rng, lower_B / lower_B.sum(), faces)
    shift = shift_of(np.full(BINS, 70), counts_HB, independent=700.0, confidence=0.99)
    expected = float(stability_index(np.full(BINS, 1 / BINS), lower_B / lower_B.sum()))
    assert BOUND < shift.low < expected
    assert shift.index == pytest.approx(expected, rel=0.35)
    assert shift.direction == -1


def test_a_difference_that_is_too_small_to_matter_is_none_however_many_faces():
    rng = np.random.default_rng(6)
    shares_B = np.full(BINS, 0.1) + np.linspace(-0.01, 0.01, BINS)
    assert low(np.full(BINS, 10**6), hours_of(rng, shares_B, 10**6)) < BOUND


@given(st.integers(2, 30), st.integers(1, 9))
def test_hours_that_are_copies_are_worth_all_their_faces(hours, each):
    counts_HB = np.full((hours, BINS), each)
    assert independent_faces(counts_HB) == counts_HB.sum()


def test_hours_that_show_one_bin_each_are_worth_little():
    counts_HB = np.eye(BINS, dtype=int) * 100
    assert independent_faces(counts_HB) == pytest.approx(BINS, rel=0.1)


def test_nothing_but_empty_hours_is_worth_nothing():
    assert independent_faces(np.zeros((3, BINS), int)) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_edges_rise_and_give_at_most_as_many_bins(values):
    edges = quantile_edges(np.array(values))
    assert (np.diff(edges) > 0).all()
    assert 1 <= len(edges) <= BINS - 1
