import os

from deploy.doctor import examine, installed
from deploy.gpus import find_gpu


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


def test_gpus_are_what_the_driver_lists(tmp_path, monkeypatch):
    _nvidia_smi(tmp_path, "echo 'Tesla T4, 7.5, 580.1'; echo 'NVIDIA L4, 8.9, 580.1'", monkeypatch)
    assert find_gpu().devices == ("Tesla T4, 7.5, 580.1", "NVIDIA L4, 8.9, 580.1")


def test_a_driver_that_does_not_answer_is_a_reason(tmp_path, monkeypatch):
    _nvidia_smi(tmp_path, "echo 'NVIDIA-SMI has failed'; exit 9", monkeypatch)
    assert find_gpu().reason == "nvidia-smi failed: NVIDIA-SMI has failed"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_gpu().reason == "no NVIDIA driver (nvidia-smi is not here)"
