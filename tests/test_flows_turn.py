"""Turns of work: whose configuration is worked by, and as it is when."""

from pathlib import Path

import pytest

import flows.turn
from flows.turn import work_on_project
from schemas.errors import SpecError
from tasks.lease import Lease
from tasks.sync_steps import this_request
from tasks.workspace import Workspace
from tests.retrain_project import write_project


@pytest.fixture
def project(tmp_path):
    """Writes a configuration of one workspace; its path."""

    def write(name="project", **changes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return write_project(
            folder, faces=tmp_path / "none", **({"workspace": str(tmp_path / "workspace")} | changes)
        )

    return write


@pytest.fixture
def train(monkeypatch):
    """Trainings that only note by what seed they split; while the first goes on, something `happens`."""

    def prepare(happens):
        seeds = []

        def make_candidate(settings):
            seeds.append(settings.split.seed)
            if len(seeds) == 1:
                happens(Lease(Workspace(Path(settings.workspace)).lease))
            return f"page {len(seeds)}"

        monkeypatch.setattr(flows.turn, "make_candidate", make_candidate)
        return seeds

    return prepare


def split(seed):
    return {"split": {"seed": seed}}


def test_what_is_asked_for_while_another_trains_is_done_as_its_configuration_is_then(project, train, monkeypatch):
    config = project(**split(1))

    def happens(lease):
        project(**split(2))
        lease.leave(this_request("retrain", config=config.name))

    monkeypatch.chdir(config.parent)
    seeds = train(happens)
    assert work_on_project(str(config), "retrain") == "page 2"
    assert seeds == [1, 2]


def test_another_configuration_of_the_same_workspace_is_worked_by_where_it_is_asked_for(project, train):
    config, other = project(**split(1)), project("other", **split(2))

    def happens(lease):
        for asked in (other, config.parent / "on another machine.yaml"):
            lease.leave(this_request("retrain", config=str(asked)))

    seeds = train(happens)
    work_on_project(str(config), "retrain")
    assert seeds == [1, 2, 1]


def test_no_work_is_done_in_a_workspace_whose_lease_another_may_have(project, train, tmp_path):
    config = project(**split(1))

    def happens(lease):
        project(**split(2), workspace=str(tmp_path / "elsewhere"))
        lease.leave(this_request("retrain", config=str(config)))

    seeds = train(happens)
    with pytest.raises(SpecError, match=r"elsewhere now, but .* when it was asked for; run the command again"):
        work_on_project(str(config), "retrain")
    assert seeds == [1]
    assert Lease(Workspace(Path(tmp_path / "workspace")).lease).requests() == {}


def test_a_look_that_waits_is_part_of_a_retraining(project, train, tmp_path):
    config = project(**split(1))
    Lease(Workspace(tmp_path / "workspace").lease).leave(this_request("look", config=str(config)))
    seeds = train(lambda lease: None)
    assert work_on_project(str(config), "retrain") == "page 1"
    assert seeds == [1]


def test_who_asks_for_the_quality_of_the_labels_starts_no_training(project, train, monkeypatch):
    seeds = train(lambda lease: None)
    monkeypatch.setattr(flows.turn, "inspect_labels", lambda settings: "page of the labels")
    assert work_on_project(str(project()), "quality") == "page of the labels"
    assert seeds == []


def test_an_event_of_a_project_that_is_no_source_pulls_nothing(project, monkeypatch):
    monkeypatch.setattr(flows.turn, "pull_for", pytest.fail)
    monkeypatch.setattr(flows.turn, "tell_look", lambda run, look: look.decision)
    told = work_on_project(str(project()), "look", project_id=99)
    assert told == "unchanged: no source of this configuration is Label Studio project 99"
