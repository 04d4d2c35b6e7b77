import os

import pytest

from deploy.device.facts import DeviceFacts, jetpack_of, read_facts, release_of, require_match, require_same
from deploy.shells.local import LocalShell
from deploy.targets import find_target
from schemas.errors import DeviceError, EngineMismatchError
from tests.stand_ins.devices import XAVIER, stand_in
from tests.stand_ins.gpus import install_gpus

XAVIER_NX = find_target("xavier-nx")
FACTS = DeviceFacts("Xavier", 72, "8.5.2", "5.1.2", "R35.4.1", 1 << 33, device="nx-1")


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A folder that pretends to be a Xavier, and a shell in it."""
    programs = stand_in(tmp_path / "nx", XAVIER)
    monkeypatch.setenv("PATH", f"{programs.path}{os.pathsep}{os.environ['PATH']}")
    return programs, LocalShell("nx-1", str(tmp_path / "nx" / "engines"))


def test_what_a_jetson_is(device):
    programs, shell = device
    facts = read_facts(shell, XAVIER_NX, program=programs.trtexec)
    assert (facts.gpu, facts.compute_capability, facts.tensorrt, facts.jetpack) == ("Xavier", 72, "8.5.2", "5.1.2")
    assert facts.free_bytes > 1 << 20
    assert facts.versions == {"tensorrt": "8.5.2"}
    require_match(facts, XAVIER_NX)
    require_match(facts, find_target("agx-xavier"))


def test_what_a_server_is(device):
    programs, shell = device
    programs.change(jetpack="", nvidia_smi="NVIDIA L4, 8.9, 580.95.05\n", free_kib=2048)
    facts = read_facts(shell, find_target("cpu"), program="python")
    assert (facts.gpu, facts.compute_capability, facts.driver) == ("NVIDIA L4", 89, "580.95.05")
    assert (facts.jetpack, facts.tensorrt, facts.free_bytes) == (None, None, 2 << 20)


@pytest.mark.parametrize(
    ("names", "gpu"), [("1", "NVIDIA L4"), ("GPU-1,0", "NVIDIA L4"), ("MIG-GPU-0/1/2", "Tesla T4"), ("", None)]
)
def test_a_gpu_that_the_environment_hides_is_not_the_devices(tmp_path, monkeypatch, names, gpu):
    install_gpus(tmp_path, monkeypatch, "Tesla T4, 7.5, 580.1", "NVIDIA L4, 8.9, 580.1")
    shell = LocalShell("server", str(tmp_path / "engines"))
    assert read_facts(shell, find_target("cpu"), program="python").gpu == "Tesla T4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert read_facts(shell, find_target("cpu"), program="python").gpu == gpu


def test_a_program_that_is_not_there_or_another(device):
    _, shell = device
    for program in ("no-such-trtexec", "true"):
        with pytest.raises(DeviceError, match=rf"device 'nx-1': {program} is not there, or is no trtexec"):
            read_facts(shell, XAVIER_NX, program=program)
    for target, extra in {"t4": "tensorrt10", "h100": "tensorrt11"}.items():
        message = rf"has no working TensorRT: .*extra '{extra}'.*`python` in the devices file"
        with pytest.raises(DeviceError, match=message):
            read_facts(shell, find_target(target), program="false")
    with pytest.raises(DeviceError, match="has no working TensorRT: it named no version"):
        read_facts(shell, find_target("t4"), program="true")


def test_a_device_without_a_gpu_is_no_device_of_the_target(device):
    programs, shell = device
    programs.change(fail="no gpu")
    facts = read_facts(shell, XAVIER_NX, program=programs.trtexec)
    with pytest.raises(EngineMismatchError, match="nx-1 shows no GPU, the target's is SM72"):
        require_match(facts, XAVIER_NX)


@pytest.mark.parametrize(
    ("changes", "target", "message"),
    [
        (
            {},
            "jetson-nano",
            r"SM72, the target's is SM53; .*8\.5\.2, the target 8\.2; .*devices file .*'xavier-nx' or 'agx-xavier'",
        ),
        (
            {"tensorrt": "8.4.1"},
            "xavier-nx",
            r"TensorRT 8\.4\.1, the target 8\.5\. Install TensorRT 8\.5 \(a later JetPack 5\.1\.x has it\) there",
        ),
        ({"tensorrt": None}, "xavier-nx", r"it has no TensorRT, the target 8\.5"),
        ({"jetpack": "5.0.2"}, "xavier-nx", r"it has JetPack 5\.0\.2, the target 5\.1\. Install JetPack 5\.1"),
        ({"jetpack": None}, "xavier-nx", "it has no JetPack"),
        ({"tensorrt": "8.50.1"}, "xavier-nx", r"it has TensorRT 8\.50\.1"),
        (
            {"compute_capability": 75, "tensorrt": "8.6.1"},
            "t4",
            r"Install TensorRT 10 there, or add .* to deploy/targets.yaml",
        ),
        ({"compute_capability": 61}, "t4", "Add a target for it to deploy/targets.yaml, .* in the devices file"),
        (
            {"compute_capability": 53, "tensorrt": "8.0.1", "jetpack": "4.6"},
            "jetson-nano",
            r"TensorRT 8\.0\.1, the target 8\.2\. Install TensorRT 8\.2 \(a later JetPack 4\.6\.x has it\) there",
        ),
    ],
)
def test_a_device_of_another_target_is_told_what_to_do(changes, target, message):
    facts = DeviceFacts(**{**FACTS.__dict__, **changes})
    with pytest.raises(EngineMismatchError, match=rf"nx-1 is no device of target '{target}': .*{message}"):
        require_match(facts, find_target(target))


def test_cpu_engines_run_on_any_device():
    require_match(FACTS, find_target("cpu"))


def test_an_engine_runs_where_gpu_and_tensorrt_are_those_that_built_it():
    settings = XAVIER_NX.build_settings()
    built = {"build_key": "abc", "target": settings, "versions": {"tensorrt": "8.5.2"}}
    require_same(built, FACTS)
    with pytest.raises(
        EngineMismatchError, match=r"engine abc .* built by TensorRT 8\.5\.1, nx-1 has 8\.5\.2.*of its own"
    ):
        require_same({**built, "versions": {"tensorrt": "8.5.1"}}, FACTS)
    with pytest.raises(EngineMismatchError, match=r"built for SM53, its GPU \(Xavier\) is SM72"):
        require_same({**built, "target": find_target("jetson-nano").build_settings()}, FACTS)
    require_same({**built, "target": find_target("cpu").build_settings(), "versions": {"onnxruntime": "1"}}, FACTS)


def test_the_jetpack_of_an_image_without_its_package():
    """The release of L4T tells it, as a shell reads it from /etc."""
    nano = "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 2022"
    assert (jetpack_of(nano), release_of(nano)) == ("4.6", "R32.7.1")
    assert jetpack_of(nano.replace("R32", "R35").replace("7.1", "4.1")) == "5.1"
    assert (jetpack_of(""), jetpack_of("# R99 (release), REVISION: 1.0,")) == (None, None)
    for release, jetpack in {"36.4.3": "6.1", "36.5.0": "6.2", "36.9": "6.2", "35.7.1": "5.1", "31.1": None}.items():
        major, _, revision = release.partition(".")
        assert jetpack_of(f"# R{major} (release), REVISION: {revision}, GCID: 1") == jetpack, release
