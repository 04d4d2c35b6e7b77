"""Raw records out of a Label Studio server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import SourceEmptyError
from schemas.label_studio_config import offers_occluded
from schemas.raw import RawRecord
from schemas.sources import LabelStudioSource
from tasks.image_download import Fetched, ImageStore
from tasks.label_studio.client import Connection, connected, token_from_environment
from tasks.progress import StepProgress
from tasks.pull_files import flags_known, task_data, task_record
from tasks.subjects import subject_finder

_FIELDS = (
    "id", "project", "inner_id", "data", "meta", "created_at", "updated_at", "annotations", "result", "completed_by",
    "was_cancelled", "ground_truth", "lead_time", "import_id", "task", "updated_by", "parent_annotation",
    "parent_prediction",
)  # fmt: skip
"""What is asked for, of tasks and annotations. Not among them: names of people, and `created_ago`, which differs
with every request, so that the same annotations would never be the same records."""


@dataclass(frozen=True)
class ServerPull:
    """What a server gave.

    Attributes:
        records: one for each task, by task id.
        version: release of the server.
        project: id and title.
        watermark: latest `updated_at` of a task or annotation, as the server writes it.
        images: value in the task -> what became of it.
    """

    records: list[RawRecord]
    version: str
    project: dict[str, Any]
    watermark: str
    images: Mapping[str, Fetched]


def pull_label_studio(source: LabelStudioSource, folder: Path, *, progress: StepProgress) -> ServerPull:
    """A record for every task of the project; images of annotated tasks are fetched into `folder`.

    Raises:
        SourceUnreachableError, SourceRefusedError, ProjectNotFoundError: see `tasks.label_studio.client`.
        SourceEmptyError: no task of the project is annotated.
    """
    token = token_from_environment(source.token_env)
    with connected(source.url, token) as connection:
        version = connection.version()
        project = connection.project(source.project)
        tasks = _tasks(connection, project.id, source.page_size, progress)
        if not any(map(_is_annotated, tasks)):
            raise SourceEmptyError(
                f"source {source.name}: project {project.id} '{project.title}' at {connection.url} has {len(tasks)} "
                "tasks, and no submitted annotation among them"
            )
        values = {_image_value(task, source.image_field) for task in tasks if _is_annotated(task)} - {None}
        store = ImageStore(folder, connection)
        images = store.fetch(values, progress=lambda done, of: progress("images", done, of))
    return ServerPull(
        records=_records(source, project, tasks, images),
        version=version,
        project={"id": project.id, "title": project.title},
        watermark=_latest(tasks),
        images=images,
    )


def _tasks(connection: Connection, project: int, page_size: int, progress: StepProgress) -> list[dict[str, Any]]:
    """All tasks of a project as received, by id; a task that slips onto two pages comes once."""
    query = json.dumps({"ordering": ["tasks:id"]})
    tasks: dict[int, dict[str, Any]] = {}
    with connection.errors():
        pager = connection.sdk.tasks.list(
            project=project, query=query, page_size=page_size, fields="all", include=",".join(_FIELDS)
        )
        total = pager.response.total
        for item in pager:
            task = orjson.loads(item.json())
            tasks[task["id"]] = task
            progress("tasks", len(tasks), total)
    return [tasks[identity] for identity in sorted(tasks)]


def _is_annotated(task: Mapping[str, Any]) -> bool:
    return any(not annotation.get("was_cancelled") for annotation in task["annotations"])


def _image_value(task: Mapping[str, Any], field: str) -> str | None:
    value = task_data(task).get(field)
    return value if isinstance(value, str) and value else None


def _records(
    source: LabelStudioSource, project: Any, tasks: Iterable[dict[str, Any]], images: Mapping[str, Fetched]
) -> list[RawRecord]:
    known = flags_known(source.occlusion, lambda: offers_occluded(project.label_config))
    subject_of = subject_finder(source.subject)
    records = []
    for task in tasks:
        fetched = images.get(_image_value(task, source.image_field) or "")
        records.append(
            task_record(
                task,
                source=source.name,
                set_id=project.title,
                key=f"task/{task['id']}",
                image=str(fetched.file) if fetched and fetched.file else None,
                flags_are_known=known,
                subject_of=subject_of,
            )
        )
    return records


def _latest(tasks: Iterable[Mapping[str, Any]]) -> str:
    times = [thing["updated_at"] for task in tasks for thing in (task, *task["annotations"])]
    return max(times, key=datetime.fromisoformat)
