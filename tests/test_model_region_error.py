import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.region_error import (
    FaceErrors,
    Points,
    Unit,
    face_errors,
    intervals,
    join_faces,
    point_means,
    region_errors,
    subject_errors,
)
from schemas.geometry import tight_square
from schemas.layouts import layout
from schemas.records import Flag

GOLDEN = json.loads((Path(__file__).parent / "golden" / "eval_80.json").read_text())


def golden_errors():
    """The reference's inputs: points in units of an 80 pixel crop, boxes in source pixels."""
    inputs = {key: np.array(value, np.float64) for key, value in GOLDEN["inputs"].items()}
    corner_B12, width_B11 = inputs["bbox_xywh"][:, None, :2], inputs["bbox_xywh"][:, None, 2:3]
    true_BK2, predicted_BK2 = (inputs[key] * width_B11 / 80 + corner_B12 for key in ("gt", "pred"))
    return face_errors(
        true_BK2, predicted_BK2, np.where(inputs["visible"] > 0, Flag.VISIBLE, Flag.OCCLUDED), ["a"] * 6
    )


def columns(text):
    _, *rows = [line.split(",") for line in text.split("\r\n") if line]
    return [row[0] for row in rows], np.array([[float(v) for v in row[1:]] for row in rows])


def random_errors(faces=12, points=80, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 200, (faces, points, 2))
    return face_errors(
        true,
        true + rng.normal(0, 2, true.shape),
        np.where(rng.random((faces, points)) < 0.7, Flag.VISIBLE, Flag.UNKNOWN),
        [f"s/{i // 3}" for i in range(faces)],
    )


def test_points_and_regions_have_the_reference_errors():
    errors = golden_errors()
    _, expected = columns(GOLDEN["csv_per_point"])
    everything, _ = point_means(*errors.select(Unit.SOURCE, Points.ALL))
    visible, number = point_means(*errors.select(Unit.SOURCE, Points.VISIBLE))
    np.testing.assert_allclose(np.stack([everything, visible, number], axis=1), expected, rtol=1e-12)
    regions, expected = columns(GOLDEN["csv_per_region"])
    for column, points in enumerate((Points.ALL, Points.VISIBLE)):
        found = region_errors(errors, Unit.SOURCE, points)
        assert list(found) == regions
        np.testing.assert_allclose(list(found.values()), expected[:, column], rtol=1e-12)


def test_crop_pixels_are_source_pixels_in_80ths_of_the_tight_square():
    true = np.array([[[10.0, 20.0], [50.0, 40.0], [30.0, 30.0]]])
    errors = face_errors(true, true + np.array([3.0, 4.0]), np.zeros((1, 3)), ["a"])
    assert tight_square(true[0]).width == 40
    np.testing.assert_allclose(errors.source_px_BK, 5.0)
    np.testing.assert_allclose(errors.crop_px_BK, 10.0)


def test_the_inter_ocular_unit_is_per_cent_of_the_distance_of_the_outer_eye_corners():
    true = np.random.default_rng(0).uniform(0, 100, (2, 68, 2))
    true[0, [36, 45]] = [10, 20], [40, 60]  # 50 px apart
    true[1, [36, 45]] = [7, 7]
    errors = face_errors(true, true + np.array([3.0, 4.0]), np.zeros((2, 68)), ["a", "b"])
    np.testing.assert_allclose(errors.inter_ocular_BK[0], 10.0)
    assert np.isnan(errors.inter_ocular_BK[1]).all()
    assert region_errors(errors, Unit.INTER_OCULAR, Points.ALL)["Chin"] == pytest.approx(10.0)


def test_a_layout_without_eyes_has_no_inter_ocular_error():
    errors = random_errors(points=5)
    assert errors.units == (Unit.SOURCE, Unit.CROP)
    assert np.isnan(errors.face_means(Unit.INTER_OCULAR)).all()


def test_intervals_are_what_drawing_subjects_one_by_one_gives():
    """The matrix product against means of the drawn subjects' faces put together, another seed."""
    errors = random_errors(faces=30, points=68)
    random, subjects = np.random.default_rng(7), sorted(set(errors.subjects))
    faces = {s: np.flatnonzero(np.array(errors.subjects) == s) for s in subjects}
    values = []
    for _ in range(2000):
        index = np.concatenate([faces[s] for s in random.choice(subjects, len(subjects))])
        mean_K, _ = point_means(errors.crop_px_BK[index], errors.flags_BK[index] == Flag.VISIBLE)
        values.append(np.nanmean(mean_K[36:48]))
    found = intervals(errors)[Unit.CROP, Points.VISIBLE]["Eyes"]
    width = found.high - found.low
    np.testing.assert_allclose([found.low, found.high], np.percentile(values, [2.5, 97.5]), atol=0.15 * width)


def test_a_point_that_is_never_visible_has_no_error_and_does_not_flatter_its_region():
    errors = random_errors()
    hidden = errors.flags_BK.copy()
    hidden[:, 68] = Flag.OCCLUDED
    errors = replace(errors, flags_BK=hidden)
    means, number = point_means(*errors.select(Unit.CROP, Points.VISIBLE))
    assert np.isnan(means[68]) and number[68] == 0
    pupil = region_errors(errors, Unit.CROP, Points.VISIBLE)["Pupil"]
    assert pupil == pytest.approx(means[69:76].mean())


def test_a_region_without_visible_points_has_no_error():
    errors = random_errors()
    errors = replace(errors, flags_BK=np.full((12, 80), Flag.UNKNOWN))
    assert np.isnan(region_errors(errors, Unit.SOURCE, Points.VISIBLE)["All"])
    assert intervals(errors)[Unit.SOURCE, Points.VISIBLE]["All"] is None


def every_error(errors):
    """By unit, choice of points and region."""
    return {
        (unit, points, region): value
        for unit in errors.units
        for points in Points
        for region, value in region_errors(errors, unit, points).items()
    }


@pytest.mark.parametrize(("points", "regions", "units"), [(68, 7, 3), (80, 9, 3), (104, 9, 3), (5, 1, 2)])
def test_any_number_of_points_has_its_regions_and_a_face_the_inter_ocular_unit(points, regions, units):
    found = every_error(random_errors(points=points))
    assert len(found) == 2 * units * regions
    assert next(iter(found)) == (Unit.SOURCE, Points.ALL, "All")


def test_a_subjects_errors_are_those_of_its_faces_alone():
    errors = random_errors()
    by_subject = subject_errors(errors, Unit.CROP, Points.ALL)
    assert list(by_subject) == ["s/0", "s/1", "s/2", "s/3"]
    assert by_subject["s/1"]["All"] == pytest.approx(errors.crop_px_BK[3:6].mean())


def test_intervals_are_repeatable_and_hold_the_error():
    errors = random_errors(faces=60)
    first = intervals(errors)[Unit.CROP, Points.VISIBLE]
    assert first == intervals(errors)[Unit.CROP, Points.VISIBLE]
    for region, value in region_errors(errors, Unit.CROP, Points.VISIBLE).items():
        assert first[region].low < value < first[region].high


def test_intervals_follow_subjects_and_not_faces():
    """Ten faces of each subject with the same error add nothing to what is known about subjects."""
    per_subject = np.arange(8.0)[:, None].repeat(5, axis=1)
    flags = np.zeros_like(per_subject)
    few = FaceErrors(per_subject, per_subject, per_subject, flags, tuple(f"s/{i}" for i in range(8)))
    many = join_faces([few] * 10)
    assert intervals(few) == intervals(many)


@pytest.mark.parametrize("subjects", [("s/0",) * 12, ("s/0", *("",) * 11)])
def test_without_subjects_there_is_no_interval(subjects):
    errors = replace(random_errors(), subjects=subjects)
    assert set(intervals(errors)[Unit.CROP, Points.ALL].values()) == {None}


@given(st.permutations(range(12)), st.integers(1, 11))
def test_neither_order_nor_batches_matter(order, cut):
    errors = random_errors()
    pieces = [
        FaceErrors(
            *(array[index] for array in list(vars(errors).values())[:-1]),
            tuple(errors.subjects[i] for i in index),
        )
        for index in (list(order[:cut]), list(order[cut:]))
    ]
    assert every_error(join_faces(pieces)) == pytest.approx(every_error(errors))


def test_impossible_input_is_refused():
    true = np.zeros((2, 3, 2))
    true[0, 0] = 9
    with pytest.raises(ValueError, match="face 1: all its true points coincide"):
        face_errors(true, true, np.ones((2, 3)), ["a", "b"])
    for odd in (np.nan, np.inf):
        predicted = true.copy()
        predicted[1, 2, 0] = odd
        with pytest.raises(ValueError, match="not a finite number"):
            face_errors(true, predicted, np.ones((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="shapes differ"):
        face_errors(true, true[:, :2], np.ones((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="shapes differ"):
        face_errors(true, true, np.ones((2, 2)), ["a", "b"])
    with pytest.raises(ValueError, match="2 faces but 1 subjects"):
        face_errors(true, true, np.ones((2, 3)), ["a"])


def test_regions_are_the_layouts():
    errors = random_errors()
    means, _ = point_means(*errors.select(Unit.SOURCE, Points.ALL))
    found = region_errors(errors, Unit.SOURCE, Points.ALL)
    for name, index in layout(80).regions.items():
        assert found[name] == pytest.approx(means[list(index)].mean())
