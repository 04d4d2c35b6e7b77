"""The flow `suggest` against a real Label Studio: predictions and an order for labellers, and their labels back."""

import json
import weakref
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import yaml

from schemas import label_studio as label_studio_format
from schemas.config import load_config
from schemas.label_studio_config import labelling_config
from schemas.records import Flag
from tasks.label_studio import predictions
from tasks.label_studio.predictions import VIEW_TITLE, Prediction, Written, list_tasks, write_predictions
from tasks.run import Run
from tasks.suggest_steps import open_current, rank_faces, see_labelled, see_open, write_back
from tasks.tracking import register_candidate
from tests.candidates import make_candidate
from tests.raw_records import write_image
from tests.retrain_project import run

N = 68
SUGGESTED = 3
BOX = {"face_tight_bboxx": 20, "face_tight_bboxy": 24, "face_tight_bboxwidth": 70, "face_tight_bboxheight": 64}
VERSION = "fpenet v1"


@pytest.fixture(scope="module")
def candidate(tmp_path_factory):
    return make_candidate(tmp_path_factory.mktemp("candidate"))


@pytest.fixture
def project(connection, tmp_path):
    """Nine tasks: six with a face box, one without, one of a KPI subject, one whose image is gone."""
    made = connection.sdk.projects.create(title=f"suggest {tmp_path.name}", label_config=labelling_config(N))
    tasks = []
    for number in range(9):
        image = write_image(tmp_path / f"{number}.png", seed=number, width=120, height=110)
        tasks.append({"data": {"image": str(image), "subject": f"team/{number}", **(BOX if number != 6 else {})}})
    tasks[8]["data"]["image"] = str(tmp_path / "gone.png")
    connection.sdk.projects.import_tasks(id=made.id, request=tasks)
    yield made.id
    connection.sdk.projects.delete(id=made.id)


@pytest.fixture
def config(tmp_path, label_studio, label_studio_token, project, candidate):
    source = {"kind": "label_studio", "name": "team", "url": label_studio.url, "project": project}
    content = {
        "workspace": str(tmp_path / "workspace"),
        "num_keypoints": N,
        "sources": [source | {"token_env": label_studio_token, "subject": {"field": "subject"}}],
        "split": {"kpi_subjects": ["team/7"]},
        "experiment_spec": "none.yaml",
        "labelling": {"suggest": SUGGESTED},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    settings = load_config(path)
    register_candidate(candidate, settings.tracking, Run(settings).workspace)
    return path


def suggest_again(config, **labelling):
    """Another run, without waiting for Prefect; what it wrote."""
    settings = load_config(config)
    changed = settings.labelling.model_copy(update=labelling)
    again = Run(settings.model_copy(update={"labelling": changed}))
    network = open_current.fn(again)
    known = see_labelled.fn(again, network)
    projects = [see_open.fn(again, network, source) for source in again.config.sources]
    ranked = rank_faces.fn(again, network, known, projects)
    return write_back.fn(again, network, known, projects, ranked, 0)


def shown_in_view(connection, project):
    (view,) = [view for view in connection.sdk.views.list(project=project) if view.data["title"] == VIEW_TITLE]
    return [task.id for task in connection.sdk.tasks.list(view=view.id, fields="all")]


def next_task(connection, project):
    reply = connection.files.get(f"/api/projects/{project}/next")
    reply.raise_for_status()
    return reply.json()


def submit(connection, task, result):
    body = {"result": result, "was_cancelled": False}
    connection.files.post(f"/api/tasks/{task}/annotations/", json=body).raise_for_status()


def ours(connection, project):
    """Task id -> its predictions of ours."""
    found = {
        task.id: [p for p in task.predictions if p.model_version == VERSION] for task in tasks_of(connection, project)
    }
    return {task: predictions for task, predictions in found.items() if predictions}


def tasks_of(connection, project):
    return list_tasks(connection, project, name="fpenet")


@pytest.mark.slow
def test_labellers_get_the_suggested_tasks_with_predictions_and_submit_them(config, project, connection):
    identities = [task.id for task in tasks_of(connection, project)]
    other = {"task": identities[0], "project": project, "result": [], "model_version": "detector", "score": 0.001}
    connection.files.post("/api/predictions/", json=other).raise_for_status()

    code, output = run(config, flow="suggest")
    assert code == 0, output
    (report,) = (config.parent / "workspace/labelling").glob("*/suggestions.json")
    told = json.loads(report.read_text())
    order = [suggested["task"] for suggested in told["suggested"]]
    assert len(order) == SUGGESTED
    assert set(order) <= set(identities[:7])
    assert {item["task"]: item["reason"] for item in told["left_out"]} == {
        identities[7]: "its subject is held out for the KPI",
        identities[8]: "its image can't be had: no such file",
    }
    assert sorted(ours(connection, project)) == sorted(order)
    assert shown_in_view(connection, project) == order
    assert [item["record"] for item in told["suggested"]] == [f"team:task/{task}" for task in order]
    assert {item["record"] for item in told["left_out"]} == {f"team:task/{task}" for task in identities[7:]}
    assert not list((config.parent / "workspace/labelling").glob(".images/*"))

    alone = len(connection.files.get("/api/users").json()) == 1
    remaining = list(order)
    while remaining:
        task = next_task(connection, project)
        # The server draws among the batch where the organisation has several members.
        assert task["id"] == remaining[0] if alone else task["id"] in remaining
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == VERSION
        submit(connection, task["id"], prediction["result"])
        remaining.remove(task["id"])
    assert shown_in_view(connection, project) == []

    task = connection.files.get(f"/api/tasks/{order[0]}/").json()
    (face,), problems = label_studio_format.read(task, num_keypoints=N, flags_known=True)
    assert not problems
    assert face.tight_box is not None
    assert np.isfinite(face.points_N2).all()
    assert (face.flags_N == Flag.VISIBLE).all()
    stored = {region["id"]: region["value"] for region in task["annotations"][0]["result"]}
    np.testing.assert_allclose(face.points_N2[6, 0], stored["P7"]["x"] * 1.2 - 0.5, atol=1e-4)
    np.testing.assert_allclose((face.points_N2 * 100) % 1, 0, atol=6e-3, err_msg="predicted to hundredths of a pixel")


def test_a_rerun_writes_what_differs_and_leaves_the_rest(config, project, connection, candidate):
    first = suggest_again(config)
    assert (first.written.created, first.written.kept, first.written.removed) == (SUGGESTED, 0, 0)
    before = ours(connection, project)

    again = suggest_again(config)
    assert (again.written.created, again.written.kept, again.written.removed) == (0, SUGGESTED, 0)
    assert ours(connection, project) == before

    # A run that died between writing the new and removing the old left a task with two.
    task = min(before)
    (kept,) = connection.files.get(f"/api/tasks/{task}/").json()["predictions"]
    double = {"task": task, "model_version": VERSION, "score": kept["score"], "result": kept["result"]}
    connection.files.post(f"/api/projects/{project}/import/predictions", json=[double]).raise_for_status()
    tidied = suggest_again(config)
    assert (tidied.written.created, tidied.written.kept, tidied.written.removed) == (0, SUGGESTED, 1)

    # Another version of the model: the old predictions go, but those of tasks that somebody has worked on.
    submit(connection, task, kept["result"])
    settings = load_config(config)
    register_candidate(replace(candidate, key="f" * 16), settings.tracking, Run(settings).workspace)
    newer = suggest_again(config, predict="untouched")
    assert newer.written.created == 6
    assert newer.written.removed == SUGGESTED - 1
    found = {t.id: sorted(p.model_version for p in t.predictions) for t in tasks_of(connection, project)}
    assert found[task] == [VERSION]
    assert sorted(map(tuple, found.values())) == [(), (), (VERSION,), *[("fpenet v2",)] * 6]


def test_predictions_are_made_when_they_are_about_to_be_written(project, connection, monkeypatch):
    """All tasks of a project may get one."""
    monkeypatch.setattr(predictions, "TASKS_AT_ONCE", 2)
    alive, most, told = Counter(), [], []

    def wanted(task):
        most.append(alive.total())
        made = Prediction(task, VERSION, 0.5, [])
        alive[task] += 1
        weakref.finalize(made, alive.subtract, [task])
        return made if task != identities[3] else None

    def progress(*step):
        told.append(step)

    identities = [task.id for task in tasks_of(connection, project)]
    written = write_predictions(connection, project, wanted, tasks_of(connection, project), progress=progress)
    assert written == Written(created=8, kept=0, removed=0)
    assert sorted(ours(connection, project)) == [*identities[:3], *identities[4:]]
    assert max(most) <= 2
    assert told == [("predictions", looked_at, 9) for looked_at in (2, 5, 7, 9)]
    again = write_predictions(connection, project, wanted, tasks_of(connection, project))
    assert again == Written(created=0, kept=8, removed=0)


def test_without_a_search_a_task_without_a_face_box_is_named(config, project, connection):
    settings = load_config(config)
    again = Run(
        settings.model_copy(update={"labelling": settings.labelling.model_copy(update={"search_face": False})})
    )
    seen = see_open.fn(again, open_current.fn(again), again.config.sources[0])
    (without,) = [item for item in seen.left_out if "face box" in item.reason]
    assert without.task == tasks_of(connection, project)[6].id
