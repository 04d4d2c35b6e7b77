"""Tabs of a project's data manager that show chosen tasks, and links that open a task.

A filter that the server understands can still break the screen: the operator `in_list` stops the data manager's page,
and a regular expression on the id is thrown away by it. So chosen tasks become filters that a person could have set:
`id = 7`, or `id between 7 and 12`, joined by "or".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.urls import without_credentials
from tasks.label_studio.client import Connection

MAX_FILTERS = 200
"""Filters of one view. The server asks its database twice for each of them whenever the tab is shown."""

_NO_RETRY = {"max_retries": 0}
_DEFAULT_TITLE = "Default"  # as the server's own first tab


@dataclass(frozen=True)
class View:
    """A tab of the data manager.

    Attributes:
        id, url: the view, and where a browser finds it.
        left_out: chosen tasks, the last ones given, that did not fit into `MAX_FILTERS` filters.
    """

    id: int
    url: str
    left_out: int = 0


def task_url(base_url: str, project_id: int, task_id: int) -> str:
    """Where a browser finds a task, opened for labelling."""
    return f"{without_credentials(base_url).rstrip('/')}/projects/{project_id}/data?task={task_id}"


def ensure_view(
    connection: Connection,
    project_id: int,
    title: str,
    *,
    task_ids: Sequence[int] | None = None,
    filters: Mapping[str, Any] | None = None,
    ordering: Sequence[str] = (),
) -> View:
    """Make the tab `title` of a project, or bring the one that is there up to date; what people set in it besides
    (widths, hidden columns) stays.

    Args:
        task_ids: show these tasks, none if empty; the most important first, see `View.left_out`.
        filters: instead of `task_ids`: `{"conjunction": "and", "items": [{"filter": "filter:tasks:total_annotations",
            "operator": "equal", "type": "Number", "value": 0}]}`. Without either the tab shows every task.
        ordering: `tasks:<column>`, descending with `-` before it; Label Studio sorts by the first one only. Without
            it the order is as people set it.

    Raises:
        SourceUnreachableError, SourceRefusedError: the server.
        ValueError: both `task_ids` and `filters` are given.
    """
    if task_ids is not None and filters is not None:
        raise ValueError("a view shows chosen tasks or filtered ones, not both")
    chosen, left_out = (dict(filters or _everything()), 0) if task_ids is None else _showing(task_ids)
    wanted: dict[str, Any] = {"filters": chosen}
    if ordering:
        wanted["ordering"] = list(ordering)
    with connection.errors():
        identity = _store(connection, project_id, title, wanted)
    return View(identity, f"{connection.place}/projects/{project_id}/data?tab={identity}", left_out)


def _store(connection: Connection, project_id: int, title: str, wanted: Mapping[str, Any]) -> int:
    """The id of the view `title` that has what is wanted; the oldest one where people made several."""
    views = connection.sdk.views
    there = sorted(views.list(project=project_id), key=lambda view: view.id)
    found = next((view for view in there if (view.data or {}).get("title") == title), None)
    frame = {"type": "list", "target": "tasks"}
    if found is None:
        if not there:  # else ours would be the only tab, and a project would seem to have no other tasks
            views.create(project=project_id, data=frame | {"title": _DEFAULT_TITLE}, request_options=_NO_RETRY)
        data = frame | {"title": title} | dict(wanted)
        return views.create(project=project_id, data=data, request_options=_NO_RETRY).id
    if _differs(found.data, wanted):
        views.update(id=str(found.id), project=project_id, data=found.data | dict(wanted))
    return found.id


def _differs(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a view lacks what is wanted; the server leaves out what is empty."""
    stated = {"filters": _everything()} | dict(there)
    return any(stated.get(key) != value for key, value in wanted.items())


def _everything() -> dict[str, Any]:
    return {"conjunction": "and", "items": []}


def _showing(task_ids: Iterable[int]) -> tuple[dict[str, Any], int]:
    """Filters for tasks, and how many of these did not fit."""
    chosen = list(dict.fromkeys(task_ids))
    kept = len(chosen)
    while len(runs := _runs(chosen[:kept])) > MAX_FILTERS:
        kept -= len(runs) - MAX_FILTERS
    return {"conjunction": "or", "items": [_id_filter(*run) for run in runs or [(0, 0)]]}, len(chosen) - kept


def _runs(ids: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive ids."""
    runs: list[tuple[int, int]] = []
    for number in sorted(ids):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _id_filter(first: int, last: int) -> dict[str, Any]:
    alone = first == last
    return {
        "filter": "filter:tasks:id",
        "operator": "equal" if alone else "in",
        "type": "Number",
        "value": first if alone else {"min": first, "max": last},
    }
