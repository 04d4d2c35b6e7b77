import os
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model

from deploy.builders.base import build_with_module, probe_module
from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.process import run_module
from deploy.builders.registry import BUILDERS
from deploy.float16_graph import to_float16
from deploy.onnx_export import export_onnx, load_onnx
from deploy.targets import find_target
from schemas.errors import EngineBuildError, ModelFileError
from schemas.storage import write_bytes
from tests.networks import KINDS, crops, sharp_network

MODULES = {
    "segfaults": "import ctypes; print('about to'); ctypes.string_at(0)",
    "hangs": "import threading; threading.Event().wait()",
    "fails": "raise ImportError('libnvinfer.so.11: no such file')",
    "writes_nothing": "",
    "chatters": "print('a banner'); print('\"Something 1.2\"')",
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Modules that `python -m` finds, each with a fault of its own."""
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return export_onnx(sharp_network(), tmp_path_factory.mktemp("onnx") / "model.onnx").path


def test_a_probe_that_segfaults_is_a_reason(modules):
    probe = probe_module("segfaults", {"thing": "1.0"})
    assert not probe.available
    assert probe.reason == "crashed with SIGSEGV"
    assert probe.versions == {"thing": "1.0"}


def test_a_probe_that_fails_gives_its_last_line(modules):
    assert probe_module("fails", {}).reason == "ImportError: libnvinfer.so.11: no such file"


def test_a_probe_may_say_more_than_its_answer(modules):
    probe = probe_module("chatters", {})
    assert (probe.available, probe.reason) == (True, "Something 1.2")


def test_a_process_that_hangs_is_stopped(modules):
    assert run_module("hangs", timeout_s=1).failure == "took more than 1 s and was stopped"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("segfaults", r"crashed with SIGSEGV\nabout to"),
        ("writes_nothing", "it wrote nothing"),
        ("hangs", "was stopped"),
    ],
)
def test_a_build_that_dies_leaves_no_engine(module, message, modules, model):
    with pytest.raises(EngineBuildError, match=message):
        build_with_module(module, model, modules / "engine.plan", (), timeout_s=2)
    assert not [path for path in modules.iterdir() if "engine" in path.name]


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt-rtx"])
def test_builders_that_need_no_gpu_are_here(name):
    probe = BUILDERS[name].probe()
    assert probe.available, probe.reason
    assert all(version in probe.reason for version in probe.versions.values())


@pytest.mark.parametrize("kind", KINDS)
def test_tensorrt_rtx_builds_every_type(kind, tmp_path):
    """One file for all its GPU generations, in FP16 and in FP32."""
    path = export_onnx(sharp_network(kind), tmp_path / "model.onnx").path
    half = tmp_path / "half.onnx"
    write_bytes(half, to_float16(load_onnx(path), 80).SerializeToString())
    builder = BUILDERS["tensorrt-rtx"]
    for onnx in (half, path):
        result = builder.build(onnx, find_target("rtx"), tmp_path / onnx.stem)
        assert result.engine.stat().st_size > 100_000
        assert "Engine generation completed" in result.log
        assert result.command[1:4] == ("deploy.builders.tensorrt_rtx", onnx.name, "engine.plan")


def test_tensorrt_rtx_engines_do_not_run_here(tmp_path):
    builder, target = BUILDERS["tensorrt-rtx"], find_target("rtx")
    reason = "is built ahead of time and bundled, not run by this project (for SM75, SM80, SM86, SM89, SM120)"
    assert builder.not_runnable(target) == reason
    with pytest.raises(ModelFileError, match=r"engine\.plan: can't be run here: it is built ahead of time"):
        builder.open_engine(tmp_path / "engine.plan", target)


def test_tensorrt_rtx_says_what_it_can_not_parse(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(EngineBuildError, match=r"model\.onnx: not parsed: .*Failed to parse the ONNX model"):
        BUILDERS["tensorrt-rtx"].build(tmp_path / "model.onnx", find_target("rtx"), tmp_path)


def test_the_onnxruntime_engine_says_what_its_graph_says(model, tmp_path):
    builder, target = BUILDERS["onnxruntime"], find_target("cpu")
    engine = builder.open_engine(builder.build(model, target, tmp_path).engine, target)
    images = crops(5)
    expected, found = OnnxRuntimeEngine(model).predict(images), engine.predict(images)
    assert not builder.not_runnable(target)
    assert found.keypoints_BN2.shape == (5, 80, 2)
    np.testing.assert_allclose(found.keypoints_BN2, expected.keypoints_BN2, atol=1e-3)
    np.testing.assert_allclose(found.confidence_BN, expected.confidence_BN, atol=1e-4)


def test_an_onnxruntime_engine_that_is_none(tmp_path):
    (tmp_path / "engine.onnx").write_bytes(b"no model")
    for name in ("engine.onnx", "missing.onnx"):
        with pytest.raises(ModelFileError, match=f"{name}: ONNX Runtime can't load it"):
            OnnxRuntimeEngine(tmp_path / name)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16])
def test_an_onnx_file_that_takes_no_float32_is_named(tmp_path, kind):
    value, path = helper.make_tensor_value_info, tmp_path / "foreign.onnx"
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    shape = ["batch", 1, 80, 80]
    graph = helper.make_graph(nodes, "g", [value("x", kind, shape)], [value("y", TensorProto.FLOAT, shape)])
    opset = [helper.make_opsetid("", 13)]
    save_model(helper.make_model(graph, opset_imports=opset, ir_version=7), path)
    with pytest.raises(ModelFileError, match=r"foreign\.onnx: ONNX Runtime can't load it: .*input data type"):
        OnnxRuntimeEngine(path)
