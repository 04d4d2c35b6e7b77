import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from model.augment import (
    Covers,
    Patches,
    change_pixels,
    hidden_by,
    mirror_order,
    paint_and_light,
    random_affine,
    random_exponents,
    random_patches,
    resize_and_back,
)
from model.draws import Draws
from model.feed import counted_whole
from model.warp import crop_to_context, move_points, to_crop, warp
from schemas.augmentation import Augmentation, GammaAugmentation, SpatialAugmentation
from schemas.geometry import Box, SquareCrop
from schemas.layouts import layout
from tests.shard_files import small_spec
from tests.test_model_crop import blob, centre_of_mass

GOLDEN = Path(__file__).parent / "golden"
SPATIAL = json.loads((GOLDEN / "spatial.json").read_text())
PATCHES = json.loads((GOLDEN / "augment.json").read_text())["patch"]


def draws(step: int, batch: int = 64) -> Draws:
    return Draws(tf.constant([7, step]), tf.constant(batch))


@settings(max_examples=25)
@given(
    step=st.integers(0, 2**31 - 1),
    hflip=st.sampled_from([0.0, 1.0]),
    angle=st.floats(0, 0.6),
    shift=st.floats(0, 8),
    zoom=st.tuples(st.floats(0.8, 1.0), st.floats(1.0, 1.25)),
    x=st.floats(30, 50),
    y=st.floats(30, 50),
)
def test_a_keypoint_stays_on_its_pixels(step, hflip, angle, shift, zoom, x, y):
    """A blob drawn at a keypoint in the frame is found at the keypoint that the pipeline gives for the new image."""
    spatial = SpatialAugmentation(
        hflip_probability=hflip,
        rotate_rad_max=angle,
        translate_max_x=shift,
        translate_max_y=shift,
        zoom_min=zoom[0],
        zoom_max=zoom[1],
    )
    region = SquareCrop(3.2, -1.7, 96.0, 160)
    context = blob(*region.to_crop(np.array([x, y])), 160, 5.0)[None, :, :, None]
    box_B4 = tf.constant([[21.0, 16.0, 60.0, 60.0]])
    region_B3 = tf.constant([[region.x0, region.y0, region.side]], tf.float32)
    map_B33, mirrored_B = random_affine(spatial, draws(step, 1), size=80)
    to_context_B33 = crop_to_context(box_B4, region_B3, size=80, context_size=160) @ tf.linalg.inv(map_B33)
    image_BHWC = warp(tf.constant(context), to_context_B33, size=80)
    expected = move_points(map_B33, to_crop(tf.constant([[[x, y]]], tf.float32), box_B4, size=80))[0, 0]
    assert bool(mirrored_B[0]) == bool(hflip)
    if (np.abs(expected - 39.5) < 28).all():  # else the blob is cut off
        assert centre_of_mass(image_BHWC[0, :, :, 0].numpy()) == pytest.approx(expected.numpy(), abs=0.1)


@settings(max_examples=50)
@given(
    x=st.integers(-50, 500),
    y=st.integers(-50, 500),
    side=st.integers(10, 400),
    px=st.floats(0, 500),
    py=st.floats(0, 500),
)
def test_frame_to_crop_is_the_schemas_map(x, y, side, px, py):
    expected = SquareCrop.of_box(Box(x, y, side, side)).to_crop(np.array([px, py]))
    found = to_crop(tf.constant([[[px, py]]], tf.float32), tf.constant([[x, y, side, side]], tf.float32), size=80)
    np.testing.assert_allclose(found[0, 0], expected, atol=2e-3)


@pytest.mark.parametrize("case", SPATIAL["cases"], ids=lambda case: case["name"])
def test_the_warp_is_the_references_where_it_stays_inside(case):
    """Its matrices act on rows of edge-based coordinates; beyond the border it puts zeros, we the edge pixels."""
    edge = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(edge) @ np.array(case["stm_rowvector"]).T @ edge
    image = np.array(SPATIAL["image_in"], np.float32)[None, :, :, None]
    inverse = np.linalg.inv(matrix)
    found = warp(tf.constant(image), tf.constant(inverse[None], tf.float32), size=8)[0, :, :, 0].numpy()
    columns, rows = np.meshgrid(np.arange(8), np.arange(8))
    source = np.einsum("ij,jhw->ihw", inverse, np.stack([columns, rows, np.ones_like(rows)]))[:2]
    inside = ((source > 1e-3) & (source < 7 - 1e-3)).all(axis=0)
    np.testing.assert_allclose(found[inside], np.array(case["image_out"])[inside], atol=0.05)


def test_no_settings_mean_no_change():
    map_B33, mirrored_B = random_affine(SpatialAugmentation(), draws(0), size=80)
    np.testing.assert_allclose(map_B33, np.broadcast_to(np.eye(3), (64, 3, 3)), atol=1e-5)
    assert not mirrored_B.numpy().any()


def test_the_centre_stays_and_sizes_keep_their_bounds():
    spatial = SpatialAugmentation(rotate_rad_max=0.3, zoom_min=0.8, zoom_max=1.3)
    map_B33, _ = random_affine(spatial, draws(1, 2000), size=80)
    centre_BN2 = tf.fill((2000, 1, 2), 39.5)
    np.testing.assert_allclose(move_points(map_B33, centre_BN2), centre_BN2, atol=1e-4)
    zoom_B = np.sqrt(np.linalg.det(map_B33[:, :2, :2]))
    angle_B = np.arctan2(map_B33[:, 1, 0], map_B33[:, 0, 0])
    assert 0.8 <= zoom_B.min() < 0.82 and 1.28 < zoom_B.max() <= 1.3
    assert -0.3 <= angle_B.min() < -0.29 and 0.29 < angle_B.max() <= 0.3


def test_shifts_go_both_ways_as_far_as_asked_for_each_axis():
    spatial = SpatialAugmentation(translate_max_x=3.0, translate_max_y=7.0)
    map_B33, _ = random_affine(spatial, draws(1, 2000), size=80)
    for axis, most in enumerate((3.0, 7.0)):
        shift_B = map_B33[:, axis, 2].numpy()
        assert -most <= shift_B.min() < -0.98 * most and 0.98 * most < shift_B.max() <= most


@pytest.mark.parametrize("num_keypoints", [68, 80, 104])
def test_mirrored_samples_change_their_order(num_keypoints):
    flip = layout(num_keypoints).flip
    values = tf.random.stateless_uniform((2, num_keypoints, 2), (1, 1))
    found = mirror_order(values, tf.constant([True, False]), flip)
    np.testing.assert_array_equal(found[0], values[0].numpy()[list(flip)])
    np.testing.assert_array_equal(found[1], values[1])


def golden_patch(case: dict) -> Patches:
    """The reference's patch: centred, applied when u is above the probability, sides cut to integers."""
    size, applied = PATCHES["image_size"], case["u"] > case["patch_probability"]
    width, height = int(case["size_x"]) * applied, int(case["size_y"]) * applied
    numbers = ((size - height) // 2, (size - width) // 2, height, width, case["colour"])
    return Patches(*(tf.constant([float(number)]) for number in numbers))


@pytest.mark.parametrize("case", PATCHES["cases"], ids=str)
def test_a_patch_covers_and_hides_what_the_references_does(case):
    patches, size = golden_patch(case), PATCHES["image_size"]
    painted = paint_and_light(tf.fill((1, size, size, 1), -1.0), patches, tf.ones(1))[0, :, :, 0].numpy()
    rows, columns = np.nonzero(painted != -1)
    box = [columns.min(), rows.min(), columns.max(), rows.max()] if len(rows) else None
    assert box == case["changed_box_xyxy_incl"]
    if case["mask_augmentation_patch"]:
        hidden = hidden_by(patches, tf.constant([PATCHES["kpts"]]))[0].numpy()
        visible = np.array(PATCHES["visible_in"], bool) & ~hidden
        assert visible.tolist() == [value > 0 for value in case["visible_out"]]


def test_patches_come_as_often_as_asked_and_lie_inside():
    augmentation = Augmentation(patch_probability=0.25, size_to_image_ratio=0.5)
    patches = random_patches(augmentation, draws(3, 4000), size=80)
    height, top = patches.height_B.numpy(), patches.top_B.numpy()
    there = height > 0
    assert there.mean() == pytest.approx(0.25, abs=0.03)
    assert height[there].min() >= 10 and height[there].max() < 40
    assert top.min() >= 0 and (top + height).max() <= 80


@pytest.mark.parametrize("axis", [0, 1])
def test_a_patch_hides_as_far_as_the_edge_of_its_outermost_pixels(axis):
    patch = Patches(*(tf.constant([value]) for value in (20.0, 20.0, 10.0, 10.0, 0.0)))
    points = np.full((1, 4, 2), 25.0, np.float32)
    points[0, :, axis] = 19.4, 19.6, 29.4, 29.6
    assert hidden_by(patch, tf.constant(points)).numpy().tolist() == [[False, True, True, False]]


def test_a_patch_has_ten_pixels_where_a_share_of_the_image_would_be_smaller():
    patches = random_patches(Augmentation(patch_probability=1.0, size_to_image_ratio=0.05), draws(3), size=80)
    assert set(patches.height_B.numpy()) == set(patches.width_B.numpy()) == {10.0}


def test_no_map_shears_or_stretches_a_face():
    spatial = SpatialAugmentation(hflip_probability=0.5, rotate_rad_max=0.6, zoom_min=0.8, zoom_max=1.25)
    map_B33, mirrored_B = random_affine(spatial, draws(4), size=80)
    linear_B22 = map_B33.numpy()[:, :2, :2]
    sides = np.where(mirrored_B, -1.0, 1.0)
    assert set(sides) == {-1.0, 1.0}
    area_B = np.linalg.det(linear_B22) * sides
    np.testing.assert_allclose(
        linear_B22.transpose(0, 2, 1) @ linear_B22, area_B[:, None, None] * np.eye(2), atol=1e-5
    )


def test_probabilities_are_those_of_the_thing_happening():
    assert float(tf.reduce_mean(tf.cast(draws(1, 20000).happens(0.3), tf.float32))) == pytest.approx(0.3, abs=0.02)
    assert not draws(1, 1000).happens(0.0).numpy().any()
    assert draws(1, 1000).happens(1.0).numpy().all()


def test_faces_are_mirrored_as_often_as_asked():
    _, mirrored_B = random_affine(SpatialAugmentation(hflip_probability=0.25), draws(4, 4000), size=80)
    assert mirrored_B.numpy().mean() == pytest.approx(0.25, abs=0.03)


def test_faces_are_coarsened_as_often_as_asked():
    augmentation = Augmentation(
        enable_resize_augmentation=True, augmentation_resize_probability=0.25, augmentation_resize_scale=0.5
    )
    image = tf.random.stateless_uniform((1000, 16, 16, 1), (1, 2), 0, 255)
    changed, covers = change_pixels(image, augmentation, draws(5, 1000), size=16)
    assert covers == Covers(None, [])
    assert np.any(changed != image, axis=(1, 2, 3)).mean() == pytest.approx(0.25, abs=0.05)


def test_every_draw_is_new_and_comes_again_with_its_seed():
    first, second = draws(5), draws(5)
    one, two = first.uniform(0, 1).numpy(), first.uniform(0, 1).numpy()
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(one, second.uniform(0, 1))
    assert not np.array_equal(one, draws(6).uniform(0, 1))


def exponents(number: int = 4000, **settings) -> np.ndarray:
    return random_exponents(GammaAugmentation(**settings), draws(2, number)).numpy()


def test_gamma_keeps_the_range_and_what_is_not_chosen():
    image = tf.constant([[0.0, 1, 64, 255]] * 2)[:, :, None, None]
    changed = paint_and_light(image, None, tf.constant([2.0, 1.0])).numpy()[:, :, 0, 0]
    np.testing.assert_allclose(changed[0], [0, 1 / 255, 64**2 / 255, 255], rtol=1e-5)
    np.testing.assert_array_equal(changed[1], [0, 1, 64, 255])


def test_an_exponent_of_nought_makes_white_but_of_black():
    image = tf.constant([0.0, 1, 255])[None, :, None, None]
    assert paint_and_light(image, None, tf.constant([0.0])).numpy().ravel().tolist() == [0, 255, 255]


def test_uniform_exponents_keep_their_bounds_and_come_as_often_as_asked():
    found = exponents(gamma_min=0.6, gamma_max=1.6, gamma_probability=0.25)
    changed = found[found != 1]
    assert len(changed) / len(found) == pytest.approx(0.25, abs=0.03)
    assert 0.6 <= changed.min() < 0.62 and 1.58 < changed.max() < 1.6


def test_normal_exponents_are_the_size_of_a_normal_number():
    found = exponents(gamma_type="normal", gamma_mu=1.0, gamma_std=0.3, gamma_probability=1.0)
    assert (found.mean(), found.std()) == (pytest.approx(1.0, abs=0.02), pytest.approx(0.3, abs=0.02))
    folded = exponents(gamma_type="normal", gamma_mu=0.0, gamma_std=1.0, gamma_probability=1.0)
    assert folded.min() >= 0 and folded.mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.04)


def test_resizing_softens_where_chosen_and_moves_nothing():
    image = tf.stack([tf.constant(blob(33.0, 41.0, 80, 3.0))[:, :, None]] * 2)
    changed = resize_and_back(image, tf.constant([True, False]), 0.5, size=80)
    np.testing.assert_array_equal(changed[1], image[1])
    assert centre_of_mass(changed[0, :, :, 0].numpy()) == pytest.approx([33.0, 41.0], abs=0.02)
    assert 0 < float(tf.reduce_max(tf.abs(changed[0] - image[0]))) < 40


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [0.4, 1.6])
def test_resizing_is_tensorflows(scale, channels):
    image = tf.random.stateless_uniform((3, 48, 48, channels), (1, 2), 0, 255)
    other = int(48 * scale)
    expected = tf.image.resize(tf.image.resize(image, (other, other)), (48, 48))
    found = resize_and_back(image, tf.constant([True, False, True]), scale, size=48)
    np.testing.assert_allclose(
        found, tf.where(tf.constant([1, 0, 1])[:, None, None, None] > 0, expected, image), atol=1e-3
    )


SOUND_NAMES = [
    case
    for case in json.loads((GOLDEN / "augment.json").read_text())["masking_info"]
    if case["no_occlusion_masking_sets"] not in ("", "foo  bar", "s.1")  # no name, and a pattern
]


@pytest.mark.parametrize("case", SOUND_NAMES, ids=str)
def test_sets_without_masking_are_found_by_name_as_the_reference_does(case):
    sets = {"no_occlusion_masking_sets": case["no_occlusion_masking_sets"]}
    spec = small_spec("loss: {mask_occ: true}\n")
    info = spec.dataloader.dataset_info.model_copy(update=sets)
    spec = spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update={"dataset_info": info})})
    found = counted_whole(tf.constant([case["image_frame_name"]]), tf.constant(["other"]), spec)
    assert found.numpy().tolist() == [case["masking_info"] == 1]
