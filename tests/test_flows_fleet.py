"""`fpenet status`, `promote`, `rollback` and `deliver` as someone meets them."""

import json

import pytest
import yaml

from flows.entry import fleet as commands
from flows.entry.cli import main
from tests.delivered_fleets import Fleet


@pytest.fixture
def fleet(tmp_path, monkeypatch) -> Fleet:
    """t4 with three devices, of which the last can't be reached; a configuration in the current directory."""
    fleet = Fleet(tmp_path / "workspace")
    fleet.local("t4-a", "canary")
    fleet.local("t4-b", "main")
    reaches = {device.name: (device.ring, device.reach.model_dump(mode="json")) for device in fleet.devices}
    (tmp_path / "known_hosts").write_text("")
    away = {"kind": "ssh", "host": "127.0.0.1", "port": 1, "directory": "e", "known_hosts": f"{tmp_path}/known_hosts"}
    devices = {
        name: {"target": "t4", "ring": ring, "reach": reach}
        for name, (ring, reach) in (reaches | {"t4-c": ("main", away)}).items()
    }
    config = {
        "workspace": str(fleet.root),
        "sources": [{"kind": "rendered", "name": "rendered"}],
        "experiment_spec": "none.yaml",
        "targets": ["t4", "h100"],
        "devices": str(tmp_path / "devices.yaml"),
    }
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump({"devices": devices}))
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.console, "_width", 100)
    return fleet


def called(capsys, *words: str) -> tuple[int, str]:
    code = main([*words, "--config", "fleet.yaml"])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_from_staging_to_every_device_and_back(fleet, capsys):
    fleet.stage("key1")
    code, told = called(capsys, "promote", "--target", "t4")
    assert code == 2
    assert "`fpenet promote --target t4 --to canary --config FILE` first" in told
    for name in ("key1", "key2"):
        if name == "key2":
            fleet.stage(name)
        code, told = called(capsys, "promote", "--target", "t4", "--to", "canary")
        assert code == 0
        assert f"t4-a (canary): runs engine {name}" in told
        code, told = called(capsys, "promote", "--target", "t4", "--by", "ada", "--reason", "good")
        assert code == 0, "a device that is offline is no failure"
        assert "t4-c (main): offline" in told
        assert "`fpenet deliver --target t4 --config fleet.yaml` asks the others again" in told
    assert "before it: fpenet version 1, engine key1" in told
    code, told = called(capsys, "rollback", "--target", "t4")
    assert code == 0
    assert "in production again: fpenet version 1, engine key1" in told
    assert "taken back: fpenet version 2, engine key2" in told
    fleet.devices = fleet.devices[:2]
    assert fleet.running() == {"t4-a": "key1", "t4-b": "key1"}
    code, told = called(capsys, "rollback", "--target", "t4")
    assert code == 2
    assert "no earlier production engine" in told


def test_promoting_again_says_what_waits_instead(fleet, capsys):
    fleet.release("key1")
    fleet.stage("key2")
    code, told = called(capsys, "promote", "--target", "t4")
    assert code == 0
    assert "at production since" in told
    assert "at staging: fpenet version 2, engine key2" in told


def test_a_device_that_fails_is_an_exit_code_of_its_own(fleet, capsys):
    fleet.stage("key1")
    called(capsys, "promote", "--target", "t4", "--to", "canary")
    (fleet.root / "devices" / "t4-b").write_text("a file in the way")
    code, told = called(capsys, "promote", "--target", "t4")
    assert code == 8
    assert "t4-b (main): failed: " in told
    (fleet.root / "devices" / "t4-b").unlink()
    code, told = called(capsys, "deliver", "--target", "t4")
    assert code == 0
    assert "t4-b (main): runs engine key1" in told


def test_the_matrix_fits_a_terminal_and_names_who_lacks_what(fleet, capsys):
    fleet.stage("key1")
    called(capsys, "promote", "--target", "t4", "--to", "canary")
    called(capsys, "promote", "--target", "t4")
    fleet.stage("key2")
    code, told = called(capsys, "status")
    lines = told.splitlines()
    assert code == 0
    assert lines[0].split() == ["target", "stage", "model", "engine", "prec.", "px", "FPS", "age", "devices"]
    assert " ".join(lines[1].split()) == "t4 production fpenet/1 key1 fp16 – – now 2 of 3, 1 offline"
    assert lines[2].split() == ["staging", "fpenet/2", "key2", "fp16", "–", "–", "now", "–"]
    assert max(map(len, lines[:3])) <= 100
    assert "no engine yet: h100" in told
    assert "t4-c (t4, main): offline, runs nothing, asked 20" in told


def test_status_asks_the_devices_and_speaks_json(fleet, capsys):
    fleet.release("key1")
    (fleet.root / "devices/t4-b/t4/current.json").write_text("{}")
    code, told = called(capsys, "status", "--check")
    assert code == 0
    assert "t4-b (t4, main): changed, runs nothing: t4/current.json on device 't4-b' was changed by hand" in told
    code, told = called(capsys, "status", "--json")
    t4, h100 = json.loads(told)
    assert (h100["target"], h100["stages"]) == ("h100", [])
    assert {row["stage"]: row["engine"] for row in t4["stages"]} == dict.fromkeys(
        ("production", "canary", "staging"), "key1"
    )
    assert [device["state"] for device in t4["devices"]] == ["active", "active", "pending"]


def test_a_change_needs_the_configuration_and_an_approval(fleet, capsys):
    fleet.stage("key1")
    for command in ("promote", "rollback", "deliver"):
        with pytest.raises(SystemExit):
            main([command, "--target", "t4"])
        assert "--config" in capsys.readouterr().err
    fleet.accept("7")
    code, told = called(capsys, "promote", "--target", "t4", "--to", "canary")
    assert code == 2
    assert "not the version that was approved" in told
    code, told = called(capsys, "promote", "--target", "t4", "--to", "canary", "--override", "a demo")
    assert code == 0
    assert "not approved, override: a demo" in told


def test_a_canary_is_ended_in_words(fleet, capsys):
    fleet.stage("key1")
    called(capsys, "promote", "--target", "t4", "--to", "canary")
    code, told = called(capsys, "rollback", "--target", "t4")
    assert code == 0
    assert "the canary is over: taken back: fpenet version 1, engine key1" in told
    assert "canary devices run nothing any more" in told
    assert "t4-a (canary): runs nothing; its canary was ended" in told


def test_nothing_of_the_matrix_is_cut_in_a_pipe(fleet, capsys, monkeypatch):
    monkeypatch.setattr(commands.console, "_width", 40)
    fleet.stage("key1")
    called(capsys, "promote", "--target", "t4", "--to", "canary")
    told = called(capsys, "status")[1]
    assert "t4      canary  fpenet/1  key1    fp16    –    –  now  1 of 1" in told
