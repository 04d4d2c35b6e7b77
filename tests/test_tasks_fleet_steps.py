"""What a run of the flow `rollout` does before it comes to the targets."""

from dataclasses import replace

import pytest
import yaml

from schemas.config import load_config
from schemas.errors import TrackingError
from tasks.fleet.pending import begin
from tasks.fleet.results import DeviceRow, TargetRow
from tasks.fleet.steps import roll_out
from tasks.review.approval import Accepted
from tasks.run import Run
from tests.retrain_project import write_project
from tests.servers import HOST, free_port

SEVEN = Accepted("fpenet", "7", "a" * 64, "anna", "better eyes", None, "2026-01-02T10:00:00+00:00")
WAITS = TargetRow(
    "cpu", "CPU", "onnxruntime", "offline", "", SEVEN.at, devices=(DeviceRow("dock-7", "canary", "offline"),)
)


@pytest.fixture
def make_run(tmp_path):
    """A run whose fleet is one device, reached like this."""

    def make(**reach):
        (tmp_path / "known_hosts").write_text("")
        fleet = {"devices": {"dock-7": {"target": "cpu", "ring": "canary", "reach": {"directory": "e"} | reach}}}
        (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
        return Run(load_config(write_project(tmp_path, faces=tmp_path, devices=str(tmp_path / "fleet.yaml"))))

    return make


def test_nothing_is_fetched_or_compared_while_every_device_that_is_waited_for_is_away(make_run, tmp_path, capsys):
    known_hosts = str(tmp_path / "known_hosts")
    run = make_run(kind="ssh", host=HOST, port=free_port(), known_hosts=known_hosts, python="python3")
    begun = replace(begin(SEVEN, ["cpu"], run.workspace.rollouts), rows=(WAITS,))
    page = roll_out(run, begun)
    assert "dock-7" in page.read_text()
    assert "still away: dock-7" in capsys.readouterr().err
    with pytest.raises(TrackingError):  # of a target that was not gone through the graph is fetched
        roll_out(run, replace(begun, rows=()))


def test_a_device_that_is_back_is_worked_for(make_run, tmp_path):
    run = make_run(kind="local", directory=str(tmp_path / "dock-7"))
    begun = replace(begin(SEVEN, ["cpu"], run.workspace.rollouts), rows=(WAITS,))
    with pytest.raises(TrackingError):
        roll_out(run, begun)
