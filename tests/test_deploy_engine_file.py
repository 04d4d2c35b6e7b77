import pytest

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.engine_file import EngineOptions, adjusted, build_engine_file
from deploy.float16_graph import to_float16
from deploy.gpus import find_gpu
from deploy.onnx_export import export_onnx, load_onnx, write_onnx
from deploy.onnx_graph import with_interface
from deploy.targets import find_target
from schemas.errors import EngineBuildError, InputError, SpecError
from schemas.sealed import Key
from tests.networks import crops, sharp_network

NO_GPU = not find_gpu().devices


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    return export_onnx(sharp_network(), tmp_path_factory.mktemp("onnx") / "model.onnx").path


def test_a_named_device_is_built_for_ahead_of_time(onnx, tmp_path):
    half = write_onnx(with_interface(to_float16(load_onnx(onnx), 80), naming="tfonnx"), tmp_path / "half.onnx").path
    options = EngineOptions(target="rtx", maximum=16, optimum=4, workspace_bytes=1 << 28)
    built = build_engine_file(half, tmp_path / "out" / "model.engine", options)
    assert built.size == (tmp_path / "out" / "model.engine").stat().st_size > 100_000
    assert (built.target.batch.minimum, built.target.batch.optimum, built.target.batch.maximum) == (1, 4, 16)
    assert built.target.workspace_bytes == 1 << 28
    assert "TensorRT-RTX" in built.builder
    assert "not run by this project (for SM75, SM80" in built.not_runnable
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.engine"]


def test_an_engine_of_a_sealed_file_runs(onnx, tmp_path):
    sealed = write_onnx(load_onnx(onnx), tmp_path / "model.onnx", key=Key("secret")).path
    built = build_engine_file(sealed, tmp_path / "cpu.onnx", EngineOptions(target="cpu-int8"), key=Key("secret"))
    assert not built.not_runnable
    assert built.target.precision == "fp32", "that of the file"
    assert OnnxRuntimeEngine(built.path).predict(crops(2)).keypoints_BN2.shape == (2, 80, 2)


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU, for which an engine may be built")
def test_without_a_gpu_a_device_must_be_named(onnx, tmp_path):
    with pytest.raises(EngineBuildError, match=r"no engine for the GPU .*tensorrt is .*--target .*rtx.*trtexec"):
        build_engine_file(onnx, tmp_path / "model.engine", EngineOptions())
    assert not (tmp_path / "model.engine").exists()


def test_options_that_no_builder_could_follow():
    cpu, rtx = find_target("cpu"), find_target("rtx")
    with pytest.raises(InputError, match="--opt_batch_size 8 is above --max_batch_size 4"):
        adjusted(rtx, EngineOptions(optimum=8, maximum=4))
    with pytest.raises(InputError, match=r"--max_workspace_size: onnxruntime \(target 'cpu'\) has no workspace"):
        adjusted(cpu, EngineOptions(workspace_bytes=1))


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        (EngineOptions(), (1, 8, 32)),
        (EngineOptions(maximum=4), (1, 4, 4)),
        (EngineOptions(optimum=64), (1, 64, 64)),
        (EngineOptions(optimum=1, maximum=1), (1, 1, 1)),
    ],
)
def test_batch_sizes_that_are_not_given_follow_the_target(options, batch):
    found = adjusted(find_target("rtx"), options).batch
    assert (found.minimum, found.optimum, found.maximum) == batch


def test_an_unknown_device(onnx, tmp_path):
    with pytest.raises(SpecError, match="no target 'rtx-sm87'"):
        build_engine_file(onnx, tmp_path / "model.engine", EngineOptions(target="rtx-sm87"))


def test_a_workspace_that_is_not_set_leaves_build_keys_alone():
    assert "workspace_bytes" not in find_target("rtx").build_settings()
    limited = adjusted(find_target("rtx"), EngineOptions(workspace_bytes=1 << 30))
    assert limited.build_settings()["workspace_bytes"] == 1 << 30


def test_a_workspace_of_less_than_a_mib_is_one():
    assert adjusted(find_target("t4"), EngineOptions(workspace_bytes=1)).workspace_mib == 1
    assert adjusted(find_target("t4"), EngineOptions(workspace_bytes=3 << 20)).workspace_mib == 3
