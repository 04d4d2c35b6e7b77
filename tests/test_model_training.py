import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.checkpoint import restore_checkpoint, save_checkpoint
from model.learner import Learner
from model.pipeline import evaluation_batches, targets, training_batches
from model.progress import Plan, Watcher
from model.status import STATUS_FILE
from model.summaries import EVENTS
from model.training import CHECKPOINT_FILE, HISTORY_FILE, MODEL_FILE, train
from model.weights import load_network, save_network
from schemas.errors import ShardError, SpecError, StorageError, SubjectLeakError, TrainingError, UnknownSubjectError
from schemas.yamlspec import dump_spec
from tests.event_files import pictures, scalars
from tests.shard_files import blob_face, small_spec, write_shard
from tests.small_files import small_files

SPEC = """num_epoch: 4
checkpoint_n_epoch: 2
model: {model_parameters: {type: ResidualUNet, width: 8, beta: 1.0, dropout_rate: 0.2, regularizer_weight: 1.0e-5}}
optimizer:
  learning_rate_schedule: {soft_start: 0.1, annealing: 0.5, base_learning_rate: 0.005, min_learning_rate: 0.0001}
loss: {loss_type: wing_loss, heatmap_coeff: 1.0}
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    faces = [blob_face(i) for i in range(52)]
    return [write_shard(folder / "train", faces[:40])], [write_shard(folder / "validation", faces[40:])]


def run(shards, directory, *, spec=None, **options):
    return train(
        spec or small_spec(SPEC), train_files=shards[0], validation_files=shards[1], directory=directory, **options
    )


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    seen = []
    return run(shards, directory, on_epoch=seen.append), seen


def assert_same_checkpoints(ours: Path, theirs: Path) -> None:
    with np.load(ours / CHECKPOINT_FILE) as mine, np.load(theirs / CHECKPOINT_FILE) as other:
        assert mine.files == other.files
        for name in mine.files:
            if name != "meta":
                np.testing.assert_array_equal(mine[name], other[name])


def weights_of(path):
    return load_network(path).get_weights()


def test_a_training_learns_and_leaves_its_files(undisturbed, shards):
    result, seen = undisturbed
    assert [epoch.epoch for epoch in seen] == [1, 2, 3, 4] and tuple(seen) == result.history
    assert (result.training_faces, result.validation_faces, result.resumed_after) == (40, 12, 0)
    assert result.history[-1].loss < 0.9 * result.history[0].loss
    assert result.history[-1].step == 20
    assert set(result.history[0].terms) == {"keypoints", "heatmap", "regularisation"}
    assert result.history[0].loss == pytest.approx(sum(result.history[0].terms.values()), rel=1e-5)
    with (result.model_path.parent / HISTORY_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_error_px"]) for row in rows] == [epoch.validation_error_px for epoch in seen]
    assert [{name: float(row[name]) for name in epoch.terms} for row, epoch in zip(rows, seen, strict=True)] == [
        epoch.terms for epoch in seen
    ]
    rates = dict(scalars(result.model_path.parent / EVENTS)["learning_rate"])
    assert [epoch.learning_rate for epoch in seen] == pytest.approx([rates[epoch.step] for epoch in seen])


def test_the_model_is_the_epoch_with_the_lowest_validation_error(undisturbed, shards):
    result, _ = undisturbed
    errors = [epoch.validation_error_px for epoch in result.history]
    assert result.best.epoch == 1 + int(np.argmin(errors))
    network = load_network(result.model_path)
    distances = []
    for batch in evaluation_batches(shards[1], small_spec(SPEC)):
        keypoints = network.predict_on_batch(batch.images_BHWC)[0]
        for crop, truth, found in zip(batch.crops, batch.points_BN2, keypoints, strict=True):
            lo, hi = np.floor(truth.min(axis=0)), np.ceil(truth.max(axis=0))
            distances.append(np.linalg.norm(crop.to_frame(found) - truth, axis=1) * 80 / (hi - lo).max())
    assert np.mean(distances) == pytest.approx(result.best.validation_error_px, rel=1e-4)


def test_the_validation_loss_is_that_of_all_faces(undisturbed, shards):
    """Batches of 8 and 4 count by their faces."""
    result, spec = undisturbed[0], small_spec(SPEC)
    learner = Learner(spec)
    learner.kept.set_weights(load_network(result.model_path).get_weights())
    (every,) = evaluation_batches(shards[1], spec, batch_size=12)
    loss, _ = learner.assess(every.images_BHWC, targets(every, spec))
    assert result.best.validation_loss == pytest.approx(float(loss), rel=1e-4)


def test_of_equal_epochs_the_first_is_the_best(shards, tmp_path):
    """Steps so small that no weight changes."""
    still = small_spec(
        "optimizer: {learning_rate_schedule: {base_learning_rate: 1.0e-30, min_learning_rate: 1.0e-30}}\n"
    )
    result = run(shards, tmp_path, spec=still)
    first, second = (epoch.validation_error_px for epoch in result.history)
    assert first == second and [epoch.best for epoch in result.history] == [True, False]
    assert result.best.epoch == 1


KILLED_AFTER = 3
"""Epochs: the last checkpoint is then one epoch old."""

VICTIM = f"""
import os, signal, sys
from pathlib import Path
from model.training import train
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import load_spec

def die(result):
    if result.epoch == {KILLED_AFTER}:
        os.kill(os.getpid(), signal.SIGKILL)

spec, training, validation, directory = map(Path, sys.argv[1:])
spec = load_spec(ExperimentSpec, spec)
train(spec, train_files=[training], validation_files=[validation], directory=directory, on_epoch=die)
"""


def test_a_killed_training_ends_as_the_undisturbed_one(undisturbed, shards, tmp_path):
    spec_file, directory = tmp_path / "spec.yaml", tmp_path / "run"
    spec_file.write_text(dump_spec(small_spec(SPEC)))
    arguments = [spec_file, shards[0][0], shards[1][0], directory]
    killed = subprocess.run(
        [sys.executable, "-c", VICTIM, *map(str, arguments)],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(shards, directory)
    expected, _ = undisturbed
    assert resumed.resumed_after == 2
    timeless = [[replace(epoch, seconds=0) for epoch in result.history] for result in (resumed, expected)]
    assert timeless[0] == timeless[1]
    for ours, theirs in zip(weights_of(resumed.model_path), weights_of(expected.model_path), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_same_checkpoints(directory, expected.model_path.parent)
    assert scalars(directory / EVENTS) == scalars(expected.model_path.parent / EVENTS)
    told = [json.loads(line)["status"] for line in (directory / STATUS_FILE).read_text().splitlines()]
    assert told == ["STARTED", *["RUNNING"] * 3, "STARTED", *["RUNNING"] * 2, "SUCCESS"]


def test_a_best_epoch_is_a_checkpoint_too(shards, tmp_path):
    """Whatever `checkpoint_n_epoch` says: model.keras is of that epoch, and the history must be."""

    class Stopped(Exception):
        pass

    def stop(result):
        raise Stopped

    with pytest.raises(Stopped):
        run(shards, tmp_path, on_epoch=stop)
    assert run(shards, tmp_path).resumed_after == 1


@pytest.mark.slow
def test_looking_at_a_training_does_not_change_it(undisturbed, shards, tmp_path):
    result, _ = undisturbed
    events = result.model_path.parent / EVENTS
    steps = [step for step, _ in scalars(events)["total_loss"]]
    assert steps == list(range(1, 21)), "5 steps an epoch are fewer than ten points"
    assert [step for step, _ in scalars(events)["validation_error_px"]] == [5, 10, 15, 20]
    assert all([len(images) for _, images in shown] == [3] * 4 for shown in pictures(events).values())
    blind = run(shards, tmp_path, spec=small_spec(SPEC + "enable_visualization: false\n"))
    assert not (tmp_path / EVENTS).exists()
    assert [replace(epoch, seconds=0) for epoch in blind.history] == [
        replace(epoch, seconds=0) for epoch in result.history
    ]
    assert_same_checkpoints(tmp_path, result.model_path.parent)


@pytest.mark.slow
def test_a_training_in_bfloat16_goes_on_where_it_was(shards, tmp_path):
    spec = small_spec(SPEC + "training_precision: bfloat16\n")
    whole = run(shards, tmp_path / "whole", spec=spec)
    assert whole.history[-1].loss < 0.9 * whole.history[0].loss

    class Stopped(Exception):
        pass

    def stop(result):
        if result.epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        run(shards, tmp_path / "resumed", spec=spec, on_epoch=stop)
    assert run(shards, tmp_path / "resumed", spec=spec).resumed_after == 2
    assert_same_checkpoints(tmp_path / "resumed", tmp_path / "whole")


def test_a_finished_training_is_not_repeated(undisturbed, shards):
    result, _ = undisturbed
    before = result.model_path.read_bytes()
    again = run(shards, result.model_path.parent)
    assert again.resumed_after == 4 and again.history == result.history and again.best == result.best
    assert result.model_path.read_bytes() == before


def test_a_training_whose_model_was_taken_away_does_not_say_that_it_is_there(undisturbed, shards, tmp_path):
    copied = shutil.copytree(undisturbed[0].model_path.parent, tmp_path / "results")
    (copied / MODEL_FILE).unlink()
    with pytest.raises(TrainingError, match=r"model.keras: is not there.*remove \S+checkpoint.npz to start anew"):
        run(shards, copied)


def test_another_spec_does_not_go_on_from_this_checkpoint(undisturbed, shards):
    directory = undisturbed[0].model_path.parent
    with pytest.raises(TrainingError, match="another spec or other data"):
        run(shards, directory, spec=small_spec(SPEC + "random_seed: 1\n"))
    with pytest.raises(TrainingError, match="another spec or other data"):
        run((shards[1], shards[0]), directory)


def test_another_tensorflow_does_not_go_on_from_this_checkpoint(undisturbed, shards, monkeypatch):
    monkeypatch.setattr(tf, "__version__", "1.15.5")
    with pytest.raises(TrainingError, match="another spec or other data"):
        run(shards, undisturbed[0].model_path.parent)


def test_corrected_flags_are_other_data_and_another_place_is_not(undisturbed, shards, tmp_path):
    """A corrected file has the name, the size and the number of records of the file before."""
    directory, faces = undisturbed[0].model_path.parent, [blob_face(i) for i in range(40)]
    moved = write_shard(tmp_path / "moved" / "data", faces)
    elsewhere = small_spec(SPEC, root_path=f"{tmp_path}/moved/")
    assert run(([moved], shards[1]), directory, spec=elsewhere).resumed_after == 4
    faces[7] = replace(faces[7], flags_N=np.where(faces[7].flags_N == 1, 0, 1).astype(np.int8))
    corrected = write_shard(tmp_path / shards[0][0].name, faces)
    with pytest.raises(TrainingError, match="another spec or other data"):
        run(([corrected], shards[1]), directory)


def test_another_pretrained_model_under_the_same_name_begins_another_training(undisturbed, shards, tmp_path):
    weights = tmp_path / "pretrained.keras"
    parameters = f"{{type: ResidualUNet, width: 8, pretrained_model_path: {weights}}}"
    spec = small_spec(f"num_epoch: 1\nmodel: {{model_parameters: {parameters}}}\n")
    network = load_network(undisturbed[0].model_path)
    save_network(network, weights)
    run((shards[0], []), tmp_path / "run", spec=spec)
    network.set_weights([2 * values for values in network.get_weights()])
    save_network(network, weights)
    with pytest.raises(TrainingError, match="another spec or other data"):
        run((shards[0], []), tmp_path / "run", spec=spec)


def test_how_a_training_is_shown_may_change_on_the_way(undisturbed, shards):
    class Listener(Watcher):
        def begin(self, plan):
            self.plan = plan

    directory, listener = undisturbed[0].model_path.parent, Listener()
    shown = "log_every_n_secs: 5\nvisualize_num_images: 1\nenable_visualization: false\n"
    spec = small_spec(SPEC.replace("checkpoint_n_epoch: 2", "checkpoint_n_epoch: 3") + shown)
    assert run(shards, directory, spec=spec, progress=listener).resumed_after == 4
    assert listener.plan == Plan(epochs=4, epochs_done=4, steps=5, faces=8, log_every_s=5)


@pytest.mark.parametrize(("format_", "found"), [({}, 1), ({"format": 99}, 99)])
def test_a_checkpoint_of_another_format_is_refused(format_, found, undisturbed, shards, tmp_path):
    with np.load(undisturbed[0].model_path.parent / CHECKPOINT_FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    meta = json.loads(str(arrays.pop("meta")))
    del meta["format"]
    np.savez(tmp_path / CHECKPOINT_FILE, meta=np.array(json.dumps(meta | format_)), **arrays)
    with pytest.raises(TrainingError, match=f"a checkpoint of format {found}, and this version .* format 3"):
        run(shards, tmp_path)


def test_sets_without_masking_are_part_of_what_a_training_is(undisturbed, shards):
    directory, spec = undisturbed[0].model_path.parent, small_spec(SPEC)
    info = spec.dataloader.dataset_info.model_copy(update={"no_occlusion_masking_sets": "a"})
    changed = spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update={"dataset_info": info})})
    with pytest.raises(TrainingError, match="another spec or other data"):
        run(shards, directory, spec=changed)


@pytest.mark.parametrize("content", [b"PK\x03\x04 not a zip", b"neither", b""], ids=["torn", "other", "empty"])
def test_a_damaged_checkpoint_is_named(content, tmp_path):
    (tmp_path / CHECKPOINT_FILE).write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        restore_checkpoint(tmp_path / CHECKPOINT_FILE, [], "ours")


def test_a_checkpoint_whose_zip_says_nonsense_is_damaged(tmp_path):
    path, weight = tmp_path / CHECKPOINT_FILE, tf.Variable([1.0, 2.0])
    save_checkpoint(path, [weight], [], "ours")
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for field in (8, 10):  # encrypted; compressed in an unknown way
        path.write_bytes(whole[: entry + field] + bytes([whole[entry + field] ^ 1]) + whole[entry + field + 1 :])
        with pytest.raises(TrainingError, match="damaged"):
            restore_checkpoint(path, [weight], "ours")


def test_a_checkpoint_without_all_weights_is_damaged(tmp_path):
    path, weight = tmp_path / CHECKPOINT_FILE, tf.Variable([1.0, 2.0])
    save_checkpoint(path, [weight], [], "ours")
    for variables in ([weight, tf.Variable(3.0)], [tf.Variable([1.0, 2.0, 3.0])]):
        with pytest.raises(TrainingError, match="damaged"):
            restore_checkpoint(path, variables, "ours")


def test_a_checkpoint_that_can_t_be_written_leaves_the_one_before(tmp_path):
    path, weight = tmp_path / CHECKPOINT_FILE, tf.Variable([1.0, 2.0])
    save_checkpoint(path, [weight], [], "ours")
    weight.assign([3.0, 4.0])
    with small_files(100), pytest.raises(StorageError, match="can't be written"):
        save_checkpoint(path, [weight], [], "ours")
    assert restore_checkpoint(path, [weight], "ours") == [] and weight.numpy().tolist() == [1.0, 2.0]


def test_without_validation_faces_the_last_epoch_is_kept(shards, tmp_path):
    class Listener(Watcher):
        losses = []

        def step(self, number, terms, learning_rate):
            self.losses.append(terms["loss"])

    spec = small_spec("num_epoch: 3\ncheckpoint_n_epoch: 2\n")
    result = run((shards[0], []), tmp_path, spec=spec, progress=Listener())
    means = np.reshape(Listener.losses, (3, 5)).mean(axis=1)
    assert [epoch.loss for epoch in result.history] == pytest.approx(means), "an epoch's loss is that of its steps"
    assert result.best.epoch == 3 and result.best.validation_error_px is None
    assert (tmp_path / MODEL_FILE).exists()
    assert run((shards[0], []), tmp_path, spec=spec).resumed_after == 3, "the end is a checkpoint too"


def test_kpi_subjects_never_train(shards, tmp_path):
    with pytest.raises(SubjectLeakError, match="blobs/003"):
        run(shards, tmp_path, kpi_subjects={"blobs/003"})
    with pytest.raises(SubjectLeakError, match=r"validation.*blobs/025"):
        run(shards, tmp_path, kpi_subjects={"blobs/025"})
    unknown = write_shard(tmp_path / "unknown", [replace(blob_face(0), subject="")])
    with pytest.raises(UnknownSubjectError, match="unknown"):
        run(([unknown], []), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["unknown"]


def test_no_faces_are_nothing_to_train_on(tmp_path):
    with pytest.raises(ShardError, match="no faces to train on"):
        run(([write_shard(tmp_path / "empty", [])], []), tmp_path)


@pytest.mark.parametrize("mask_occ", [False, True])
def test_covered_points_that_count_all_the_same_are_told_of(tmp_path, caplog, mask_occ):
    dataloader = "dataloader: {num_keypoints: 5, augmentation_info: {mask_augmentation_patch: true}}\n"
    spec = small_spec(dataloader + f"loss: {{mask_occ: {str(mask_occ).lower()}}}\n")
    with pytest.raises(ShardError):
        run(([write_shard(tmp_path / "empty", [])], []), tmp_path, spec=spec)
    assert ("mask_augmentation_patch does nothing without mask_occ" in caplog.text) != mask_occ


def test_a_wholly_frozen_network_is_refused():
    with pytest.raises(SpecError, match="nothing to train"):
        Learner(small_spec("model: {model_parameters: {width: 8, train_fpe_model: false}}\n"))


def test_a_diverging_training_stops_without_validation_too(shards, tmp_path):
    spec = small_spec(
        "optimizer: {learning_rate_schedule: {base_learning_rate: 1.0e+30, min_learning_rate: 1.0e+30}}\n"
    )
    with pytest.raises(TrainingError, match=r"after step .*lower base_learning_rate"):
        run((shards[0], []), tmp_path, spec=spec)


def test_a_network_that_breaks_in_an_epoch_s_last_step_is_told(shards, tmp_path):
    """Its loss was sound; only the validation sees what the step made of the weights."""
    rate = "optimizer: {learning_rate_schedule: {base_learning_rate: 1.0e+30, min_learning_rate: 1.0e+30}}\n"
    one_step = small_spec(rate)
    faces = [blob_face(i) for i in range(one_step.dataloader.batch_size)]
    with pytest.raises(TrainingError, match=r"^validation: .* lower base_learning_rate"):
        run(([write_shard(tmp_path / "one", faces)], shards[1]), tmp_path / "run", spec=one_step)


def test_subjects_for_training_and_for_validation_are_told(shards, tmp_path, caplog):
    spec = small_spec("num_epoch: 1\n")
    run((shards[0], shards[0]), tmp_path / "same", spec=spec)
    assert "subjects for training are among those for validation" in caplog.text
    caplog.clear()
    run(shards, tmp_path / "others", spec=spec)
    assert "validation" not in caplog.text


def test_subjects_without_labels_are_told_too_and_nobody_is_no_subject(shards, tmp_path, caplog):
    with pytest.raises(SpecError):
        run(shards, tmp_path, unlabelled_files=shards[1])
    assert "(blobs/020, blobs/021, blobs/022, blobs/023, blobs/024 and 1 more)" in caplog.text
    caplog.clear()
    nobody = [write_shard(tmp_path / "nobody", [replace(blob_face(0), subject="")])]
    with pytest.raises(SpecError):
        run((nobody, nobody), tmp_path, unlabelled_files=nobody, allow_unknown_subjects=True)
    assert not caplog.text


class FailingDevice(tf.distribute.OneDeviceStrategy):
    """A processor that fails as TensorFlow says it: `fails` is told the number of every step, a tensor."""

    def __init__(self, fails):
        super().__init__("/cpu:0")
        self._fails = fails

    def run(self, fn, args=(), **options):
        tf.debugging.Assert(self._fails(args[1]), ["No algorithm worked!"])
        return super().run(fn, args, **options)


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        pytest.param(
            lambda number: tf.fill([2**52 + tf.cast(number, tf.int64)], 1.0)[0] > 0,
            r"^step 1: the device has too little memory: OOM when .* by allocator \w+; lower batch_size$",
            marks=pytest.mark.slow,
        ),
        (lambda number: number < 2, r"^step 3: the device failed: assertion failed: \[No algorithm worked!\]; train"),
    ],
    ids=["memory", "computing"],
)
def test_a_device_that_fails_is_not_taken_for_bad_data(shards, tmp_path, fails, message):
    with pytest.raises(TrainingError, match=message):
        run(shards, tmp_path, spec=small_spec(), strategy=FailingDevice(fails))


def gradients(spec, batch):
    learner = Learner(spec)
    before = [w.numpy() for w in learner.network.trainable_variables]
    terms = learner.step(batch, number=0, learning_rate=1e-3)
    return terms, [w.numpy() - b for w, b in zip(learner.network.trainable_variables, before, strict=True)]


@pytest.mark.slow
def test_elt_acts_on_the_weights_without_any_label(shards):
    elt = """loss:
  loss_type: wing_loss
  kpts_coeff: %s
  elt_loss_info: {elt_alpha: 0.5, enable_elt_loss: true, modulus_spatial_augmentation: {rotate_rad_max: 0.3}}
"""
    spec = small_spec(elt % 0.01)
    batch = next(iter(training_batches(shards[0], spec, epochs=range(1), steps=1)))
    unlabelled = batch | {"counted_BN": tf.zeros_like(batch["counted_BN"])}
    terms, changes = gradients(spec, unlabelled)
    assert float(terms["keypoints"]) == 0 and float(terms["elt"]) > 0
    assert any(np.abs(change).max() > 0 for change in changes)
    still = unlabelled | {"moved_BHWC": batch["image_BHWC"], "move_B33": tf.eye(3, batch_shape=(8,))}
    assert float(gradients(spec, still)[0]["elt"]) == pytest.approx(0, abs=1e-5)


def test_what_a_training_in_bfloat16_keeps_is_float32():
    learner = Learner(small_spec("training_precision: bfloat16\n"))
    batch = {
        "image_BHWC": tf.random.stateless_uniform((2, 80, 80, 1), (0, 0), maxval=255.0),
        "points_BN2": tf.random.stateless_uniform((2, 5, 2), (0, 1), maxval=80.0),
        "counted_BN": tf.ones((2, 5)),
    }
    before = [weight.numpy() for weight in learner.network.trainable_variables]
    learner.step(batch, number=100, learning_rate=0.01)
    assert {layer.compute_dtype for layer in learner.kept.layers} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in learner.network.layers}
    weights, kept = (network.trainable_variables for network in (learner.network, learner.kept))
    for weight, copy in zip(weights, kept, strict=True):
        np.testing.assert_array_equal(copy, weight)
    assert any(np.abs(weight - old).max() > 0 for weight, old in zip(weights, before, strict=True))


def test_visibility_is_learned_and_moves_no_heatmap():
    """From the features, of which the heatmap is another view: its own convolution is left alone."""
    text = """model: {model_parameters: {type: ResidualUNet, width: 8, beta: 1.0, confidence: visibility}}
loss: {loss_type: l1, visibility_coeff: 1.0}
"""
    learner = Learner(small_spec(text))
    batch = {
        "image_BHWC": tf.random.stateless_uniform((4, 80, 80, 1), (0, 0), maxval=255.0),
        "points_BN2": tf.zeros((4, 5, 2)),
        "counted_BN": tf.zeros((4, 5)),
        "visible_BN": tf.constant([[1.0, 0, 1, 0, 1]] * 4),
        "judged_BN": tf.ones((4, 5)),
    }
    heatmap = learner.network.get_layer("conv_keypoints_m5")
    before, costs = heatmap.get_weights()[0], []
    for number in range(10):
        costs.append(float(learner.step(batch, number=number, learning_rate=0.01)["visibility"]))
    assert costs[-1] < 0.5 * costs[0]
    unjudged = batch | {"judged_BN": tf.zeros((4, 5))}
    assert float(learner.step(unjudged, number=10, learning_rate=0.01)["visibility"]) == 0
    np.testing.assert_array_equal(heatmap.get_weights()[0], before)
