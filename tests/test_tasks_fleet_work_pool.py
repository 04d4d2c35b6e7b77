"""The shell that a device's worker serves through a directory, both ends in one process and without Prefect."""

import shutil
import sys
import threading

import pytest

from deploy.devices import WORKERS_PYTHON, Device, WorkPoolReach
from schemas.errors import DeviceError, DeviceOfflineError
from schemas.storage import write_bytes
from tasks.fleet import on_device, work_pool
from tasks.fleet.on_device import serve
from tasks.fleet.work_pool import ExchangeShell, open_device


@pytest.fixture
def session(tmp_path):
    folder = tmp_path / "exchange" / "session"
    folder.mkdir(parents=True)
    (folder / "open").touch()
    return folder


@pytest.fixture
def shell(session, tmp_path):
    serving = threading.Thread(target=serve, args=(session, str(tmp_path / "device"), "h100-1"))
    serving.start()
    yield ExchangeShell("h100-1", session, offline_after_s=30)
    (session / "open").unlink()
    serving.join(30)
    assert not serving.is_alive()


def test_everything_that_a_shell_is_asked_for_is_done_on_the_device(shell, tmp_path):
    assert str(shell.directory) == str(tmp_path / "device")
    (tmp_path / "here").write_bytes(b"engine")
    shell.put(tmp_path / "here", "t4/engines/1/engine")
    assert (tmp_path / "device/t4/engines/1/engine").read_bytes() == b"engine"
    assert shell.read("t4/engines/1/engine") == b"engine"
    assert shell.read("t4/nothing") is None
    assert shell.sha256("t4/nothing") is None
    assert len(shell.sha256("t4/engines/1/engine")) == 64
    shell.fetch("t4/engines/1/engine", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"engine"
    shell.write(b"", "t4/engines/2/empty")
    assert (shell.list("t4/engines"), shell.list("nowhere")) == (["1", "2"], [])
    shell.remove("t4/engines")
    assert shell.list("t4") == []


def test_commands_run_there_with_the_workers_python(shell):
    done = shell.run([WORKERS_PYTHON, "-c", "import sys; print(sys.executable)"], timeout_s=60)
    assert (done.output.strip(), done.failure) == (sys.executable, "")
    assert "7" in shell.run(["sh", "-c", "echo 7; exit 3"], timeout_s=60).failure


def test_errors_there_are_errors_here(shell, tmp_path):
    with pytest.raises(DeviceError, match="nothing is not there"):
        shell.fetch("nothing", tmp_path / "back")
    (tmp_path / "device").mkdir(exist_ok=True)
    (tmp_path / "device/file").touch()
    with pytest.raises(DeviceError, match=r"device 'h100-1'.*file"):
        shell.write(b"x", "file/below")


def test_a_device_that_falls_silent_is_offline(session):
    with pytest.raises(DeviceOfflineError, match="'h100-1' went away at 'directory': its flow has been silent for 0"):
        ExchangeShell("h100-1", session, offline_after_s=0)


def test_a_flow_whose_session_is_gone_ends(tmp_path):
    assert serve(tmp_path / "gone", str(tmp_path / "device"), "h100-1") == 0


def test_a_session_that_is_closed_ends_though_a_late_write_brings_its_folder_back(session, tmp_path):
    serving = threading.Thread(target=serve, args=(session, str(tmp_path / "device"), "h100-1"), daemon=True)
    serving.start()
    ExchangeShell("h100-1", session, offline_after_s=30)
    (session / "open").unlink()
    shutil.rmtree(session, ignore_errors=True)
    write_bytes(session / "alive", b"7")
    serving.join(30)
    assert not serving.is_alive()


def test_a_shell_is_closed_while_the_device_writes_without_a_pause(monkeypatch, tmp_path):
    """A thread in the place of the device's worker."""
    served = []

    def start(device, reach, session):
        arguments = (session, reach.directory, device.name)
        served.append(threading.Thread(target=serve, args=arguments, daemon=True))
        served[0].start()

    monkeypatch.setattr(work_pool, "_start", start)
    monkeypatch.setattr(on_device, "COUNT_S", 0.0)
    (tmp_path / "exchange").mkdir()
    reach = WorkPoolReach(
        kind="work_pool", deployment="on-device/h100-1", directory=str(tmp_path), exchange=str(tmp_path / "exchange")
    )
    with open_device(Device(name="h100-1", target="h100", ring="canary", reach=reach)) as shell:
        assert shell.read("nothing") is None
    served[0].join(30)
    assert not served[0].is_alive()


def test_an_exchange_directory_that_is_not_here_is_said(tmp_path):
    reach = WorkPoolReach(
        kind="work_pool", deployment="on-device/h100-1", directory="d", exchange=str(tmp_path / "unmounted")
    )
    device = Device(name="h100-1", target="h100", ring="canary", reach=reach)
    words = "unmounted, the directory through which it is reached, is not here"
    with pytest.raises(DeviceError, match=words), open_device(device):
        pass
