"""Which sources a look pulls, and how it is told."""

from dataclasses import asdict

import pytest

from schemas.config import SplitPolicy, WorkflowConfig
from schemas.errors import SourceUnreachableError
from schemas.storage import write_json
from tasks.changes import Changes, FaceChange, Kind
from tasks.lease import Request
from tasks.mlflow_client import mlflow_client
from tasks.pull import PULL_FILE, PullResult
from tasks.review.aliases import move
from tasks.review.tags import REPORT_HASH
from tasks.run import Run
from tasks.snapshot import take_snapshot
from tasks.steps import pull_source
from tasks.sync_decision import Comparison, Decision, Outcome
from tasks.sync_steps import (
    Look,
    compare_with_models,
    concerned,
    decide_now,
    describe,
    projects_of,
    pull_for,
    unconcerned,
)
from tasks.validate import Counts, Validation
from tests.servers import HOST, free_port
from tests.test_tasks_changes import N, face

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


def some_faces(count):
    return Validation([face(number) for number in range(count)], [], [], Counts(count, count, 0, 0, 0))


def register(run, client, validation, **tags):
    """A version of these faces; without a report yet, unless `tags` have it."""
    policy, snapshots = SplitPolicy(kpi_subjects=["d/0"]), run.workspace.snapshots
    taken = take_snapshot(validation, policy=policy, num_keypoints=N, snapshots=snapshots, provenance={})
    return str(client.create_model_version("fpenet", "s3://nowhere", tags={"snapshot_id": taken.key} | tags).version)


def outcome(run, validation):
    return decide_now.fn(run, [], compare_with_models.fn(run, validation)).outcome


def test_a_candidate_whose_run_ended_before_its_report_is_gone_on_with(make_run):
    run, faces = make_run(1), some_faces(10)
    with mlflow_client(run.config.tracking, run.workspace) as client:
        client.create_registered_model("fpenet")
        version = register(run, client, faces)
        move(client, "fpenet", "challenger", version)
        assert outcome(run, faces) is Outcome.RETRAIN
        client.set_model_version_tag("fpenet", version, REPORT_HASH, "a" * 64)
        assert outcome(run, faces) is Outcome.UNCHANGED


def test_the_champion_counts_without_a_report_which_it_may_have_from_elsewhere(make_run):
    run, faces = make_run(1), some_faces(10)
    with mlflow_client(run.config.tracking, run.workspace) as client:
        client.create_registered_model("fpenet")
        move(client, "fpenet", "champion", register(run, client, faces))
    assert outcome(run, faces) is Outcome.UNCHANGED


def test_labels_that_return_to_an_earlier_candidate_make_it_the_challenger_and_nothing_more(make_run):
    run, faces = make_run(1), {count: some_faces(count) for count in (10, 15, 20)}
    with mlflow_client(run.config.tracking, run.workspace) as client:
        client.create_registered_model("fpenet")
        versions = [register(run, client, some, **{REPORT_HASH: "a" * 64}) for some in faces.values()]
        move(client, "fpenet", "champion", versions[0])
        move(client, "fpenet", "challenger", versions[2])
        assert outcome(run, faces[15]) is Outcome.RETRAIN, "its run finds version 2, and makes it the challenger"
        move(client, "fpenet", "challenger", versions[1])
        assert outcome(run, faces[15]) is Outcome.UNCHANGED


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
