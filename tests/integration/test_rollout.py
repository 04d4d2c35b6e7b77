"""A version from its approval to devices, by the flows as people start them: on this machine and over real SSH."""

import json
from pathlib import Path

import pytest
import yaml

from flows.entry.cli import main
from schemas.config import load_config
from tasks.fleet.deliveries import read_record
from tasks.fleet.pending import rollout_id
from tasks.fleet.results import load_result
from tasks.review.approval import accepted_version
from tasks.workspace import Workspace
from tests.fleets import TestFleet, fleet
from tests.retrain_project import approve, kill_when, render_faces, run, write_project
from tests.stand_ins.devices import NANO

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    with fleet(tmp_path_factory.mktemp("fleet")) as found:
        found.this_machine("here")
        found.jetson("nano-1", "jetson-nano", NANO)
        found.jetson("nano-2", "jetson-nano", NANO, ring="main").vanish()
        yield found


@pytest.fixture(scope="module")
def config(tmp_path_factory, devices):
    """A project whose candidate waits for its review."""
    folder = tmp_path_factory.mktemp("project")
    file = write_fleet(folder / "fleet.yaml", devices)
    path = write_project(
        folder,
        faces=render_faces(folder / "faces"),
        epochs=1,
        devices=str(file),
        targets=["cpu", "jetson-nano", "t4"],
    )
    code, output = run(path)
    assert code == 0, output
    assert "built on the device, after review: jetson-nano, t4" in output
    return path


def write_fleet(file: Path, devices: TestFleet) -> Path:
    listed = {device.name: device.model_dump(exclude={"name"}, exclude_none=True) for device in devices.devices}
    file.write_text(yaml.safe_dump({"devices": listed}))
    return file


def result_of(workspace: Workspace):
    accepted = accepted_version(workspace)
    return None if accepted is None else load_result(rollout_id(accepted), workspace.rollouts)


def test_from_approval_to_every_device_whatever_happens_on_the_way(config, devices):
    workspace = Workspace(Path(load_config(config).workspace))
    code, output = run(config, "rollout")
    assert (code, "nothing to do" in output) == (0, True), output
    approve(config)

    def half_done() -> bool:
        found = result_of(workspace)
        return found is not None and bool(found.rows)

    kill_when(config, half_done, "review")  # it accepts the version and is killed while it rolls out
    assert result_of(workspace).is_open

    code, output = run(config, "rollout")
    assert code == 0, output
    found = result_of(workspace)
    assert found.states == {"cpu": "promoted", "jetson-nano": "canary", "t4": "skipped"}, output
    assert found.open_targets == ("jetson-nano",)
    assert (workspace.rollouts / found.id / "index.html").is_file()

    devices.servers["nano-2"].come_back()
    code, output = run(config, "rollout")
    assert code == 0, output
    found = result_of(workspace)
    assert found.states["jetson-nano"] == "promoted", output
    assert not found.is_open
    assert found.accepted_to_last_s >= found.began_to_last_s > 0
    current = json.loads((devices.servers["nano-2"].directory / "jetson-nano/current.json").read_text())
    assert current["model_version"] == "1"

    code, output = run(config, "rollout")
    assert (code, "nothing to do" in output) == (0, True), output

    devices.this_machine("new", ring="main")
    write_fleet(Path(load_config(config).devices), devices)
    assert main(["deliver", "--target", "cpu", "--config", str(config)]) == 0
    record = read_record(workspace.targets, "cpu", "new")
    assert record.measured[record.current.build_key].px < 1e-3, "measured by hand as by the flow"


def test_only_an_accepted_version_is_rolled_out_by_hand(config):
    for flow, version, words in (
        ("rollout", "9", "has no version 9"),
        ("retrain", "1", "--version: the flow 'retrain' takes none"),
    ):
        code, output = run(config, flow, "--version", version)
        assert (code, words in output) == (2, True), output
