"""How far counts have moved: what is no drift must rarely be called one, and what is must be seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from model.drift import (
    BINS,
    between_subjects,
    independent_faces,
    quantile_edges,
    shift_of,
    shown_by,
    stability_index,
)

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


EDGES = ndtri(np.arange(1, BINS) / BINS)


def faces_of_people(rng, person_F, *, between, moved=0.0):
    """Bins of faces whose signal differs from person to person; `moved` in standard deviations of all faces."""
    means_F = rng.normal(size=person_F.max() + 1)[person_F]
    values_F = np.sqrt(between) * means_F + np.sqrt(1 - between) * rng.normal(size=len(person_F))
    return np.searchsorted(EDGES, values_F + moved)


def counted(rows_F, bins_F):
    counts = np.zeros((rows_F.max() + 1, BINS), int)
    np.add.at(counts, (rows_F, bins_F), 1)
    return counts


def alarms_of(people, hours, *, between, moved=0.0, days=30, each=40):
    """Shares of days with an alarm of a device that the same people use every hour, of a model that was tested on 70
    people: taken for many people, and with their number known."""
    rng = np.random.default_rng(1)
    as_many, as_few = 0, 0
    for _ in range(days):
        subjects_F = np.repeat(np.arange(70), 10)
        reference_SB = counted(subjects_F, faces_of_people(rng, subjects_F, between=between))
        person_F, hour_F = rng.integers(0, people, hours * each), np.repeat(np.arange(hours), each)
        counts_HB = counted(hour_F, faces_of_people(rng, person_F, between=between, moved=moved))
        reference_B = reference_SB.sum(axis=0)
        found = low(reference_B, counts_HB, independent=independent_faces(reference_SB))
        usual = shown_by(
            people,
            reference_B,
            faces=hours * each,
            between=between_subjects(reference_SB),
            confidence=0.99,
        )
        as_many += found > BOUND
        as_few += found > max(BOUND, usual)
    return as_many / days, as_few / days


@pytest.mark.parametrize(
    ("people", "hours", "between", "taken_for_many"),
    [(1, 24, 0.3, 0.3), (1, 24, 0.6, 0.7), (2, 24, 0.6, 0.4), (5, 24, 0.6, 0.1), (1, 6, 0.6, 0.5)],
)
def test_the_same_people_every_hour_alarm_unless_their_number_is_known(people, hours, between, taken_for_many):
    as_many, as_few = alarms_of(people, hours, between=between)
    assert as_many >= taken_for_many
    assert as_few <= 0.05


def test_a_large_shift_of_few_known_people_is_seen():
    assert alarms_of(5, 24, between=0.3, moved=1.5)[1] >= 0.9


@pytest.mark.parametrize("between", [0.0, 0.3, 0.8])
def test_the_share_between_subjects_is_found(between):
    rng = np.random.default_rng(2)
    subjects_F = np.repeat(np.arange(400), rng.integers(1, 12, 400))
    found = between_subjects(counted(subjects_F, faces_of_people(rng, subjects_F, between=between)))
    assert found == pytest.approx(between, abs=0.06)


@pytest.mark.parametrize(
    ("counts_SB", "share"),
    [
        (np.eye(BINS, dtype=int), 1.0),
        (np.zeros((2, BINS), int), 1.0),
        (np.full((1, BINS), 3), 0.0),
        ([[4], [3]], 0.0),
    ],
)
def test_a_share_between_subjects_that_nothing_tells(counts_SB, share):
    assert between_subjects(np.array(counts_SB)) == share


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
