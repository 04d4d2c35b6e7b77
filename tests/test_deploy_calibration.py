import numpy as np
import pytest
from PIL import Image

from deploy.calibration import folder_faces, record_faces, tensorfile_faces
from deploy.tensorfile import write_tensorfile
from schemas.errors import CalibrationError, ShardError
from tests.networks import crops
from tests.shard_files import blob_face, small_spec, write_shard

SHAPE = (1, 80, 80)


@pytest.fixture
def folder(tmp_path):
    """Ten crops under every suffix that counts, and files that do not count."""
    place = tmp_path / "crops"
    place.mkdir()
    for index, suffix in enumerate((".png", ".jpg", ".JPEG", ".PNG", ".jpeg") * 2):
        image = Image.new("RGB", (120, 100), (10 * index, 10 * index, 10 * index))
        image.paste((255, 255, 255), (0, 0, 20, 100))
        image.save(place / f"{index}{suffix}")
    (place / "notes.txt").write_text("no image")
    return place


def test_a_folder_gives_the_same_random_sample_each_time(folder):
    faces = folder_faces(folder, image_shape=SHAPE, batches=3, batch_size=2)
    first, again = list(faces), list(faces)
    assert [batch.shape for batch in first] == [(2, 80, 80, 1)] * 3
    assert faces.count == 6
    assert faces.origin == f"6 of 10 images in {folder}"
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert faces.files == folder_faces(folder, image_shape=SHAPE, batches=3, batch_size=2).files
    greys = np.concatenate(first)[:, 40, 40, 0]
    assert len(set(greys)) == 6
    assert set(greys) <= set(range(0, 100, 10)) | {value + off for value in range(0, 100, 10) for off in (-1, 1)}


def test_a_folder_without_a_number_gives_every_whole_batch(folder):
    assert folder_faces(folder, image_shape=SHAPE, batch_size=4).count == 8
    assert folder_faces(folder, image_shape=SHAPE).count == 10


def test_a_model_of_three_channels_gets_colours(folder):
    coloured = Image.new("RGB", (80, 80), (200, 100, 50))
    coloured.paste((0, 0, 0), (0, 0, 20, 80))
    coloured.save(folder / "colour.png")
    faces = folder_faces(folder, image_shape=(3, 80, 80))
    colours = np.concatenate(list(faces))[:, 60, 60]
    assert colours.shape == (11, 3)
    assert [200, 100, 50] in colours.tolist()


def test_too_few_images_says_how_many_are_needed(folder):
    with pytest.raises(CalibrationError, match=r"crops: 4 batches of 8 need 32 faces, 10 are there"):
        folder_faces(folder, image_shape=SHAPE, batches=4, batch_size=8)
    with pytest.raises(CalibrationError, match=r"1 batches of 16 need 16 faces, 10 are there"):
        folder_faces(folder, image_shape=SHAPE, batch_size=16)


def test_no_folder_is_never_noise(tmp_path):
    with pytest.raises(CalibrationError, match="no such folder of calibration images; give one with face crops"):
        folder_faces(tmp_path / "none", image_shape=SHAPE)


def test_an_image_that_is_none_is_named(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(CalibrationError, match=r"broken\.png: can't be read as an image"):
        list(folder_faces(folder, image_shape=SHAPE))


def test_an_image_of_nothing_is_named(folder):
    Image.new("L", (80, 80), 128).save(folder / "grey.png")
    with pytest.raises(CalibrationError, match=r"grey\.png: shows nothing, all gray values are alike; take it out"):
        list(folder_faces(folder, image_shape=SHAPE))


def test_a_tensorfile_is_used_as_it_is_or_refused(tmp_path):
    path = tmp_path / "cal.tensorfile"
    write_tensorfile(path, [crops(4), crops(4, seed=1)])
    faces = tensorfile_faces(path, image_shape=SHAPE)
    assert (faces.count, faces.origin) == (8, str(path))
    np.testing.assert_array_equal(np.concatenate(list(faces)), np.concatenate([crops(4), crops(4, seed=1)]))
    assert tensorfile_faces(path, image_shape=SHAPE, batches=2, batch_size=4).count == 8
    with pytest.raises(CalibrationError, match="exists and holds 2 batches, 10 were asked for"):
        tensorfile_faces(path, image_shape=SHAPE, batches=10)
    with pytest.raises(CalibrationError, match="exists and holds 4 faces a batch, 1 were asked for"):
        tensorfile_faces(path, image_shape=SHAPE, batch_size=1)
    with pytest.raises(
        CalibrationError, match=r"holds crops of the shape \(1, 80, 80\), the model takes \(3, 80, 80\)"
    ):
        tensorfile_faces(path, image_shape=(3, 80, 80))


def test_a_tenth_of_the_training_faces_at_least_seen_as_training_sees_them(tmp_path):
    from model.pipeline import evaluation_batches

    faces = [blob_face(index) for index in range(25)]
    files = [write_shard(tmp_path / "a", faces[:10]), write_shard(tmp_path / "b", faces[10:])]
    found = record_faces(files, small_spec(), batch_size=2)
    assert found.origin == "4 of 25 training faces (16%)"
    taken = list(found)
    assert [batch.shape for batch in taken] == [(2, 80, 80, 1)] * 2
    for one, other in zip(taken, found, strict=True):
        np.testing.assert_array_equal(one, other)
    every = np.concatenate([batch.images_BHWC for batch in evaluation_batches(files, small_spec())])
    np.testing.assert_array_equal(np.concatenate(taken), every[sorted(found.chosen)])
    assert record_faces(files, small_spec(), batches=5, batch_size=5).count == 25
    with pytest.raises(CalibrationError, match="the training set: 6 batches of 5 need 30 faces, 25 are there"):
        record_faces(files, small_spec(), batches=6, batch_size=5)


def test_training_records_that_are_missing(tmp_path):
    with pytest.raises(ShardError, match="no such TFRecord file"):
        record_faces([tmp_path / "none"], small_spec())
