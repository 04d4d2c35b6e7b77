"""The step that trains: what makes it train anew."""

import pytest

from model.learner import spec_network
from schemas.errors import ModelFileError, SpecError, SubjectLeakError
from schemas.records import Split
from schemas.storage import sha256_file
from tasks.convert import Conversion
from tasks.train import train_network
from tests.shard_files import blob_face, small_spec, write_shard


@pytest.fixture
def conversion(tmp_path):
    """Eight faces to train on, of blobs/000 to blobs/003."""
    shard = write_shard(tmp_path / "a.tfrecords", [blob_face(index) for index in range(8)])
    told = {Split.TRAIN: {"files": [{"sha256": sha256_file(shard)}]}, Split.VALIDATION: {"files": []}}
    files = {Split.TRAIN: [shard], Split.VALIDATION: []}
    return Conversion("key", files, {"splits": told}, written=1, reused=0)


def test_other_pretrained_weights_under_the_same_name_train_anew(conversion, tmp_path):
    weights = tmp_path / "earlier.keras"
    model = f"{{model_parameters: {{type: ResidualUNet, width: 8, pretrained_model_path: {weights}}}}}"
    spec = small_spec(f"num_epoch: 1\nmodel: {model}")

    def trained():
        return train_network(spec, conversion, kpi_subjects=(), parent=tmp_path / "training")

    spec_network(small_spec()).save(weights)
    assert not trained().reused
    earlier = weights.read_bytes()
    weights.write_bytes(b"no network")
    with pytest.raises(ModelFileError, match=r"earlier\.keras"):
        trained()
    weights.write_bytes(earlier)
    assert trained().reused


def test_a_kpi_subject_in_a_set_without_labels_is_refused_of_a_network_that_is_there_too(
    conversion, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # `small_spec` looks for its sets there
    write_shard(tmp_path / "web/records/data.tfrecords", [blob_face(index) for index in range(14, 16)])
    elt = "{enable_elt_loss: true, unlabelled_sets: web, modulus_spatial_augmentation: {rotate_rad_max: 0.3}}"
    spec = small_spec(f"num_epoch: 1\nloss: {{loss_type: l1, elt_loss_info: {elt}}}")

    def trained(*kpi_subjects):
        return train_network(spec, conversion, kpi_subjects=kpi_subjects, parent=tmp_path / "training")

    with pytest.raises(SubjectLeakError):
        trained("blobs/007")
    assert not trained("blobs/999").reused
    assert trained("blobs/999", "blobs/998").reused
    with pytest.raises(SubjectLeakError, match=r"web.*blobs/007"):
        trained("blobs/999", "blobs/007")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", r"unlabelled_sets: .*web/records/data\.tfrecords is not there"),
        (
            "dataloader: {batch_size: 8, num_keypoints: 5}\n",
            "unlabelled_sets: dataloader.dataset_info is needed to find these sets",
        ),
    ],
)
def test_sets_without_labels_that_can_not_be_found(more, told, conversion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elt = "{enable_elt_loss: true, unlabelled_sets: web, modulus_spatial_augmentation: {rotate_rad_max: 0.3}}"
    spec = small_spec(f"num_epoch: 1\n{more}loss: {{loss_type: l1, elt_loss_info: {elt}}}")
    with pytest.raises(SpecError, match=told):
        train_network(spec, conversion, kpi_subjects=(), parent=tmp_path / "training")
    assert not (tmp_path / "training").exists(), "nothing was begun"
