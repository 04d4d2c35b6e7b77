"""`fpenet status`, `promote`, `rollback` and `deliver` as someone meets them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deploy.engine import Provenance
from deploy.stages import status
from flows.entry import fleet as commands
from flows.entry.cli import main
from tasks.fleet import material
from tasks.fleet.deliveries import read_record
from tasks.fleet.material import Material, fetch_material
from tests.calibration_crops import FixedCrops
from tests.delivered_fleets import Fleet
from tests.engines import small_engine
from tests.servers import free_port
from tests.small_graphs import pictures, small_graph


@pytest.fixture
def fleet(tmp_path, monkeypatch) -> Fleet:
    """cpu with three devices, of which the last can't be reached; a configuration in the current directory. What the
    registry would have of a version is the graph of its engine, and some pictures."""
    fleet = Fleet(tmp_path / "workspace", "cpu", small_engine)
    fleet.local("cpu-a", "canary")
    fleet.local("cpu-b", "main")
    reaches = {device.name: (device.ring, device.reach.model_dump(mode="json")) for device in fleet.devices}
    (tmp_path / "known_hosts").write_text("")
    away = {"kind": "ssh", "host": "127.0.0.1", "port": 1, "directory": "e", "known_hosts": f"{tmp_path}/known_hosts"}
    away["python"] = "python3"
    devices = {
        name: {"target": "cpu", "ring": ring, "reach": reach}
        for name, (ring, reach) in (reaches | {"cpu-c": ("main", away)}).items()
    }
    config = {
        "workspace": str(fleet.root),
        "sources": [{"kind": "rendered", "name": "rendered"}],
        "experiment_spec": "none.yaml",
        "targets": ["cpu", "h100"],
        "devices": str(tmp_path / "devices.yaml"),
    }
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump({"devices": devices}))
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.console, "_width", 100)

    def fetched(name, version, *_):
        onnx = fleet.root / "engines" / f"key{version}" / "model.onnx"
        return Material(Provenance(name, version, "s"), onnx, FixedCrops(pictures(2)), FixedCrops(pictures(2)))

    monkeypatch.setattr(material, "fetch_material", fetched)
    return fleet


def called(capsys, *words: str) -> tuple[int, str]:
    code = main([*words, "--config", "fleet.yaml"])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_from_staging_to_every_device_and_back(fleet, capsys):
    fleet.stage("key1")
    code, told = called(capsys, "promote", "--target", "cpu")
    assert code == 2
    assert "`fpenet promote --target cpu --to canary --config FILE` first" in told
    for name in ("key1", "key2"):
        if name == "key2":
            fleet.stage(name)
        code, told = called(capsys, "promote", "--target", "cpu", "--to", "canary")
        assert code == 0
        assert f"cpu-a (canary): runs engine {name}" in told
        code, told = called(capsys, "promote", "--target", "cpu", "--by", "ada", "--reason", "good")
        assert code == 0, "a device that is offline is no failure"
        assert "cpu-c (main): offline" in told
        assert "`fpenet deliver --target cpu --config fleet.yaml` asks the others again" in told
    assert "before it: fpenet version 1, engine key1" in told
    code, told = called(capsys, "rollback", "--target", "cpu")
    assert code == 0
    assert "in production again: fpenet version 1, engine key1" in told
    assert "taken back: fpenet version 2, engine key2" in told
    fleet.devices = fleet.devices[:2]
    assert fleet.running() == {"cpu-a": "key1", "cpu-b": "key1"}
    code, told = called(capsys, "rollback", "--target", "cpu")
    assert code == 2
    assert "no earlier production engine" in told


def test_promoting_again_says_what_waits_instead(fleet, capsys):
    fleet.release("key1")
    fleet.stage("key2")
    code, told = called(capsys, "promote", "--target", "cpu")
    assert code == 0
    assert "at production since" in told
    assert "at staging: fpenet version 2, engine key2" in told


def test_a_device_that_fails_is_an_exit_code_of_its_own(fleet, capsys):
    fleet.stage("key1")
    called(capsys, "promote", "--target", "cpu", "--to", "canary")
    (fleet.root / "devices" / "cpu-b").write_text("a file in the way")
    code, told = called(capsys, "promote", "--target", "cpu")
    assert code == 8
    assert "cpu-b (main): failed: " in told
    (fleet.root / "devices" / "cpu-b").unlink()
    code, told = called(capsys, "deliver", "--target", "cpu")
    assert code == 0
    assert "cpu-b (main): runs engine key1" in told


def test_an_engine_runs_where_it_passes_whoever_brings_it(fleet, capsys, monkeypatch):
    """Also a device that did not pass by the flow is not had to run it by hand."""
    fleet.stage("key1")
    other = fleet.root / "other.onnx"
    other.write_bytes(small_graph(seed=9).SerializeToString())
    fetched = material.fetch_material
    with monkeypatch.context() as compared:
        compared.setattr(material, "fetch_material", lambda *version: replace(fetched(*version), onnx=other))
        for command in (("promote", "--to", "canary"), ("deliver",)):
            code, told = called(capsys, *command, "--target", "cpu")
            assert code == 8
            assert "cpu-a (canary): failed: parity All mean" in told
        code, told = called(capsys, "promote", "--target", "cpu")
        assert code == 2
        assert "no canary device runs" in told
    fleet.devices = fleet.devices[:2]
    assert fleet.running() == {"cpu-a": "", "cpu-b": ""}
    assert called(capsys, "deliver", "--target", "cpu")[0] == 0
    assert fleet.running() == {"cpu-a": "key1", "cpu-b": ""}
    measured = read_record(fleet.targets, "cpu", "cpu-a").measured["key1"]
    assert measured.px == 0 and measured.fps > 0
    monkeypatch.delattr(material, "fetch_material")  # nothing is compared where it has run
    assert called(capsys, "deliver", "--target", "cpu")[0] == 0


def test_without_the_registry_nothing_is_promoted_and_no_device_has_failed(fleet, capsys, monkeypatch):
    """Nor the one that is offline: the same command does it all when the registry is back."""
    config = Path("fleet.yaml")
    there = config.read_text()
    down = there + yaml.safe_dump({"tracking": {"uri": f"http://127.0.0.1:{free_port()}"}})

    def without_registry(*words):
        with monkeypatch.context() as stack:
            stack.setattr(material, "fetch_material", fetch_material)
            config.write_text(down)
            code, told = called(capsys, *words, "--target", "cpu")
            config.write_text(there)
        assert (code, "can't be reached" in told) == (6, True)

    fleet.stage("key1")
    for stage, before in ("canary", {}), ("production", {"cpu-a": "active"}):
        without_registry("promote", "--to", stage)
        assert status(fleet.targets, "cpu").pointer(stage) is None
        assert fleet.outcomes() == before
        assert called(capsys, "promote", "--target", "cpu", "--to", stage)[0] == 0
    before = read_record(fleet.targets, "cpu", "cpu-c")
    without_registry("deliver")
    assert read_record(fleet.targets, "cpu", "cpu-c") == before
    assert before.outcome == "offline"


def test_the_matrix_fits_a_terminal_and_names_who_lacks_what(fleet, capsys):
    fleet.stage("key1")
    called(capsys, "promote", "--target", "cpu", "--to", "canary")
    called(capsys, "promote", "--target", "cpu")
    fleet.stage("key2")
    code, told = called(capsys, "status")
    lines = told.splitlines()
    assert code == 0
    assert lines[0].split() == ["target", "stage", "model", "engine", "prec.", "px", "FPS", "age", "devices"]
    assert re.fullmatch(
        r"cpu production fpenet/1 key1 fp32 0 [\d,]+ now 2 of 3, 1 offline", " ".join(lines[1].split())
    )
    assert lines[2].split() == ["staging", "fpenet/2", "key2", "fp32", "–", "–", "now", "–"]
    assert max(map(len, lines[:3])) <= 100
    assert "no engine yet: h100" in told
    assert "cpu-c (cpu, main): offline, runs nothing, asked 20" in told


def test_devices_of_targets_that_are_not_built_are_told(fleet, capsys):
    config = yaml.safe_load(Path("fleet.yaml").read_text())
    Path("fleet.yaml").write_text(yaml.safe_dump(config | {"targets": ["h100"]}))
    told = called(capsys, "status")[1]
    assert "nothing is built for: cpu-a (cpu), cpu-b (cpu), cpu-c (cpu)" in told
    Path("fleet.yaml").write_text(yaml.safe_dump(config))
    assert "nothing is built for" not in called(capsys, "status")[1]


def test_status_asks_the_devices_and_speaks_json(fleet, capsys):
    fleet.release("key1")
    (fleet.root / "devices/cpu-b/cpu/current.json").write_text("{}")
    code, told = called(capsys, "status", "--check")
    assert code == 0
    assert "cpu-b (cpu, main): changed, runs nothing: cpu/current.json on device 'cpu-b' was changed by hand" in told
    code, told = called(capsys, "status", "--json")
    cpu, h100 = json.loads(told)
    assert (h100["target"], h100["stages"]) == ("h100", [])
    assert {row["stage"]: row["engine"] for row in cpu["stages"]} == dict.fromkeys(
        ("production", "canary", "staging"), "key1"
    )
    assert [device["state"] for device in cpu["devices"]] == ["active", "active", "pending"]


def test_a_change_needs_the_configuration_and_an_approval(fleet, capsys):
    fleet.stage("key1")
    for command in ("promote", "rollback", "deliver"):
        with pytest.raises(SystemExit):
            main([command, "--target", "cpu"])
        assert "--config" in capsys.readouterr().err
    fleet.accept("7")
    code, told = called(capsys, "promote", "--target", "cpu", "--to", "canary")
    assert code == 2
    assert "not the version that was approved" in told
    code, told = called(capsys, "promote", "--target", "cpu", "--to", "canary", "--override", "a demo")
    assert code == 0
    assert "not approved, override: a demo" in told


@pytest.mark.parametrize("command", ["promote", "rollback", "deliver"])
def test_a_target_that_is_unknown_or_has_nothing_staged(fleet, command, capsys):
    code, told = called(capsys, command, "--target", "t5")
    assert code == 2
    assert "there is no target 't5' (did you mean 't4'?); known: cpu, " in told
    code, told = called(capsys, command, "--target", "orin")
    assert code == 2
    assert "target 'orin': nothing is staged: `fpenet run retrain` with this target" in told
    assert "or `fpenet run rollout` after an approval, where a device builds it" in told


def test_a_canary_is_ended_in_words(fleet, capsys):
    fleet.stage("key1")
    called(capsys, "promote", "--target", "cpu", "--to", "canary")
    code, told = called(capsys, "rollback", "--target", "cpu")
    assert code == 0
    assert "the canary is over: taken back: fpenet version 1, engine key1" in told
    assert "canary devices run nothing any more" in told
    assert "The next rollback" not in told, "it would find nothing to change"
    assert "cpu-a (canary): runs nothing; its canary was ended" in told


@pytest.mark.parametrize(("before", "more"), [(("key1",), False), (("key1", "key2"), True)])
def test_what_the_next_rollback_does_is_told_where_there_is_one(before, more, fleet, capsys):
    for name in before:
        fleet.release(name)
    fleet.stage("key3")
    fleet.promote("canary")
    code, told = called(capsys, "rollback", "--target", "cpu")
    assert (code, "The next rollback takes production back to " in told) == (0, more)
    assert called(capsys, "rollback", "--target", "cpu")[0] == (0 if more else 2)


def test_nothing_of_the_matrix_is_cut_in_a_pipe(fleet, capsys, monkeypatch):
    monkeypatch.setattr(commands.console, "_width", 40)
    fleet.stage("key1")
    called(capsys, "promote", "--target", "cpu", "--to", "canary")
    told = called(capsys, "status")[1]
    assert re.search(r"\ncpu     canary  fpenet/1  key1    fp32    0 +[\d,]+  now  1 of 1", told)
