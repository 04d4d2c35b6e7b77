from itertools import pairwise

import numpy as np
import pytest

from model.confidence import confidence_by_region, confidence_quality, reliability_bins
from schemas.layouts import layout
from schemas.records import Flag


def made_up(faces=40, points=68, *, shift=1.0, seed=0):
    """Confidences that are higher by `shift` standard deviations on visible points; a tenth of the flags unknown."""
    rng = np.random.default_rng(seed)
    flags = np.where(rng.random((faces, points)) < 0.3, Flag.OCCLUDED, Flag.VISIBLE)
    score = rng.normal(0, 1, flags.shape) + shift * (flags == Flag.VISIBLE)
    flags[rng.random(flags.shape) < 0.1] = Flag.UNKNOWN
    return 1 / (1 + np.exp(-score)), flags, [f"s/{i // 2}" for i in range(faces)]


def share_in_order(confidence, flags):
    """The area by its definition: over all pairs of a visible and an occluded point."""
    visible, occluded = confidence[flags == Flag.VISIBLE], confidence[flags == Flag.OCCLUDED]
    difference = visible[:, None] - occluded[None]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    confidence, flags, subjects = made_up()
    quality = confidence_quality(confidence, flags, subjects)
    assert quality.auc == pytest.approx(share_in_order(confidence, flags))
    assert 0.7 < quality.auc < 0.82
    assert quality.interval.low < quality.auc < quality.interval.high
    assert (quality.visible, quality.occluded) == ((flags == 0).sum(), (flags == 1).sum())
    assert sum(part.points * part.visible_share for part in quality.bins) == pytest.approx(quality.visible)


def test_the_interval_is_that_of_drawing_subjects_one_by_one():
    confidence, flags, subjects = made_up(faces=20)
    rng = np.random.default_rng(5)
    values = []
    for _ in range(400):
        drawn = rng.integers(0, 10, 10)
        faces = np.concatenate([[2 * i, 2 * i + 1] for i in drawn])
        values.append(share_in_order(confidence[faces], flags[faces]))
    found = confidence_quality(confidence, flags, subjects).interval
    np.testing.assert_allclose([found.low, found.high], np.percentile(values, [2.5, 97.5]), atol=0.01)


def test_a_perfect_and_a_useless_confidence():
    _, flags, subjects = made_up()
    perfect = confidence_quality((flags != Flag.OCCLUDED) * 0.5, flags, subjects)
    assert perfect.auc == 1.0 and perfect.interval.low == 1.0
    assert perfect.roc[0] == (0.0, 0.0) and perfect.roc[1] == (0.0, 1.0)
    useless = confidence_quality(np.full(flags.shape, 0.5), flags, subjects)
    assert useless.auc == useless.interval.low == useless.interval.high == 0.5


def test_the_roc_curve_rises_from_corner_to_corner():
    roc = np.array(confidence_quality(*made_up()).roc)
    assert (np.diff(roc, axis=0) >= 0).all()
    assert roc[0].tolist() == [0, 0] and roc[-1].tolist() == [1, 1]


def test_bins_hold_equal_numbers_and_the_share_that_is_visible():
    confidence = np.linspace(0, 1, 100)
    bins = reliability_bins(confidence, confidence > 0.5)
    assert [b.points for b in bins] == [10] * 10
    assert [b.visible_share for b in bins] == [0.0] * 5 + [1.0] * 5
    assert bins[0].confidence == pytest.approx(confidence[:10].mean())


def test_the_calibration_error_is_that_of_guo_et_al():
    confidence, flags, subjects = made_up()
    known = flags != Flag.UNKNOWN
    values, visible = confidence[known], flags[known] == Flag.VISIBLE
    expected, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in pairwise(edges):
        inside = (values >= low) & (values < high)
        if inside.any():
            expected += inside.mean() * abs(values[inside].mean() - visible[inside].mean())
    found = confidence_quality(confidence, flags, subjects)
    assert found.calibration_error == pytest.approx(expected, abs=1e-9)
    assert found.calibration_interval.low < found.calibration_error < found.calibration_interval.high


def test_the_calibration_error_is_zero_for_probabilities_and_large_for_nonsense():
    rng = np.random.default_rng(0)
    probability = rng.random((200, 68))
    flags = np.where(rng.random(probability.shape) < probability, Flag.VISIBLE, Flag.OCCLUDED)
    subjects = [f"s/{i}" for i in range(200)]
    assert confidence_quality(probability, flags, subjects).calibration_error < 0.02
    assert confidence_quality(0.01 * probability, flags, subjects).calibration_error == pytest.approx(0.5, abs=0.03)


def test_regions_without_both_kinds_have_no_quality():
    confidence, flags, subjects = made_up()
    flags[:, list(layout(68).regions["Mouth"])] = Flag.VISIBLE
    found = confidence_by_region(confidence, flags, subjects, layout(68).regions)
    assert set(found) == set(layout(68).regions) - {"Mouth"}
    assert confidence_by_region(confidence, np.full_like(flags, Flag.UNKNOWN), subjects, layout(68).regions) == {}
    with pytest.raises(ValueError, match="visible and occluded"):
        confidence_quality(confidence, np.zeros_like(flags), subjects)
