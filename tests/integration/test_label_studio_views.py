"""Tabs of the data manager on the real server."""

import uuid

import httpx
import pytest

from schemas.label_studio_config import labelling_config
from tasks.label_studio.views import MAX_FILTERS, ensure_view, task_url

UNLABELLED = {
    "conjunction": "and",
    "items": [{"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}],
}


@pytest.fixture
def project(connection):
    """A project of 12 tasks; it goes with the test."""
    made = connection.sdk.projects.create(title=f"views {uuid.uuid4().hex[:8]}", label_config=labelling_config(3))
    tasks = [{"data": {"image": f"{i}.png"}} for i in range(12)]
    connection.sdk.projects.import_tasks(id=made.id, request=tasks)
    yield made.id
    connection.sdk.projects.delete(id=made.id)


@pytest.fixture
def ids(connection, project):
    return sorted(task.id for task in connection.sdk.tasks.list(project=project))


def shown(connection, view):
    return [task.id for task in connection.sdk.tasks.list(view=view.id)]


def titles(connection, project):
    return [view.data["title"] for view in connection.sdk.views.list(project=project)]


def test_chosen_tasks(connection, project, ids):
    chosen = [ids[9], ids[2], ids[3], ids[4]]
    view = ensure_view(connection, project, "to review", task_ids=chosen)
    assert shown(connection, view) == sorted(chosen)
    assert view.url == f"{connection.url}/projects/{project}/data?tab={view.id}"
    assert titles(connection, project) == ["Default", "to review"]


def test_run_twice_nothing_doubles_and_changes_arrive(connection, project, ids):
    first = ensure_view(connection, project, "to review", task_ids=ids[:1])
    connection.sdk.views.update(
        id=str(first.id), project=project, data=connection.sdk.views.get(id=str(first.id)).data | {"gridWidth": 7}
    )
    assert ensure_view(connection, project, "to review", task_ids=ids[:1]) == first
    again = ensure_view(connection, project, "to review", task_ids=ids[5:8], ordering=["-tasks:id"])
    assert again == first
    assert shown(connection, again) == ids[7:4:-1]
    assert connection.sdk.views.get(id=str(first.id)).data["gridWidth"] == 7
    assert ensure_view(connection, project, "to review", task_ids=[]) == first
    assert shown(connection, first) == []
    assert titles(connection, project) == ["Default", "to review"]


def test_filters_and_an_order(connection, project, ids):
    connection.sdk.annotations.create(id=ids[0], result=[])
    settings = {"filters": UNLABELLED, "ordering": ["-tasks:id"]}
    view = ensure_view(connection, project, "next", **settings)
    assert shown(connection, view) == ids[:0:-1]
    assert ensure_view(connection, project, "next", **settings) == view


def test_more_tasks_than_a_view_takes(connection, project, ids):
    scattered = [ids[0] + 2 * i for i in range(MAX_FILTERS + 3)]
    view = ensure_view(connection, project, "many", task_ids=scattered)
    assert view.left_out == 3
    assert shown(connection, view) == ids[::2]


def test_tasks_and_filters_exclude_each_other(connection):
    with pytest.raises(ValueError, match="not both"):
        ensure_view(connection, 1, "x", task_ids=[1], filters=UNLABELLED)


def test_a_link_to_a_task(label_studio, project, ids):
    url = task_url(f"{label_studio.url}/", project, ids[3])
    assert url == f"{label_studio.url}/projects/{project}/data?task={ids[3]}"
    assert httpx.get(url).status_code == httpx.codes.FOUND  # a page that asks to sign in
