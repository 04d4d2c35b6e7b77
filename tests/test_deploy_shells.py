"""What is asked of a device, of this machine and of one behind a real SSH server."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest

from deploy.devices import Device, LocalReach, WorkPoolReach
from deploy.shells.opening import open_shell
from schemas.errors import DeviceError, DeviceOfflineError, DeviceRefusedError, StorageError
from schemas.storage import sha256_file
from tests.ssh_servers import device_server

BIG = bytes(range(256)) * 12_000


@pytest.fixture
def server(tmp_path):
    with device_server(tmp_path / "nano") as server:
        yield server


@pytest.fixture(params=["local", "ssh"])
def device(request, tmp_path):
    """A device and the directory in which its files can be looked at."""
    if request.param == "local":
        directory = tmp_path / "here"
        yield Device(name="pc", target="cpu", ring="main", reach=LocalReach(kind="local", directory=str(directory)))
    else:
        with device_server(tmp_path / "nano") as server:
            yield server.device()


def test_files_go_there_and_come_back(device, tmp_path):
    source, back = tmp_path / "engine.bin", tmp_path / "back.bin"
    source.write_bytes(BIG)
    with open_shell(device) as shell:
        assert shell.directory.is_absolute()
        assert shell.list() == []
        shell.put(source, "t4/engines/k/engine.bin")
        shell.put(source, "t4/engines/k/engine.bin")
        assert shell.list("t4/engines/k") == ["engine.bin"]
        assert shell.sha256("t4/engines/k/engine.bin") == sha256_file(source)
        shell.fetch(str(shell.directory / "t4/engines/k/engine.bin"), back)
        assert back.read_bytes() == BIG
        shell.write(b"one", "t4/current.json")
        shell.write(b"two", "t4/current.json")
        assert shell.read("t4/current.json") == b"two"
        shell.remove("t4/engines")
        shell.remove("t4/current.json")
        shell.remove("t4/nothing")
        assert shell.list("t4") == []
        assert shell.read("t4/current.json") is None
        assert shell.sha256("t4/current.json") is None
        assert shell.list("nowhere") == []


def test_several_may_remove_one_folder_at_once(device):
    with open_shell(device) as shell, ThreadPoolExecutor(4) as pool:
        folder, together = Path(shell.directory / "running/old"), threading.Barrier(4)
        folder.mkdir(parents=True)
        for index in range(1000):
            (folder / str(index)).touch()

        def remove(_):
            together.wait()
            shell.remove("running/old")

        list(pool.map(remove, range(4)))
        assert shell.list("running") == []


def test_a_fetch_of_nothing_leaves_nothing(device, tmp_path):
    with open_shell(device) as shell, pytest.raises(DeviceError, match=rf"'{device.name}'.*No such file"):
        shell.fetch("none", tmp_path / "back.bin")
    assert not (tmp_path / "back.bin").exists()


def test_a_file_in_the_way_is_named(device):
    with open_shell(device) as shell:
        shell.write(b"", "t4")
        with pytest.raises(DeviceError, match=f"'{device.name}'.*t4"):
            shell.write(b"", "t4/current.json")


def test_commands_run_in_the_directory_and_no_shell_reads_them(device):
    tricky = ["a b", "$(touch hacked)", "; touch hacked", "`touch hacked`", "'", '"', "*", "ü\n"]
    with open_shell(device) as shell:
        done = shell.run(["printf", "%s|", *tricky], timeout_s=30)
        assert (done.output, done.failure) == ("|".join(tricky) + "|", "")
        assert shell.run(["pwd"], timeout_s=30).output.strip() == str(shell.directory)
        assert shell.list() == []


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        (["sh", "-c", "echo one; echo two >&2; exit 3"], "two"),
        (["sh", "-c", "exit 3"], "ended with code 3"),
        (["sh", "-c", "kill -SEGV $$"], "crashed with SIGSEGV"),
        (["no-such-program"], "No such file"),
        (["sleep", "60"], "took more than 0.2 s and was stopped"),
    ],
)
def test_a_command_that_fails_says_how(device, command, failure):
    with open_shell(device) as shell:
        assert failure in shell.run(command, timeout_s=0.2 if command[0] == "sleep" else 30).failure


def test_many_threads_share_a_connection(server, tmp_path):
    (tmp_path / "engine.bin").write_bytes(BIG)
    with open_shell(server.device()) as shell:
        threads = [
            threading.Thread(target=shell.put, args=(tmp_path / "engine.bin", f"{index}/engine.bin"))
            for index in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {shell.sha256(f"{index}/engine.bin") for index in range(4)} == {sha256_file(tmp_path / "engine.bin")}


def test_threads_that_write_one_file_leave_one_of_theirs_whole(device):
    contents = [bytes([index]) * len(BIG) for index in range(4)]
    with open_shell(device) as shell, ThreadPoolExecutor() as pool:
        list(pool.map(lambda content: shell.write(content, "timing/cache"), contents))
        assert shell.read("timing/cache") in contents
        assert shell.list("timing") == ["cache"]


def test_a_refused_key_names_user_and_key_and_what_to_do(server):
    server.refuse_key = True
    with (
        pytest.raises(DeviceRefusedError, match=r"'nano-1' .* refuses user 'device' with key .*/key; add the public"),
        open_shell(server.device()),
    ):
        pass


@pytest.mark.parametrize("content", [None, "no key"])
def test_a_key_file_that_is_none(server, tmp_path, content):
    if content is not None:
        (tmp_path / "none").write_text(content)
    with (
        pytest.raises(DeviceRefusedError, match=r"its key file .*/none can't be used"),
        open_shell(server.device(key_file=str(tmp_path / "none"))),
    ):
        pass


def test_another_host_key_is_refused(server):
    server.write_known_hosts(asyncssh.generate_private_key("ssh-ed25519"))
    with pytest.raises(DeviceRefusedError, match="shows a host key that"), open_shell(server.device()):
        pass
    with (
        pytest.raises(DeviceRefusedError, match=r"there is no file .*/none to check its host key by"),
        open_shell(server.device(known_hosts=str(Path(server.directory) / "none"))),
    ):
        pass


def test_a_device_that_is_away_is_offline(server):
    server.vanish()
    with pytest.raises(DeviceOfflineError, match=r"'nano-1' \(127.0.0.1:\d+\) does not answer"):
        open_shell(server.device()).__enter__()
    server.come_back()
    with open_shell(server.device()) as shell:
        assert shell.list() == []


def test_a_port_that_never_speaks_is_offline(server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        device = server.device(port=silent.getsockname()[1], connect_timeout_s=0.2)
        with pytest.raises(DeviceOfflineError, match=r"no answer in 0\.2 s"):
            open_shell(device).__enter__()


def test_a_device_that_vanishes_in_a_command(server):
    server.vanish_at = "sleep"
    with open_shell(server.device()) as shell, pytest.raises(DeviceOfflineError, match="'nano-1' went away"):
        shell.run(["sleep", "60"], timeout_s=60)


def test_a_device_that_vanishes_in_a_copy_has_the_old_file(server, tmp_path):
    (tmp_path / "engine.bin").write_bytes(BIG)
    with open_shell(server.device()) as shell:
        shell.write(b"old", "engine.bin")
        server.vanish_after_bytes = len(BIG) // 2
        with pytest.raises(DeviceOfflineError, match=r"'nano-1' went away at .*engine\.bin"):
            shell.put(tmp_path / "engine.bin", "engine.bin")
    assert (server.directory / "engine.bin").read_bytes() == b"old"
    server.come_back()
    with open_shell(server.device()) as shell:
        shell.put(tmp_path / "engine.bin", "engine.bin")
        assert (server.directory / "engine.bin").read_bytes() == BIG
        assert [name for name in shell.list() if not name.startswith(".")] == ["engine.bin"]


def test_a_full_disk_leaves_nothing_behind(server, tmp_path):
    (tmp_path / "engine.bin").write_bytes(BIG)
    with open_shell(server.device()) as shell:
        shell.write(b"old", "engine.bin")
        server.capacity = len(BIG) // 2
        with pytest.raises(StorageError, match=r"'nano-1': its disk is full: .*engine\.bin"):
            shell.put(tmp_path / "engine.bin", "engine.bin")
        assert shell.list() == ["engine.bin"]
        assert shell.read("engine.bin") == b"old"
        shell.write(b"small", "engine.bin")


def test_a_device_on_a_work_pool_has_no_shell(tmp_path):
    reach = WorkPoolReach(kind="work_pool", deployment="on_device/t4", directory="e", exchange=str(tmp_path))
    with (
        pytest.raises(DeviceError, match="'t4-1' is reached by its work pool"),
        open_shell(Device(name="t4-1", target="t4", ring="canary", reach=reach)),
    ):
        pass
