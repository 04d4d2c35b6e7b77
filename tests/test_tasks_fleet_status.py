"""What is where, by what is written down and by what the devices say."""

from dataclasses import replace

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deploy.shells.opening import open_shell
from deploy.stages import promote, rollback, stage
from schemas.storage import read_json, write_json
from tasks.fleet.deliveries import Measured, note_measured
from tasks.fleet.pending import begin
from tasks.fleet.promotion import roll_back_target
from tasks.fleet.results import TargetRow, save_result
from tasks.fleet.status import fleet_status
from tasks.review.approval import Accepted
from tests.delivered_fleets import WHO, Fleet
from tests.engines import engine_directory
from tests.ssh_servers import device_server


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    fleet = Fleet(tmp_path)
    fleet.local("t4-a", "canary")
    fleet.local("t4-b", "main")
    return fleet


def matrix(fleet: Fleet, **options) -> tuple[dict, dict]:
    """Stage -> (engine, devices by state), and device -> state, of t4."""
    (found,) = fleet_status(fleet.workspace, ["t4"], fleet.devices, **options)
    rows = {row.stage: (row.engine, dict(row.devices)) for row in found.stages if not row.further}
    return rows, {device.device: device.state for device in found.devices}


def test_an_engine_is_followed_from_stage_to_stage(fleet):
    assert matrix(fleet) == ({}, {"t4-a": "idle", "t4-b": "idle"})
    fleet.stage("key1")
    assert matrix(fleet) == ({"staging": ("key1", {})}, {"t4-a": "idle", "t4-b": "idle"})
    fleet.promote("canary")
    assert matrix(fleet)[0] == {"canary": ("key1", {"active": ("t4-a",)})}
    fleet.promote()
    assert matrix(fleet)[0] == {"production": ("key1", {"active": ("t4-a", "t4-b")})}
    fleet.stage("key2")
    fleet.promote("canary")
    assert matrix(fleet)[0] == {
        "production": ("key1", {"active": ("t4-b",)}),
        "canary": ("key2", {"active": ("t4-a",)}),
    }
    fleet.promote()
    roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    assert matrix(fleet)[0] == {
        "production": ("key1", {"active": ("t4-a", "t4-b")}),
        "staging": ("key2", {}),
    }


def test_stages_that_an_engine_has_left_are_in_the_data(fleet):
    fleet.release("key1")
    (found,) = fleet_status(fleet.workspace, [], fleet.devices)
    assert [(row.stage, row.further) for row in found.stages] == [
        ("production", False),
        ("canary", True),
        ("staging", True),
    ]


def test_targets_come_in_the_order_asked_for_and_none_is_left_out(fleet):
    fleet.stage("key1")
    assert [target.target for target in fleet_status(fleet.workspace, ["rtx", "cpu"], [])] == ["rtx", "cpu", "t4"]


def test_how_far_the_last_rollout_came_is_told(fleet):
    accepted = Accepted("fpenet", "8", "report", "ada", "good", None, "2026-01-01T00:00:00.000+00:00")
    begun = begin(accepted, ["t4", "h100"], fleet.workspace.rollouts)
    rows = [
        TargetRow("t4", "T4", "tensorrt", "promoted", "", begun.began_at),
        TargetRow("h100", "H100", "tensorrt", "skipped", "no device of this target is in the fleet", begun.began_at),
    ]
    save_result(replace(begun, rows=tuple(rows)), fleet.workspace.rollouts)
    notes = {target.target: target.note for target in fleet_status(fleet.workspace, ["t4", "h100"], [])}
    assert notes == {"t4": "", "h100": "fpenet/8 skipped: no device of this target is in the fleet"}


def test_a_new_device_is_pending_and_one_that_left_is_told(fleet):
    fleet.release("key1")
    left = fleet.devices.pop()
    fleet.local("t4-c", "main")
    rows, states = matrix(fleet)
    assert states == {"t4-a": "active", "t4-c": "pending", left.name: "gone"}
    assert rows["production"][1] == {"active": ("t4-a",), "pending": ("t4-c",)}


def test_offline_is_told_apart_and_a_device_that_has_it_has_it(fleet, tmp_path):
    with device_server(tmp_path / "nano") as server:
        fleet.devices.append(server.device("t4-ssh", "t4", "main"))
        fleet.release("key1")
        server.vanish()
        assert matrix(fleet, ask=open_shell)[1] == {"t4-a": "active", "t4-b": "active", "t4-ssh": "offline"}
        fleet.promote()
        (found,) = fleet_status(fleet.workspace, [], fleet.devices)
        (away,) = [device for device in found.devices if device.device == "t4-ssh"]
        assert (away.state, away.outcome, away.engine) == ("active", "offline", "key1")
        fleet.stage("key2")
        fleet.promote("canary")
        fleet.promote()
        assert matrix(fleet)[1]["t4-ssh"] == "offline"
        fleet.stage("key3")
        fleet.promote("canary")
        stage(fleet.targets, "t4", engine_directory(fleet.root / "engines", "key4"), **WHO)
        assert matrix(fleet)[0]["production"][1] == {"active": ("t4-b",), "offline": ("t4-ssh",)}
        promote(fleet.targets, "t4", **WHO, has_canaries=True)
        assert matrix(fleet)[1] == {"t4-a": "active", "t4-b": "pending", "t4-ssh": "pending"}, "not asked since"


def test_a_device_is_asked_with_the_settings_of_whoever_asks(fleet):
    def ask(device):
        seen.append(PREFECT_API_URL.value())
        return open_shell(device)

    seen = []
    with temporary_settings({PREFECT_API_URL: "http://prefect.test/api"}):
        matrix(fleet, ask=ask)
    assert seen == ["http://prefect.test/api"] * 2


def test_a_device_that_has_not_heard_of_the_end_of_its_canary_is_pending(fleet):
    fleet.stage("key1")
    fleet.promote("canary")
    rollback(fleet.targets, "t4", **WHO)
    for ask in (None, open_shell):
        assert matrix(fleet, ask=ask) == ({"staging": ("key1", {})}, {"t4-a": "pending", "t4-b": "idle"})
    fleet.settle()
    for ask in (None, open_shell):
        assert matrix(fleet, ask=ask)[1] == {"t4-a": "idle", "t4-b": "idle"}


def test_devices_that_are_asked_say_what_was_changed(fleet):
    fleet.release("key1")
    (engine,) = (fleet.root / "devices/t4-b/t4").glob("engines/*/engine.onnx")
    engine.write_text("tampered")
    assert matrix(fleet)[1] == {"t4-a": "active", "t4-b": "active"}, "nobody was asked"
    assert matrix(fleet, ask=open_shell)[1] == {"t4-a": "active", "t4-b": "changed"}
    (found,) = fleet_status(fleet.workspace, [], fleet.devices, ask=open_shell)
    assert "was changed by hand" in found.devices[1].why


def test_numbers_are_the_worst_of_the_devices_or_those_of_the_build(fleet):
    directory = engine_directory(fleet.root / "engines", "key1")
    manifest = read_json(directory / "manifest.json")
    manifest["check"] |= {"parity": {"mean_px": {"All": 0.02}}, "latency": {"batch": 4, "p50_ms": 8.0}}
    write_json(directory / "manifest.json", manifest)
    stage(fleet.targets, "t4", directory, **WHO)
    fleet.accept("1")
    (found,) = fleet_status(fleet.workspace, [], fleet.devices)
    assert (found.stages[0].px, found.stages[0].fps, found.stages[0].measured_on) == (0.02, 500.0, ())
    fleet.promote("canary")
    fleet.promote()
    for device, px, fps in zip(fleet.devices, (0.03, 0.01), (115.0, 120.0), strict=True):
        note_measured(fleet.targets, device, "key1", Measured(px=px, fps=fps))
    (found,) = fleet_status(fleet.workspace, [], fleet.devices)
    row = found.stages[0]
    assert (row.px, row.fps, row.measured_on) == (0.03, 115.0, ("t4-a", "t4-b"))
    assert [(device.px, device.fps) for device in found.devices] == [(0.03, 115.0), (0.01, 120.0)]
    fleet.stage("key2")
    fleet.promote("canary")
    left = fleet.devices.pop()
    (found,) = fleet_status(fleet.workspace, [], fleet.devices)
    assert [(row.stage, row.px, row.measured_on) for row in found.stages if row.engine == "key1"] == [
        ("production", 0.02, ())
    ], f"t4-a runs another one by now, and {left.name} has left the fleet"
