import os

import pytest

from deploy.doctor import examine, installed
from deploy.gpus import find_gpu, needs_gpu
from tests.stand_ins.gpus import install_gpus


def test_what_is_here():
    health = examine()
    assert health.packages["onnxruntime"] == installed(["onnxruntime"])["onnxruntime"]
    assert health.packages["onnxruntime"]
    assert health.builders["tensorrt-rtx"].available
    assert set(health.builders) == {"onnxruntime", "tensorrt-rtx", "tensorrt", "trtexec"}
    targets = {target.name: target for target in health.targets}
    assert targets["cpu"].build_why_not == targets["cpu"].run_why_not == ""
    assert "bundled, not run by this project (for SM75, SM80" in targets["rtx"].run_why_not
    assert targets["jetson-nano"].run_why_not == "needs a device with trtexec (SM53)"
    assert health.cpus >= 1


def test_what_is_not_installed_has_no_version():
    assert installed(["no-such-package-anywhere"]) == {"no-such-package-anywhere": None}


def _nvidia_smi(folder, script: str, monkeypatch) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


T4, L4 = "Tesla T4, 7.5, 580.1", "NVIDIA L4, 8.9, 580.1"


def test_gpus_are_what_the_driver_lists(tmp_path, monkeypatch):
    install_gpus(tmp_path, monkeypatch, T4, L4)
    assert find_gpu().devices == (T4, L4)
    assert needs_gpu(75) == ""


@pytest.mark.parametrize(
    ("names", "devices"),
    [
        ("1", (L4,)),
        ("1,0", (L4, T4)),
        ("GPU-1, 0", (L4, T4)),
        ("1,-1,0", (L4,)),
        ("MIG-GPU-0/1/2", (T4,)),
        ("", ()),
        ("-1", ()),
        ("7", ()),
    ],
)
def test_gpus_that_the_environment_hides_are_not_here(tmp_path, monkeypatch, names, devices):
    install_gpus(tmp_path, monkeypatch, T4, L4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    found = find_gpu()
    assert found.devices == devices
    assert ("CUDA_VISIBLE_DEVICES" in found.reason) == (not devices)
    assert (needs_gpu(89) == "") == (devices[:1] == (L4,))


def test_a_driver_that_does_not_answer_is_a_reason(tmp_path, monkeypatch):
    _nvidia_smi(tmp_path, "echo 'NVIDIA-SMI has failed'; exit 9", monkeypatch)
    assert find_gpu().reason == "nvidia-smi failed: NVIDIA-SMI has failed"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_gpu().reason == "no NVIDIA driver (nvidia-smi is not here)"
