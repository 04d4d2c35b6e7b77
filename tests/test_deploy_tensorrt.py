"""TensorRT's own builder: what can be tested where there is neither its library nor a GPU."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import tensorrt_rtx_bindings

from deploy.builders.process import run_module
from deploy.builders.registry import BUILDERS
from deploy.builders.tensorrt import MODULE
from deploy.builders.tensorrt_engine import TensorRtEngine
from deploy.engine import build_engine
from deploy.gpus import find_gpu
from deploy.targets import BatchProfile, find_target
from schemas.errors import EngineBuildError, ModelFileError
from tests.small_graphs import write_small

BUILDER, T4 = BUILDERS["tensorrt"], find_target("t4")
STAND_IN = Path(__file__).parent / "stand_ins" / "tensorrt_stand_in.py"


without = pytest.mark.skipif(bool(BUILDER.versions() or find_gpu().devices), reason="TensorRT or a GPU are here")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`import tensorrt` in a process of its own finds the stand-in."""
    (tmp_path / "packages").mkdir()
    shutil.copyfile(STAND_IN, tmp_path / "packages" / "tensorrt.py")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "packages"), *sys.path]))


def test_the_command_line_of_a_build():
    options = BUILDER.module_options(T4.model_copy(update={"workspace_mib": 512}))
    assert options == ("--batch", "1", "1", "32", "--workspace-mib", "512")
    assert BUILDER.module_options(T4) == ("--batch", "1", "1", "32")


@without
def test_without_tensorrt_or_a_gpu_it_says_so(tmp_path):
    probe = BUILDER.probe()
    assert (probe.available, probe.versions) == (False, {})
    assert (
        probe.reason
        == "not installed; install the extra 'tensorrt10' or 'tensorrt11' on a machine with an NVIDIA GPU"
    )
    assert BUILDER.not_runnable(T4) == "needs a GPU (SM75)"
    with pytest.raises(EngineBuildError, match="target 't4': tensorrt does not build here: not installed"):
        build_engine(write_small(tmp_path / "model.onnx"), T4, tmp_path / "engines")
    with pytest.raises(ModelFileError, match=r"e\.engine: can't be run here: it needs a GPU \(SM75\)"):
        BUILDER.open_engine(tmp_path / "e.engine", T4)
    with pytest.raises(ModelFileError, match=r"No module named .*install the extra 'tensorrt10' or 'tensorrt11'"):
        TensorRtEngine(tmp_path / "e.engine", BatchProfile())


def test_a_gpu_of_another_generation_is_named(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA L4, 8.9, 580.1'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert BUILDER.not_runnable(T4) == "needs a GPU (SM75); here is SM89"


@pytest.mark.skipif(bool(BUILDER.versions()), reason="TensorRT is here")
@pytest.mark.parametrize(("target", "reason"), [("l4", "needs TensorRT 10; here is none")])
def test_a_gpu_without_its_tensorrt(target, reason, tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA L4, 8.9, 580.1'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert BUILDER.not_runnable(find_target(target)) == reason


def test_the_process_of_a_build_makes_an_engine_and_a_timing_cache(stand_in, tmp_path):
    """With TensorRT-RTX in the place of TensorRT: the calls are the same, typed network and cache included."""
    model, engine, cache = write_small(tmp_path / "half.onnx", half=True), tmp_path / "e.engine", tmp_path / "t.cache"
    options = (*BUILDER.module_options(T4), "--workspace-mib", "64", "--timing-cache", str(cache))
    for _ in range(2):
        finished = run_module(MODULE, str(model), str(engine), *options, timeout_s=120)
        assert finished.failure == "", finished.output
    assert engine.stat().st_size > 10_000
    assert cache.stat().st_size > 0


def test_the_process_of_a_build_says_what_it_can_not_parse(stand_in, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    finished = run_module(
        MODULE, str(tmp_path / "model.onnx"), str(tmp_path / "e.engine"), "--batch", "1", "1", "1", timeout_s=120
    )
    assert "EngineBuildError" in finished.failure
    assert "not parsed" in finished.failure
    assert not (tmp_path / "e.engine").exists()


def test_its_version_is_asked_in_a_process_of_its_own(stand_in):
    assert run_module(MODULE, "--version", timeout_s=60).output.splitlines()[-1] == '"10.16.1"'


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("Runtime", ["deserialize_cuda_engine"]),
        (
            "ICudaEngine",
            ["num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape", "create_execution_context"],
        ),
        ("IExecutionContext", ["set_tensor_address", "set_input_shape", "execute_async_v3", "get_tensor_shape"]),
        ("TensorIOMode", ["INPUT"]),
    ],
)
def test_what_an_open_engine_calls_is_in_nvidias_bindings(owner, names):
    """A run needs a GPU; that its calls exist does not."""
    source = Path(sys.modules[TensorRtEngine.__module__].__file__).read_text()
    for name in names:
        assert hasattr(getattr(tensorrt_rtx_bindings, owner), name)
        assert f".{name}" in source
