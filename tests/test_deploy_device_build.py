"""Builds and runs on a device: behind a real SSH server, with a stand-in for trtexec."""

import os
import time
from dataclasses import dataclass

import numpy as np
import pytest

from deploy.builders.base import Predictions
from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.process import run_program
from deploy.device.build import build_there
from deploy.device.run import predict_there, run_there
from deploy.device.scratch import CUT_OFF_S, LEFTOVER_S, scratch
from deploy.devices import Device
from deploy.shells.local import LocalShell
from deploy.shells.opening import open_shell
from deploy.targets import find_target
from schemas.errors import (
    DeviceOfflineError,
    EngineBuildError,
    EngineMismatchError,
    ModelFileError,
    StorageError,
)
from tests.small_graphs import pictures, write_small
from tests.ssh_servers import DeviceServer, device_server
from tests.stand_ins.devices import NANO, ORIN, XAVIER, StandIn, stand_in

XAVIER_NX = find_target("xavier-nx")


@dataclass
class Bench:
    """A device behind SSH, and what to build on it."""

    server: DeviceServer
    programs: StandIn
    device: Device
    model: object
    out: object

    def build(self, target=XAVIER_NX, **options):
        with open_shell(self.device) as shell:
            return build_there(shell, target, self.model, self.out, program=self.programs.trtexec, **options)

    def left(self) -> list[str]:
        """Files on the device, but for the timing cache, and engines here."""
        there = [path for path in self.server.directory.rglob("*") if path.is_file() and path.suffix != ".cache"]
        return sorted(path.name for path in [*there, *self.out.iterdir()])


@pytest.fixture
def bench(tmp_path, monkeypatch):
    programs = stand_in(tmp_path / "nx", XAVIER)
    monkeypatch.setenv("PATH", f"{programs.path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "out").mkdir()
    with device_server(tmp_path / "nx") as server:
        device = server.device("nx-1", "xavier-nx", trtexec=programs.trtexec)
        yield Bench(server, programs, device, write_small(tmp_path / "half.onnx", half=True), tmp_path / "out")


def test_an_engine_built_there_lies_here_with_its_timing_cache(bench):
    first = bench.build()
    assert first.engine == bench.out / "engine.engine"
    assert b"NOT TENSORRT" in first.engine.read_bytes()[:40]
    assert "PASSED TensorRT.trtexec [TensorRT v8502]" in first.log
    assert first.program == bench.programs.trtexec
    assert first.command[:3] == ("--onnx=model.onnx", "--saveEngine=engine.engine", "--timingCacheFile=timing.cache")
    assert "--fp16" in first.command
    assert bench.left() == ["engine.engine", "timing.cache"]
    one = (bench.out / str(first.timing_cache)).read_bytes()
    bench.build()
    assert (bench.out / "timing.cache").read_bytes() == one + b"built\n"
    assert [path.name for path in (bench.server.directory / "timing").iterdir()] == ["sm72-tensorrt-8.5.2.cache"]


def test_timings_that_were_cut_off_are_gone_with_a_build_an_hour_later(bench, monkeypatch):
    bench.server.vanish_after_bytes = bench.model.stat().st_size
    with pytest.raises(DeviceOfflineError):
        bench.build()
    timing = bench.server.directory / "timing"
    assert [path.suffix for path in timing.iterdir()] == [".tmp"]
    bench.server.come_back()
    later = time.time() + CUT_OFF_S + 60
    monkeypatch.setattr("deploy.device.scratch.time.time", lambda: later)
    bench.build()
    assert [path.name for path in timing.iterdir()] == ["sm72-tensorrt-8.5.2.cache"]


def test_timings_that_can_not_be_kept_are_told_and_fail_no_build(bench, caplog):
    bench.server.capacity = bench.model.stat().st_size
    assert bench.build().engine.is_file()
    assert "the next build will take longer, its timings were not kept: device 'nx-1': its disk is" in caplog.text


@pytest.mark.parametrize(("device", "target"), [(NANO, "jetson-nano"), (ORIN, "orin")])
def test_other_versions_understand_their_lines(device, target, tmp_path, monkeypatch):
    programs = stand_in(tmp_path / "device", device)
    monkeypatch.setenv("PATH", f"{programs.path}{os.pathsep}{os.environ['PATH']}")
    shell = LocalShell("d", str(tmp_path / "device" / "engines"))
    model = write_small(tmp_path / "half.onnx", half=True)
    result = build_there(shell, find_target(target), model, tmp_path, program=programs.trtexec)
    assert result.engine.is_file()


def test_a_device_of_another_target_builds_nothing(bench):
    with pytest.raises(EngineMismatchError, match="nx-1 is no device of target 'jetson-nano'"):
        bench.build(find_target("jetson-nano"))
    assert bench.left() == []


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("refuse", r"trtexec-stand-in failed: \[E\] ModelImporter.*No importer registered for op: NoSuchOp"),
        ("crash", "failed: crashed with SIGSEGV"),
    ],
)
def test_a_build_that_fails_leaves_nothing(fail, message, bench):
    bench.programs.change(fail=fail)
    with pytest.raises(EngineBuildError, match=f"device 'nx-1': .*{message}"):
        bench.build()
    assert bench.left() == []


def test_a_build_that_hangs_is_stopped(bench):
    bench.programs.change(fail="hang")
    with pytest.raises(EngineBuildError, match="took more than 2 s and was stopped"):
        bench.build(timeout_s=2)
    assert bench.left() == []


def test_a_device_that_goes_away_in_the_middle_of_a_build_is_offline_and_builds_when_it_is_back(bench, monkeypatch):
    bench.programs.change(fail="hang")
    bench.server.vanish_at = "--saveEngine"
    with pytest.raises(DeviceOfflineError):
        bench.build()
    assert not list(bench.out.iterdir())
    bench.server.come_back()
    bench.programs.change(fail="")
    assert bench.build().engine.is_file()
    (left,) = (bench.server.directory / "building").iterdir()
    later = time.time() + LEFTOVER_S + 60
    monkeypatch.setattr("deploy.device.scratch.time.time", lambda: later)
    bench.build()
    assert not left.exists()
    assert bench.left() == ["engine.engine", "timing.cache"]


def test_two_builds_for_one_target_at_once_have_a_folder_each(tmp_path):
    """Of two workspaces, or of `retrain` and `rollout`: neither takes the other's away."""
    shell = LocalShell("nx-1", str(tmp_path))
    with scratch(shell, "building") as first:
        shell.write(b"A", f"{first}/engine")
        with scratch(shell, "building") as second:
            shell.write(b"B", f"{second}/engine")
        assert shell.read(f"{first}/engine") == b"A"
    assert shell.list("building") == []


def test_a_full_disk_is_told_before_and_after_a_build(bench):
    bench.programs.change(free_kib=1000)
    with pytest.raises(StorageError, match=r"device 'nx-1': 0 MiB are free below .*engines, a build needs 32"):
        bench.build()
    assert bench.left() == []


def test_a_disk_that_fills_while_the_graph_is_copied(bench):
    bench.server.capacity = 5_000
    with pytest.raises(StorageError, match="nx-1"):
        bench.build()
    assert bench.left() == []


def test_a_disk_that_fills_in_the_middle_is_no_finished_engine(bench):
    """trtexec says that all went well."""
    bench.programs.change(fail="no space")
    with pytest.raises(StorageError, match="device 'nx-1': 0 MiB are free"):
        bench.build()
    assert bench.left() == []


def test_all_crops_are_predicted_batch_by_batch_and_timed(bench, tmp_path):
    images = pictures(20)
    expected = OnnxRuntimeEngine(bench.model).predict(images)
    result = bench.build()
    with open_shell(bench.device) as shell:
        shell.put(result.engine, "e.engine")
        found, latency = run_there(shell, XAVIER_NX, "e.engine", images, program=bench.programs.trtexec)
        assert shell.list("running") == []
        bench.programs.change(fail="nan")
        none = predict_there(shell, XAVIER_NX, "e.engine", images[:2], program=bench.programs.trtexec)
    assert np.isnan(none.keypoints_BN2).all()
    assert isinstance(found, Predictions)
    np.testing.assert_allclose(found.keypoints_BN2, expected.keypoints_BN2, atol=1e-3)
    np.testing.assert_allclose(found.confidence_BN, expected.confidence_BN, atol=1e-3)
    assert (latency.batch, latency.runs) == (1, 21)
    assert 0 < latency.p50_ms <= latency.p99_ms
    runs = [line for line in bench.server.commands if "--exportOutput" in line]
    assert ["16x1x80x80" in line for line in runs] == [True, False, False]
    assert "--shapes=input_face_images:4x1x80x80" in runs[1]


def test_a_run_that_ends_well_and_does_not_write_all_has_failed(bench):
    """Outputs of the batch before are never taken for those of the next."""
    shell = LocalShell("nx-1", str(bench.server.directory))
    shell.put(bench.build().engine, "e.engine")
    not_ours, nothing = r"the run of .*e\.engine wrote something else", r"the run wrote no running/.*/outputs\.json"
    for fail, message in {"cut off": not_ours, "empty": not_ours, "silent": nothing, "fills": nothing}.items():
        bench.programs.change(fail=fail)
        with pytest.raises(ModelFileError, match=f"device 'nx-1': {message}"):
            predict_there(shell, XAVIER_NX, "e.engine", pictures(20), program=bench.programs.trtexec)


def test_a_program_that_writes_something_else_has_failed(tmp_path):
    program = tmp_path / "other"
    for written in ("[1]", "{}", '[{"name": "keypoints", "dimensions": "1x2", "values": [1]}]', '[{"name": 3}]'):
        line = f"for a; do case $a in --export*) echo '{written}' > ${{a#*=}};; esac; done"
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        shell = LocalShell("nx-1", str(tmp_path / "device"))
        with pytest.raises(ModelFileError, match=r"device 'nx-1': the run of .*e\.engine wrote something else"):
            run_there(shell, XAVIER_NX, "e.engine", pictures(1), program=str(program))


def test_a_program_of_another_machine_does_not_start(tmp_path):
    """A file with no format that the kernel knows."""
    program = tmp_path / "trtexec"
    program.write_bytes(b"\x7fELF of another world")
    program.chmod(0o755)
    assert run_program([str(program)], timeout_s=5).failure == f"{program}: Exec format error"


def test_an_engine_of_another_device_or_half_of_one_does_not_load(bench):
    engine = bench.build().engine

    def refusal() -> str:
        with open_shell(bench.device) as shell, pytest.raises(ModelFileError, match="nx-1") as raised:
            run_there(shell, XAVIER_NX, str(engine), pictures(1), program=bench.programs.trtexec)
        return str(raised.value)

    bench.programs.change(tensorrt="8.5.3")
    assert "not compatible with this version of TensorRT" in refusal()
    bench.programs.change(tensorrt="8.5.2", compute_capability=87)
    assert "incompatible device" in refusal()
    bench.programs.change(compute_capability=72)
    engine.write_bytes(engine.read_bytes()[:-100])
    assert "Deserialization failed" in refusal()
