"""Promotion and rollback with devices: local ones, and some behind a real SSH server."""

import subprocess
import sys
from functools import partial

import pytest

from deploy import stages
from deploy.devices import LocalReach
from schemas.errors import GateError, InputError, ReviewError, StorageError
from schemas.storage import read_json, sha256_file, write_json
from tasks.fleet import promotion
from tasks.fleet.deliveries import Measured, behind, note_measured, read_record, read_records
from tasks.fleet.promotion import UNFINISHED, changing, finish_rollbacks, roll_back_target
from tasks.fleet.results import DeviceRow
from tests.delivered_fleets import WHO, Fleet
from tests.engines import engine_directory
from tests.killed import killed_at_fsync
from tests.ssh_servers import device_server


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    fleet = Fleet(tmp_path)
    fleet.local("t4-a", "canary")
    fleet.local("t4-b", "main")
    return fleet


@pytest.fixture
def nano(fleet, tmp_path):
    """A third device of the fleet, behind SSH."""
    with device_server(tmp_path / "nano") as server:
        fleet.devices.append(server.device("t4-ssh", "t4", "main"))
        yield server


def asked_again(fleet: Fleet) -> dict[str, str]:
    records, problems = finish_rollbacks(fleet.targets, fleet.devices)
    assert problems == ()
    return {record.device: record.outcome for record in records}


def test_an_engine_goes_to_the_canary_ring_and_then_to_all(fleet, nano):
    fleet.stage("key1")
    first = fleet.promote("canary")
    assert first.changed
    assert [(record.device, record.stage, record.outcome) for record in first.devices] == [
        ("t4-a", "canary", "active")
    ]
    assert fleet.running() == {"t4-a": "key1", "t4-b": "", "t4-ssh": ""}
    fleet.promote()
    assert fleet.running() == fleet.recorded() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "key1")
    assert {record.stage for record in read_records(fleet.targets, "t4")} == {"production"}
    assert not fleet.promote().changed


def test_rollback_takes_it_off_every_device_and_says_what_it_was(fleet, nano):
    fleet.release("key1")
    fleet.release("key2")
    back = roll_back_target(fleet.targets, "t4", fleet.devices, by="bob", why="worse")
    assert (back.pointer.engine.build_key, back.pointer.event.before.build_key) == ("key1", "key2")
    assert fleet.running() == fleet.recorded() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "key1")
    with pytest.raises(InputError, match="no earlier production engine"):
        roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)


def test_rollback_ends_a_bad_canary_and_leaves_production_alone(fleet, nano):
    for name in ("key1", "key2"):
        fleet.release(name)
    fleet.stage("key3")
    fleet.promote("canary")
    assert fleet.running() == {"t4-a": "key3", "t4-b": "key2", "t4-ssh": "key2"}
    back = roll_back_target(fleet.targets, "t4", fleet.devices, by="bob", why="worse")
    assert (back.stage, back.pointer.event.action, back.pointer.event.before.build_key) == ("canary", "end", "key3")
    assert fleet.running() == fleet.recorded() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "key2")


def test_a_bad_first_canary_runs_nothing_any_more(fleet):
    fleet.stage("key1")
    fleet.promote("canary")
    back = roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert [(record.device, record.current, record.outcome) for record in back.devices] == [("t4-a", None, "active")]
    assert "nothing is in production" in back.devices[0].why
    assert fleet.running() == {"t4-a": "", "t4-b": ""}
    assert behind(fleet.targets, "t4", fleet.devices) == []
    fleet.stage("key2")
    fleet.promote("canary")
    assert fleet.running() == {"t4-a": "key2", "t4-b": ""}


def test_a_canary_device_that_missed_the_end_of_its_canary_is_asked_again(fleet, nano):
    fleet.devices[-1] = fleet.devices[-1].model_copy(update={"ring": "canary"})
    fleet.stage("key1")
    fleet.promote("canary")
    nano.vanish()
    roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert [device.name for device in behind(fleet.targets, "t4", fleet.devices)] == ["t4-ssh"]
    nano.come_back()
    assert asked_again(fleet) == {"t4-ssh": "active"}
    assert fleet.running() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "")


def test_rollback_without_a_predecessor_changes_no_device(fleet):
    fleet.release("key1")
    with pytest.raises(InputError, match=r"no earlier production engine to go back to: .* key1 .* is the first"):
        roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1"}


def test_an_offline_device_blocks_nobody_and_gets_it_later(fleet, nano):
    fleet.release("key1")
    nano.vanish()
    fleet.release("key2")
    assert fleet.outcomes() == {"t4-a": "active", "t4-b": "active", "t4-ssh": "offline"}
    assert fleet.recorded() == {"t4-a": "key2", "t4-b": "key2", "t4-ssh": "key1"}
    nano.come_back()
    records = fleet.settle()
    assert {record.outcome for record in records} == {"active"}
    assert fleet.running() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "key2")


def test_who_is_behind_is_known_without_asking(fleet):
    def named() -> list[str]:
        return [device.name for device in behind(fleet.targets, "t4", fleet.devices)]

    fleet.local("h100-a", "main")
    fleet.devices[-1] = fleet.devices[-1].model_copy(update={"target": "h100"})
    assert named() == []
    fleet.stage("key1")
    fleet.promote("canary")
    assert named() == []
    stages.promote(fleet.targets, "t4", has_canaries=True, **WHO)
    assert named() == ["t4-b"]
    fleet.promote()
    stages.stage(fleet.targets, "t4", engine_directory(fleet.root / "engines", "key2"), **WHO)
    assert named() == []
    stages.promote(fleet.targets, "t4", to="canary", has_canaries=True, **WHO)
    assert named() == ["t4-a"]


def test_a_device_that_missed_a_rollback_is_brought_back_when_it_is_there(fleet, nano):
    fleet.release("key1")
    fleet.release("key2")
    nano.vanish()
    roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert asked_again(fleet) == {"t4-ssh": "offline"}
    nano.come_back()
    assert asked_again(fleet) == {"t4-ssh": "active"}
    assert asked_again(fleet) == {}
    assert fleet.running() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "key1")


def test_what_is_wrong_with_one_target_keeps_no_other_from_its_rollback(fleet, nano, monkeypatch):
    """A record that can't be read, and somebody who holds the target."""
    monkeypatch.setattr(promotion, "changing", partial(changing, patience_s=0.1))
    fleet.release("key1")
    fleet.release("key2")
    nano.vanish()
    roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    nano.come_back()
    first = fleet.devices[0].model_copy(update={"name": "h100-a", "target": "h100"})
    record = fleet.targets / "h100" / "devices" / "h100-a.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    with changing(fleet.targets, "t4"):
        records, problems = finish_rollbacks(fleet.targets, [first, *fleet.devices])
    assert (records, len(problems)) == ((), 2)
    assert "h100-a.json: not a device's record" in problems[0] and "target 't4': another promotion" in problems[1]
    records, problems = finish_rollbacks(fleet.targets, [first, *fleet.devices])
    assert ([record.device for record in records], len(problems)) == (["t4-ssh"], 1)


@pytest.mark.parametrize(
    ("fault", "outcome", "why"),
    [
        ("key refused", "refused", "add the public key"),
        ("vanishes in the copy", "offline", "went away"),
        ("disk full", "failed", "its disk is full"),
    ],
)
def test_a_device_that_fails_keeps_its_engine(fault, outcome, why, fleet, nano):
    fleet.release("key1", size=200_000)
    match fault:
        case "key refused":
            nano.refuse_key = True
        case "vanishes in the copy":
            nano.vanish_after_bytes = 100_000
        case "disk full":
            nano.capacity = 300_000
    fleet.stage("key2", size=200_000)
    fleet.promote("canary")
    done = fleet.promote()
    assert fleet.outcomes() == {"t4-a": "active", "t4-b": "active", "t4-ssh": outcome}
    assert [record.device for record in done.devices if record.broken] == ([] if outcome == "offline" else ["t4-ssh"])
    assert why in read_record(fleet.targets, "t4", "t4-ssh").why
    nano.refuse_key, nano.capacity = False, None
    nano.come_back() if fault == "vanishes in the copy" else None
    assert fleet.running() == fleet.recorded() == {"t4-a": "key2", "t4-b": "key2", "t4-ssh": "key1"}


def test_production_waits_for_a_canary_device_that_runs_it(fleet):
    canary, main = fleet.devices
    blocked = canary.model_copy(update={"reach": LocalReach(kind="local", directory="/dev/null/none")})
    fleet.devices = [blocked, main]
    fleet.stage("key1")
    fleet.promote("canary")
    assert fleet.outcomes() == {"t4-a": "failed"}
    with pytest.raises(
        InputError, match=r"no canary device runs .* key1 .*\(t4-a failed\); .* --to canary --config FILE` asks"
    ):
        fleet.promote()
    assert stages.status(fleet.targets, "t4").production is None
    fleet.devices = [canary, main]
    fleet.promote("canary")
    fleet.promote()
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1"}


def test_only_the_version_that_was_accepted_goes_to_devices(fleet):
    fleet.stage("key2")
    fleet.accept("1")
    with pytest.raises(ReviewError, match=r"version 2, engine key2 .* not the version that was approved .*version 1"):
        fleet.promote("canary")
    fleet.accept("2", name="other")
    with pytest.raises(ReviewError, match=r"\(accepted is other version 2"):
        fleet.promote("canary")
    fleet.workspace.accepted.unlink()
    with pytest.raises(ReviewError, match="no version was accepted yet"):
        fleet.promote("canary")
    assert fleet.running() == {"t4-a": "", "t4-b": ""}
    assert "override: the demo" in fleet.promote("canary", override="the demo").pointer.event.note
    assert not fleet.promote("canary").changed, "to ask devices again needs no approval"
    with pytest.raises(ReviewError):
        fleet.promote()
    fleet.accept("2")
    fleet.promote()
    assert stages.history(fleet.targets, "t4")[-1].note == ""


def test_a_target_without_devices_only_moves_its_pointer(fleet):
    fleet.devices = []
    fleet.stage("key1")
    done = fleet.promote()
    assert (done.changed, done.devices) == (True, ())
    assert "no canary devices" in done.pointer.event.note


def test_a_tampered_engine_reaches_no_device(fleet):
    directory = fleet.stage("key1")
    fleet.promote("canary")
    (directory / "engine.onnx").write_text("tampered")
    with pytest.raises(StorageError, match="not the file that was built"):
        fleet.promote()
    assert fleet.running() == {"t4-a": "key1", "t4-b": ""}
    with pytest.raises(StorageError, match="not the file that was built"):
        fleet.settle()
    manifest = read_json(directory / "manifest.json")
    write_json(directory / "manifest.json", manifest | {"engine_sha256": sha256_file(directory / "engine.onnx")})
    with pytest.raises(StorageError, match="is not the file that was built"):
        fleet.settle()
    assert fleet.outcomes() == {"t4-a": "active"}, "a fault of this machine is none of a device"
    assert fleet.running() == {"t4-a": "key1", "t4-b": ""}


def test_production_is_not_taken_back_to_an_engine_whose_manifest_is_gone(fleet):
    for name in ("key1", "key2"):
        fleet.release(name)
    stages.manifest_path(fleet.targets, "t4", stages.history(fleet.targets, "t4")[0].engine).unlink()
    with pytest.raises(StorageError, match="is not the manifest that it was staged with"):
        roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert stages.status(fleet.targets, "t4").production.engine.build_key == "key2"
    assert fleet.outcomes() == {"t4-a": "active", "t4-b": "active"}


@pytest.mark.parametrize("gone", ["engine", "manifest"])
def test_a_canary_is_not_ended_where_what_its_devices_go_back_to_is_gone(gone, fleet):
    fleet.release("key1")
    fleet.stage("key2")
    fleet.promote("canary")
    if gone == "engine":
        (fleet.root / "engines" / "key1" / "engine.onnx").unlink()
    else:
        held = stages.status(fleet.targets, "t4").production.engine
        stages.manifest_path(fleet.targets, "t4", held).unlink()
    with pytest.raises(StorageError, match=r"key1 .*(its file .* is gone|not the manifest that it was staged with)"):
        roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert stages.status(fleet.targets, "t4").canary.engine.build_key == "key2"
    assert fleet.outcomes() == {"t4-a": "active", "t4-b": "active"}


@pytest.mark.parametrize(
    ("name", "told"), [("current.json", "was changed by hand"), ("engine.onnx", "was changed on the device")]
)
def test_what_somebody_changed_on_a_device_is_told_and_set_right(name, told, fleet):
    fleet.release("key1")
    (file,) = (fleet.root / "devices" / "t4-b" / "t4").rglob(name)
    file.write_text("{}")
    fleet.promote()
    assert told in read_record(fleet.targets, "t4", "t4-b").why
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1"}


def test_a_record_says_since_when_a_device_runs_its_engine(fleet):
    def since() -> str:
        return read_record(fleet.targets, "t4", "t4-b").since

    fleet.release("key1")
    first = since()
    fleet.promote()  # asks it again
    assert since() == first
    fleet.release("key2")
    assert since() > first


def test_a_record_has_the_ring_in_which_a_device_was_asked_last(fleet, nano):
    fleet.release("key1")
    fleet.devices[-1] = fleet.devices[-1].model_copy(update={"ring": "canary"})
    nano.vanish()
    fleet.stage("key2")
    fleet.promote("canary")
    record = read_record(fleet.targets, "t4", "t4-ssh")
    assert (record.outcome, record.stage, record.ring) == ("offline", "canary", "canary")


def test_measurements_stay_with_the_engines_that_a_device_has(fleet):
    fleet.release("key1")
    device = fleet.devices[1]
    note_measured(fleet.targets, device, "key1", Measured(px=0.02, fps=115.0))
    fleet.release("key2")
    known = {"key1": Measured(px=0.02, fps=115.0), "key2": Measured()}
    assert read_record(fleet.targets, "t4", "t4-b").measured == known
    for name in ("key3", "key4"):
        fleet.release(name)
    record = read_record(fleet.targets, "t4", "t4-b")
    assert list(record.measured) == [engine.build_key for engine in record.kept] == ["key2", "key3", "key4"]


def test_a_damaged_record_is_named(fleet):
    fleet.release("key1")
    (fleet.targets / "t4" / "devices" / "t4-b.json").write_text("{")
    with pytest.raises(StorageError, match=r"t4-b\.json: not a device's record; remove it"):
        read_records(fleet.targets, "t4")


def test_who_holds_a_target_is_waited_for(fleet):
    fleet.stage("key1")
    with (
        changing(fleet.targets, "t4"),
        pytest.raises(InputError, match="another promotion, rollback or rollout has been under way"),
        changing(fleet.targets, "t4", patience_s=0.01),
    ):
        pass


def measured(happens, *devices):
    """A `Measure` by which all devices pass, once something else has happened; `devices` are those to be asked."""

    def measure(engine, asked):
        assert [device.name for device in asked] == list(devices)
        happens()
        return [DeviceRow(device.name, device.ring, "passed", parity_px=0.02, fps=90.0) for device in asked]

    return measure


def judged(**states):
    """A `Measure` by which devices come to these states."""

    def measure(engine, asked):
        return [DeviceRow(device.name, device.ring, states[device.name], "parity 4 px") for device in asked]

    return measure


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits for who holds a target."""
    monkeypatch.setattr(promotion, "changing", partial(changing, patience_s=0.1))


def test_a_rollback_does_not_wait_for_devices_that_are_measured(fleet, impatient):
    """And what it has taken back is not promoted by who measured meanwhile."""
    fleet.release("key1")
    fleet.stage("key2")
    fleet.promote("canary")
    back = partial(roll_back_target, fleet.targets, "t4", fleet.devices, **WHO)
    with pytest.raises(InputError, match="somebody else has changed it while devices were measured"):
        fleet.promote(measure=measured(back, "t4-b"))
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1"}
    fleet.promote("canary")
    fleet.promote(measure=measured(lambda: None, "t4-b"))
    assert fleet.running() == {"t4-a": "key2", "t4-b": "key2"}
    assert read_record(fleet.targets, "t4", "t4-b").measured["key2"] == Measured(px=0.02, fps=90.0)


def test_asking_a_new_device_undoes_no_rollback_that_comes_meanwhile(fleet, impatient):
    fleet.stage("key1")
    fleet.promote("canary")
    fleet.local("t4-c", "canary")
    back = partial(roll_back_target, fleet.targets, "t4", fleet.devices, **WHO)
    with pytest.raises(InputError, match="nothing was promoted"):
        fleet.promote("canary", measure=measured(back, "t4-c"))
    assert fleet.running() == dict.fromkeys(("t4-a", "t4-b", "t4-c"), "")


def test_what_is_staged_while_devices_are_measured_is_not_promoted(fleet, impatient):
    fleet.stage("key1")
    with pytest.raises(InputError, match=r"engine key2 .* came between"):
        fleet.promote("canary", measure=measured(lambda: fleet.stage("key2"), "t4-a"))
    assert fleet.running() == {"t4-a": "", "t4-b": ""}


def test_a_new_device_gets_nothing_that_it_was_not_measured_with(fleet, impatient):
    fleet.release("key1")
    fleet.release("key2")
    back = partial(roll_back_target, fleet.targets, "t4", list(fleet.devices), **WHO)
    fleet.local("t4-c", "main")
    with pytest.raises(InputError, match="what 't4-c' ought to run has changed while devices were measured"):
        fleet.settle(measure=measured(back, "t4-c"))
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1", "t4-c": ""}
    fleet.settle(measure=measured(lambda: None, "t4-c"))
    assert fleet.running() == dict.fromkeys(("t4-a", "t4-b", "t4-c"), "key1")


def test_an_engine_that_no_device_passes_does_not_come_into_production_without_canary_devices_either(fleet):
    fleet.devices.clear()
    fleet.local("a", "main"), fleet.local("b", "main")
    fleet.stage("key1")
    fleet.promote(measure=judged(a="passed", b="gated"))
    assert fleet.outcomes() == {"a": "active", "b": "failed"}
    fleet.promote(measure=judged(b="gated"))
    fleet.stage("key2")
    for states in {"a": "gated", "b": "refused"}, {"a": "gated", "b": "offline"}:
        with pytest.raises(
            GateError, match=r"key2 .* passed on no device, and nothing was promoted: a gated \(parity"
        ):
            fleet.promote(measure=judged(**states))
    assert stages.status(fleet.targets, "t4").production.engine.build_key == "key1"
    fleet.stage("key3")
    fleet.promote(measure=judged(a="passed", b="passed"))
    roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert fleet.running()["a"] == "key1"


_PROMOTE = """
import sys
from pathlib import Path
from deploy.devices import Device, LocalReach
from deploy.stages import stage
from schemas.errors import InputError
from tasks.fleet.promotion import promote_target, roll_back_target
from tests.delivered_fleets import passing
root, names = Path(sys.argv[1]), sys.argv[2].split()
reach = lambda name: LocalReach(kind="local", directory=str(root / "devices" / name))
devices = [Device(name=name, target="t4", ring=ring, reach=reach(name)) for name, ring in
           (("t4-a", "canary"), ("t4-b", "main"))]
who = {"by": "ada", "why": "contends"}
for name in names:
    if name == "rollback":
        roll_back_target(root / "targets", "t4", devices, **who)
        continue
    if name not in ("canary", "production"):
        stage(root / "targets", "t4", root / "engines" / name, **who)
        name = "canary"
    how = {"accepted": None, "override": "by hand", "measure": passing}
    while True:
        try:
            promote_target(root / "targets", "t4", devices, to=name, **how, **who)
            break
        except InputError as error:
            if "somebody else has changed it" not in str(error) and "came between" not in str(error):
                raise
"""


def test_promotions_at_once_come_one_after_the_other(fleet):
    """Whatever order they come in, the devices end where the pointers are."""
    for name in ("key1", "key2", "key3"):
        engine_directory(fleet.root / "engines", name)
    work = [f"{name} production {name} production" for name in ("key1", "key2", "key3")]
    running = [
        subprocess.Popen([sys.executable, "-c", _PROMOTE, fleet.root, names], stderr=subprocess.PIPE)
        for names in work
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    now = stages.status(fleet.targets, "t4")
    wanted = {device.name: now.wanted(device.ring)[1].engine.build_key for device in fleet.devices}
    assert fleet.running() == fleet.recorded() == wanted
    events = stages.history(fleet.targets, "t4")
    assert [event.number for event in events] == list(range(1, len(events) + 1))


def test_a_rollback_that_was_cut_off_is_completed_though_something_was_staged_meanwhile(fleet):
    fleet.release("key1")
    fleet.release("key2")
    write_json(fleet.targets / "t4" / UNFINISHED, {"number": len(stages.history(fleet.targets, "t4")) + 1})
    fleet.stage("key3")
    stages.rollback(fleet.targets, "t4", **WHO)
    fleet.stage("key4")
    done = roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert (done.changed, done.pointer.engine.build_key) == (False, "key1")
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1"}


def test_a_promotion_after_a_rollback_that_was_cut_off_is_taken_back_itself(fleet):
    fleet.release("key1")
    fleet.release("key2")
    write_json(fleet.targets / "t4" / UNFINISHED, {"number": len(stages.history(fleet.targets, "t4")) + 1})
    stages.rollback(fleet.targets, "t4", **WHO)
    fleet.release("key3")
    done = roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert (done.changed, done.pointer.engine.build_key) == (True, "key1")
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1"}


@pytest.mark.parametrize("by", ["deliver", "the flow"])
def test_a_rollback_after_one_that_was_cut_off_and_completed_otherwise_goes_back_one_more(by, fleet, nano):
    for name in ("key1", "key2", "key3"):
        fleet.release(name)
    nano.vanish()
    roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    number = len(stages.history(fleet.targets, "t4"))
    write_json(fleet.targets / "t4" / UNFINISHED, {"number": number})  # it was cut off before the last device
    nano.come_back()
    if by == "deliver":
        fleet.settle()
    else:
        assert asked_again(fleet) == {"t4-ssh": "active"}
    assert fleet.running() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "key2")
    done = roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert (done.changed, done.pointer.engine.build_key) == (True, "key1")
    assert fleet.running() == dict.fromkeys(("t4-a", "t4-b", "t4-ssh"), "key1")


@pytest.mark.parametrize(("release", "runs"), [((), ""), (("key1",), "key1"), (("key1", "key3"), "key1")])
def test_a_rollback_that_was_killed_is_completed_by_the_flow(release, runs, fleet):
    """Of a first canary, of a later one, and of production; killed when its pointer has moved, before a device is
    asked."""
    for name in release:
        fleet.release(name)
    if len(release) < 2:
        fleet.stage("key2")
        fleet.promote("canary")
    before = fleet.running()
    assert killed_at_fsync(7, _PROMOTE, fleet.root, "rollback")
    assert stages.history(fleet.targets, "t4")[-1].action in ("end", "rollback")
    assert fleet.running() == before
    records, problems = finish_rollbacks(fleet.targets, fleet.devices)
    assert ({record.outcome for record in records}, problems) == ({"active"}, ())
    assert fleet.running() == fleet.recorded() | before | dict.fromkeys(fleet.recorded(), runs)
    assert not (fleet.targets / "t4" / UNFINISHED).exists()
    assert asked_again(fleet) == {}


def test_a_device_that_could_not_be_rolled_back_is_asked_once_for_each_rollback(fleet):
    fleet.release("key1")
    fleet.stage("key2")
    fleet.promote("canary")
    place = fleet.root / "devices" / "t4-a"
    place.rename(fleet.root / "aside")
    place.write_text("a file in the way")
    fleet.promote("canary")
    assert fleet.outcomes()["t4-a"] == "failed", "before its canary was ended"
    assert killed_at_fsync(7, _PROMOTE, fleet.root, "rollback")
    assert asked_again(fleet) == {"t4-a": "failed"}
    assert asked_again(fleet) == {}


@pytest.mark.parametrize(("change", "new"), [("production", "key2"), ("rollback", "key1")])
def test_killed_at_any_moment_and_completed_by_the_same_command(change, new, tmp_path):
    """Pointer, log, then each device: here at every seventh fsync."""
    seen, at = [], 1
    while True:
        fleet = Fleet(tmp_path / str(at))
        fleet.local("t4-a", "canary"), fleet.local("t4-b", "main")
        fleet.release("key1")
        fleet.stage("key2")
        fleet.promote("canary")
        if change == "rollback":
            fleet.promote()
        killed = killed_at_fsync(at, _PROMOTE, fleet.root, change)
        seen.append(fleet.running()["t4-b"])
        if not killed:
            break
        fleet.promote() if change == "production" else roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
        assert fleet.running() == fleet.recorded() == {"t4-a": new, "t4-b": new}
        at += 7
    assert set(seen) == {"key1", "key2"}
    assert seen[-1] == new
