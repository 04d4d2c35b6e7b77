from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.agreement import measure_agreement, measure_repeatability, spreads
from model.face_views import FaceViews
from model.region_error import Unit
from schemas.layouts import layout
from schemas.records import Flag
from tests.annotator_views import some_views

SIZES = st.sampled_from((5, 68, 80))
SEEDS = st.integers(0, 2**16)
FEW = settings(max_examples=8, deadline=None)


def shifted(views, name, offset):
    """The same faces, one annotator's points moved."""
    return [replace(view, points_AK2=_moved(view, name, offset)) for view in views]


def _moved(view, name, offset):
    points_AK2 = view.points_AK2.copy()
    points_AK2[view.annotators.index(name)] += offset
    return points_AK2


@given(seed=SEEDS, size=SIZES)
@FEW
def test_the_same_annotations_have_no_spread_and_full_kappa(seed, size):
    found = measure_agreement(some_views(seed=seed, num_keypoints=size))
    assert set(found.regions) == set(layout(size).regions)
    assert {estimate.value for region in found.regions.values() for estimate in region.spread.values()} == {0.0}
    assert found.regions["All"].flags.kappa.value == pytest.approx(1.0)
    (pair,) = found.pairs
    assert pair.flags.kappa.value == pytest.approx(1.0)
    assert (pair.first, pair.second, pair.faces, pair.flags.disputed) == ("a", "b", 6, 0)


@given(seed=SEEDS, dx=st.floats(-9, 9), dy=st.floats(-9, 9), others=st.integers(1, 3))
@FEW
def test_who_leans_shows_as_bias_and_the_others_share_the_opposite(seed, dx, dy, others):
    names = ("leans", *(f"other {i}" for i in range(others)))
    found = measure_agreement(shifted(some_views(annotators=names, seed=seed), "leans", (dx, dy)))
    for bias in found.biases:
        share = 1.0 if bias.annotator == "leans" else -1.0 / others
        for offset in bias.offsets[Unit.SOURCE].values():
            assert (offset.x.value, offset.y.value) == pytest.approx((dx * share, dy * share), abs=1e-9)
    apart = np.hypot(dx, dy) * 2 / (others + 1)  # the share of pairs with the one who leans
    assert found.regions["All"].spread[Unit.SOURCE].value == pytest.approx(apart, abs=1e-9)


@given(seed=SEEDS, order=st.permutations(("a", "b", "c")))
@FEW
def test_the_order_of_annotators_changes_nothing(seed, order):
    views = some_views(annotators=("a", "b", "c"), noise_px=2, seed=seed)
    turned = measure_agreement([view.of(*order) for view in views])
    straight = measure_agreement(views)
    assert turned.annotators == straight.annotators
    assert _numbers(turned) == pytest.approx(_numbers(straight))


@given(seed=SEEDS, factor=st.integers(2, 7))
@FEW
def test_units_scale_with_the_image(seed, factor):
    views = some_views(noise_px=2, seed=seed)
    larger = [replace(view, points_AK2=view.points_AK2 * factor) for view in views]
    small, large = (measure_agreement(some).regions["All"].spread for some in (views, larger))
    assert large[Unit.SOURCE].value == pytest.approx(factor * small[Unit.SOURCE].value)
    assert large[Unit.INTER_OCULAR].value == pytest.approx(small[Unit.INTER_OCULAR].value)
    assert large[Unit.CROP].value == pytest.approx(small[Unit.CROP].value, rel=0.03)  # the box is whole pixels


def test_a_spread_is_the_mean_distance_between_two_annotators():
    corners = np.array([[[0.0, 0.0], [100.0, 100.0]]] * 3)
    corners[1, 0] = 3, 4
    view = FaceViews("k", "", ("a", "b", "c"), corners, np.zeros((3, 2), np.int8))
    assert spreads([view]).source_px_BK.tolist() == [[pytest.approx((5 + 5 + 0) / 3), 0.0]]


def test_a_point_is_visible_if_all_say_so_and_occluded_if_one_does():
    (view,) = some_views(faces=1, num_keypoints=5)
    flags_AK = np.array([[0, 0, 0, -1, 1], [0, 1, -1, -1, -1]], np.int8)
    assert spreads([replace(view, flags_AK=flags_AK)]).flags_BK.tolist() == [[0, 1, -1, -1, 1]]


def test_sides_that_one_annotator_swapped_do_not_shrink_the_face():
    """The mean of the two has its eyes in the middle: per cent of that would be infinite."""
    (view,) = some_views(faces=1)
    flip = list(layout(68).flip)
    swapped = replace(view, points_AK2=np.stack([view.points_AK2[0], view.points_AK2[0][flip]]))
    whole = np.linalg.norm(view.points_AK2[0, 36] - view.points_AK2[0, 45])
    errors = spreads([swapped])
    assert errors.inter_ocular_BK[0, 36] == pytest.approx(100.0)
    assert errors.source_px_BK[0, 36] == pytest.approx(whole)


def test_intervals_come_from_subjects_and_from_faces_where_those_are_unknown():
    views = some_views(faces=8, noise_px=1)
    known, unknown = measure_agreement(views), measure_agreement([replace(view, subject="") for view in views])
    assert (known.drawn, known.subjects) == ("subjects", 4)
    assert (unknown.drawn, unknown.subjects) == ("faces", 0)
    for found in (known, unknown):
        spread = found.regions["Eyes"].spread[Unit.INTER_OCULAR]
        assert spread.low < spread.value < spread.high
    one_face = measure_agreement(views[:1]).regions["Eyes"].spread[Unit.INTER_OCULAR]
    assert one_face.low is None and one_face.value > 0


def test_a_bias_is_certain_where_its_interval_leaves_out_nothing():
    views = some_views(faces=20, noise_px=1, seed=3)
    leaning = measure_agreement(shifted(views, "a", (2.0, 0.0))).biases[0]
    assert all(offset.certain for offset in leaning.offsets[Unit.SOURCE].values())
    steady = measure_agreement(views).biases[0]
    assert not steady.offsets[Unit.SOURCE]["All"].certain


def test_annotators_who_share_only_some_faces():
    views = some_views(faces=6, annotators=("a", "b", "c"))
    mixed = [view.of("a", "b") if i < 2 else view.of("b", "c") for i, view in enumerate(views)]
    found = measure_agreement(mixed)
    assert [(pair.first, pair.second, pair.faces) for pair in found.pairs] == [("a", "b", 2), ("b", "c", 4)]
    assert [(bias.annotator, bias.faces) for bias in found.biases] == [("a", 2), ("b", 6), ("c", 4)]


def test_who_marks_more_points_occluded():
    views = [
        replace(v, flags_AK=np.array([[1, 1, 0, 0, -1], [0, 0, 0, 0, 1]], np.int8))
        for v in some_views(num_keypoints=5)
    ]
    first, second = measure_agreement(views).biases
    assert (first.occluded_share, first.others_occluded_share) == (0.5, 0.2)
    assert (second.occluded_share, second.others_occluded_share) == (0.2, 0.5)


def test_points_without_any_flag():
    views = [replace(view, flags_AK=np.full_like(view.flags_AK, Flag.UNKNOWN)) for view in some_views()]
    found = measure_agreement(views)
    flags = found.regions["All"].flags
    assert (flags.judged, flags.disputed_share, flags.kappa.value) == (0, None, None)
    assert found.points[0].disputed_share is None
    assert found.biases[0].occluded_share is None


def test_repeats_are_told_apart_by_annotator():
    (view,) = some_views(faces=1)
    repeats = [
        replace(view, annotators=(name, name), points_AK2=view.points_AK2 + np.array([[[0, 0]], [[3, 4]]]))
        for name in "ba"
    ]
    found = measure_repeatability(repeats)
    assert [(pair.first, pair.second, pair.faces) for pair in found] == [("a", "a", 1), ("b", "b", 1)]
    assert found[0].spread[Unit.SOURCE] == pytest.approx(5)


def test_one_annotator_is_no_agreement():
    (view,) = some_views(faces=1)
    for wrong in ([], [view.of("a")], [replace(view, annotators=("a", "a"))]):
        with pytest.raises(ValueError, match="two annotators"):
            measure_agreement(wrong)


def _numbers(found):
    values = [estimate.value for region in found.regions.values() for estimate in region.spread.values()]
    values += [region.flags.kappa.value for region in found.regions.values() if region.flags.kappa.value is not None]
    for bias in found.biases:
        values += [part.value for table in bias.offsets.values() for o in table.values() for part in (o.x, o.y)]
    return values
