import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from model.flag_agreement import cohen_agreement, disputes, fleiss_agreement


def overall(*faces):
    arrays = [np.array(flags, np.int8) for flags in faces]
    points = range(arrays[0].shape[1])
    return fleiss_agreement(arrays, {"All": list(points)}, [str(i) for i in range(len(arrays))])["All"]


@given(seed=st.integers(0, 2**16), tilt=st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_cohen_s_kappa_is_scikit_learn_s(seed, tilt):
    rng = np.random.default_rng(seed)
    flags_F2K = (rng.random((3, 2, 20)) < tilt).astype(np.int8)
    flags_F2K[rng.random(flags_F2K.shape) < 0.1] = -1
    known_FK = (flags_F2K >= 0).all(axis=1)
    first, second = flags_F2K[:, 0][known_FK], flags_F2K[:, 1][known_FK]
    found = cohen_agreement(flags_F2K, ["x", "y", "z"])
    assert (found.judged, found.disputed) == (len(first), int((first != second).sum()))
    if len({*first, *second}) > 1:
        assert found.kappa.value == pytest.approx(cohen_kappa_score(first, second))
    else:
        assert found.kappa.value is None


@given(seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_fleiss_s_kappa_by_its_definition(seed):
    """N points, n judgements each: the formulas of the paper, written out."""
    flags_AK = np.random.default_rng(seed).integers(0, 2, (4, 30)).astype(np.int8)
    counts_K2 = np.stack([(flags_AK == flag).sum(axis=0) for flag in (0, 1)], axis=1)
    agreeing_K = ((counts_K2**2).sum(axis=1) - 4) / (4 * 3)
    share_2 = counts_K2.sum(axis=0) / (30 * 4)
    chance = (share_2**2).sum()
    expected = (agreeing_K.mean() - chance) / (1 - chance)
    assert overall(flags_AK).kappa.value == pytest.approx(expected)


@pytest.mark.parametrize("flag", [0, 1])
def test_kappa_is_undefined_where_everybody_always_says_the_same(flag):
    same = np.full((2, 6), flag)
    assert overall(same, same).kappa.value is None
    found = cohen_agreement(np.stack([same, same]).astype(np.int8), ["x", "y"])
    assert (found.judged, found.disputed, found.kappa.value) == (12, 0, None)


def test_kappa_is_nothing_where_one_says_always_the_same_and_the_other_does_not():
    flags_F2K = np.array([[[0, 0, 0, 0], [0, 1, 0, 1]]], np.int8)
    assert cohen_agreement(flags_F2K, ["x"]).kappa.value == pytest.approx(0.0)


def test_kappa_is_negative_where_they_contradict_each_other():
    assert overall([[0, 1, 0, 1], [1, 0, 1, 0]]).kappa.value == pytest.approx(-1.0)


def test_unknown_flags_are_no_judgement():
    judged_K, disputed_K = disputes(np.array([[0, 0, -1, 1], [0, 1, 1, -1], [-1, -1, -1, 1]], np.int8))
    assert judged_K.tolist() == [True, True, False, True]
    assert disputed_K.tolist() == [False, True, False, False]
    with_unknown = overall([[0, 1, 1, -1], [0, 1, 0, 1]])
    assert with_unknown == overall([[0, 1, 1], [0, 1, 0]])


def test_faces_may_have_different_numbers_of_annotators():
    found = overall([[0, 1], [0, 1]], [[0, 1], [0, 1], [1, 1]])
    assert (found.judged, found.disputed) == (4, 1)
    assert found.disputed_share == 0.25
    assert 0 < found.kappa.value < 1


def test_the_interval_holds_the_value():
    rng = np.random.default_rng(5)
    faces = []
    for _ in range(12):
        flags_K = (rng.random(40) < 0.3).astype(np.int8)
        faces.append(np.stack([flags_K, np.where(rng.random(40) < 0.1, 1 - flags_K, flags_K)]))
    kappa = overall(*faces).kappa
    assert kappa.low < kappa.value < kappa.high
