"""The step that trains: what makes it train anew."""

import pytest

from model.learner import spec_network
from schemas.errors import ModelFileError
from schemas.records import Split
from schemas.storage import sha256_file
from tasks.convert import Conversion
from tasks.train import train_network
from tests.shard_files import blob_face, small_spec, write_shard


def test_other_pretrained_weights_under_the_same_name_train_anew(tmp_path):
    shard = write_shard(tmp_path / "a.tfrecords", [blob_face(index) for index in range(8)])
    told = {Split.TRAIN: {"files": [{"sha256": sha256_file(shard)}]}, Split.VALIDATION: {"files": []}}
    files = {Split.TRAIN: [shard], Split.VALIDATION: []}
    conversion = Conversion("key", files, {"splits": told}, written=1, reused=0)
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
