"""Predictions of a project's tasks: reading what is there, writing ours, and having them labelled in our order.

A prediction of ours is known by its model version, `<registered name> v<version>`; those of others are not touched.
Writing one changes the task's `updated_at`, so that the next incremental pull looks at the task again; it finds the
same annotations there, because predictions are never read as labels.

The order is in the predictions' scores: Label Studio's "Uncertainty sampling" gives a labeller the task with the
lowest score among those that have a prediction of the project's model version, and when these are done, any. In a
project with several members (1.23.2) it draws one of them at random, to keep people apart: so only the tasks that
should be labelled next get a prediction of the current version, whatever the score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.label_studio.client import Connection
from tasks.label_studio.views import View, ensure_view
from tasks.progress import StepProgress, silent

VIEW_TITLE = "Next to label"
TASKS_AT_ONCE = 50
"""Predictions in one request: 80 keypoints take about 25 kB."""

_FIELDS = (
    "id", "data", "total_annotations", "cancelled_annotations", "drafts", "result", "predictions", "model_version",
    "score",
)  # fmt: skip
_NO_SUCH_THING = 404


@dataclass(frozen=True)
class Prediction:
    """A prediction of a task. `id` is the server's, None before it has one; `score` counts from the lowest."""

    task: int
    model_version: str
    score: float | None
    result: list[dict[str, Any]]
    id: int | None = None

    def same_as(self, other: Prediction) -> bool:
        """Whether a labeller would see the same, in the same place of the order."""
        mine, theirs = ((p.task, p.model_version, p.score, p.result) for p in (self, other))
        return mine == theirs


@dataclass(frozen=True)
class ListedTask:
    """A task as it stands on the server.

    Attributes:
        touched: somebody has submitted or skipped it, or has a draft of it.
        drafts: regions of each draft.
    """

    id: int
    data: Mapping[str, Any]
    touched: bool
    drafts: tuple[list[dict[str, Any]], ...]
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class Written:
    """How many predictions were written, were there already, and were taken away."""

    created: int
    kept: int
    removed: int


def version_name(name: str, version: str) -> str:
    """The model version of predictions by a version of the registered model `name`."""
    return f"{name} v{version}"


def is_ours(model_version: str | None, name: str) -> bool:
    """Whether a prediction was made by any version of the registered model `name`."""
    return re.fullmatch(rf"{re.escape(name)} v\d+", model_version or "") is not None


def list_tasks(
    connection: Connection, project_id: int, *, page_size: int = 500, progress: StepProgress = silent
) -> list[ListedTask]:
    """Every task of a project, by id.

    Raises:
        SourceUnreachableError, SourceRefusedError: the server.
    """
    found: dict[int, ListedTask] = {}
    for page, total in _pages(connection, project_id, page_size):
        for task in page:
            found[task["id"]] = _listed(task)
        progress("tasks", len(found), total)
    return [found[identity] for identity in sorted(found)]


def write_predictions(
    connection: Connection,
    project_id: int,
    wanted: Sequence[Prediction],
    tasks: Sequence[ListedTask],
    *,
    name: str,
    progress: StepProgress = silent,
) -> Written:
    """Give each of `wanted` to its task, and take away our other predictions of tasks that nobody has touched.

    A task that was touched gets none and keeps what it has: its annotation may refer to it. What is there already
    stays. Of each batch the new ones are written before the old ones go, so a run that died anywhere has lost none,
    and the next one tidies up.

    Args:
        tasks: of the project, as `list_tasks` gave them.
        name: of the registered model.

    Raises:
        SourceUnreachableError, SourceRefusedError: the server; what was written stays, run again to go on.
    """
    wanted_of = {prediction.task: prediction for prediction in wanted}
    kept, created, removed = 0, 0, 0
    todo: list[tuple[Prediction | None, list[int]]] = []
    for task in tasks:
        if task.touched:
            continue
        mine, prediction = [p for p in task.predictions if is_ours(p.model_version, name)], wanted_of.get(task.id)
        same = next((p for p in mine if prediction is not None and p.same_as(prediction)), None)
        old = [p.id for p in mine if p is not same and p.id is not None]
        kept += same is not None
        if (prediction is not None and same is None) or old:
            todo.append((prediction if same is None else None, old))
    for start in range(0, len(todo), TASKS_AT_ONCE):
        batch = todo[start : start + TASKS_AT_ONCE]
        created += _create(connection, project_id, [prediction for prediction, _ in batch if prediction is not None])
        removed += _remove(connection, [identity for _, old in batch for identity in old])
        progress("predictions", min(start + TASKS_AT_ONCE, len(todo)), len(todo))
    return Written(created, kept, removed)


def label_in_order(connection: Connection, project_id: int, model_version: str) -> None:
    """Have the project's label stream show these predictions, and give out tasks by their scores.

    Raises:
        SourceUnreachableError, SourceRefusedError: the server.
        SourceError: no task has a prediction of this model version.
    """
    settings = {"model_version": model_version, "sampling": "Uncertainty sampling", "show_collab_predictions": True}
    with connection.errors():
        connection.files.patch(f"/api/projects/{project_id}/", json=settings).raise_for_status()


def show_in_order(connection: Connection, project_id: int) -> View:
    """The tab of the data manager with the tasks to label next, in order: untouched ones with a score.

    The server takes the score from predictions of the project's model version alone.
    """
    filters = [
        ("total_annotations", "equal", 0),
        ("cancelled_annotations", "equal", 0),
        ("predictions_score", "less_or_equal", 1),
    ]
    items = [
        {"filter": f"filter:tasks:{column}", "operator": operator, "type": "Number", "value": value}
        for column, operator, value in filters
    ]
    return ensure_view(
        connection,
        project_id,
        VIEW_TITLE,
        filters={"conjunction": "and", "items": items},
        ordering=["tasks:predictions_score"],
    )


def _pages(connection: Connection, project_id: int, page_size: int) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Pages of tasks, and how many tasks there are in all."""
    query = json.dumps({"ordering": ["tasks:id"]})
    asked = {"project": project_id, "fields": "all", "include": ",".join(_FIELDS), "query": query}
    number, seen = 1, 0
    while True:
        with connection.errors():
            reply = connection.files.get("/api/tasks", params=asked | {"page": number, "page_size": page_size})
            if reply.status_code == _NO_SUCH_THING and number > 1:  # tasks were deleted meanwhile
                return
            reply.raise_for_status()
        page = reply.json()
        seen += len(page["tasks"])
        yield page["tasks"], page["total"]
        if not page["tasks"] or seen >= page["total"]:
            return
        number += 1


def _listed(task: Mapping[str, Any]) -> ListedTask:
    drafts = tuple(draft["result"] for draft in task["drafts"])
    return ListedTask(
        id=task["id"],
        data=task["data"],
        touched=bool(task["total_annotations"] or task["cancelled_annotations"] or drafts),
        drafts=drafts,
        predictions=tuple(
            Prediction(task["id"], stored["model_version"] or "", stored["score"], stored["result"], stored["id"])
            for stored in task["predictions"]
        ),
    )


def _create(connection: Connection, project_id: int, predictions: Sequence[Prediction]) -> int:
    """One request, not repeated by itself: the server would store the predictions twice."""
    if predictions:
        body = [
            {"task": p.task, "model_version": p.model_version, "score": p.score, "result": p.result}
            for p in predictions
        ]
        with connection.errors():
            connection.files.post(f"/api/projects/{project_id}/import/predictions", json=body).raise_for_status()
    return len(predictions)


def _remove(connection: Connection, identities: Sequence[int]) -> int:
    for identity in identities:
        with connection.errors():
            reply = connection.files.delete(f"/api/predictions/{identity}/")
            if reply.status_code != _NO_SUCH_THING:  # else somebody was faster
                reply.raise_for_status()
    return len(identities)
