"""The flow `quality` against a real Label Studio: two people annotate, and what they differ on comes back to them."""

import copy
import csv
import json
import re

import numpy as np
import pytest
import yaml

from schemas.config import load_config
from schemas.geometry import tight_square
from schemas.records import Flag
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import SubjectRule
from tasks.label_studio.folder_import import import_folder
from tasks.label_studio.views import task_url
from tasks.quality_steps import measure_annotators, send_tasks_back
from tasks.run import Run
from tasks.steps import pull_source, validate_records
from tests.html_pages import Page
from tests.raw_records import write_image
from tests.retrain_project import run

N = 5
TASKS = 6
SECOND = "second.annotator@example.test"
VIEW = "Quality: annotators disagree"


@pytest.fixture
def second_annotator(connection):
    """The id of another user of the organisation; gone with the test, since a server gives out tasks by its users."""
    known = {user.email: user.id for user in connection.sdk.users.list()}
    identity = known.get(SECOND) or connection.sdk.users.create(email=SECOND, username="second").id
    yield identity
    connection.sdk.users.delete(id=identity)


@pytest.fixture
def project(label_studio, connection, second_annotator, tmp_path):
    """Faces that both annotated in the same way; gone with the test."""
    folder = write_folder(tmp_path / "team")
    subject = SubjectRule(dataset="team", csv=str(folder / "subjects.csv"))
    done = import_folder(
        label_studio.url,
        label_studio.token,
        title=f"quality {tmp_path.name}",
        folder=folder,
        num_keypoints=N,
        subject=subject,
    )
    for task in connection.sdk.tasks.list(project=done.project, fields="all"):
        result = task.annotations[0]["result"]
        connection.sdk.annotations.create(id=task.id, result=result, completed_by=second_annotator)
    yield done.project
    connection.sdk.projects.delete(id=done.project)


def write_folder(root):
    rng = np.random.default_rng(3)
    entries = []
    for number in range(TASKS):
        name = f"images/{number}.png"
        write_image(root / name, seed=number, width=120, height=120)
        points_N2 = rng.uniform(20, 100, (N, 2)).astype(np.float32)
        flags_N = np.array([Flag.OCCLUDED, *[Flag.VISIBLE] * (N - 1)], np.int8)
        entries.append(image_entry(name, [face_to_sloth(points_N2, flags_N, tight_box=tight_square(points_N2))]))
    (root / "gt").mkdir()
    (root / "gt/all.json").write_text(json.dumps(entries))
    with (root / "subjects.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "subject_id"), *((f"images/{i}.png", f"{i:03d}") for i in range(TASKS))])
    return root


def write_config(folder, label_studio, project, token_env):
    source = {"kind": "label_studio", "name": "team", "url": label_studio.url, "project": project}
    config = {
        "workspace": str(folder / "workspace"),
        "num_keypoints": N,
        "sources": [source | {"token_env": token_env, "subject": {"field": "subject"}}],
        "split": {"kpi_subjects": ["team/000"], "validation_share": 0.2},
        "experiment_spec": "none.yaml",
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def second_opinions(connection, project):
    """Task id -> the second person's annotation, tasks sorted."""
    tasks = connection.sdk.tasks.list(project=project, fields="all")
    return {task.id: max(task.annotations, key=lambda annotation: annotation["id"]) for task in tasks}


def move(annotation, percent):
    result = copy.deepcopy(annotation["result"])
    for region in result:
        region["value"]["x"] += percent
    return result


def look(config):
    """Run the flow as a user does; what it wrote, and its page."""
    code, output = run(config, flow="quality")
    assert code == 0, output
    (directory,) = (config.parent / "workspace/quality").iterdir()
    return json.loads((directory / "quality.json").read_text()), (directory / "index.html").read_text()


def look_again(config):
    """What another run of the flow says of disputes and tabs, without waiting for Prefect."""
    run = Run(load_config(config))
    pulls = [pull_source.fn(run, source) for source in run.config.sources]
    agreement = measure_annotators.fn(run, validate_records.fn(run, pulls), pulls)
    return agreement, send_tasks_back.fn(run, pulls, agreement)


def shown_in_view(connection, project):
    (view,) = [view for view in connection.sdk.views.list(project=project) if view.data["title"] == VIEW]
    return sorted(task.id for task in connection.sdk.tasks.list(view=view.id, fields="all"))


def updated_at(connection, project):
    return {task.id: task.updated_at for task in connection.sdk.tasks.list(project=project, fields="all")}


@pytest.mark.slow
def test_what_annotators_differ_on_waits_in_a_tab_until_they_agree(
    label_studio, connection, project, second_annotator, tmp_path, label_studio_token
):
    config = write_config(tmp_path, label_studio, project, label_studio_token)
    opinions = second_opinions(connection, project)
    moved, decided, stays = sorted(opinions)[1:4]
    for task in (moved, decided, stays):
        connection.sdk.annotations.update(id=opinions[task]["id"], result=move(opinions[task], 15.0))
    before = updated_at(connection, project)

    first, page = look(config)
    assert shown_in_view(connection, project) == [moved, decided, stays]
    assert updated_at(connection, project) == before  # an incremental pull would take the task for changed
    assert {d["record"] for d in first["agreement"]["disputes"]} == {
        f"team:task/{t}" for t in (moved, decided, stays)
    }
    agreement = first["agreement"]["agreement"]
    assert agreement["annotators"] == sorted(["1", str(second_annotator)])
    assert (agreement["faces"], agreement["regions"]["All"]["flags"]["kappa"]["value"]) == (TASKS, 1.0)
    lean = {bias["annotator"]: bias["offsets"]["source_px"]["All"]["x"]["value"] for bias in agreement["biases"]}
    assert lean[str(second_annotator)] == pytest.approx(3 / TASKS * 0.15 * 120, rel=1e-3)
    links = set(Page(page).links)
    assert {task_url(label_studio.url, project, task) for task in (moved, decided, stays)} <= links
    (tab,) = first["sent_back"]
    assert tab["url"] in links and re.search(r"/projects/\d+/data\?tab=\d+$", tab["url"])

    connection.sdk.annotations.update(id=opinions[moved]["id"], result=opinions[moved]["result"])
    connection.sdk.annotations.update(id=opinions[decided]["id"], ground_truth=True)
    agreement, sent_back = look_again(config)
    assert shown_in_view(connection, project) == [stays]
    assert [(dispute.record, dispute.reviewed) for dispute in agreement.disputes] == [
        (f"team:task/{stays}", False),
        (f"team:task/{decided}", True),
    ]
    assert [again.url for again in sent_back] == [tab["url"]]
