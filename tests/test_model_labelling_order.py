"""The order of labelling: what is taken first, and that it is fair to the usual faces."""

import numpy as np
import pytest

from model.faces.scene import Pose, Scene, keypoints
from model.labelling_order import GENTLE, MOST_FACES, TILT, conditions_of, labelling_order, rarity
from model.labelling_signals import FaceSignals


def signals(places, doubt=None):
    """Faces at these places (F, 2) of feature space, all of one shape."""
    places = np.asarray(places, float)
    doubt = np.ones(len(places)) if doubt is None else np.asarray(doubt, float)
    return FaceSignals(np.zeros((len(places), 5, 2)), np.ones((len(places), 5)), doubt, places)


def clouds(*sizes, seed=0):
    """Clouds of faces far from each other, and which cloud each face is in."""
    rng = np.random.default_rng(seed)
    of_cloud = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(0, 0.3, (len(of_cloud), 2)) + 10 * of_cloud[:, None], of_cloud


def test_every_cloud_gets_labels_in_proportion_to_its_size():
    places, of_cloud = clouds(60, 30, 10)
    taken = labelling_order(signals(places), None, count=20).faces
    np.testing.assert_allclose(np.bincount(of_cloud[taken]), [12, 6, 2], atol=1)
    assert set(of_cloud[taken[:3]]) == {0, 1}  # the small one waits


def test_faces_like_labelled_ones_wait():
    places, of_cloud = clouds(40, 40)
    labelled = signals(places[of_cloud == 0][:20])
    rest = signals(np.concatenate([places[of_cloud == 0][20:], places[of_cloud == 1]]))
    like_labelled = labelling_order(rest, labelled, count=15).faces < 20
    assert not like_labelled[:8].any()
    assert like_labelled.sum() <= 2


def test_doubt_tilts_the_share_within_its_bound():
    places, of_cloud = clouds(50, 50)
    doubt = np.where(of_cloud == 0, 1.0, 1000.0)
    taken = labelling_order(signals(places, doubt), None, count=30).faces
    doubtful = (of_cloud[taken] == 1).mean()
    assert 0.55 <= doubtful <= TILT**2 / (TILT**2 + 1) + 1 / 30


def test_an_odd_face_is_not_taken_first_however_doubtful():
    places, _ = clouds(50)
    order = labelling_order(signals([*places, (99.0, -99.0)], [*np.ones(50), 1e6]), None, count=10)
    assert order.faces[0] != 50
    assert len(set(order.faces.tolist())) == 10


def test_conditions_that_few_labels_have_come_earlier():
    places, _ = clouds(60)
    conditions = np.arange(60) % 2
    labelled = signals(places[:12] + 0.01)
    plain = labelling_order(signals(places), labelled, count=20).faces
    tilted = labelling_order(
        signals(places), labelled, count=20, conditions_F=conditions, conditions_L=np.zeros(12, int)
    ).faces
    assert conditions[tilted].sum() > conditions[plain].sum()


def test_the_same_faces_give_the_same_order_and_all_of_them_are_taken_in_the_end():
    places, _ = clouds(7, 4)
    first, second = (labelling_order(signals(places), None, count=99) for _ in range(2))
    np.testing.assert_array_equal(first.faces, second.faces)
    assert sorted(first.faces.tolist()) == list(range(11))


@pytest.mark.parametrize("labelled", [None, signals(np.zeros((3, 2)))])
def test_no_face_is_no_order(labelled):
    order = labelling_order(signals(np.empty((0, 2))), labelled, count=5)
    assert (len(order.faces), len(order.gain), len(order.rarity_F)) == (0, 0, 0)


def test_faces_that_are_all_alike_and_certain_still_have_an_order():
    order = labelling_order(signals(np.zeros((4, 2)), np.zeros(4)), signals(np.zeros((2, 2))), count=2)
    assert order.faces.tolist() == [0, 1]
    assert np.isfinite(order.gain).all()


def test_of_very_many_faces_some_are_drawn_the_same_each_time():
    places, _ = clouds(MOST_FACES + 50)
    one, again = (labelling_order(signals(places), None, count=3).faces for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_rarity_by_hand():
    # Labels and one more each: 4, 1 and 1; their mean is 2.
    of_faces, of_labels = rarity(np.array([0, 1, 2]), np.array([0, 0, 0]))
    np.testing.assert_allclose(of_faces, [0.5**GENTLE, 2**GENTLE, 2**GENTLE])
    np.testing.assert_allclose(of_labels, [0.5**GENTLE] * 3)
    extreme, _ = rarity(np.array([0, 1]), np.zeros(1000, int))
    np.testing.assert_allclose(extreme, [(501 / 1001) ** GENTLE, TILT])


def test_conditions_tell_yaw_and_occlusion_apart():
    heads = np.stack([keypoints(Scene(pose=Pose(yaw=yaw)))[:68] for yaw in (-60.0, 0.0, 60.0)])
    left, middle, right = conditions_of(heads)
    assert left < middle < right
    shares = np.array([0.0, 0.1, 0.9])
    assert len(set(conditions_of(heads[[1, 1, 1]], shares).tolist())) == 3
    assert conditions_of(np.zeros((2, 5, 2))).tolist() == [0, 0]
