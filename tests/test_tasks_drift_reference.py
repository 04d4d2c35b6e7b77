"""What a model is expected to see, made of shards and an exported network."""

import numpy as np
import pytest

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.drift_client import Profile
from deploy.onnx_export import export_onnx
from model.pipeline import evaluation_batches
from schemas.records import Split
from schemas.storage import sha256_file
from tasks.convert import Conversion
from tasks.drift.reference import PROFILE, make_reference
from tests.networks import sharp_network
from tests.shard_files import blob_face, small_spec, write_shard

FACES = {Split.TRAIN: range(24), Split.VALIDATION: range(24, 30), Split.KPI: range(30, 40)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of a network that nobody trained: folder, result, and the held-out crops' predictions."""
    folder = tmp_path_factory.mktemp("reference")
    files = {
        split: [write_shard(folder / f"{split}.tfrecords", [blob_face(number) for number in numbers])]
        for split, numbers in FACES.items()
    }
    conversion = Conversion("key", files, {}, written=3, reused=0)
    onnx = export_onnx(sharp_network(width=4, num_keypoints=5), folder / "model.onnx").path
    spec = small_spec()
    result = make_reference(folder / "made", onnx, spec, conversion, "fpenet/3")
    held_out = [*files[Split.VALIDATION], *files[Split.KPI]]
    images_BHWC = np.concatenate([batch.images_BHWC for batch in evaluation_batches(held_out, spec)])
    again = make_reference(folder / "again", onnx, spec, conversion, "fpenet/3")
    return folder, result, again, OnnxRuntimeEngine(onnx).predict(images_BHWC)


def test_it_counts_the_faces_that_the_model_was_not_trained_on(made):
    folder, result, _, seen = made
    profile = Profile(str(folder / "made" / PROFILE))
    assert profile.model == "fpenet/3"
    counts = profile.counts(profile.values(*seen))
    assert {name: found.tolist() for name, found in counts.items()} == result["counts"]
    assert set(result["counts"]) == {"confidence/All", "shape"}
    assert {sum(found) for found in result["counts"].values()} == {16}
    assert all(0 < worth <= 16 for worth in result["independent"].values())
    assert set(result["between"]) == set(result["counts"])
    assert all(0 <= share <= 1 for share in result["between"].values())


def test_it_is_the_same_bytes_again(made):
    folder, result, again, _ = made
    assert result == again
    assert sha256_file(folder / "made" / PROFILE) == sha256_file(folder / "again" / PROFILE)
