"""Rollouts over real SSH servers on loopback; `trtexec` is a stand-in, ONNX Runtime is itself."""

import json
from dataclasses import asdict, replace

import pytest

from deploy import stages
from deploy.targets import find_target
from schemas.storage import write_json
from tasks.fleet.deliveries import read_record
from tasks.fleet.rollout import roll_out_target
from tests.fleets import fleet, small_material
from tests.stand_ins.devices import NANO, XAVIER


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return small_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def devices(tmp_path):
    with fleet(tmp_path) as found:
        yield found


def states(row):
    return {device.device: device.state for device in row.devices}


def running(devices, name, of):
    """Content of `current.json` of a device."""
    path = devices.servers[name].directory if name in devices.servers else devices.folder / name
    return json.loads((path / of / "current.json").read_text())


def test_a_target_that_is_built_here_comes_into_production_by_way_of_its_canary(devices, material):
    devices.this_machine("first")
    devices.this_machine("second", ring="main")
    plan = devices.plan(material)
    row = roll_out_target(plan, find_target("cpu"))
    assert (row.state, row.why, row.built_on, row.precision) == ("promoted", "", "here", "fp32")
    assert states(row) == {"first": "active", "second": "active"}
    assert running(devices, "first", "cpu") == running(devices, "second", "cpu")
    assert running(devices, "second", "cpu")["build_key"] == row.engine
    log = stages.history(plan.workspace.targets, "cpu")
    assert [event.action for event in log] == ["stage", "canary", "promote"]
    assert log[-1].engine.check == "passed"
    assert all(device.parity_px < 1e-3 and device.fps > 0 for device in row.devices)
    record = read_record(plan.workspace.targets, "cpu", "second")
    assert (record.outcome, record.stage, record.measured[row.engine].px) == (
        "active",
        "production",
        row.devices[1].parity_px,
    )


@pytest.mark.slow
def test_a_jetson_builds_its_engine_itself_and_the_others_get_it(devices, material):
    devices.jetson("nano-1", "jetson-nano", NANO)
    devices.jetson("nano-2", "jetson-nano", NANO, ring="main")
    row = roll_out_target(devices.plan(material), find_target("jetson-nano"))
    assert (row.state, row.built_on, row.precision) == ("promoted", "nano-1", "fp16")
    assert states(row) == {"nano-1": "active", "nano-2": "active"}
    assert not any("--onnx" in command for command in devices.servers["nano-2"].commands)
    assert running(devices, "nano-2", "jetson-nano")["model_version"] == "7"
    assert "TensorRT 8.2.1" in row.devices[0].facts


def test_what_goes_wrong_with_devices_is_told_apart(devices, material):
    """Crash, wrong TensorRT, bad engine, no numbers, refused key, full disk, nobody there: each its own state, with a
    reason, and a row that goes into the record."""
    cases = {
        "crashes": ("failed", "SIGSEGV", {"fail": "crash"}),
        "other": ("refused", "TensorRT 8.4.1, the target 8.2", {"tensorrt": "8.4.1"}),
        "shifted": ("gated", "parity All mean 4.24 px", {"shift_px": 3.0}),
        "blind": ("gated", "parity All mean inf px", {"fail": "nan"}),
        "locked": ("refused", "refuses user", {}),
        "full": ("failed", "disk is full", {}),
        "slow": ("gated", "speed 50 faces/s (at least 92 faces/s)", {"latency_ms": 20.0}),
        "away": ("offline", "does not answer", {}),
    }
    for name, (_, _, settings) in cases.items():
        devices.jetson(name, "jetson-nano", NANO, **settings)
    devices.servers["locked"].refuse_key = True
    devices.servers["full"].capacity = 1000
    devices.servers["away"].vanish()
    for name, (state, words, _) in cases.items():
        plan = replace(devices.plan(material), devices=[d for d in devices.devices if d.name == name])
        row = roll_out_target(plan, find_target("jetson-nano"))
        assert (name, row.state, states(row)) == (name, state, {name: state})
        assert words in row.devices[0].why, name
        write_json(plan.workspace.root / "row.json", asdict(row))
        assert row.waits_for == (("away",) if state == "offline" else ())
        assert stages.status(plan.workspace.targets, "jetson-nano").staging is None


def test_devices_that_are_away_block_nobody_and_are_asked_again(devices, material):
    devices.jetson("nx-1", "xavier-nx", XAVIER).vanish()
    devices.jetson("nx-2", "xavier-nx", XAVIER)
    devices.jetson("nx-3", "xavier-nx", XAVIER, ring="main").vanish()
    plan = devices.plan(material)
    row = roll_out_target(plan, find_target("xavier-nx"))
    assert (row.state, row.built_on, row.why) == ("canary", "nx-2", "main ring: no device answers: nx-3")
    assert row.waits_for == ("nx-1", "nx-3")
    devices.servers["nx-3"].come_back()
    commands = len(devices.servers["nx-2"].commands)
    again = roll_out_target(plan, find_target("xavier-nx"), row)
    assert states(again) == {"nx-1": "offline", "nx-2": "active", "nx-3": "active"}
    assert len(devices.servers["nx-2"].commands) == commands, "what runs it is left alone"
    assert (again.state, again.why, again.waits_for) == ("promoted", "waits for nx-1", ("nx-1",))
    devices.servers["nx-1"].come_back()
    done = roll_out_target(plan, find_target("xavier-nx"), again)
    assert (done.why, done.waits_for, set(states(done).values())) == ("", (), {"active"})
    assert (done.state, done.at) == ("promoted", again.at)
    assert running(devices, "nx-1", "xavier-nx") == running(devices, "nx-3", "xavier-nx")
    built = [name for name, server in devices.servers.items() if any("--onnx" in line for line in server.commands)]
    assert built == ["nx-2"]


@pytest.mark.slow
def test_a_canary_ring_in_which_one_fails_keeps_the_main_ring_out(devices, material):
    devices.jetson("nano-1", "jetson-nano", NANO)
    devices.jetson("nano-2", "jetson-nano", NANO, shift_px=3.0)
    devices.jetson("nano-3", "jetson-nano", NANO, ring="main")
    row = roll_out_target(devices.plan(material), find_target("jetson-nano"))
    assert (row.state, row.why) == ("gated", "nano-2 gated")
    assert states(row) == {"nano-1": "passed", "nano-2": "gated", "nano-3": "not reached"}
    assert not (devices.servers["nano-1"].directory / "jetson-nano/current.json").exists()
    assert devices.servers["nano-3"].commands == []


@pytest.mark.slow
def test_a_device_that_goes_away_while_it_builds_is_offline_and_the_next_one_builds(devices, material):
    devices.jetson("nano-1", "jetson-nano", NANO).vanish_at = "--onnx"
    devices.jetson("nano-2", "jetson-nano", NANO)
    row = roll_out_target(devices.plan(material), find_target("jetson-nano"))
    assert (row.state, row.built_on) == ("promoted", "nano-2")
    assert states(row) == {"nano-1": "offline", "nano-2": "active"}


@pytest.mark.slow
def test_a_rollback_ends_the_waiting(devices, material, tmp_path):
    devices.this_machine("first")
    devices.jetson("nano-1", "jetson-nano", NANO)
    devices.jetson("nano-2", "jetson-nano", NANO)
    first = roll_out_target(devices.plan(material), find_target("jetson-nano"))
    newer = devices.plan(small_material(tmp_path, version="8", seed=5))
    devices.servers["nano-2"].vanish()
    row = roll_out_target(newer, find_target("jetson-nano"))
    assert (row.state, row.waits_for) == ("promoted", ("nano-2",))
    assert row.engine != first.engine
    stages.rollback(newer.workspace.targets, "jetson-nano", by="somebody", why="it blinks")
    devices.servers["nano-2"].come_back()
    after = roll_out_target(newer, find_target("jetson-nano"), row)
    assert "by somebody by now, so nothing more is delivered" in after.why
    assert (states(after)["nano-2"], after.waits_for) == ("not reached", ())
    assert running(devices, "nano-2", "jetson-nano")["build_key"] == first.engine


def test_without_devices_an_engine_waits_at_staging_or_is_left(devices, material):
    plan = devices.plan(material)
    row = roll_out_target(plan, find_target("cpu"))
    assert (row.state, row.why) == ("built", "no device of this target is in the fleet; it waits at staging")
    assert stages.status(plan.workspace.targets, "cpu").staging.engine.build_key == row.engine
    for name, why in (("t4", "'tensorrt'"), ("jetson-nano", "trtexec is not here")):
        row = roll_out_target(plan, find_target(name))
        assert row.state == "skipped"
        assert "no device of this target is in the fleet, and it is not built here" in row.why and why in row.why
