"""Which sources a look pulls, and how it is told."""

from dataclasses import asdict

import pytest

from schemas.config import WorkflowConfig
from schemas.errors import SourceUnreachableError
from schemas.storage import write_json
from tasks.changes import Changes, FaceChange, Kind
from tasks.lease import Request
from tasks.pull import PULL_FILE, PullResult
from tasks.run import Run
from tasks.steps import pull_source
from tasks.sync_decision import Comparison, Decision, Outcome
from tasks.sync_steps import Look, concerned, decide_now, describe, projects_of, pull_for, unconcerned
from tests.servers import HOST, free_port

URL = "http://labels.test"


@pytest.fixture
def make_run(tmp_path):
    def make(*projects, url=URL):
        sources = [
            {"kind": "label_studio", "name": f"s{i}", "url": url, "project": project}
            for i, project in enumerate(projects)
        ]
        config = {"workspace": str(tmp_path), "sources": sources, "experiment_spec": "spec.yaml"}
        return Run(WorkflowConfig.model_validate(config))

    return make


def leave_pull(run, name, identity, title, url=URL):
    """As if the project had been pulled before."""
    raw = run.workspace.raw(name) / "raw.sqlite"
    details = {"server": {"url": url, "version": "1"}, "project": {"id": identity, "title": title}}
    kept = PullResult(name, "label_studio", raw, 3, {title: 3}, "hash", details)
    write_json(raw.parent / PULL_FILE, asdict(kept) | {"raw": raw.name, "pulled_at": "2030-01-01"})
    raw.touch()
    return kept


def asks(*projects):
    return [Request("look", "sync", project_id=project) for project in projects]


def test_several_requests_ask_about_all_their_projects_and_one_without_a_project_about_everything():
    assert projects_of(asks(3, 5, 3)) == {3, 5}
    assert projects_of(asks(3, None)) is None


def test_an_event_of_a_project_that_no_source_uses_concerns_nobody(make_run):
    run = make_run(1, "Faces")
    assert concerned(run, asks(1)) and concerned(run, asks(None))
    assert concerned(run, asks(9)), "the number of 'Faces' is not known before it was pulled"
    leave_pull(run, "s1", 7, "Faces")
    assert not concerned(run, asks(9))
    assert concerned(run, asks(9, 7))
    look = unconcerned(asks(9))
    assert (look.decision.outcome, "project 9" in look.decision.reason) == (Outcome.UNCHANGED, True)


def test_other_projects_are_taken_as_the_last_pull_left_them(make_run):
    run = make_run(1, "Faces")
    kept = [leave_pull(run, "s0", 1, "One"), leave_pull(run, "s1", 7, "Faces")]
    assert pull_for(run, asks(9)) == kept


def test_a_server_is_asked_for_its_time_only_where_enough_has_changed(make_run, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a-token")
    run = make_run(1, url=f"http://{HOST}:{free_port()}")
    pulls = [leave_pull(run, "s0", 1, "One")]
    unchanged, changed = (
        [Comparison("fpenet version 1", Changes(3, 3, faces))]
        for faces in ((), tuple(FaceChange(Kind.CHANGED, f"s0:task/{i}/annotation/1") for i in range(3)))
    )
    assert decide_now.fn(run, pulls, unchanged).outcome is Outcome.UNCHANGED
    with pytest.raises(SourceUnreachableError):
        decide_now.fn(run, pulls, changed)
    assert (decide_now.retries, decide_now.retry_condition_fn) == (
        pull_source.retries,
        pull_source.retry_condition_fn,
    )


def test_a_look_is_told_without_names_of_people_or_images():
    changes = Changes(
        200,
        200,
        (
            FaceChange(Kind.CHANGED, "s0:task/1/annotation/4", moved=2, furthest_px=3.25, flags=1),
            FaceChange(Kind.REMOVED, "s0:task/2/annotation/5"),
            FaceChange(Kind.CHANGED, "s1:task/9/annotation/6", moved=1, furthest_px=12.5),
            FaceChange(Kind.CHANGED, "points:session01/079_Jane_Roe.pts", moved=3, furthest_px=9.0),
            FaceChange(Kind.REMOVED, "gone:images/080_John_Doe.png/face2"),
        ),
    )
    pulls = [PullResult(name, "label_studio", None, 100, {}, "hash", {}) for name in ("s0", "s1", "s2")]
    pulls.append(PullResult("points", "pts", None, 100, {}, "hash", {}))
    decision = Decision(Outcome.NOT_QUIET, "5 faces differ", 60.0)
    told = describe(Look(decision, pulls, [Comparison("fpenet version 1", changes)], "run x looks again at 12:00"))
    assert told.splitlines() == [
        "**not quiet yet**: 5 faces differ",
        "",
        "run x looks again at 12:00",
        "",
        "Since fpenet version 1:",
        "",
        "| source | added | removed | changed |",
        "| --- | --- | --- | --- |",
        "| gone | 0 | 1 | 0 |",
        "| points | 0 | 0 | 1 |",
        "| s0 | 0 | 1 | 1 |",
        "| s1 | 0 | 0 | 1 |",
        "| s2 | 0 | 0 | 0 |",
        "",
        "| face |  | keypoints moved | furthest (px) | flags changed |",
        "| --- | --- | --- | --- | --- |",
        "| s1:task/9/annotation/6 | changed | 1 | 12.5 | 0 |",
        "| points | changed | 3 | 9.0 | 0 |",
        "| s0:task/1/annotation/4 | changed | 2 | 3.2 | 1 |",
        "| gone | removed |  |  |  |",
        "| s0:task/2/annotation/5 | removed |  |  |  |",
    ]
