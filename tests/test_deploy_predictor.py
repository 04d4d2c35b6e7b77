import numpy as np
import pytest

from deploy.onnx_export import export_onnx
from deploy.predictor import load_predictor
from model.evaluation import evaluate
from model.evaluation_report import evaluation_report
from model.pipeline import evaluation_batches
from model.weights import save_network
from schemas.errors import ModelFileError
from tests.networks import crops, sharp_network
from tests.shard_files import blob_face, small_spec, write_shard

FACES = {"a": range(9), "b": range(9, 11)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    network = sharp_network(num_keypoints=5)
    save_network(network, folder / "model.keras")
    export_onnx(network, folder / "model.onnx")
    return folder


def test_both_kinds_predict_the_same(files):
    images = crops(3)
    ours, theirs = (load_predictor(files / f"model.{kind}") for kind in ("keras", "onnx"))
    for a, b in zip(ours.predict(images), theirs.predict(images), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    for predictor in (ours, theirs):
        assert (predictor.num_keypoints, predictor.input_size, predictor.channels) == (5, 80, 1)


def test_both_kinds_have_the_same_error_on_records(files, tmp_path):
    shards = [write_shard(tmp_path / name, [blob_face(i) for i in indices]) for name, indices in FACES.items()]
    keras, onnx = (
        evaluate(load_predictor(files / f"model.{kind}").predict, evaluation_batches(shards, small_spec()))
        for kind in ("keras", "onnx")
    )
    assert keras.names == tuple(f"images/{i:04d}.png" for i in range(11))
    assert keras.error() == pytest.approx(onnx.error(), abs=1e-3)
    report = evaluation_report(onnx)
    assert (report["faces"], report["subjects"], report["faces_without_subject"]) == (11, 6, 0)


def test_a_spec_of_another_model_is_refused(files):
    predictor = load_predictor(files / "model.onnx")
    predictor.require(small_spec())
    with pytest.raises(ModelFileError, match="has 5 keypoints, the spec says 7"):
        predictor.require(small_spec(num_keypoints=7))


@pytest.mark.parametrize("name", ["gone.keras", "gone.onnx", "model.engine", "broken.keras", "broken.onnx"])
def test_what_is_no_model_is_named(files, name):
    if name.startswith("broken"):
        (files / name).write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match=name):
        load_predictor(files / name)
