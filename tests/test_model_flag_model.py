import numpy as np

from model.flag_model import flag_doubts
from schemas.records import Flag
from tests.rendered_shapes import blobs_of_flags, rendered_shapes

FOLD = np.arange(160) // 2 % 5


def some_flags():
    return blobs_of_flags(rendered_shapes(160)[0][:, :68])


def test_a_flag_that_differs_from_all_around_it_is_doubted_most():
    flags = some_flags()
    hidden_face = int(np.argmax(flags.sum(axis=1)))
    middle = np.flatnonzero(flags[hidden_face])
    point = int(middle[len(middle) // 2])
    flags[hidden_face, point] = Flag.VISIBLE
    flags[0, 30] = Flag.OCCLUDED  # nothing else of this face is hidden
    doubts = flag_doubts(flags, FOLD)
    assert doubts[0].argmax() == 30
    assert doubts[0, 30] > np.quantile(doubts, 0.995)
    assert doubts[hidden_face, point] > 0


def test_turning_a_flag_round_turns_its_doubt_round():
    flags = some_flags()
    other = flags.copy()
    other[7, 12] = 1 - other[7, 12]
    before, after = flag_doubts(flags, FOLD), flag_doubts(other, FOLD)
    assert after[7, 12] == -before[7, 12]


def test_unknown_flags_are_neither_judged_nor_evidence():
    flags = some_flags()
    flags[:, 5] = Flag.UNKNOWN
    doubts = flag_doubts(flags, FOLD)
    assert np.isneginf(doubts[:, 5]).all()
    assert np.isfinite(np.delete(doubts, 5, axis=1)).all()
    assert np.isneginf(flag_doubts(np.full_like(flags, Flag.UNKNOWN), FOLD)).all()


def test_where_nothing_is_hidden_nothing_is_doubted():
    assert (flag_doubts(np.zeros((50, 6), np.int8), np.arange(50) % 5) < 0).all()
