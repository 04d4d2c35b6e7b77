"""What the tables of docs/accuracy.md count: the same moves for all crops, and only what a new thing hides."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.pipeline import EvaluationBatch
from schemas.records import Flag

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


def enlarged(box_B4, ratio):
    """About the same centres."""
    side_B1 = box_B4[:, 2:3]
    return np.hstack([box_B4[:, :2] - side_B1 * (ratio - 1) / 2, side_B1 * ratio, side_B1 * ratio])


def test_boxes_are_moved_and_scaled_alike_however_large_the_crop():
    from model_accuracy import moved_boxes

    tight_B4 = np.array([[10, 20, 40, 40], [3, 5, 90, 90]], np.float32)
    for ratio in (1.15, 1.5):
        own, other = (
            moved_boxes(of, tf.constant(7, tf.int64), tf.constant(enlarged(tight_B4, of), tf.float32))
            for of in (1.0, ratio)
        )
        np.testing.assert_allclose(enlarged(own.numpy(), ratio), other.numpy(), rtol=1e-5)
        assert (np.abs(own.numpy() - tight_B4) > 0.01).all()


def test_points_that_something_else_hides_already_are_not_counted():
    from unseen_occluders import occluded

    rng = np.random.default_rng(0)
    faces, points = 8, 68
    flags_BN = rng.choice([Flag.VISIBLE, Flag.OCCLUDED, Flag.UNKNOWN], (faces, points)).astype(np.int8)
    batch = EvaluationBatch(
        images_BHWC=np.full((faces, 80, 80, 1), 128, np.float32),
        points_BN2=rng.uniform(5, 75, (faces, points, 2)).astype(np.float32),
        flags_BN=flags_BN,
        boxes_B4=np.tile(np.array([0, 0, 80, 80], np.float32), (faces, 1)),
        names=("a.png",) * faces,
        subjects=("s/1",) * faces,
        sets=("kpi",) * faces,
    )
    (covered,) = occluded([batch])
    changed_BHW = (covered.images_BHWC != batch.images_BHWC)[..., 0]
    column_BN, row_BN = (np.rint(batch.points_BN2[..., axis]).astype(int) for axis in (0, 1))
    behind_BN = changed_BHW[np.arange(faces)[:, None], row_BN, column_BN]
    hidden_BN = covered.flags_BN == Flag.OCCLUDED
    assert hidden_BN.any()
    assert (hidden_BN == behind_BN).mean() > 0.97  # a point lies between pixels at an edge
    elsewhere_BN = ~hidden_BN
    known_BN = covered.flags_BN != Flag.UNKNOWN
    np.testing.assert_array_equal(known_BN[elsewhere_BN], flags_BN[elsewhere_BN] != Flag.OCCLUDED)
