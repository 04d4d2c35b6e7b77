import numpy as np
import pytest
import tensorflow as tf

from model.checkpoint import EpochResult
from model.figures import OTHER_COLOUR
from model.progress import Plan
from model.summaries import Summaries, drawn_face, forget_after, scalar_name
from schemas.errors import SpecError, StorageError
from tests.event_files import events, pictures, scalars
from tests.shard_files import small_spec
from tests.small_files import small_files

PLAN = Plan(epochs=2, epochs_done=0, steps=25, faces=4, log_every_s=60)
TERMS = {"loss": 3.0, "keypoints": 2.0, "heatmap": 0.75, "elt": 0.25, "region/eyes": 9.0}


def centres(image_BHWC):
    return tf.fill((image_BHWC.shape[0], 5, 2), 40.0)


def result(epoch: int, **changes) -> EpochResult:
    numbers = {"validation_loss": 1.5, "validation_error_px": 4.0} | changes
    return EpochResult(
        epoch=epoch, step=25 * epoch, loss=3.0, terms={}, learning_rate=1e-3, seconds=1, best=True, **numbers
    )


def watch(directory, *, spec=None, epochs=1, plan=PLAN, batch=None) -> None:
    """Two epochs at most, as `model.training` tells of them."""
    with Summaries(directory, spec or small_spec("visualize_num_images: 2\n"), predict=centres) as summaries:
        summaries.begin(plan)
        for epoch in range(plan.epochs_done, plan.epochs_done + epochs):
            for number in range(25 * epoch + 1, 25 * epoch + 26):
                summaries.step(number, TERMS | {"loss": float(number)}, 0.5)
            if batch:
                summaries.trained_on(batch)
                points = batch["points_BN2"]
                summaries.validated_on(batch["image_BHWC"].numpy(), points, points + 30.0)
            summaries.epoch(result(epoch + 1))


def batch_of(faces: int, *, channels: int = 1, **more):
    image_BHWC = tf.fill((faces, 80, 80, channels), 300.0)  # gamma may leave the range of pixels
    return {"image_BHWC": image_BHWC, "points_BN2": tf.fill((faces, 5, 2), 10.0)} | more


def test_curves_get_about_ten_points_an_epoch_under_the_references_names(tmp_path):
    watch(tmp_path, epochs=2)
    curves = scalars(tmp_path)
    assert set(curves) == {
        "learning_rate", "wing_loss_net_loss", "elt_wing_loss_net_loss", "heatmap_loss", "total_loss",
        "validation_loss", "validation_error_px",
    }  # fmt: skip
    assert curves["total_loss"] == [(step, float(step)) for step in range(2, 51, 2)]
    assert curves["elt_wing_loss_net_loss"][0] == (2, 0.25)
    assert curves["validation_error_px"] == [(25, 4.0), (50, 4.0)]


def test_with_weights_every_region_has_a_curve():
    text = "num_keypoints: 68\nloss: {loss_type: l1, weights_dict: {face: 0.5, eyes: 0.25, mouth: 0.25}}\n"
    spec = small_spec(text, num_keypoints=68)
    assert scalar_name("keypoints", spec) == "weighted_l1_net_loss"
    assert scalar_name("elt", spec) == "elt_weighted_l1_net_loss"
    assert [scalar_name(f"region/{name}", spec) for name in ("face", "eyes", "mouth")] == [
        "l1_face_loss", "l1_eyelids_loss", "l1_mouth_loss",
    ]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_show_the_crops_and_the_keypoints_on_them(channels, tmp_path):
    shift = tf.constant([[1.0, 0, 20], [0, 1, 0], [0, 0, 1]])
    moved = {"moved_BHWC": tf.zeros((4, 80, 80, channels)), "move_B33": tf.tile(shift[None], (4, 1, 1))}
    watch(tmp_path, batch=batch_of(4, channels=channels, **moved))
    found = pictures(tmp_path)
    phases = {"training", "training_elt", "validation"}
    drawn = phases | {"training_predictions", "validation_predictions"}
    assert set(found) == {f"input_image_face_{p}" for p in phases} | {f"kpts_image_{p}" for p in drawn}
    assert all([len(images) for _, images in shown] == [2] for shown in found.values())
    places = {"training": (10, 10), "training_predictions": (40, 40), "training_elt": (30, 10)}
    for phase, (x, y) in (places | {"validation": (10, 10), "validation_predictions": (40, 40)}).items():
        image = found[f"kpts_image_{phase}"][0][1][0]
        ground = 0 if phase == "training_elt" else 255
        rows, columns = np.nonzero((image != ground).any(axis=2))
        np.testing.assert_allclose([columns.mean() / 3, rows.mean() / 3], [x, y], atol=0.5)
    crop = found["input_image_face_training"][0][1][0]
    assert crop.shape == (80, 80, channels) and crop.min() == 255


def test_without_images_there_are_curves_alone(tmp_path):
    watch(tmp_path, spec=small_spec("visualize_num_images: 0\n"), batch=batch_of(4))
    assert not pictures(tmp_path) and scalars(tmp_path)
    with pytest.raises(SpecError, match="visualize_num_images: input should be greater than or equal to 0, not -1"):
        small_spec("visualize_num_images: -1\n")


def test_a_resumed_training_leaves_each_step_once(tmp_path):
    watch(tmp_path / "whole", epochs=2)
    watch(tmp_path / "stopped", epochs=2)  # the second epoch was done, but no checkpoint tells of it
    torn = next((tmp_path / "stopped").iterdir())
    torn.write_bytes(torn.read_bytes()[:-7])
    watch(tmp_path / "stopped", plan=Plan(epochs=2, epochs_done=1, steps=25, faces=4, log_every_s=60))
    assert scalars(tmp_path / "stopped") == scalars(tmp_path / "whole")
    assert len(list((tmp_path / "stopped").iterdir())) == 2


def test_what_a_kill_left_half_written_is_taken_away(tmp_path):
    """Behind it TensorBoard would read nothing more, although no whole event is too many."""
    watch(tmp_path)
    before, path = scalars(tmp_path), next(tmp_path.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    forget_after(tmp_path, 25)
    assert scalars(tmp_path) == before


def test_starting_anew_leaves_nothing_of_before(tmp_path):
    watch(tmp_path)
    forget_after(tmp_path, 0)
    assert not list(events(tmp_path)) and not list(tmp_path.iterdir())


def test_a_keypoint_is_drawn_on_its_pixel_and_in_its_colour():
    drawn_HW3 = drawn_face(np.zeros((20, 20, 1), np.uint8), np.array([[10.0, 5.0]])).astype(float)
    rows, columns = np.indices(drawn_HW3.shape[:2])
    light_HW = drawn_HW3.sum(axis=2)
    centre = [(light_HW * places).sum() / light_HW.sum() for places in (columns, rows)]
    assert centre == pytest.approx([31, 16], abs=0.2), "pixel 10 covers 30 to 32"
    brightest = np.unravel_index(light_HW.argmax(), light_HW.shape)
    assert drawn_HW3[brightest].tolist() == pytest.approx(OTHER_COLOUR[::-1], abs=3)


def test_a_crop_in_colour_keeps_its_colours():
    red_HW3 = np.full((20, 20, 3), (250, 40, 10), np.uint8)
    assert drawn_face(red_HW3, np.array([[2.0, 2.0]]))[-1, -1].tolist() == [250, 40, 10]


@pytest.mark.parametrize("most", [1, 2000])
def test_a_full_disk_is_a_storage_error(most, tmp_path):
    with pytest.raises(StorageError, match=r"(?s)can't be written.*enable_visualization: false"), small_files(most):
        watch(tmp_path)
