import numpy as np
import pytest
import tensorflow as tf

from model.crop import crop_face
from model.pipeline import EvaluationBatches, evaluation_batches
from schemas.errors import ShardError
from schemas.geometry import SquareCrop
from schemas.records import Flag
from tests.shard_files import blob_face, small_spec, write_images, write_shard
from tests.test_model_crop import blob, centre_of_mass

FACES = [blob_face(i) for i in range(11)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return [write_shard(folder / "a", FACES[:7]), write_shard(folder / "b", FACES[7:])]


def test_every_sample_comes_once_with_what_is_known_about_it(shards):
    batches = list(evaluation_batches(shards, small_spec(), batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert [name for batch in batches for name in batch.names] == [face.name for face in FACES]
    assert [subject for batch in batches for subject in batch.subjects] == [face.subject for face in FACES]
    for field, expected in {
        "points_BN2": [face.points_N2 for face in FACES],
        "flags_BN": [face.flags_N for face in FACES],
        "boxes_B4": [face.box for face in FACES],
    }.items():
        np.testing.assert_array_equal(np.concatenate([getattr(batch, field) for batch in batches]), expected)
    assert batches[0].sets == ("blobs",) * 4
    assert batches[0].not_occluded_BN[0].tolist() == [flag != Flag.OCCLUDED for flag in FACES[0].flags_N]


def test_the_network_sees_the_crop_of_the_face_box(shards):
    batch = next(evaluation_batches(shards, small_spec()))
    for image_HWC, crop, face in zip(batch.images_BHWC, batch.crops, FACES, strict=False):
        assert crop == SquareCrop.of_box(face.box)
        assert np.abs(image_HWC[..., 0] - crop_face(face.image, crop)).mean() < 1.5


def test_both_ways_to_crop_agree_to_a_hundredth_of_a_pixel(tmp_path):
    """A single blob's centre of mass, through the record's context crop and directly."""
    for index in range(4):
        face = blob_face(index, frame=(420, 400))
        rng = np.random.default_rng(index)
        x, y = np.array(face.box[:2]) + (face.box.width - 1) / 2 + rng.uniform(-8, 8, 2)
        object.__setattr__(face, "image", np.rint(blob(x, y, 420, 4.0)[:400]).astype(np.uint8))
        batch = next(evaluation_batches([write_shard(tmp_path / str(index), [face])], small_spec()))
        through_record = centre_of_mass(batch.images_BHWC[0, ..., 0])
        directly = centre_of_mass(crop_face(face.image.astype(np.float32), batch.crops[0]))
        assert through_record == pytest.approx(directly, abs=0.01)
        assert through_record == pytest.approx(batch.crops[0].to_crop(np.array([x, y])), abs=0.03)


def test_tao_records_are_read_from_the_image_files(shards, tmp_path):
    write_images(tmp_path, FACES)
    plain = write_shard(tmp_path / "plain", FACES, tao_only=True)
    spec = small_spec(root_path=f"{tmp_path}/")
    ours, theirs = (next(evaluation_batches(files, spec, batch_size=11)) for files in (shards, [plain]))
    np.testing.assert_array_equal(ours.images_BHWC, theirs.images_BHWC)
    assert set(theirs.subjects) == {""} and set(theirs.sets) == {""}
    expected = [np.maximum(face.flags_N, Flag.VISIBLE) for face in FACES]
    np.testing.assert_array_equal(theirs.flags_BN, expected)


def test_more_landmarks_than_asked_for_are_cut_off(shards):
    batch = next(evaluation_batches(shards, small_spec(num_keypoints=3)))
    np.testing.assert_array_equal(batch.points_BN2[0], FACES[0].points_N2[:3])


def test_other_boxes_are_cropped_and_known(shards):
    """Half a box to the right: what was the middle is at the left edge, and points stay where they were."""
    spec = small_spec()
    (whole,) = EvaluationBatches(shards, spec, batch_size=len(FACES))

    def beside(number, box_B4):
        assert number.dtype == tf.int64
        return box_B4 + [[0.5, 0.0, 0.0, 0.0]] * box_B4[:, 2:3]

    (moved,) = EvaluationBatches(shards, spec, batch_size=len(FACES), boxes=beside)
    half = whole.images_BHWC.shape[2] // 2
    np.testing.assert_allclose(moved.boxes_B4[:, 0], whole.boxes_B4[:, 0] + whole.boxes_B4[:, 2] / 2)
    inside = np.s_[:, :, : half // 2]
    np.testing.assert_allclose(moved.images_BHWC[inside], whole.images_BHWC[:, :, half : half + half // 2], atol=1e-2)
    np.testing.assert_array_equal(moved.points_BN2, whole.points_BN2)


def test_a_damaged_file_is_an_input_error(tmp_path):
    shard = write_shard(tmp_path / "shard", FACES[:3])
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ShardError, match=f"^{shard}: truncated record.*convert the annotations"):
        list(evaluation_batches([shard], small_spec()))


def test_batches_can_be_run_through_again(shards):
    batches = EvaluationBatches(shards, small_spec())
    first, second = ([batch.names for batch in batches] for _ in range(2))
    assert first == second and sum(map(len, first)) == 11
