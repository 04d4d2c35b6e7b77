"""Rollouts over real SSH servers on loopback; `trtexec` is a stand-in, ONNX Runtime is itself."""

import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import pytest

from deploy import stages
from deploy.builders import trtexec
from deploy.device.run import MODULE
from deploy.devices import Device, LocalReach
from deploy.engine import read_engine
from deploy.pointers import utc_now
from deploy.shells.local import LocalShell
from deploy.targets import find_target
from schemas.errors import DeviceOfflineError
from schemas.storage import read_json, write_json
from tasks.fleet import rollout
from tasks.fleet.ascent import Ascent, build_here
from tasks.fleet.catch_up import catch_up, told
from tasks.fleet.check import Checked, check_on
from tasks.fleet.deliveries import read_record
from tasks.fleet.plan import Plan
from tasks.fleet.promotion import UNFINISHED, changing, roll_back_target, settle_target
from tasks.fleet.results import DeviceRow, TargetRow
from tasks.fleet.rollout import roll_out_target
from tasks.fleet.work_pool import open_device
from tests.delivered_fleets import passing
from tests.fleets import fleet, small_material
from tests.stand_ins.devices import NANO, XAVIER, stand_in


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return small_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def devices(tmp_path):
    with fleet(tmp_path) as found:
        yield found


@dataclass(frozen=True, eq=False)
class PassingPlan(Plan):
    """Devices that are `away` do not answer; those that answer pass without being measured, and then `measured`."""

    away: set[str] = field(default_factory=set)
    measured: list = field(default_factory=list)

    def check_all(self, devices, built):
        found = [
            Checked(DeviceRow(device.name, device.ring, "offline" if device.name in self.away else "passed"))
            for device in devices
        ]
        for happens in self.measured:
            happens(devices)
        return found


class Released:
    """Versions 7 and 8 of a network for the CPU, built once, and a fleet of directories of this machine."""

    def __init__(self, devices, engines, built, materials):
        self.devices, self.built, self._materials = devices, built, materials
        self.away = set()
        self.workspace = devices.plan(materials["7"]).workspace
        self.targets = self.workspace.targets
        shutil.copytree(engines, self.workspace.engines)

    @contextmanager
    def open_shell(self, device):
        if device.name in self.away:
            raise DeviceOfflineError(f"device '{device.name}' does not answer")
        with open_device(device) as shell:
            yield shell

    def plan(self, version, *measured):
        return PassingPlan(
            self._materials[version],
            self.devices.devices,
            self.workspace,
            self.open_shell,
            "test",
            "a test",
            utc_now(),
            away=self.away,
            measured=list(measured),
        )

    def stage(self, version, to=None):
        directory = self.workspace.engines / self.built[version].key
        stages.stage(self.targets, "cpu", directory, by="retrain", why="nightly")
        if to:
            stages.promote(self.targets, "cpu", by="test", why="", to=to, has_canaries=to == "canary")

    def at_canary(self, version):
        """A row of a rollout that came to `canary` and was cut off there."""
        self.stage(version, "canary")
        built = self.built[version]
        return TargetRow(
            "cpu",
            "CPU",
            "onnxruntime",
            "canary",
            "",
            "2026-01-02T10:00:00+00:00",
            "here",
            built.key,
            built.sha256,
            built.size,
            built.target.precision,
        )

    def go_on(self, version, row, *measured):
        return roll_out_target(self.plan(version, *measured), find_target("cpu"), row)

    def roll_back(self, *_):
        roll_back_target(
            self.targets, "cpu", self.devices.devices, by="op", why="it blinks", open_shell=self.open_shell
        )

    def catch_up(self, *asked):
        return catch_up(
            self.targets,
            self.devices.devices,
            open_shell=self.open_shell,
            material_of=lambda engine: self._materials[engine.model_version],
            asked=asked,
        )

    def running(self):
        return {
            device.name: running(self.devices, device.name, "cpu")["model_version"] for device in self.devices.devices
        }


@pytest.fixture(scope="module")
def versions(material, tmp_path_factory):
    materials = {"7": material, "8": small_material(tmp_path_factory.mktemp("eight"), version="8", seed=6)}
    folder = tmp_path_factory.mktemp("built")
    with fleet(folder) as nobody:
        built = {name: build_here(nobody.plan(each), find_target("cpu")).built for name, each in materials.items()}
        return nobody.plan(material).workspace.engines, built, materials


@pytest.fixture
def released(devices, versions):
    return Released(devices, *versions)


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


def test_int8_of_a_cpu_comes_into_production_by_way_of_its_canary(devices, tmp_path):
    """Of a network whose maps are as flat as INT8 needs for the target's own gate, 0.1 px."""
    devices.this_machine("first", "cpu-int8")
    devices.this_machine("second", "cpu-int8", "main")
    row = roll_out_target(devices.plan(small_material(tmp_path, peaks=9.0)), find_target("cpu-int8"))
    assert (row.state, row.why, row.built_on, row.precision, row.ladder) == ("promoted", "", "here", "int8", ())
    assert states(row) == {"first": "active", "second": "active"}
    assert all(0.01 < device.parity_px < 0.1 and device.fps > 0 for device in row.devices)
    assert running(devices, "second", "cpu-int8")["precision"] == "int8"


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
    newer = devices.plan(small_material(tmp_path, version="8", seed=6))
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
    for name, why in (("t4", "'tensorrt10'"), ("jetson-nano", "trtexec is not here")):
        row = roll_out_target(plan, find_target(name))
        assert row.state == "skipped"
        assert "no device of this target is in the fleet, and it is not built here" in row.why and why in row.why


@pytest.mark.parametrize(("here", "built_on"), [("8.5.2", "here"), ("8.5.3", "nx-1")])
def test_a_machine_with_the_gpu_builds_for_devices_of_its_own_tensorrt_only(
    here, built_on, devices, material, tmp_path, monkeypatch
):
    """The others would refuse the engine, and build their own."""
    program = stand_in(tmp_path / "workspace", XAVIER, tensorrt=here, latency_ms=1.0).trtexec
    monkeypatch.setattr(trtexec, "PROGRAMS", (program,))
    devices.jetson("nx-1", "xavier-nx", XAVIER)
    row = roll_out_target(devices.plan(material), find_target("xavier-nx"))
    assert (row.state, row.built_on, states(row)) == ("promoted", built_on, {"nx-1": "active"})
    assert any("--onnx" in command for command in devices.servers["nx-1"].commands) == (built_on == "nx-1")


def test_a_place_here_that_can_t_be_written_is_told_though_a_device_is_away(devices, material, tmp_path, monkeypatch):
    program = stand_in(tmp_path / "workspace", XAVIER, latency_ms=1.0).trtexec
    monkeypatch.setattr(trtexec, "PROGRAMS", (program,))
    devices.jetson("nx-1", "xavier-nx", XAVIER).vanish()
    devices.jetson("nx-2", "xavier-nx", XAVIER)
    plan = devices.plan(material)
    plan.workspace.engines.write_text("no folder")
    row = roll_out_target(plan, find_target("xavier-nx"))
    assert (row.state, states(row)) == ("failed", {"nx-1": "offline", "nx-2": "not reached"})
    assert f"{plan.workspace.engines}: can't be made" in row.why


def test_a_device_whose_tensorrt_was_updated_gets_no_engine_of_the_earlier_one_by_hand_either(devices, material):
    devices.jetson("nx-1", "xavier-nx", XAVIER)
    devices.jetson("nx-2", "xavier-nx", XAVIER, ring="main").vanish()
    plan = devices.plan(material)
    roll_out_target(replace(plan, devices=devices.devices[:1]), find_target("xavier-nx"))
    devices.servers["nx-2"].come_back()
    devices.programs["nx-2"].change(tensorrt="8.5.3")
    first, second = settle_target(plan.workspace.targets, "xavier-nx", devices.devices, measure=passing)
    assert (first.outcome, second.outcome) == ("active", "refused")
    assert "it was built by TensorRT 8.5.2, nx-2 has 8.5.3" in second.why
    assert not (devices.servers["nx-2"].directory / "xavier-nx").exists()


def test_what_was_rolled_back_is_not_brought_back_by_a_run_that_goes_on(released):
    released.devices.this_machine("c1")
    released.go_on("7", released.at_canary("7"))
    plan = released.plan("8")
    released.go_on("8", released.at_canary("8"))
    released.roll_back()
    row = roll_out_target(plan, find_target("cpu"))  # the run before was killed: it has left no row
    assert (row.state, row.waits_for) == ("skipped", ())
    assert "rolled back by op since this rollout began (it blinks)" in row.why and "--version 8" in row.why
    assert released.running() == {"c1": "7"}


def test_a_rollback_while_a_device_is_measured_keeps_the_engine_from_it(released):
    released.devices.this_machine("c1")
    released.devices.this_machine("m1", ring="main")
    released.devices.this_machine("m2", ring="main")
    released.go_on("7", released.at_canary("7"))
    released.away.add("m2")
    row = released.go_on("8", released.at_canary("8"))
    assert (row.state, row.waits_for) == ("promoted", ("m2",))
    released.away.clear()
    after = released.go_on("8", row, released.roll_back)
    assert "production holds fpenet version 7" in after.why and after.waits_for == ()
    assert released.running() == {"c1": "7", "m1": "7", "m2": "7"}


def test_an_engine_is_measured_though_another_is_activated_meanwhile(released, monkeypatch):
    """By hand, say; nothing is left there of one that nobody activates."""
    released.devices.this_machine("c1")
    released.go_on("7", released.at_canary("7"))
    (device,), run = released.devices.devices, LocalShell.run

    def and_deliver(shell, command, **options):
        if MODULE in command:
            monkeypatch.setattr(LocalShell, "run", run)
            (record,) = settle_target(released.targets, "cpu", [device], measure=passing)
            assert record.outcome == "active"
        return run(shell, command, **options)

    monkeypatch.setattr(LocalShell, "run", and_deliver)
    checked = check_on(device, open_device, released.built["8"], released._materials["8"])
    assert (checked.row.state, checked.row.why) == ("passed", "")
    assert LocalShell.run is run
    place = released.devices.folder / "c1"
    (folder,) = (place / "cpu/engines").iterdir()
    assert folder.name.startswith(released.built["7"].key)
    assert not list((place / "running").iterdir())


def test_what_others_staged_meanwhile_does_not_get_into_production(released):
    """Not even where the canary devices have left the fleet."""
    released.devices.this_machine("c1")
    released.devices.this_machine("m1", ring="main")
    released.away.add("m1")
    row = released.go_on("7", released.at_canary("7"))
    assert (row.state, row.why) == ("canary", "main ring: no device answers: m1")
    released.stage("8")
    released.away.clear()
    released.devices.devices.pop(0)
    assert released.go_on("7", row).state == "promoted"
    assert stages.status(released.targets, "cpu").production.engine.model_version == "7"


def test_a_target_that_somebody_else_holds_keeps_its_state_and_is_tried_again(released, monkeypatch):
    released.devices.this_machine("c1")
    released.devices.this_machine("m1", ring="main")
    monkeypatch.setattr(rollout, "changing", partial(changing, patience_s=0.1))
    row = released.at_canary("7")
    with changing(released.targets, "cpu"):
        held = released.go_on("7", row)
    assert (held.state, held.again) == ("canary", True)
    assert "has been under way for 0.1 s" in held.why
    done = released.go_on("7", held)
    assert (done.state, done.why, done.again) == ("promoted", "", False)


def test_a_manifest_that_is_gone_here_is_no_failure_of_a_device(released):
    released.devices.this_machine("c1")
    released.devices.this_machine("c2")
    released.away.add("c2")
    row = released.go_on("7", released.at_canary("7"))
    assert (row.state, row.waits_for) == ("promoted", ("c2",))
    held = stages.status(released.targets, "cpu").production.engine
    manifest = stages.manifest_path(released.targets, "cpu", held)
    manifest.rename(manifest.with_suffix(".aside"))
    released.away.clear()
    after = released.go_on("7", row)
    assert (after.state, f"no {manifest.name}" in after.why) == ("promoted", True)
    assert read_record(released.targets, "cpu", "c2") is None
    manifest.with_suffix(".aside").rename(manifest)
    assert [(row.device, row.state) for row in released.catch_up()] == [("c2", "active")]


def test_a_canary_device_that_comes_back_is_not_sent_through_the_engine_before_its_own(released):
    """By hand a newer version came to the canary devices meanwhile."""
    released.devices.this_machine("c1")
    released.devices.this_machine("c2")
    released.away.add("c2")
    row = released.go_on("7", released.at_canary("7"))
    released.stage("8", "canary")
    released.away.clear()
    after = released.go_on("7", row)
    assert (after.state, states(after)["c2"], after.waits_for) == ("promoted", "not reached", ())
    assert "it ought to run fpenet version 8, engine" in after.devices[1].why
    assert not (released.devices.folder / "c2/cpu").exists()
    assert {row.device: row.state for row in released.catch_up()} == {"c1": "active", "c2": "active"}
    assert released.running() == {"c1": "8", "c2": "8"}


def test_a_damaged_engine_here_takes_no_target_out_of_production(released):
    released.devices.this_machine("c1")
    row = released.go_on("7", released.at_canary("7"))
    assert row.state == "promoted"
    (released.workspace.engines / row.engine / "engine.onnx").write_bytes(b"no engine")
    after = released.go_on("7", row)
    assert (after.state, "no whole engine" in after.why) == ("promoted", True)


def test_nothing_comes_into_production_that_no_canary_device_runs(released):
    released.devices.this_machine("c1")
    released.devices.this_machine("m1", ring="main")
    held = released.go_on("7", released.at_canary("7"), lambda asked: released.away.add("c1"))
    assert (held.state, held.why, held.waits_for) == ("canary", "canary ring: no device runs it yet: c1", ("c1",))
    assert stages.status(released.targets, "cpu").production is None
    released.away.clear()
    assert released.go_on("7", held).state == "promoted"
    assert released.running() == {"c1": "7", "m1": "7"}


def test_devices_that_missed_a_rollout_and_new_ones_are_measured_and_brought_up(released, monkeypatch):
    """Also once another version is under way, or was left at the canary."""
    released.devices.this_machine("c1")
    released.devices.this_machine("m1", ring="main")
    released.go_on("7", released.at_canary("7"))
    released.devices.this_machine("m2", ring="main")
    released.away |= {"m2"}
    with monkeypatch.context() as patch:
        patch.setattr(released, "_materials", {})  # nothing is fetched for a device that does not answer
        assert [(row.device, row.state) for row in released.catch_up()] == [("m2", "offline")]
    released.away.clear()
    left = released.devices.folder / "m2/running" / f"{int(time.time()) - 3700}-went-away"
    left.mkdir(parents=True)
    assert released.catch_up("m2") == ()
    released.devices.this_machine("damaged", target="another")
    record = released.targets / "another/devices/damaged.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    cut_off = released.targets / "cpu" / UNFINISHED
    write_json(cut_off, {"number": 1})
    other, row = released.catch_up()
    released.devices.devices.pop()
    assert (other.device, other.state, "not a device's record" in other.why) == ("damaged", "not reached", True)
    assert (row.device, row.state, row.fps > 0) == ("m2", "active", True)
    assert read_record(released.targets, "cpu", "m2").measured[released.built["7"].key].px == row.parity_px
    assert released.running() == {"c1": "7", "m1": "7", "m2": "7"}
    assert not cut_off.exists(), "no device is behind, so no rollback is left to complete"
    assert not left.exists(), "the crops of a run that it went away from"
    assert told(released.catch_up()) == ""


def test_a_rollback_that_was_cut_off_behind_its_last_device_is_over(released):
    released.devices.this_machine("c1")
    for version in ("7", "8"):
        released.go_on(version, released.at_canary(version))
    released.roll_back()
    cut_off = released.targets / "cpu" / UNFINISHED
    write_json(cut_off, {"number": len(stages.history(released.targets, "cpu"))})
    assert released.catch_up() == ()
    assert not cut_off.exists()


def test_a_device_that_can_t_run_what_its_stage_holds_is_asked_once(released, tmp_path):
    released.devices.this_machine("c1")
    released.go_on("7", released.at_canary("7"))
    reach = LocalReach(kind="local", directory=str(tmp_path / "m1"), python="/nowhere/python")
    released.devices.devices.append(Device(name="m1", target="cpu", ring="main", reach=reach))
    first, again = released.catch_up(), released.catch_up()
    assert [row.state for row in (*first, *again)] == ["failed", "failed"]
    assert first[0].why == again[0].why and again[0].seconds == 0.0
    assert "m1 failed (" in told(again)


def test_a_device_that_goes_on_with_a_canary_that_was_ended_is_told(released):
    released.devices.this_machine("c1")
    released.devices.this_machine("m1", ring="main")
    released.away.add("m1")
    assert released.go_on("7", released.at_canary("7")).state == "canary"
    place = released.devices.folder / "c1"
    place.rename(released.devices.folder / "aside")
    place.write_text("a file in the way")
    released.roll_back()
    assert read_record(released.targets, "cpu", "c1").outcome == "failed"
    assert told(released.catch_up()) == (
        "c1 not reached (it runs a canary that was ended; `fpenet deliver --target cpu --config FILE` asks it again)"
    )


def test_a_device_that_is_behind_is_left_where_its_stage_changes_while_it_is_measured(released, monkeypatch):
    released.devices.this_machine("c1")
    for name in ("m1", "m2"):
        released.devices.this_machine(name, ring="main")
    released.go_on("7", released.at_canary("7"))
    released.away.add("m2")
    released.go_on("8", released.at_canary("8"))
    released.away.clear()
    run = LocalShell.run

    def and_roll_back(shell, command, **options):
        if MODULE in command:
            monkeypatch.setattr(LocalShell, "run", run)
            released.roll_back()
        return run(shell, command, **options)

    monkeypatch.setattr(LocalShell, "run", and_roll_back)
    (row,) = released.catch_up()
    assert (row.device, row.state) == ("m2", "not reached")
    assert "it ought to run fpenet version 7, engine" in row.why
    assert released.running() == {"c1": "7", "m1": "7", "m2": "7"}


def test_an_engine_that_is_staged_in_between_does_not_get_into_production(released, monkeypatch):
    released.devices.this_machine("m1", ring="main")
    passed = Ascent(released.built["7"], "here", (), (DeviceRow("m1", "main", "passed"),), (), "")
    monkeypatch.setattr(rollout, "ascend", lambda *_: passed)
    monkeypatch.setattr(rollout, "record_passed", lambda *_: None)
    stage = stages.stage

    def and_retrain(targets, target, directory, **who):
        stage(targets, target, directory, **who)
        return stage(targets, target, released.workspace.engines / released.built["8"].key, **who)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(stages, "stage", and_retrain)
        row = roll_out_target(released.plan("7"), find_target("cpu"))
    assert (row.state, row.again, "came between" in row.why) == ("built", True, True)
    assert stages.status(released.targets, "cpu").production is None
    assert roll_out_target(released.plan("7"), find_target("cpu"), row).state == "promoted"
    assert released.running() == {"m1": "7"}


def test_a_version_that_is_staged_in_between_with_the_same_bytes_does_not_get_to_devices(released, monkeypatch):
    """The same network registered again: `retrain` has written its manifest anew when the engine is staged."""
    released.devices.this_machine("c1")
    built = read_engine(released.workspace.engines / released.built["7"].key)
    passed = Ascent(built, "here", (), (DeviceRow("c1", "canary", "passed"),), (), "")
    monkeypatch.setattr(rollout, "ascend", lambda *_: passed)
    monkeypatch.setattr(rollout, "record_passed", lambda *_: None)
    manifest = built.directory / "manifest.json"
    approved = read_json(manifest)
    again = approved | {"provenance": approved["provenance"] | {"model_version": "9"}}
    write_json(manifest, again)
    row = roll_out_target(released.plan("7"), find_target("cpu"))
    assert (row.state, row.again, "fpenet version 9, engine" in row.why) == ("built", True, True)
    assert stages.status(released.targets, "cpu").canary is None
    write_json(manifest, approved)
    assert roll_out_target(released.plan("7"), find_target("cpu"), row).state == "promoted"
    assert released.running() == {"c1": "7"}
