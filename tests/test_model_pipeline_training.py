import subprocess
import sys
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest

from model.crop import CONTEXT_SIZE
from model.feed import face_batches
from model.pipeline import evaluation_batches, steps_per_epoch, targets, training_batches
from model.shards import box_ratio, named_subjects, refuse_leaks, shard_errors, survey
from model.tfrecords import write_records
from model.training import train
from schemas.errors import ImageError, ShardError, SubjectLeakError, UnknownSubjectError
from schemas.geometry import Box
from schemas.layouts import layout
from schemas.records import Flag
from tasks.shared_sets import divide
from tests.shard_files import blob_face, face_record, small_spec, write_images, write_shard

FACES = [blob_face(i, num_keypoints=68) for i in range(21)]
RANDOM = """
  augmentation_info:
    enable_online_augmentation: true
    enable_occlusion_augmentation: true
    patch_probability: 0.5
    mask_augmentation_patch: true
    gamma_augmentation: {gamma_min: 0.5, gamma_max: 1.5, gamma_probability: 0.5}
    modulus_spatial_augmentation: {hflip_probability: 0.5, rotate_rad_max: 0.3, translate_max_x: 4.0, zoom_max: 1.2}
"""
DATALOADER = """dataloader:
  batch_size: 8
  num_keypoints: 68
  dataset_info:
    tfrecords_directory_path: .
    tfrecord_folder_name: records
    tfrecord_file_name: data
    tfrecords_set_id_train: a
    tfrecords_set_id_val: b
    no_occlusion_masking_sets: %s
  kpiset_info: {tfrecords_set_id_kpi: c}
"""


def spec_with(changes: str = "", *, exempt: str = "null", augmentation: str = ""):
    return small_spec(DATALOADER % exempt + augmentation + changes, num_keypoints=68)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return [write_shard(folder / "a", FACES[:9]), write_shard(folder / "b", FACES[9:])]


def batches(files, spec, *, epochs=range(1), steps=2):
    return list(training_batches(files, spec, epochs=epochs, steps=steps).as_numpy_iterator())


def test_without_augmentation_training_sees_what_evaluation_sees(shards):
    spec = spec_with()
    (batch,) = evaluation_batches(shards, spec, batch_size=21)
    expected = {
        image.tobytes(): crop.to_crop(xy)
        for image, crop, xy in zip(batch.images_BHWC, batch.crops, batch.points_BN2, strict=True)
    }
    seen = set()
    for given in batches(shards, spec):
        for image, points in zip(given["image_BHWC"], given["points_BN2"], strict=True):
            np.testing.assert_allclose(points, expected[image.tobytes()], atol=1e-3)
            seen.add(image.tobytes())
    assert len(seen) == 16


MOVED = """
  augmentation_info:
    enable_online_augmentation: true
    modulus_spatial_augmentation: {hflip_probability: %s, rotate_rad_max: 0.5, translate_max_x: 6.0,
                                   translate_max_y: 3.0, zoom_min: 0.8, zoom_max: 1.2}
"""


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
@pytest.mark.parametrize("axis", [0, 1], ids="xy")
def test_keypoints_and_their_flags_stay_on_their_pixels(tmp_path, axis, mirrored):
    """Pictures as bright everywhere as their column (or row) is far: what is seen at a point tells which it is."""
    ramp = np.indices(FACES[0].image.shape, np.uint8)[1 - axis]
    shard = write_shard(tmp_path / "ramps", [replace(face, image=ramp) for face in FACES[:8]])
    mask = "loss: {mask_occ: true}\n"
    plain, moved = (batches([shard], spec_with(mask, augmentation=how), steps=1)[0] for how in ("", MOVED % mirrored))
    order = list(layout(68).flip) if mirrored else list(range(68))
    inside_BN = ((moved["points_BN2"] > 0) & (moved["points_BN2"] < 79)).all(axis=2)
    assert inside_BN.mean() > 0.8 and np.abs(moved["points_BN2"] - plain["points_BN2"][:, order]).max() > 5
    np.testing.assert_allclose(gray_at(moved)[inside_BN], gray_at(plain)[:, order][inside_BN], atol=1.0)
    for name in ("counted_BN", "visible_BN", "judged_BN"):
        assert 0.2 < moved[name].mean() < 0.8
        np.testing.assert_array_equal(moved[name], plain[name][:, order])


def gray_at(batch):
    """(B, N): what the images show at the points."""
    pairs = zip(batch["image_BHWC"], batch["points_BN2"], strict=True)
    return np.stack(
        [cv2.remap(image, points_N2[:, None], None, cv2.INTER_LINEAR)[:, 0] for image, points_N2 in pairs]
    )


@pytest.mark.parametrize("kept", ["", "  memory_mib: 0\n"])
def test_order_and_changes_come_from_the_seed_the_epoch_and_the_step(shards, kept):
    spec = spec_with("random_seed: 0\n", augmentation=RANDOM + kept)
    first, resumed = batches(shards, spec, epochs=range(3)), batches(shards, spec, epochs=range(1, 3))
    for one, other in zip(first[2:], resumed, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    orders = [tuple(batch["points_BN2"].sum(axis=(1, 2))) for batch in first]
    assert len(set(orders)) == 6
    reseeded = batches(shards, spec_with("random_seed: 43\n", augmentation=RANDOM))
    assert not np.array_equal(first[0]["image_BHWC"], reseeded[0]["image_BHWC"])


@pytest.mark.parametrize("kept", ["", "  memory_mib: 0\n"])
def test_the_order_alone_comes_from_the_seed_and_the_epoch(shards, kept):
    orders = []
    for seed in (0, 43):
        given = batches(shards, spec_with(f"random_seed: {seed}\n", augmentation=kept), epochs=range(2), steps=3)
        sums = [tuple(batch["points_BN2"].sum(axis=(1, 2))) for batch in given]
        orders += [sum(sums[:3], ()), sum(sums[3:], ())]
    assert len(set(orders)) == 4 and len({frozenset(order) for order in orders}) == 1


def test_read_anew_or_kept_the_same_faces_come_once_an_epoch(shards):
    sums = []
    for kept in ("", "  memory_mib: 0\n"):
        epoch = batches(shards, spec_with(augmentation=kept), steps=3)
        sums.append(sorted(np.concatenate([batch["points_BN2"].sum(axis=(1, 2)) for batch in epoch])))
    assert len(set(sums[0])) == len(FACES)
    np.testing.assert_array_equal(*sums)


def test_a_set_that_is_not_kept_is_shuffled_although_its_files_are_in_order(tmp_path, monkeypatch):
    """Every face comes once an epoch; what is shuffled together is from all of a file, and each time others."""
    monkeypatch.setattr("model.feed._SHUFFLED_TOGETHER", 256)
    files, numbers = [], iter(range(2020))
    for name, count in (("small", 7), ("empty", 0), ("large", 2013)):
        write_records(tmp_path / name, map(_numbered, islice(numbers, count)))
        files.append(tmp_path / name)
    spec = spec_with(augmentation="  memory_mib: 0\n")

    def blocks(epoch):
        given = face_batches(files, spec, batch=256, epochs=range(epoch, epoch + 1), steps=8)
        return [batch["points_BN2"][:, 0, 0].round().astype(int) for batch in given.as_numpy_iterator()]

    first, second = blocks(0), blocks(1)
    for epoch in (first, second):
        assert sorted(np.concatenate(epoch)) == list(range(2020))
        assert all(len(set(block // 128)) == 16 for block in epoch[:-1])
    assert set(first[0]) != set(second[0])


@pytest.mark.slow
def test_a_set_that_is_kept_is_never_in_memory_twice(tmp_path):
    """In a process of its own, which has read a few faces before."""
    faces = 4000
    files = tmp_path / "few", tmp_path / "many"
    for path, number in zip(files, (1, faces), strict=True):
        write_records(path, [face_record(FACES[0])] * number)
    script = """
import sys
from pathlib import Path
from model.feed import face_batches
from tests.shard_files import small_spec
for path in sys.argv[1:]:
    list(face_batches([Path(path)], small_spec(num_keypoints=68), batch=8, epochs=range(1), steps=1))
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
    child = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    before_kib, after_kib = map(int, child.stdout.split())
    assert after_kib - before_kib < 2 * faces * CONTEXT_SIZE**2 / 1024


def _numbered(number):
    """A record whose first point is at (`number`, 0) of its crop."""
    face = replace(FACES[0], points_N2=np.full((68, 2), [number, 0], np.float32), box=Box(0, 0, 80, 80))
    return face_record(face)


@pytest.mark.parametrize("kept", ["", "  memory_mib: 0\n"])
def test_a_picture_that_can_t_be_decoded_is_an_input_error(tmp_path, kept):
    write_images(tmp_path, FACES[:2])
    (tmp_path / FACES[1].name).write_bytes(b"no picture")
    shard = write_shard(tmp_path / "plain", FACES[:2], embed=False)
    spec = spec_with(augmentation=kept)
    info = spec.dataloader.dataset_info.model_copy(update={"root_path": f"{tmp_path}/"})
    spec = spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update={"dataset_info": info})})
    with pytest.raises(ImageError, match=r"^\S+/0001.png: not an image that can be decoded$"), shard_errors():
        batches([shard], spec, steps=1)


def test_a_set_smaller_than_a_batch_is_one_batch(tmp_path):
    spec = spec_with()
    assert [steps_per_epoch(n, spec) for n in (3, 8, 21)] == [1, 1, 2]
    few = write_shard(tmp_path / "few", FACES[:3])
    assert [len(batch["image_BHWC"]) for batch in batches([few], spec, steps=1)] == [3]


@pytest.mark.parametrize(
    ("exempt", "counts"),
    [("null", False), ("blobs", True), ("other blobs", True), ("''", False), ("images/00", True), ("im.ges", False)],
)
def test_occluded_points_count_only_where_they_should(shards, exempt, counts):
    """By set id or a part of the image name, literally; an empty list exempts nobody; unknown flags are visible."""
    batch = batches(shards, spec_with("loss: {mask_occ: true}\n", exempt=exempt))[0]
    share = np.mean([face.flags_N != Flag.OCCLUDED for face in FACES])
    assert batch["counted_BN"].mean() == (1.0 if counts else pytest.approx(share, abs=0.06))


@pytest.mark.slow
def test_sets_without_masking_count_in_validation_too(shards, tmp_path):
    losses = []
    for mask, exempt in (("false", "null"), ("true", "blobs"), ("true", "null")):
        spec = spec_with(f"num_epoch: 1\nloss: {{mask_occ: {mask}}}\n", exempt=exempt)
        directory = tmp_path / f"{mask}-{exempt}"
        result = train(spec, train_files=shards[:1], validation_files=shards[1:], directory=directory)
        losses.append(result.history[-1].validation_loss)
    assert losses[0] == losses[1] > losses[2]


def test_without_masking_every_point_counts(shards):
    assert (batches(shards, spec_with(augmentation=RANDOM))[0]["counted_BN"] == 1).all()


def test_augmentation_that_is_switched_off_changes_nothing(shards):
    off = RANDOM.replace("enable_online_augmentation: true", "enable_online_augmentation: false")
    (plain,), (same,) = (batches(shards, spec_with(augmentation=how), steps=1) for how in ("", off))
    for name in plain:
        np.testing.assert_array_equal(same[name], plain[name])


@pytest.mark.parametrize("unflagged", [False, True])
def test_which_points_are_judged_for_their_visibility(shards, unflagged):
    """Those that somebody flagged, and the others where that is to mean visible."""
    loss = f"loss: {{visibility_coeff: 0.5, unflagged_are_visible: {str(unflagged).lower()}, mask_occ: true}}\n"
    loss += "model: {model_parameters: {type: ResidualUNet, width: 8, confidence: visibility}}\n"
    given = batches(shards, spec_with(loss), steps=3)
    known = np.concatenate([face.flags_N != Flag.UNKNOWN for face in FACES])
    hidden = np.concatenate([face.flags_N == Flag.OCCLUDED for face in FACES])
    judged, visible = (np.concatenate([batch[name] for batch in given]) for name in ("judged_BN", "visible_BN"))
    assert judged.sum() == (known.size if unflagged else known.sum())
    assert (1 - visible).sum() == hidden.sum()
    assert all((batch["counted_BN"] == batch["visible_BN"]).all() for batch in given)


def test_a_patch_hides_points_for_visibility_even_where_they_count_for_their_place(shards):
    kept = RANDOM.replace("mask_augmentation_patch: true", "mask_augmentation_patch: false")
    mask = "loss: {mask_occ: true}\n"
    (plain,), (patched,) = (batches(shards, spec_with(mask, augmentation=how), steps=1) for how in ("", kept))
    assert patched["counted_BN"].sum() == plain["counted_BN"].sum() < plain["counted_BN"].size
    assert patched["visible_BN"].sum() < plain["visible_BN"].sum()


@pytest.mark.parametrize("exempt", ["null", "blobs"])
def test_validation_compares_with_what_training_does_without_augmentation(shards, exempt):
    spec = spec_with("loss: {mask_occ: true}\n", exempt=exempt)
    (whole,) = evaluation_batches(shards, spec, batch_size=21)
    expected = {name: values.numpy() for name, values in targets(whole, spec).items()}
    faces = {image.tobytes(): number for number, image in enumerate(whole.images_BHWC)}
    for batch in batches(shards, spec, steps=3):
        numbers = [faces[image.tobytes()] for image in batch["image_BHWC"]]
        for name, values in expected.items():
            np.testing.assert_allclose(batch[name], values[numbers], atol=1e-3)


def test_a_patch_hides_points(shards):
    spec = spec_with("loss: {mask_occ: true}\n", augmentation=RANDOM)
    plain = batches(shards, spec_with("loss: {mask_occ: true}\n"))
    patched = batches(shards, spec)
    assert sum(b["counted_BN"].sum() for b in patched) < sum(b["counted_BN"].sum() for b in plain)


def test_with_elt_the_second_view_is_the_first_one_moved(shards):
    elt = "loss: {elt_loss_info: {enable_elt_loss: true, modulus_spatial_augmentation: {translate_max_x: 9.0}}}\n"
    batch = batches(shards, spec_with(elt))[0]
    shift_B = batch["move_B33"][:, 0, 2]
    assert np.abs(shift_B).max() > 2
    for image, moved, shift in zip(batch["image_BHWC"], batch["moved_BHWC"], shift_B, strict=True):
        columns = np.arange(15, 65)
        expected = np.stack([np.interp(columns - shift, np.arange(80), row) for row in image[..., 0]])
        assert np.abs(moved[:, 15:65, 0] - expected).mean() < 1.0


def test_a_survey_counts_and_names_subjects(shards):
    surveys = survey(shards, spec_with())
    assert [(s.path, s.records) for s in surveys] == [(shards[0], 9), (shards[1], 12)]
    assert surveys[0].subjects == tuple(sorted({face.subject for face in FACES[:9]}))


def test_kpi_subjects_are_refused_by_name_and_file(shards):
    surveys = survey(shards, spec_with())
    refuse_leaks(surveys, {"blobs/999"}, allow_unknown=False)
    with pytest.raises(SubjectLeakError, match=f"{shards[1]}.*blobs/010") as error:
        refuse_leaks(surveys, {"blobs/010"}, allow_unknown=True)
    assert error.value.subjects == ["blobs/010"]


@pytest.mark.parametrize("written", ["team/j\u00f6rg", "team/jo\u0308rg"])
def test_kpi_subjects_are_refused_however_their_letters_are_composed(tmp_path, written):
    shard = write_shard(tmp_path / "a", [replace(FACES[0], subject=written)])
    surveys = survey([shard], spec_with())
    for listed in ("team/j\u00f6rg", "team/jo\u0308rg"):
        with pytest.raises(SubjectLeakError, match="team/j\u00f6rg"):
            refuse_leaks(surveys, {listed}, allow_unknown=False)
    nobody = write_shard(tmp_path / "b", FACES[:1], tao_only=True)
    assert named_subjects([shard, nobody, tmp_path / "none"]) == {"team/j\u00f6rg"}


def test_unknown_subjects_need_permission(tmp_path):
    write_images(tmp_path, FACES[:2])
    surveys = survey([write_shard(tmp_path / "a", FACES[:2], tao_only=True)], with_root(tmp_path))
    refuse_leaks(surveys, {"blobs/000"}, allow_unknown=True)
    with pytest.raises(UnknownSubjectError, match="without a subject"):
        refuse_leaks(surveys, {"blobs/000"}, allow_unknown=False)


def with_root(path, *, num_keypoints=68):
    return small_spec(root_path=f"{path}/", num_keypoints=num_keypoints)


def test_a_survey_finds_what_training_would_stumble_over(tmp_path):
    face = FACES[0]
    with pytest.raises(ShardError, match="no such TFRecord file"):
        survey([tmp_path / "none"], with_root(tmp_path))
    shard = write_shard(tmp_path / "few", [face])
    with pytest.raises(ShardError, match=r"0000.png has 68 keypoints, the spec 80"):
        survey([shard], with_root(tmp_path, num_keypoints=80))
    short = replace(FACES[1], flags_N=face.flags_N[:67])
    with pytest.raises(ShardError, match=r"0001.png has 67 occluded flags, the spec 68 keypoints"):
        survey([write_shard(tmp_path / "short", [face, short])], with_root(tmp_path))
    with pytest.raises(ShardError, match=r"0000.png is not there; check root_path"):
        survey([write_shard(tmp_path / "plain", [face], embed=False)], with_root(tmp_path))
    for box, told in ((Box(1, 2, 30, 31), "30 x 31"), (Box(1, 2, 0, 0), "0 x 0")):
        odd = face_record(replace(FACES[1], box=box), embed=False)
        write_records(tmp_path / "odd", [face_record(face), odd])
        with pytest.raises(ShardError, match=f"0001.png has a face box of {told}, not a square"):
            survey([tmp_path / "odd"], with_root(tmp_path))
    shard.write_bytes(shard.read_bytes()[:-9])
    for read in (lambda: survey([shard], with_root(tmp_path)), lambda: named_subjects([shard])):
        with pytest.raises(ShardError, match=f"^{shard}: truncated record.*convert the annotations"):
            read()
    write_records(shard, [b"\xff no face"])
    with pytest.raises(ShardError, match=f"^{shard}: has a record that is no face"):
        box_ratio(shard, 68)
    with pytest.raises(ShardError, match=f"^{shard}: has a record that is no face"):
        divide([shard], tmp_path / "divided")


def test_the_ratio_of_boxes_is_that_to_the_keypoints_in_use(tmp_path):
    """TAO's older layout has 104 points always, those that were not annotated at (0, 0)."""
    padding = np.zeros((36, 2), np.float32)
    padded = [replace(face, points_N2=np.concatenate([face.points_N2, padding])) for face in FACES]
    files = [write_shard(tmp_path / name, faces) for name, faces in (("plain", FACES), ("padded", padded))]
    plain, older = (box_ratio(path, 68) for path in files)
    assert plain == older == pytest.approx(1.3, abs=0.02)
    assert box_ratio(files[0], 80) is None
    assert box_ratio(tmp_path / "none", 68) is None


def test_faces_without_a_square_have_no_part_in_the_ratio_of_boxes(tmp_path):
    """One whose points all coincide, one with a point that is no number; and one box that was drawn far too large."""
    nowhere = FACES[2].points_N2.copy()
    nowhere[5] = np.nan
    odd = [
        replace(FACES[0], points_N2=np.full((68, 2), 90, np.float32)),
        replace(FACES[1], box=Box(0, 0, 900, 900)),
        replace(FACES[2], points_N2=nowhere),
    ]
    records = [face_record(face, embed=False) for face in (*odd, *FACES[3:])]
    write_records(tmp_path / "odd", records)
    assert box_ratio(tmp_path / "odd", 68) == pytest.approx(1.3, abs=0.02)
