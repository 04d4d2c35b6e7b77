import hashlib
import os

import numpy as np
import onnx
import pytest

from deploy.engine import build_engine
from deploy.float16_graph import to_float16
from deploy.onnx_export import export_onnx, load_onnx, write_onnx
from deploy.onnx_graph import with_interface
from deploy.predictor import load_predictor
from deploy.targets import find_target
from model.evaluation import evaluate
from model.evaluation_report import evaluation_report
from model.pipeline import evaluation_batches
from model.weights import load_network, save_network
from schemas.errors import ModelFileError, SealedFileError, StorageError
from schemas.sealed import Key, Kind, write_sealed
from schemas.storage import read_json, write_json
from tests.networks import crops, sharp_network
from tests.shard_files import blob_face, small_spec, write_shard
from tests.stand_ins.devices import XAVIER, stand_in

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


@pytest.mark.parametrize(
    ("image", "num_keypoints", "told"),
    [
        ("", 7, "has 5 keypoints, the spec says 7"),
        ("height: 96, width: 96", 5, "has 80 pixels of input side, the spec says 96"),
        ("channel: 3", 5, "has 1 channels, the spec says 3"),
    ],
)
def test_a_spec_of_another_model_is_refused(files, image, num_keypoints, told):
    predictor = load_predictor(files / "model.onnx")
    predictor.require(small_spec())
    changes = f"dataloader: {{num_keypoints: {num_keypoints}, image_info: {{image: {{{image}}}}}}}"
    with pytest.raises(ModelFileError, match=told):
        predictor.require(small_spec(changes, num_keypoints=num_keypoints))


@pytest.mark.parametrize("name", ["gone.keras", "gone.onnx", "model.engine", "broken.keras", "broken.onnx"])
def test_what_is_no_model_is_named(files, name):
    if name.startswith("broken"):
        (files / name).write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match=name):
        load_predictor(files / name)


@pytest.mark.parametrize("suffix", ["tlt", "etlt"])
def test_nvidia_s_files_are_told_as_such(tmp_path, suffix):
    (tmp_path / f"model.{suffix}").write_bytes(b"encrypted")
    for read in (load_predictor, load_network):
        with pytest.raises(ModelFileError, match="a codec that only NVIDIA's container has"):
            read(tmp_path / f"model.{suffix}")


@pytest.mark.parametrize("form", ["tfonnx", "fixed batch", "heatmap", "fp16"])
def test_onnx_files_of_any_form_predict_the_same(files, tmp_path, form):
    """Outputs are told apart by their shapes: TAO's backends give them other names, and a heatmap is a third."""
    path, graph = tmp_path / "model.onnx", load_onnx(files / "model.onnx")
    if form == "heatmap":
        export_onnx(sharp_network(num_keypoints=5), path, heatmap=True)
    else:
        changed = {
            "tfonnx": lambda: with_interface(graph, naming="tfonnx"),
            "fixed batch": lambda: with_interface(graph, batch=4),
            "fp16": lambda: to_float16(graph, 5),
        }[form]()
        path.write_bytes(changed.SerializeToString())
    predictor, images = load_predictor(path), crops(7)
    assert (predictor.num_keypoints, predictor.input_size, predictor.channels) == (5, 80, 1)
    expected = load_predictor(files / "model.keras").predict(images)
    for found, wanted in zip(predictor.predict(images), expected, strict=True):
        assert found.shape == wanted.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=0.3 if form == "fp16" else 1e-3)


def test_sealed_models_predict_the_same(files, tmp_path):
    key, images = Key("some key"), crops(2)
    sealed = [
        save_network(sharp_network(num_keypoints=5), tmp_path / "model.keras", key=key),
        write_onnx(load_onnx(files / "model.onnx"), tmp_path / "model.onnx", key=key).path,
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.keras.sealed", "model.onnx.sealed"]
    for path in sealed:
        found = load_predictor(path, key=key).predict(images)
        wanted = load_predictor(files / path.stem).predict(images)
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        with pytest.raises(SealedFileError, match="the key is wrong"):
            load_predictor(path, key=Key("another"))


def test_a_trainable_file_is_no_input_for_a_device(files, tmp_path):
    key = Key("some key")
    write_sealed(tmp_path / "model.sealed", b"weights", Kind.TRAINABLE, key)
    for path, error, words in (
        (files / "model.keras", ModelFileError, "a trainable model; needed is a deployable one: export it"),
        (tmp_path / "model.sealed", SealedFileError, "holds a trainable model .* needed is a deployable model"),
    ):
        with pytest.raises(error, match=words):
            load_onnx(path, key=key)


def test_an_engine_that_runs_here_predicts_the_same_if_it_is_whole(files, tmp_path):
    built = build_engine(files / "model.onnx", find_target("cpu"), tmp_path)
    images = crops(3)
    for ours, theirs in zip(
        load_predictor(built.file).predict(images), load_predictor(files / "model.onnx").predict(images), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    built.file.write_bytes(built.file.read_bytes() + b"0")
    with pytest.raises(StorageError, match=r"engine\.onnx: damaged or changed"):
        load_predictor(built.file)


def test_a_gpu_s_engine_predicts_where_it_runs(files, tmp_path, monkeypatch):
    programs = stand_in(tmp_path / "nx", XAVIER)
    (programs.path / "trtexec").symlink_to(programs.trtexec)
    monkeypatch.setenv("PATH", f"{programs.path}{os.pathsep}{os.environ['PATH']}")
    built = build_engine(files / "model.onnx", find_target("xavier-nx"), tmp_path / "nx" / "engines")
    predictor, images = load_predictor(built.file), crops(3)
    assert (predictor.num_keypoints, predictor.input_size, predictor.channels) == (5, 80, 1)
    for ours, theirs in zip(
        predictor.predict(images), load_predictor(files / "model.onnx").predict(images), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=0.3)
    record = read_json(built.file.with_name("build.json"))
    record["target"] |= {"tensorrt": "8.4"}
    write_json(built.file.with_name("build.json"), record)
    with pytest.raises(ModelFileError, match=r"8\.4"):
        load_predictor(built.file)  # as it was built, whatever the catalogue says today
    record["target"] |= {"tensorrt": "8.5"}
    write_json(built.file.with_name("build.json"), record)
    programs.change(compute_capability=87)
    with pytest.raises(ModelFileError, match=r"built by trtexec for Jetson Xavier NX.* it needs a device .*SM72"):
        load_predictor(built.file)


def test_an_engine_for_another_device_says_what_can_run_it(tmp_path):
    plan = tmp_path / "engine.plan"
    plan.write_bytes(b"engine")
    with pytest.raises(ModelFileError, match="runs on the device it was built for"):
        load_predictor(plan)
    sha256 = hashlib.sha256(b"engine").hexdigest()
    record = {"engine": "engine.plan", "engine_sha256": sha256, "target": find_target("rtx").build_settings()}
    write_json(tmp_path / "build.json", record)
    with pytest.raises(ModelFileError, match=r"built by tensorrt-rtx for Turing.*not run by this project"):
        load_predictor(plan)


def test_an_onnx_file_of_another_model_is_named(tmp_path):
    nodes = [onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    shapes = {"x": ["batch", 1, 80, 80], "y": ["batch", 1]}
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = onnx.helper.make_graph(nodes, "mean", [x], [y])
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=7), tmp_path / "mean.onnx")
    with pytest.raises(ModelFileError, match=r"mean\.onnx: puts out y \(1,\) a face; needed are keypoints"):
        load_predictor(tmp_path / "mean.onnx")
