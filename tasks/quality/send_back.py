"""Back to Label Studio: a tab with the tasks in dispute, and links that open a task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from schemas.sources import LabelStudioSource, Source
from tasks.label_studio.client import connected, token_from_environment
from tasks.label_studio.views import ensure_view, task_url
from tasks.pull import PullResult

_TASK = re.compile(r"(?P<source>[^:]+):task/(?P<task>[0-9]+)(/annotation/[0-9]+)?")


@dataclass(frozen=True)
class Place:
    """Where a source's tasks are: `project` is the id of the project at `url`."""

    source: LabelStudioSource
    project: int

    @property
    def url(self) -> str:
        return self.source.url


@dataclass(frozen=True)
class SentBack:
    """The tab of one source's project.

    Attributes:
        source: its name.
        title, url: of the tab.
        tasks: in the tab, the worst first.
        left_out: how many more there are; the tab holds no more.
    """

    source: str
    title: str
    url: str
    tasks: tuple[int, ...]
    left_out: int


def places(sources: Iterable[Source], pulls: Iterable[PullResult]) -> dict[str, Place]:
    """Source -> its project, of the sources that are servers."""
    by_name = {source.name: source for source in sources if isinstance(source, LabelStudioSource)}
    return {
        result.source: Place(by_name[result.source], result.details["project"]["id"])
        for result in pulls
        if result.source in by_name
    }


def link_of(source_key: str, found: Mapping[str, Place]) -> str | None:
    """Where a browser finds the task that a face or a record is of; None where its source is no server."""
    match = _TASK.fullmatch(source_key)
    place = found.get(match["source"]) if match else None
    return task_url(place.url, place.project, int(match["task"])) if match and place else None


def send_back(records: Sequence[str], found: Mapping[str, Place], title: str) -> tuple[SentBack, ...]:
    """Let the tab `title` of each project hold exactly the tasks of these records, none if there are none.

    A task keeps its `updated_at`: nothing that follows changes takes it for changed.

    Args:
        records: source keys, the most important first.

    Raises:
        SourceUnreachableError, SourceRefusedError: see `tasks.label_studio.client`.
    """
    return tuple(_fill(name, place, _tasks(records, name), title) for name, place in sorted(found.items()))


def _tasks(records: Iterable[str], source: str) -> list[int]:
    matches = [match for record in records if (match := _TASK.fullmatch(record))]
    return list(dict.fromkeys(int(match["task"]) for match in matches if match["source"] == source))


def _fill(name: str, place: Place, tasks: Sequence[int], title: str) -> SentBack:
    with connected(place.url, token_from_environment(place.source.token_env)) as connection:
        view = ensure_view(connection, place.project, title, task_ids=tasks)
    kept = len(tasks) - view.left_out
    return SentBack(name, title, view.url, tuple(tasks[:kept]), view.left_out)
