"""What a pull asks a Label Studio server about the tasks of a project.

Tasks are listed by id, each page beginning after the last id of the one before: page numbers would skip a task when
an earlier one is deleted meanwhile. While one page is worked on, the next is on its way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx
import orjson

from schemas.errors import ProjectNotFoundError, SourceError
from schemas.task_store import Span, Totals
from tasks.label_studio.client import RESTART_PATIENCE_S, Connection, get_patiently

_FIELDS = (
    "id", "project", "inner_id", "data", "meta", "created_at", "updated_at", "annotations", "result", "completed_by",
    "was_cancelled", "ground_truth", "lead_time", "import_id", "task", "updated_by", "parent_annotation",
    "parent_prediction", "total_annotations",
)  # fmt: skip
"""What is asked for, of tasks and annotations. Not among them: predictions and drafts, which are no annotations;
names of people; and `created_ago`, which differs with every request, so that the same annotations would never be the
same records."""

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"  # the filters take no other form, and answer HTTP 500


class Change(NamedTuple):
    """Tasks that were changed after `after`, up to `until`, but for the versions in `known`: all times of the server.

    `known` goes into the URL, which servers in between cut off at 8 KB: at most `MAX_KNOWN`.
    """

    after: str
    until: str | None = None
    known: Sequence[str] = ()


MAX_KNOWN = 120


@dataclass(frozen=True)
class ServerState:
    """What the server says about a project before a pull.

    Attributes:
        newest: time of the latest change of any task; None if there are no tasks.
        now: the server's clock.
    """

    newest: str | None
    now: datetime


@dataclass(frozen=True)
class Page:
    """Some tasks, by id.

    Attributes:
        tasks: as received.
        span: where they were looked for: there are no others in it.
        left: how many more will come.
    """

    tasks: list[dict[str, Any]]
    span: Span
    left: int


class TaskQueries:
    """Questions about the tasks of one project.

    All raise `SourceUnreachableError` or `SourceRefusedError`, see `tasks.label_studio.client`, and
    `ProjectNotFoundError` if the project is deleted meanwhile.
    """

    def __init__(self, connection: Connection, project: int, page_size: int) -> None:
        self._connection, self._project, self._page_size = connection, project, page_size

    def state(self) -> ServerState:
        """What is the newest, and what time it is there."""
        fields = {"fields": "task_only", "include": "id,updated_at", "page_size": 1}
        reply = self._get({"ordering": ["-tasks:updated_at"]}, fields)
        tasks = orjson.loads(reply.content)["tasks"]
        if "Date" not in reply.headers:
            raise SourceError(
                f"Label Studio at {self._connection.place} does not say what time it is there: its answers lack the "
                "header Date, which a proxy may have taken away; let it through"
            )
        now = parsedate_to_datetime(reply.headers["Date"])
        return ServerState(time_of(tasks[0]) if tasks else None, now)

    def totals(self, span: Span) -> Totals:
        """What the server counts in a span."""
        fields = {"fields": "task_only", "include": "id", "page_size": 1}
        reply = orjson.loads(self._get({"filters": _all_of(_within(span))}, fields).content)
        return Totals(reply["total"], reply["total_annotations"])

    def pages(self, span: Span, change: Change | None = None) -> Iterator[Page]:
        """The tasks of a span, by id: all, or those of a change. The last page ends where the span ends."""
        pool = ThreadPoolExecutor(1)
        try:
            waiting = pool.submit(self._page, span, change)
            while True:
                reply = orjson.loads(waiting.result())
                tasks = reply["tasks"]
                left = reply["total"] - len(tasks) if tasks else 0
                reached = Span(span.after, tasks[-1]["id"] if left else span.until)
                span = Span(reached.until or 0, span.until)
                if left:
                    waiting = pool.submit(self._page, span, change)
                yield Page(tasks, reached, left)
                if not left:
                    return
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _page(self, span: Span, change: Change | None) -> bytes:
        filters = _within(span) + (_changed(change) if change else [])
        query = {"filters": _all_of(filters), "ordering": ["tasks:id"]}
        return self._get(query, {"fields": "all", "include": ",".join(_FIELDS), "page_size": self._page_size}).content

    def _get(self, query: dict[str, Any], fields: dict[str, Any]) -> httpx.Response:
        """The list of tasks. A project that is gone since it was looked up is told as such."""
        params = {"project": self._project, "query": json.dumps(query)} | fields
        connection = self._connection
        with connection.errors():
            reply = get_patiently(connection.files, "/api/tasks", params=params, patience_s=RESTART_PATIENCE_S)
            if reply.status_code == httpx.codes.NOT_FOUND:
                raise ProjectNotFoundError(
                    f"Label Studio at {connection.place}: project {self._project} was deleted during the pull"
                )
            reply.raise_for_status()
        return reply


def time_of(task: dict[str, Any]) -> str:
    """`updated_at` in the form that filters take and that sorts by time; the server leaves out a fraction of zero."""
    return server_time(datetime.fromisoformat(task["updated_at"]))


def server_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime(_TIME)


def _all_of(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"conjunction": "and", "items": items}


def _within(span: Span) -> list[dict[str, Any]]:
    return _filters("id", "Number", span.after or None, span.until)


def _changed(change: Change) -> list[dict[str, Any]]:
    items = _filters("updated_at", "Datetime", change.after, change.until)
    if change.known:
        items.append(_filter("updated_at", "not_in_list", "Datetime", list(change.known)))
    return items


def _filters(column: str, kind: str, after: Any, until: Any) -> list[dict[str, Any]]:
    bounds = (("greater", after), ("less_or_equal", until))
    return [_filter(column, operator, kind, value) for operator, value in bounds if value is not None]


def _filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
