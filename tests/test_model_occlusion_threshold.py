"""Proposed occlusion flags."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model.occlusion_threshold import FEWEST_OCCLUDED, occlusion_thresholds, proposed_flags
from schemas.layouts import layout
from schemas.records import Flag

N = 68
EYES, CHIN = (list(layout(N).regions[name]) for name in ("Eyes", "Chin"))


def faces(count=30):
    """Confident and visible everywhere."""
    return np.full((count, N), 0.8), np.full((count, N), int(Flag.VISIBLE))


def test_the_bound_lies_between_occluded_and_visible_of_each_region():
    confidence, flags = faces()
    flags[:5, EYES] = Flag.OCCLUDED
    confidence[:5, EYES] = 0.2
    thresholds = occlusion_thresholds(confidence, flags)
    np.testing.assert_allclose(thresholds[EYES], 0.5)
    assert np.isnan(np.delete(thresholds, EYES)).all()
    np.testing.assert_array_equal(proposed_flags(confidence, thresholds), flags)


def test_where_a_flag_would_be_wrong_more_often_than_right_none_is_proposed():
    confidence, flags = faces()
    flags[:5, EYES] = Flag.OCCLUDED  # no less confident than the visible ones
    thresholds = occlusion_thresholds(confidence, flags)
    assert np.isnan(thresholds).all()
    assert (proposed_flags(confidence, thresholds) == Flag.VISIBLE).all()


def test_few_examples_and_unknown_flags_give_no_bound():
    confidence, flags = faces()
    flags[0, CHIN] = Flag.OCCLUDED
    confidence[0, CHIN] = 0.1
    assert len(CHIN) < FEWEST_OCCLUDED
    assert np.isnan(occlusion_thresholds(confidence, flags)).all()
    assert np.isnan(occlusion_thresholds(confidence, np.full_like(flags, int(Flag.UNKNOWN)))).all()


@given(
    arrays.arrays(np.float64, (6, 5), elements=st.floats(0, 1)),
    arrays.arrays(np.int8, (6, 5), elements=st.sampled_from([int(flag) for flag in Flag])),
)
def test_proposals_never_cost_more_than_none(confidence, flags):
    confidence, flags = np.tile(confidence, (8, 1)), np.tile(flags, (8, 1))
    known = flags != Flag.UNKNOWN
    proposed = proposed_flags(confidence, occlusion_thresholds(confidence, flags))
    assert (proposed != flags)[known].sum() <= (flags == Flag.OCCLUDED).sum()
