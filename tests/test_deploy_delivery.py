"""Engines on devices: this machine, and one behind a real SSH server."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy import delivery
from deploy.delivery import (
    MANIFEST,
    CurrentEngine,
    Delivery,
    activate,
    changed_by_hand,
    current_engine,
    deactivate,
    inspect,
)
from deploy.device.scratch import CUT_OFF_S
from deploy.devices import Device, LocalReach
from deploy.shells.local import LocalShell
from deploy.shells.opening import open_shell
from deploy.shells.ssh import SshShell
from schemas.errors import DeviceError, DeviceOfflineError, StorageError
from schemas.storage import atomic_path
from tests.engines import engine_directory
from tests.killed import killed_at_fsync
from tests.ssh_servers import device_server


@dataclass
class Place:
    """A device, and where its files can be looked at."""

    device: Device
    directory: Path

    @property
    def current(self) -> Path:
        return self.directory / "t4" / "current.json"

    def engines(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "t4" / "engines").iterdir())

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in self.directory.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "here"
    reach = LocalReach(kind="local", directory=str(directory))
    return Place(Device(name="pc", target="t4", ring="main", reach=reach), directory)


@pytest.fixture(params=["local", "ssh"])
def any_place(request, place, tmp_path):
    if request.param == "local":
        yield place
    else:
        with device_server(tmp_path / "device") as server:
            yield Place(server.device(target="t4"), server.directory)


@pytest.fixture
def server(tmp_path):
    with device_server(tmp_path / "device") as server:
        yield server


def described(directory: Path) -> CurrentEngine:
    return delivery.described(directory, directory / MANIFEST)


def deliver(shell, directory: Path) -> Delivery:
    return delivery.deliver(shell, directory, "t4", manifest=directory / MANIFEST)


def bring(shell, directory: Path):
    return activate(shell, deliver(shell, directory).engine, "t4")


def folder(directory: Path) -> str:
    """Of an engine, on a device."""
    return described(directory).folder


def shown(shell, directory: Path) -> list[str]:
    """What lies in an engine's folder on a device, without what was cut off."""
    return [name for name in shell.list(f"t4/engines/{folder(directory)}") if not name.startswith(".")]


def written(directory: Path) -> dict[str, int]:
    """When each file below a directory was written."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.stat().st_mtime_ns for path in files}


def an_hour_later(monkeypatch) -> None:
    later = time.time() + CUT_OFF_S + 60
    monkeypatch.setattr("deploy.device.scratch.time.time", lambda: later)


def test_an_engine_is_delivered_before_it_is_current(any_place, tmp_path):
    first, second = (engine_directory(tmp_path / "engines", name) for name in ("key1", "key2"))
    with open_shell(any_place.device) as shell:
        delivered = deliver(shell, first)
        assert (any_place.directory / "t4" / delivered.engine.engine).read_bytes() == b"key1"
        assert current_engine(shell, "t4") is None
        done = activate(shell, delivered.engine, "t4")
        assert (done.kept, done.found) == ((folder(first),), "")
        deliver(shell, second)
        assert current_engine(shell, "t4").build_key == "key1"
        assert bring(shell, second).kept == (folder(first), folder(second))
    held = json.loads(any_place.current.read_bytes())
    assert (any_place.current.parent / held["engine"]).read_bytes() == b"key2"
    assert (held["precision"], held["model_version"], held["snapshot_id"]) == ("fp16", "2", "s")


def test_doing_it_twice_changes_nothing(place, tmp_path):
    engine = engine_directory(tmp_path / "engines", "key1")
    with open_shell(place.device) as shell:
        bring(shell, engine)
        before = written(place.directory)
        deliver(shell, engine)
        bring(shell, engine)
    assert written(place.directory) == before


def test_the_last_three_are_kept_and_going_back_copies_nothing(any_place, tmp_path):
    names = ["key1", "key2", "key3", "key4"]
    engines = {name: engine_directory(tmp_path / "engines", name) for name in names}
    folders = {name: folder(directory) for name, directory in engines.items()}
    with open_shell(any_place.device) as shell:
        for name in names:
            done = bring(shell, engines[name])
        assert done.kept == tuple(folders[name] for name in names[1:])
        assert any_place.engines() == sorted(done.kept)
        before = written(any_place.directory / "t4/engines")
        assert bring(shell, engines["key2"]).kept == tuple(folders[name] for name in ("key3", "key4", "key2"))
        assert written(any_place.directory / "t4/engines") == before
        bring(shell, engines["key1"])  # which was removed
        assert inspect(shell, "t4") == (described(engines["key1"]), "")


def test_the_same_engine_of_another_version_is_told(place, tmp_path):
    with open_shell(place.device) as shell:
        bring(shell, engine_directory(tmp_path / "one", "key1", version="1"))
        done = bring(shell, engine_directory(tmp_path / "two", "key1", version="2"))
        assert (current_engine(shell, "t4").model_version, done.found) == ("2", "")


def test_the_same_built_again_with_other_bytes_leaves_the_one_that_runs(any_place, tmp_path):
    first = engine_directory(tmp_path / "one", "key1")
    again = engine_directory(tmp_path / "two", "key1", size=10)
    with open_shell(any_place.device) as shell:
        runs = bring(shell, first).engine
        delivered = deliver(shell, again)
        assert delivered.found == ""
        assert inspect(shell, "t4") == (runs, "")
        assert activate(shell, delivered.engine, "t4").kept == (folder(first), folder(again))
        before = written(any_place.directory / "t4/engines")
        assert bring(shell, first).kept == (folder(again), folder(first))
        assert written(any_place.directory / "t4/engines") == before
        assert inspect(shell, "t4") == (runs, "")


def test_a_device_is_told_what_was_staged_and_not_what_is_beside_the_engine_by_now(place, tmp_path):
    engine = engine_directory(tmp_path / "engines", "key1")
    staged = tmp_path / "staged.json"
    staged.write_bytes((engine / "manifest.json").read_bytes())
    told = json.loads(staged.read_text())
    told["provenance"]["model_version"] = "9"
    (engine / "manifest.json").write_text(json.dumps(told))
    with open_shell(place.device) as shell:
        assert deliver(shell, engine).engine.model_version == "9"
        delivered = delivery.deliver(shell, engine, "t4", manifest=staged)
        assert activate(shell, delivered.engine, "t4").engine.model_version == "1"
    assert (place.directory / "t4/engines" / folder(engine) / "manifest.json").read_bytes() == staged.read_bytes()


def test_a_device_that_runs_nothing_any_more_is_not_taken_for_changed(any_place, tmp_path):
    engine = engine_directory(tmp_path / "engines", "key1")
    with open_shell(any_place.device) as shell:
        bring(shell, engine)
        assert deactivate(shell, "t4") == ""
        assert inspect(shell, "t4") == (None, "")
        assert deactivate(shell, "t4") == ""
        assert bring(shell, engine).found == ""
        any_place.current.unlink()
        assert "was removed by hand" in deactivate(shell, "t4")


def test_a_tampered_engine_is_not_delivered(place, tmp_path):
    engine = engine_directory(tmp_path / "engines", "key1")
    (engine / "engine.onnx").write_text("tampered")
    with open_shell(place.device) as shell:
        with pytest.raises(StorageError, match=r"not the file that was built and checked \(SHA-256 differs\)"):
            deliver(shell, engine)
        (engine / "engine.onnx").unlink()
        with pytest.raises(StorageError, match=r"engine\.onnx is gone; run the flow again to build it"):
            deliver(shell, engine)
    assert place.files() == {}


def test_an_engine_tampered_with_on_the_device_is_found_and_replaced(place, tmp_path):
    engine = engine_directory(tmp_path / "engines", "key1")
    with open_shell(place.device) as shell:
        bring(shell, engine)
        there = place.directory / "t4/engines" / folder(engine) / "engine.onnx"
        there.write_text("tampered")
        current, found = inspect(shell, "t4")
        assert current.build_key == "key1"
        assert "engine key1 of fpenet version 1" in found
        assert "was changed by hand" in found
        with pytest.raises(DeviceError, match="does not have engine key1"):
            activate(shell, current, "t4")
        assert "was changed on the device" in deliver(shell, engine).found
        assert there.read_bytes() == b"key1"
        assert inspect(shell, "t4") == (current, "")


@pytest.mark.parametrize("change", ["another engine", "an edit", "a space", "no JSON", "removed"])
def test_a_current_json_changed_by_hand_is_found(change, place, tmp_path):
    first, second = (engine_directory(tmp_path / "engines", name) for name in ("key1", "key2"))
    with open_shell(place.device) as shell:
        bring(shell, first)
        earlier = place.current.read_bytes()
        bring(shell, second)
        assert changed_by_hand(shell, "t4") == ""
        match change:
            case "another engine":
                place.current.write_bytes(earlier)
            case "an edit":
                place.current.write_bytes(place.current.read_bytes().replace(b'"2"', b'"9"'))
            case "a space":
                place.current.write_bytes(place.current.read_bytes() + b" ")
            case "no JSON":
                place.current.write_bytes(b"{")
            case "removed":
                place.current.unlink()
        found = inspect(shell, "t4")[1]
        assert "by hand" in found
        assert ("names engine key1" in found) == (change == "another engine")
        assert bring(shell, second).found == found
        assert inspect(shell, "t4") == (described(second), "")


def test_a_disk_that_fills_keeps_the_current_engine(server, tmp_path):
    first, second = (engine_directory(tmp_path / "engines", name, size=300_000) for name in ("key1", "key2"))
    with open_shell(server.device(target="t4")) as shell:
        bring(shell, first)
        before = {path: path.stat().st_size for path in server.directory.rglob("*") if path.is_file()}
        server.capacity = 450_000
        with pytest.raises(StorageError, match=r"'nano-1': its disk is full: .*/key2-\w+/engine\.onnx"):
            deliver(shell, second)
        assert {path: path.stat().st_size for path in server.directory.rglob("*") if path.is_file()} == before
        assert inspect(shell, "t4")[0].build_key == "key1"
        server.capacity = 700_000
        bring(shell, second)
        assert inspect(shell, "t4") == (described(second), "")


def test_no_room_for_the_manifest_leaves_no_engine(server, tmp_path):
    with open_shell(server.device(target="t4")) as shell:
        server.capacity = 300_100
        with pytest.raises(StorageError, match=r"manifest\.json can't be written"):
            deliver(shell, engine_directory(tmp_path / "engines", "key1", size=300_000))
    assert not [path for path in server.directory.rglob("*") if path.is_file()]


def test_two_deliveries_of_one_engine_at_once_leave_it_whole(place, tmp_path, monkeypatch):
    """The second begins, and ends, when the first has written all bytes to its temporary file."""
    engine, copy = engine_directory(tmp_path / "engines", "key1"), shutil.copyfile

    def copied(source, to):
        copy(source, to)
        monkeypatch.setattr(shutil, "copyfile", copy)
        with open_shell(place.device) as second:
            deliver(second, engine)

    monkeypatch.setattr(shutil, "copyfile", copied)
    with open_shell(place.device) as shell:
        first = deliver(shell, engine)
        assert first.found == ""
        activate(shell, first.engine, "t4")
        assert inspect(shell, "t4") == (first.engine, "")


@pytest.mark.parametrize("brought", ["key5", "key1"])
def test_an_activation_leaves_the_engine_that_another_workspace_activates_meanwhile(
    brought, place, tmp_path, monkeypatch
):
    """A new one, or one that is about to be removed; when the first has seen which engines are there."""
    names = [f"key{number}" for number in range(1, 6)]
    engines = {name: engine_directory(tmp_path / "engines", name) for name in names}
    listed = LocalShell.list

    def list_and_meanwhile(shell, remote=""):
        found = listed(shell, remote)
        if remote == "t4/engines":
            monkeypatch.setattr(LocalShell, "list", listed)
            with open_shell(place.device) as other:
                activate(other, described(engines[brought]), "t4")
        return found

    with open_shell(place.device) as shell:
        for name in names[:3]:
            bring(shell, engines[name])
        deliver(shell, engines["key5"])
        delivered = deliver(shell, engines["key4"]).engine
        monkeypatch.setattr(LocalShell, "list", list_and_meanwhile)
        activate(shell, delivered, "t4")
        assert LocalShell.list is listed
        assert current_engine(shell, "t4").build_key == brought
        assert shown(shell, engines[brought]) == ["engine.onnx", "manifest.json"]


def test_an_engine_that_nobody_activates_goes_with_the_second_activation(any_place, tmp_path):
    first, left, second, third = (engine_directory(tmp_path / "engines", f"key{index}") for index in range(4))
    with open_shell(any_place.device) as shell:
        bring(shell, first)
        deliver(shell, left)
        bring(shell, second)
        assert any_place.engines() == [folder(each) for each in (first, left, second)]
        deactivate(shell, "t4")
        bring(shell, third)
        assert any_place.engines() == [folder(each) for each in (first, second, third)]


@pytest.mark.parametrize("change", ["activate", "deactivate"])
def test_a_change_leaves_a_current_json_that_another_workspace_is_writing(change, place, tmp_path):
    with open_shell(place.device) as shell:
        runs = bring(shell, engine_directory(tmp_path / "engines", "key1")).engine
        with atomic_path(place.current) as temporary:
            temporary.write_bytes(runs.content)
            activate(shell, runs, "t4") if change == "activate" else deactivate(shell, "t4")
        assert current_engine(shell, "t4") == runs


def test_no_room_for_the_manifest_leaves_what_another_delivery_has_finished(server, tmp_path, monkeypatch):
    first, second = (engine_directory(tmp_path / name, "key1", version=name) for name in ("7", "8"))
    put = SshShell.put

    def put_and_meanwhile(shell, local, remote):
        put(shell, local, remote)
        monkeypatch.setattr(SshShell, "put", put)
        with open_shell(server.device(target="t4")) as other:
            assert not deliver(other, second).found
        server.capacity = sum(path.stat().st_size for path in server.directory.rglob("*") if path.is_file())

    monkeypatch.setattr(SshShell, "put", put_and_meanwhile)
    with open_shell(server.device(target="t4")) as shell:
        with pytest.raises(StorageError, match=r"manifest\.json can't be written"):
            deliver(shell, first)
        server.capacity, before = None, written(server.directory)
        deliver(shell, second)
        assert written(server.directory) == before


def test_no_room_for_the_manifest_of_another_version_leaves_the_engine_that_runs(server, tmp_path):
    engines = [engine_directory(tmp_path / name, "key1", version=name, size=300_000) for name in ("7", "8")]
    with open_shell(server.device(target="t4")) as shell:
        runs = bring(shell, engines[0]).engine
        server.capacity = 100 + sum(path.stat().st_size for path in server.directory.rglob("*") if path.is_file())
        with pytest.raises(StorageError, match=r"manifest\.json can't be written"):
            deliver(shell, engines[1])
        assert inspect(shell, "t4") == (runs, "")
        (server.directory / "t4" / runs.engine).unlink()
        with pytest.raises(StorageError, match=r"manifest\.json can't be written"):
            deliver(shell, engines[1])
        assert inspect(shell, "t4") == (runs, "")


def test_a_disk_that_keeps_other_bytes_is_noticed(server, tmp_path):
    first, second = (engine_directory(tmp_path / "engines", name) for name in ("key1", "key2"))
    with open_shell(server.device(target="t4")) as shell:
        bring(shell, first)
        delivered = deliver(shell, second).engine
        server.corrupt = True
        with pytest.raises(DeviceError, match=r"current\.json reads back other than it was written"):
            activate(shell, delivered, "t4")
        there = f"t4/engines/{delivered.folder}"
        shell.remove(there)
        with pytest.raises(DeviceError, match=r"key2-\w+/engine\.onnx reads back with other bytes than it was given"):
            deliver(shell, second)
        assert shell.list(there) == []


def test_a_device_that_vanishes_in_the_copy_is_completed_later(server, tmp_path):
    first, second = (engine_directory(tmp_path / "engines", name, size=300_000) for name in ("key1", "key2"))
    with open_shell(server.device(target="t4")) as shell:
        bring(shell, first)
        server.vanish_after_bytes = 150_000
        with pytest.raises(DeviceOfflineError, match="'nano-1' went away"):
            deliver(shell, second)
    server.come_back()
    with open_shell(server.device(target="t4")) as shell:
        assert inspect(shell, "t4")[0].build_key == "key1"
        assert bring(shell, second).found == ""
        assert shown(shell, second) == ["engine.onnx", "manifest.json"]


def test_copies_that_were_cut_off_fill_no_device(server, tmp_path, monkeypatch):
    """Until an hour is over nobody can tell them from a copy that another workspace is making."""
    first, second = (engine_directory(tmp_path / "engines", name, size=3_000_000) for name in ("key1", "key2"))
    place = f"t4/engines/{folder(second)}"
    with open_shell(server.device(target="t4")) as shell:
        bring(shell, first)
    for _ in range(2):
        server.vanish_after_bytes = 2_500_000
        with open_shell(server.device(target="t4")) as shell, pytest.raises(DeviceOfflineError):
            deliver(shell, second)
        server.come_back()
    server.capacity = 2_000_000 + sum(path.stat().st_size for path in server.directory.rglob("*") if path.is_file())
    with open_shell(server.device(target="t4")) as shell:
        left = shell.list(place)
        with pytest.raises(StorageError, match=rf"disk is full: .* In {place} there lie 2 copies of the last hour"):
            deliver(shell, second)
        assert shell.list(place) == left
        assert inspect(shell, "t4")[0].build_key == "key1"
        an_hour_later(monkeypatch)
        deliver(shell, second)
        assert shell.list(place) == ["engine.onnx", "manifest.json"]


_BRING = """
import sys
from pathlib import Path
from deploy.delivery import activate, deliver
from deploy.shells.local import LocalShell
shell = LocalShell("pc", sys.argv[1])
engine = Path(sys.argv[2])
activate(shell, deliver(shell, engine, "t4", manifest=engine / "manifest.json").engine, "t4")
"""


def test_killed_at_any_moment_a_device_runs_the_one_or_the_other(tmp_path, monkeypatch):
    """Five files are written, each with one fsync of its own and one of its directory; here before every rename."""
    first, second = (engine_directory(tmp_path / "engines", name) for name in ("key1", "key2"))
    seen = []
    for at in range(1, 12, 2):
        place = tmp_path / str(at)
        reach = LocalReach(kind="local", directory=str(place))
        with open_shell(Device(name="pc", target="t4", ring="main", reach=reach)) as shell:
            bring(shell, first)
            assert killed_at_fsync(at, _BRING, place, second) == (at < 11)
            current, found = inspect(shell, "t4")
            seen.append(current.build_key)
            assert found == ""
            done = bring(shell, second)
            assert (done.found, done.kept) == ("", (folder(first), folder(second)))
            assert shown(shell, second) == ["engine.onnx", "manifest.json"]
            with monkeypatch.context() as later:
                an_hour_later(later)
                bring(shell, second)
            assert not list(place.rglob(".*"))
    assert seen == ["key1"] * 4 + ["key2"] * 2


def test_killed_before_its_first_current_json_a_device_is_not_taken_for_changed(tmp_path):
    engine = engine_directory(tmp_path / "engines", "key1")
    for at in range(5, 10, 2):
        place = tmp_path / str(at)
        reach = LocalReach(kind="local", directory=str(place))
        assert killed_at_fsync(at, _BRING, place, engine)
        with open_shell(Device(name="pc", target="t4", ring="main", reach=reach)) as shell:
            assert changed_by_hand(shell, "t4") == ""
            assert bring(shell, engine).found == ""


_RUN_NOTHING = """
import sys
from deploy.delivery import deactivate
from deploy.shells.local import LocalShell
deactivate(LocalShell("pc", sys.argv[1]), "t4")
"""


def test_killed_while_it_is_told_to_run_nothing_a_device_is_not_taken_for_changed(tmp_path, monkeypatch):
    """Two files are written, before and after `current.json` goes."""
    engine = engine_directory(tmp_path / "engines", "key1")
    for at in range(1, 6):
        place = tmp_path / str(at)
        reach = LocalReach(kind="local", directory=str(place))
        with open_shell(Device(name="pc", target="t4", ring="main", reach=reach)) as shell:
            bring(shell, engine)
            assert killed_at_fsync(at, _RUN_NOTHING, place) == (at < 5)
            assert inspect(shell, "t4")[1] == ""
            with monkeypatch.context() as later:
                an_hour_later(later)
                assert deactivate(shell, "t4") == ""
            assert inspect(shell, "t4") == (None, "")
            assert not list(place.rglob(".*"))
