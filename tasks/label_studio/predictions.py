"""Predictions of a project's tasks: reading what is there, writing ours, and having them labelled in our order.

A prediction of ours is known by its model version, `<registered name> v<version>`; those of others are not touched.
Writing one changes the task's `updated_at`, so that the next incremental pull looks at the task again; it finds the
same annotations there, because predictions are never read as labels.

The order is in the predictions' scores: Label Studio's "Uncertainty sampling" gives a labeller the task with the
lowest score among those that have a prediction of the project's model version, and when these are done, any. In a
project with several members (1.23.2) it draws one of them at random, to keep people apart: so only the tasks that
should be labelled next get a prediction of the current version, whatever the score.

The regions of 80 keypoints take 80 kB of memory, and a project may have 100,000 tasks: so of ours that the server has
a digest is kept, of others the face boxes, and new ones are made when they are about to be written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

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
    """A prediction of a task, to be written; `score` counts from the lowest."""

    task: int
    model_version: str
    score: float | None
    result: list[dict[str, Any]]


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction as the server has it; `digest` is that of its result."""

    id: int
    model_version: str
    score: float | None
    digest: bytes

    def same_as(self, wanted: Prediction) -> bool:
        """Whether a labeller would see the same, in the same place of the order."""
        mine, theirs = ((p.model_version, p.score) for p in (self, wanted))
        return mine == theirs and self.digest == digest_of(wanted.result)


@dataclass(frozen=True)
class ListedTask:
    """A task as it stands on the server.

    Attributes:
        touched: somebody has submitted or skipped it, or has a draft of it.
        boxes: the rectangles of each draft, and then of each prediction that is not ours, where there are any.
        predictions: ours.
    """

    id: int
    data: Mapping[str, Any]
    touched: bool
    boxes: tuple[list[dict[str, Any]], ...]
    predictions: tuple[StoredPrediction, ...]


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


def digest_of(result: Any) -> bytes:
    """The same for results that are equal, however a database writes their numbers."""
    return hashlib.sha256(orjson.dumps(_with_floats(result), option=orjson.OPT_SORT_KEYS)).digest()


def _with_floats(value: Any) -> Any:
    match value:
        case dict():
            return {key: _with_floats(item) for key, item in value.items()}
        case list():
            return [_with_floats(item) for item in value]
        case bool():
            return value
        case int() | float():
            return value + 0.0  # nor is there a -0.0
    return value


def list_tasks(
    connection: Connection, project_id: int, *, name: str, page_size: int = 500, progress: StepProgress = silent
) -> list[ListedTask]:
    """Every task of a project, by id.

    Args:
        name: of the registered model, whose predictions are ours.

    Raises:
        SourceUnreachableError, SourceRefusedError: the server.
    """
    found: dict[int, ListedTask] = {}
    for page, total in _pages(connection, project_id, page_size):
        for task in page:
            found[task["id"]] = listed_task(task, name)
        progress("tasks", len(found), total)
    return [found[identity] for identity in sorted(found)]


def write_predictions(
    connection: Connection,
    project_id: int,
    wanted: Callable[[int], Prediction | None],
    tasks: Sequence[ListedTask],
    *,
    progress: StepProgress = silent,
) -> Written:
    """Give each task that nobody has touched the prediction that is `wanted` of it, and take away our other ones.

    A task that was touched gets none and keeps what it has: its annotation may refer to it. What is there already
    stays. Of each batch the new ones are written before the old ones go, so a run that died anywhere has lost none,
    and the next one tidies up.

    Args:
        wanted: makes the prediction of a task by its id, None if it gets none; called for one task after the other.
        tasks: of the project, as `list_tasks` gave them.

    Raises:
        SourceUnreachableError, SourceRefusedError: the server; what was written stays, run again to go on.
    """
    untouched = [task for task in tasks if not task.touched]
    kept = created = removed = 0
    new, old = [], []
    for looked_at, task in enumerate(untouched, start=1):
        prediction = wanted(task.id)
        same = next((p for p in task.predictions if prediction is not None and p.same_as(prediction)), None)
        kept += same is not None
        if prediction is not None and same is None:
            new.append(prediction)
        old += [p.id for p in task.predictions if p is not same]
        if max(len(new), len(old)) >= TASKS_AT_ONCE or looked_at == len(untouched):
            created += _create(connection, project_id, new)
            removed += _remove(connection, old)
            progress("predictions", looked_at, len(untouched))
            new, old = [], []
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


def listed_task(task: Mapping[str, Any], name: str) -> ListedTask:
    """What is kept of a task as the server gives it; `name` as of `list_tasks`."""
    ours = [stored for stored in task["predictions"] if is_ours(stored["model_version"], name)]
    others = [stored for stored in task["predictions"] if not is_ours(stored["model_version"], name)]
    return ListedTask(
        id=task["id"],
        data=task["data"],
        touched=bool(task["total_annotations"] or task["cancelled_annotations"] or task["drafts"]),
        boxes=tuple(filter(None, (_rectangles(drawn["result"]) for drawn in (*task["drafts"], *others)))),
        predictions=tuple(
            StoredPrediction(stored["id"], stored["model_version"], stored["score"], digest_of(stored["result"]))
            for stored in ours
        ),
    )


def _rectangles(result: Any) -> list[dict[str, Any]]:
    regions = result if isinstance(result, list) else []
    return [region for region in regions if isinstance(region, dict) and region.get("type") == "rectanglelabels"]


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
