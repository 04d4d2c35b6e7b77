"""From an exported graph to an engine that was built, run and checked on a device."""

import os
import subprocess
import sys
import tempfile

import pytest
from onnx import helper

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.registry import BUILDERS
from deploy.device.facts import read_facts
from deploy.device.run import run_there
from deploy.devices import WORKERS_PYTHON, Device, LocalReach, SshReach, WorkPoolReach, program_of
from deploy.engine import EngineRun, Provenance, build_engine, build_engine_on, check_engine, write_manifest
from deploy.engine_file import EngineOptions, build_engine_file
from deploy.shells.local import LocalShell
from deploy.targets import find_target
from schemas.errors import DeviceOfflineError, EngineBuildError, GateError, ModelFileError, SpecError
from tests.small_graphs import pictures, small_graph, write_small
from tests.stand_ins.devices import XAVIER, stand_in

CPU = find_target("cpu")
IMAGES = pictures(20)


def _slow(name):
    """A target whose bounds of time a CPU reaches."""
    target = find_target(name)
    return target.model_copy(
        update={"gates": target.gates.model_copy(update={"min_fps": 1.0, "max_p99_ms": 10_000.0})}
    )


XAVIER_NX = _slow("xavier-nx")


@pytest.fixture
def device(tmp_path, monkeypatch):
    programs = stand_in(tmp_path / "nx", XAVIER)
    monkeypatch.setenv("PATH", f"{programs.path}{os.pathsep}{os.environ['PATH']}")
    return programs, LocalShell("nx-1", str(tmp_path / "nx" / "engines"))


@pytest.fixture
def onnx(tmp_path):
    return write_small(tmp_path / "model.onnx")


def _measured(built, shell, program):
    shell.put(built.file, "e.engine")
    return EngineRun(*run_there(shell, built.target, "e.engine", IMAGES, program=program), shell.name)


def test_an_engine_of_a_device_has_all_that_tells_of_it(device, onnx, tmp_path):
    programs, shell = device
    built = build_engine_on(shell, onnx, XAVIER_NX, tmp_path / "engines", program=programs.trtexec)
    assert (built.reused, built.versions) == (False, {"tensorrt": "8.5.2"})
    assert {path.name for path in built.directory.iterdir()} == {
        "model.onnx",
        "engine.engine",
        "timing.cache",
        "build.log",
        "reproduce.sh",
        "build.json",
    }
    measured = _measured(built, shell, programs.trtexec)
    check = check_engine(built, OnnxRuntimeEngine(onnx).predict(IMAGES), IMAGES, measured=measured)
    assert (check.state, check.device) == ("passed", "nx-1")
    assert {gate.name for gate in check.gates} >= {"parity All mean", "parity Eyes max", "speed"}
    manifest = write_manifest(built, check, Provenance("fpenet", "3", "snap"), ladder=["int8: too far"])
    assert manifest["device"]["gpu"] == "Xavier"
    assert manifest["device"]["jetpack"] == "5.1.2"
    assert manifest["builder"] == "trtexec, TensorRT 8.5.2, on nx-1 (Xavier)"
    assert (manifest["timing_cache"], manifest["ladder"]) == ("timing.cache", ["int8: too far"])


def test_the_script_beside_it_runs_the_same_line(device, onnx, tmp_path):
    programs, shell = device
    built = build_engine_on(shell, onnx, XAVIER_NX, tmp_path / "engines", program=programs.trtexec)
    before = built.file.read_bytes()
    built.file.unlink()
    subprocess.run(["sh", built.directory / "reproduce.sh"], check=True, cwd="/", capture_output=True)
    assert built.file.read_bytes() == before


def test_it_is_built_once_per_version_of_tensorrt(device, onnx, tmp_path):
    programs, shell = device
    first = build_engine_on(shell, onnx, XAVIER_NX, tmp_path, program=programs.trtexec)
    assert build_engine_on(shell, onnx, XAVIER_NX, tmp_path, program=programs.trtexec).reused
    programs.change(tensorrt="8.5.3")
    other = build_engine_on(shell, onnx, XAVIER_NX, tmp_path, program=programs.trtexec)
    assert not other.reused
    assert other.key != first.key


def test_an_engine_that_is_off_on_the_device_is_gated(device, onnx, tmp_path):
    """Its graph is fine; what the device made of it is not."""
    programs, shell = device
    built = build_engine_on(shell, onnx, XAVIER_NX, tmp_path / "engines", program=programs.trtexec)
    programs.change(shift_px=1.0)
    with pytest.raises(
        GateError, match=r"the engine of target 'xavier-nx' does not reach its gates: parity All mean 1"
    ):
        check_engine(
            built,
            OnnxRuntimeEngine(onnx).predict(IMAGES),
            IMAGES,
            measured=_measured(built, shell, programs.trtexec),
        )


def test_a_device_that_goes_away_leaves_no_engine_that_is_trusted(device, onnx, tmp_path, monkeypatch):
    programs, shell = device
    facts = read_facts(shell, XAVIER_NX, program=programs.trtexec)

    def gone(*_, **__):
        raise DeviceOfflineError("nx-1 went away")

    monkeypatch.setattr(shell, "fetch", gone)
    with pytest.raises(DeviceOfflineError):
        build_engine_on(shell, onnx, XAVIER_NX, tmp_path / "engines", program=programs.trtexec, facts=facts)
    assert not list((tmp_path / "engines").glob("*/build.json"))
    monkeypatch.undo()


def test_what_needs_no_device_is_built_here(device, onnx, tmp_path):
    _, shell = device
    with pytest.raises(EngineBuildError, match="target 'cpu' need no device to be built"):
        build_engine_on(shell, onnx, CPU, tmp_path, program=sys.executable)


def test_this_projects_python_runs_engines_on_a_device(device, onnx, tmp_path):
    _, shell = device
    built = build_engine(onnx, CPU, tmp_path / "engines")
    found, latency = run_there(shell, CPU, str(built.file), IMAGES, program=sys.executable)
    assert found.keypoints_BN2.shape == (20, 80, 2)
    assert (latency.batch, latency.runs) == (1, 200)
    with pytest.raises(ModelFileError, match=r"nx-1.*ONNX Runtime can't load it"):
        run_there(shell, CPU, "missing.onnx", IMAGES, program=sys.executable)


def test_trtexec_on_this_machine_builds_and_runs(device, onnx, tmp_path, monkeypatch):
    programs, _ = device
    builder = BUILDERS["trtexec"]
    assert builder.not_runnable(XAVIER_NX) == "needs a device with trtexec (SM72)"
    assert builder.probe().reason == "trtexec is not here; engines are built on the device"
    (programs.path / "trtexec").symlink_to(programs.trtexec)
    assert builder.probe().reason == "trtexec 8.5.2, builds for Xavier"
    assert builder.not_runnable(find_target("jetson-nano")) == "needs a device with trtexec (SM53)"
    built = build_engine(onnx, XAVIER_NX, tmp_path / "nx" / "engines")
    check = check_engine(built, OnnxRuntimeEngine(onnx).predict(IMAGES), IMAGES)
    assert check.state == "passed"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nx"))
    made = build_engine_file(onnx, tmp_path / "x.engine", EngineOptions(target="xavier-nx", workspace_bytes=64 << 20))
    assert (made.target.precision, made.target.workspace_mib, made.not_runnable) == ("fp32", 64, "")
    assert made.size == made.path.stat().st_size


def test_the_program_of_a_device():
    nano, t4 = find_target("jetson-nano"), find_target("t4")
    ssh = SshReach(kind="ssh", host="h", directory="d")
    device = Device(name="a", target="t4", ring="main", reach=ssh)
    assert program_of(device, nano) == "/usr/src/tensorrt/bin/trtexec"
    with pytest.raises(SpecError, match=r"devices\.a\.reach\.python: engines of target 't4' .*name its interpreter"):
        program_of(device, t4)
    named = device.model_copy(update={"reach": ssh.model_copy(update={"python": "/opt/python"})})
    assert program_of(named, t4) == "/opt/python"
    local = device.model_copy(update={"reach": LocalReach(kind="local", directory="d", trtexec="/t")})
    pool = device.model_copy(
        update={"reach": WorkPoolReach(kind="work_pool", deployment="f/d", directory="d", exchange="e")}
    )
    assert (program_of(local, nano), program_of(local, CPU)) == ("/t", sys.executable)
    assert (program_of(pool, nano), program_of(pool, t4)) == ("trtexec", WORKERS_PYTHON)


def test_an_operator_that_the_device_can_not_read_is_refused_before_anything_goes_there(device, tmp_path):
    programs, shell = device
    odd = small_graph()
    odd.graph.node[0].input[0] = "more"
    odd.graph.node.insert(0, helper.make_node("Elu", ["input_face_images"], ["more"], "the_odd_one"))
    (tmp_path / "odd.onnx").write_bytes(odd.SerializeToString())
    with pytest.raises(ModelFileError, match=r"Elu \(node 'the_odd_one'\)"):
        build_engine_on(shell, tmp_path / "odd.onnx", XAVIER_NX, tmp_path / "e", program=programs.trtexec)
    assert shell.list() == []
