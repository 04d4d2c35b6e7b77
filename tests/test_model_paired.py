"""Challenger against champion: differences face by face, and how sure they are."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.paired import Outcome, Row, compare, hold_against_bounds, overall
from model.region_error import FaceErrors, Points, Unit, face_errors, intervals, region_errors
from model.slices import Slice
from schemas.promotion_rules import DIMENSIONS, Allowances, Bootstrap, PromotionRules

RULES = PromotionRules(
    minimum_subjects=4,
    bootstrap=Bootstrap(draws=200),
    allowance_crop_px=Allowances(regions={"All": 0.1, "Eyes": 0.1}, slices={"yaw": 0.2}),
    bounds_crop_px={"All": 3.0},
)


def errors_of(crop_px_BK, subjects) -> FaceErrors:
    crop_px_BK = np.asarray(crop_px_BK, np.float64)
    return FaceErrors(crop_px_BK, crop_px_BK, crop_px_BK, np.zeros(crop_px_BK.shape, np.int8), tuple(subjects))


def some_errors(faces: int = 24, subjects: int = 8, *, keypoints: int = 68, seed: int = 0) -> FaceErrors:
    random = np.random.default_rng(seed)
    names = [f"made-up/{i % subjects:03d}" for i in range(faces)]
    return errors_of(random.gamma(4.0, 0.5, (faces, keypoints)), names)


def row_of(rows, name) -> Row:
    (found,) = [row for row in rows if row.name == name]
    return found


faces_and_people = st.integers(4, 12).flatmap(
    lambda faces: st.tuples(
        arrays(np.float64, (faces, 5), elements=st.floats(0, 50)),
        arrays(np.float64, (faces, 5), elements=st.floats(0, 50)),
        st.lists(st.sampled_from("abcdef"), min_size=faces, max_size=faces),
    )
)


@settings(max_examples=25)
@given(faces_and_people)
def test_a_model_against_itself_differs_by_nothing(drawn):
    error_BK, _, subjects = drawn
    own = errors_of(error_BK, subjects)
    (row,) = compare(own, own, {}, RULES)
    assert row.difference_px == 0.0
    assert {row.low_px, row.high_px} <= {0.0, None}
    assert row.outcome is (Outcome.PASSED if len(set(subjects)) >= 4 else Outcome.INCONCLUSIVE)


@settings(max_examples=25)
@given(faces_and_people, st.floats(0.01, 5.0))
def test_what_is_better_by_a_constant_passes_and_what_is_worse_by_more_than_allowed_fails(drawn, by_px):
    error_BK, _, _ = drawn
    subjects = [f"{i}" for i in range(len(error_BK))]
    own, better = errors_of(error_BK + by_px, subjects), errors_of(error_BK, subjects)
    (row,) = compare(better, own, {}, RULES)
    assert row.outcome is Outcome.PASSED
    assert row.difference_px == pytest.approx(-by_px, abs=1e-9)
    assert (row.low_px, row.high_px) == pytest.approx((-by_px, -by_px), abs=1e-5), "every face gains the same"
    (row,) = compare(errors_of(error_BK + by_px + 0.2, subjects), own, {}, RULES)
    assert row.outcome is Outcome.FAILED


@settings(max_examples=25)
@given(faces_and_people, st.randoms())
def test_the_order_of_faces_does_not_matter(drawn, random):
    challenger_BK, champion_BK, subjects = drawn
    order = list(range(len(subjects)))
    random.shuffle(order)
    (row,) = compare(errors_of(challenger_BK, subjects), errors_of(champion_BK, subjects), {}, RULES)
    moved = [subjects[i] for i in order]
    (other,) = compare(errors_of(challenger_BK[order], moved), errors_of(champion_BK[order], moved), {}, RULES)
    for name in ("difference_px", "low_px", "high_px"):
        assert getattr(other, name) == pytest.approx(getattr(row, name), abs=1e-9)


@settings(max_examples=25)
@given(faces_and_people)
def test_challenger_and_champion_changed_over_changes_the_sign(drawn):
    challenger_BK, champion_BK, subjects = drawn
    one, two = errors_of(challenger_BK, subjects), errors_of(champion_BK, subjects)
    (there,), (back,) = compare(one, two, {}, RULES), compare(two, one, {}, RULES)
    assert there.difference_px == -back.difference_px
    if there.low_px is not None:
        assert (there.low_px, there.high_px) == pytest.approx((-back.high_px, -back.low_px), abs=1e-9)


def test_the_numbers_are_the_evaluations():
    challenger, champion = some_errors(seed=1), some_errors(seed=2)
    rows = compare(challenger, champion, {}, RULES)
    own, other = (region_errors(errors, Unit.CROP, Points.ALL) for errors in (challenger, champion))
    assert [row.name for row in rows] == list(own)
    for row in rows:
        assert row.challenger_px == pytest.approx(own[row.name], rel=1e-12)
        assert row.champion_px == pytest.approx(other[row.name], rel=1e-12)
        assert row.difference_px == pytest.approx(own[row.name] - other[row.name], abs=1e-12)
        assert (row.faces, row.subjects) == (24, 8)


def test_without_a_champion_the_interval_is_near_the_evaluations_own():
    challenger = some_errors(200, 40)
    row = hold_against_bounds(challenger, RULES.model_copy(update={"bootstrap": Bootstrap()}))[0]
    told = intervals(challenger)[Unit.CROP, Points.ALL]["All"]
    assert (row.low_px, row.high_px) == pytest.approx((told.low, told.high), abs=0.1 * (told.high - told.low))


def test_what_is_no_worse_at_all_passes_where_nothing_is_allowed():
    strict = RULES.model_copy(update={"allowance_crop_px": Allowances(regions={"All": 0.0})})
    assert compare(some_errors(), some_errors(), {}, strict)[0].outcome is Outcome.PASSED


def test_too_few_subjects_are_inconclusive_however_good_the_challenger_is():
    challenger = some_errors(30, 3)
    champion = replace(challenger, crop_px_BK=challenger.crop_px_BK + 5)
    row = compare(challenger, champion, {}, RULES)[0]
    assert (row.outcome, row.subjects) == (Outcome.INCONCLUSIVE, 3)
    assert row.high_px == pytest.approx(-5), "what was measured is shown"


def test_faces_of_unknown_subjects_are_inconclusive():
    challenger = replace(some_errors(8, 8), subjects=("", *(f"{i}" for i in range(7))))
    row = compare(challenger, challenger, {}, RULES)[0]
    assert (row.outcome, row.high_px, row.subjects) == (Outcome.INCONCLUSIVE, None, 7)


def test_one_failure_outweighs_what_is_inconclusive():
    row = hold_against_bounds(some_errors(), RULES)[0]
    found = [replace(row, outcome=outcome) for outcome in Outcome]
    assert overall(found) is overall(found[::-1]) is Outcome.FAILED


def test_a_region_without_an_allowance_is_shown_and_decides_nothing():
    champion = some_errors()
    nose = np.zeros(68)
    nose[27:36] = 9.0
    challenger = replace(champion, crop_px_BK=champion.crop_px_BK + nose)
    generous = RULES.model_copy(update={"allowance_crop_px": Allowances(regions={"All": 5.0})})
    rows = compare(challenger, champion, {}, generous)
    assert row_of(rows, "Nose").outcome is Outcome.SHOWN
    assert row_of(rows, "Nose").difference_px == pytest.approx(9.0)
    assert overall(rows) is Outcome.PASSED


def test_a_slice_that_got_worse_fails_although_the_whole_got_better():
    champion = some_errors()
    turned_B = np.arange(24) < 8
    worse = np.where(turned_B, 1.0, -2.0)[:, None]
    challenger = replace(champion, crop_px_BK=champion.crop_px_BK + worse)
    slices = {"yaw": [Slice("over 60°", turned_B), Slice("0° to 15°", ~turned_B)]}
    rows = compare(challenger, champion, slices, RULES)
    assert row_of(rows, "All").outcome is Outcome.PASSED
    bad = row_of(rows, "over 60°")
    assert (bad.dimension, bad.faces, bad.subjects, bad.outcome) == ("yaw", 8, 8, Outcome.FAILED)
    assert bad.title == "yaw over 60°"
    assert row_of(rows, "0° to 15°").outcome is Outcome.PASSED
    assert overall(rows) is Outcome.FAILED


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.INCONCLUSIVE),
        ({"small_slices": {"occlusion": "show"}}, Outcome.INCONCLUSIVE),
        ({"small_slices": {"yaw": "show"}}, Outcome.TOO_FEW),
        ({"small_slices": {"yaw": "show"}, "minimum_subjects": 3}, Outcome.FAILED),
        (
            {
                "small_slices": {"yaw": "show"},
                "allowance_crop_px": Allowances(regions={"All": 0.1}, named={"yaw/over 60°": 0.2}),
            },
            Outcome.INCONCLUSIVE,
        ),
    ],
)
def test_a_small_slice_blocks_unless_the_rules_say_of_its_kind_that_it_is_shown(changes, outcome):
    champion, turned_B = some_errors(), np.arange(24) % 8 < 3
    challenger = replace(champion, crop_px_BK=champion.crop_px_BK + np.where(turned_B, 0.5, -5.0)[:, None])
    slices = {"yaw": [Slice("over 60°", turned_B)]}
    rows = compare(challenger, champion, slices, RULES.model_copy(update=changes))
    small = row_of(rows, "over 60°")
    assert (small.outcome, small.subjects) == (outcome, 3)
    assert small.difference_px == pytest.approx(0.5), "what was measured is shown"
    assert overall(rows) is (Outcome.PASSED if outcome is Outcome.TOO_FEW else outcome)


def test_a_set_of_too_few_subjects_blocks_whatever_is_said_of_slices():
    own, rules = some_errors(30, 3), RULES.model_copy(update={"small_slices": dict.fromkeys(DIMENSIONS, "show")})
    assert overall(compare(own, own, {}, rules)) is Outcome.INCONCLUSIVE


def test_a_slice_gated_by_name_that_holds_no_face_is_inconclusive():
    named = {"yaw/over 60°": 0.3, "set/elsewhere": None}
    allowances = Allowances(regions={"All": 0.1}, named=named)
    own = some_errors()
    rows = compare(own, own, {}, RULES.model_copy(update={"allowance_crop_px": allowances}))
    missing = row_of(rows, "over 60°")
    assert (missing.faces, missing.outcome) == (0, Outcome.INCONCLUSIVE)
    assert "elsewhere" not in [row.name for row in rows]
    assert overall(rows) is Outcome.INCONCLUSIVE


def test_absolute_bounds_hold_the_upper_end_of_the_error():
    good, bad = some_errors(), some_errors()
    bad = replace(bad, crop_px_BK=bad.crop_px_BK + 1.0)
    rows = hold_against_bounds(good, RULES)
    assert (rows[0].outcome, rows[0].champion_px, rows[0].difference_px) == (Outcome.PASSED, None, None)
    assert rows[0].low_px < rows[0].challenger_px < rows[0].high_px < 3.0
    assert {row.outcome for row in rows[1:]} == {Outcome.SHOWN}
    failed = hold_against_bounds(bad, RULES)[0]
    assert failed.challenger_px < failed.high_px and failed.outcome is Outcome.FAILED


def test_other_faces_are_no_pairs():
    with pytest.raises(ValueError, match="same faces"):
        compare(some_errors(), some_errors(subjects=7), {}, RULES)
    with pytest.raises(ValueError, match="same faces"):
        compare(some_errors(), some_errors(keypoints=80), {}, RULES)


def test_a_crop_of_the_right_size_pairs_source_pixels_of_any_crop():
    """Errors in crop pixels are of the true points' square, whatever the network saw."""
    random = np.random.default_rng(0)
    true_BK2 = random.uniform(100, 300, (12, 68, 2))
    flags_BK, subjects = np.zeros((12, 68)), [f"{i}" for i in range(12)]
    one, two = (face_errors(true_BK2, true_BK2 + shift, flags_BK, subjects) for shift in (1.0, 2.0))
    row = compare(two, one, {}, RULES)[0]
    assert row.difference_px == pytest.approx(row.champion_px)


def test_the_rules_decide_draws_seed_and_confidence():
    own = some_errors(60, 20)

    def row(**settings) -> Row:
        return hold_against_bounds(own, RULES.model_copy(update={"bootstrap": Bootstrap(**settings)}))[0]

    narrow, wide = (row(confidence=confidence) for confidence in (0.5, 0.99))
    assert wide.low_px < narrow.low_px < narrow.high_px < wide.high_px
    assert row() == row() and row(seed=1) != row() != row(draws=200)
