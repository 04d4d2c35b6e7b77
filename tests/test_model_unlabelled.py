"""ELT, and faces without labels: they enter nothing but the ELT term, and that term acts."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from model.augment import random_affine
from model.draws import Draws
from model.learner import Learner
from model.losses import elt_loss
from model.pipeline import evaluation_batches, steps_per_epoch, training_batches
from model.record_tensors import LABELS
from model.training import train
from model.warp import crop_to_context, warp
from schemas.augmentation import SpatialAugmentation
from schemas.errors import ShardError, SpecError, SubjectLeakError, UnknownSubjectError
from schemas.experiment import LossSpec
from tests.shard_files import blob_face, small_spec, write_shard

FACES = [blob_face(i) for i in range(40)]
SPATIAL = "{rotate_rad_max: 0.3, translate_max_x: 6.0, translate_max_y: 6.0, zoom_min: 0.9, zoom_max: 1.1}"
ELT = f"""loss:
  loss_type: l1
  elt_loss_info:
    elt_alpha: %s
    enable_elt_loss: true
    unlabelled_sets: others
    unlabelled_share: 0.75
    modulus_spatial_augmentation: {SPATIAL}
num_epoch: 2
model: {{model_parameters: {{type: ResidualUNet, width: 8, beta: 1.0}}}}
enable_visualization: false
"""


def scrambled(face):
    """The same pixels, box and subject; other keypoints and flags."""
    return replace(face, points_N2=face.points_N2[::-1] * 0.5, flags_N=1 - face.flags_N)


def without_labels(path):
    """The file rewritten without any label."""
    records = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        example = tf.train.Example.FromString(record)
        for key in LABELS:
            example.features.feature.pop(key, None)
        records.append(example.SerializeToString())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return {
        "labelled": [write_shard(folder / "labelled", FACES[:8])],
        "plain": [write_shard(folder / "others", FACES[8:])],
        "scrambled": [write_shard(folder / "scrambled", [scrambled(face) for face in FACES[8:]])],
        "bare": [without_labels(write_shard(folder / "bare", FACES[8:]))],
    }


def batches(shards, others, *, memory=1024, epochs=range(3)):
    spec = small_spec(ELT % 0.5)
    spec = spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update={"memory_mib": memory})})
    dataset = training_batches(shards["labelled"], spec, epochs=epochs, steps=4, unlabelled_files=shards[others])
    return list(dataset.as_numpy_iterator())


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0, 1024])
def test_labels_of_unlabelled_sets_are_never_read(shards, memory):
    expected = batches(shards, "plain", memory=memory, epochs=range(1))
    for others in ("scrambled", "bare"):
        found = batches(shards, others, memory=memory, epochs=range(1))
        for ours, theirs in zip(expected, found, strict=True):
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
    for batch in expected:
        assert batch["counted_BN"].shape == (8, 5)
        assert (batch["counted_BN"][:2] == 1).all() and (batch["counted_BN"][2:] == 0).all()


def test_unlabelled_faces_are_in_no_loss_but_elt(shards):
    flags = "  visibility_coeff: 1.0\n  unflagged_are_visible: true\n"
    text = (ELT % 0.5).replace("beta: 1.0", "beta: 1.0, confidence: visibility")
    spec = small_spec(text.replace("loss:\n", f"loss:\n{flags}"))
    dataset = training_batches(shards["labelled"], spec, epochs=range(1), steps=1, unlabelled_files=shards["plain"])
    (batch,) = dataset.as_numpy_iterator()
    for name in ("counted_BN", "judged_BN"):
        assert (batch[name][:2] == 1).all() and (batch[name][2:] == 0).all()


@pytest.mark.parametrize("memory", [0, 1024])
def test_mixed_batches_go_on_where_they_stopped(shards, memory):
    whole = batches(shards, "plain", memory=memory)
    rest = batches(shards, "plain", memory=memory, epochs=range(1, 3))
    for ours, theirs in zip(whole[4:], rest, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    seen = {image.tobytes() for batch in whole for image in batch["image_BHWC"][2:]}
    assert 24 < len(seen) <= 32  # 24 in each epoch, other ones in another


def test_an_epoch_is_one_round_of_the_labelled_faces():
    assert steps_per_epoch(8, small_spec(ELT % 0.5)) == 4
    assert steps_per_epoch(8, small_spec()) == 1


def test_training_takes_them_and_refuses_what_would_leak(shards, tmp_path):
    spec = small_spec(ELT % 0.5)
    files = {"train_files": shards["labelled"], "validation_files": [], "directory": tmp_path / "run"}
    with pytest.raises(SubjectLeakError, match=r"bare.*blobs/012"):
        train(spec, **files, unlabelled_files=shards["bare"], kpi_subjects={"blobs/012"})
    nobody = write_shard(tmp_path / "nobody", [replace(face, subject="") for face in FACES[8:16]])
    with pytest.raises(UnknownSubjectError, match="nobody"):
        train(spec, **files, unlabelled_files=[nobody])
    with pytest.raises(SpecError, match="unlabelled_sets: 0 faces were given"):
        train(spec, **files)
    with pytest.raises(SpecError, match="unlabelled_sets: 32 faces were given"):
        train(small_spec(), **files, unlabelled_files=shards["bare"])
    with pytest.raises(ShardError):
        train(spec, **(files | {"train_files": shards["bare"]}), unlabelled_files=shards["bare"])
    result = train(spec, **files, unlabelled_files=shards["bare"])
    assert result.training_faces == 8 and result.history[-1].step == 8


def disagreement(network, files) -> float:
    """Mean distance in crop pixels between T(L(I)) and L(T(I)) over fixed random transforms of unseen faces."""
    (batch,) = evaluation_batches(files, small_spec(), batch_size=64)
    spatial = SpatialAugmentation(
        rotate_rad_max=0.3, translate_max_x=6.0, translate_max_y=6.0, zoom_min=0.9, zoom_max=1.1
    )
    move_B33, _ = random_affine(spatial, Draws(tf.constant([5, 5]), tf.constant(len(batch))), size=80)
    moved_BHWC = warp(tf.constant(batch.images_BHWC), tf.linalg.inv(move_B33), size=80)
    keypoints_BN2, moved_BN2 = (network(x, training=False)[0] for x in (batch.images_BHWC, moved_BHWC))
    # l1 sums over the batch and averages over points and axes
    loss = elt_loss(LossSpec(loss_type="l1"), keypoints_BN2, moved_BN2, move_B33, input_size=80)
    return float(loss) / len(batch)


@pytest.mark.slow
def test_elt_makes_predictions_on_unseen_faces_follow_the_transform(shards, tmp_path):
    """Eight labelled faces and 32 without labels, 60 steps; once with ELT, once with next to none of it."""
    unseen = [write_shard(tmp_path / "unseen", [blob_face(i) for i in range(100, 124)])]
    found = {}
    for alpha in (1e-9, 0.5):
        spec = small_spec(ELT % f"{alpha:.9f}")
        learner = Learner(spec)
        mixed = training_batches(shards["labelled"], spec, epochs=range(15), steps=4, unlabelled_files=shards["bare"])
        for number, batch in enumerate(mixed):
            learner.step(batch, number=number, learning_rate=2e-3)
        found[alpha] = disagreement(learner.network, unseen)
    assert found[0.5] < 0.6 * found[1e-9]


@pytest.mark.parametrize(
    ("rotate", "shift", "zoom_min"), [(0.35, 2.0, 0.98), (0.0, 20.0, 1.0), (0.2, 0.0, 0.8), (0.0, 0.0, 0.65)]
)
def test_moved_faces_show_real_pixels_to_their_borders(rotate, shift, zoom_min):
    """Inside these ranges no corner of the input reaches past the context, so nothing is repeated or made up."""
    spatial = SpatialAugmentation(
        rotate_rad_max=rotate, translate_max_x=shift, translate_max_y=shift, zoom_min=zoom_min, zoom_max=1.2
    )
    map_B33, _ = random_affine(spatial, Draws(tf.constant([3, 4]), tf.constant(500)), size=80)
    box_B4, region_B3 = tf.constant([[30.0, 30.0, 100.0, 100.0]]), tf.constant([[0.0, 0.0, 160.0]])
    to_context_B33 = crop_to_context(box_B4, region_B3, size=80, context_size=160) @ tf.linalg.inv(map_B33)
    rows, columns = np.mgrid[:160, :160].astype(np.float32)
    for expected, ramp in ((0, columns), (1, rows)):
        seen = warp(tf.tile(ramp[None, :, :, None], (500, 1, 1, 1)), to_context_B33, size=80)[..., 0].numpy()
        u, v = np.meshgrid(np.arange(80), np.arange(80))
        matrix = to_context_B33.numpy()[:, expected, :, None, None]
        np.testing.assert_allclose(seen, matrix[:, 0] * u + matrix[:, 1] * v + matrix[:, 2], atol=1e-2)
