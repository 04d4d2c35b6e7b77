"""Raw records out of a Label Studio server, kept in a store that later pulls only bring up to date."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from schemas.errors import SourceEmptyError, StorageError
from schemas.label_studio_config import offers_occluded
from schemas.label_studio_drift import config_drift
from schemas.sources import LabelStudioSource
from schemas.storage import make_folder, sha256_file, sha256_of
from schemas.task_store import StoredTask, TaskStore, open_store
from schemas.urls import without_credentials
from tasks.image_download import ImageStore, about_images
from tasks.label_studio.client import Connection, Project, connected, token_from_environment
from tasks.label_studio.follow import Followed, Follower, Read
from tasks.label_studio.task_queries import TaskQueries, time_of
from tasks.progress import StepProgress
from tasks.pull_files import flags_known, task_data, task_record
from tasks.subjects import subject_finder
from tasks.tombstones import Tombstones

STORE_FILE, LOCK_FILE, IMAGES = "raw.sqlite", ".pull.lock", "images"
_WAIT_S = 900
_REREAD = 256  # rows that are read anew together


@dataclass(frozen=True)
class ServerPull:
    """What a pull left in the store.

    Attributes:
        records: their number.
        set_id: of all of them: the project's title.
        content_hash: of the records, wherever this machine keeps the images.
        details: server, project, watermark, what became of tasks and images, and how the labelling config drifted.
    """

    records: int
    set_id: str
    content_hash: str
    details: dict[str, Any]


def pull_label_studio(
    source: LabelStudioSource,
    folder: Path,
    *,
    note: Path,
    num_keypoints: int,
    tombstones: Tombstones,
    progress: StepProgress,
) -> ServerPull:
    """Bring the store in `folder` up to date; images of annotated tasks are fetched beside it.

    What has arrived stays when a pull is broken off, and the next one goes on from there.

    Args:
        note: what the last pull told of the store; removed before that changes, so it never tells of half a pull.
        num_keypoints: that the project's labelling config should have.
        tombstones: of whom nothing may be kept; of their tasks the store knows the ids, no more.

    Raises:
        SourceUnreachableError, SourceRefusedError, ProjectNotFoundError: see `tasks.label_studio.client`.
        SourceEmptyError: no task of the project is annotated.
        StorageError: the store can't be written, or another pull of this source does not end.
    """
    token = token_from_environment(source.token_env)
    with ExitStack() as held:
        connection = held.enter_context(connected(source.url, token))
        held.enter_context(_alone(folder))
        version, project = connection.version(), connection.project(source.project)
        note.unlink(missing_ok=True)
        store = held.enter_context(open_store(folder / STORE_FILE))
        followed = _follow(source, connection, project, store, tombstones, progress)
        counts = store.counts()
        if not counts["submitted"]:
            raise SourceEmptyError(
                f"source {source.name}: project {project.id} '{project.title}' at {connection.place} has "
                f"{counts['tasks']} tasks, and no submitted annotation among them"
                + (f"; {counts['forgotten']} more are of subjects that were forgotten" if counts["forgotten"] else "")
            )
        images = ImageStore(folder / IMAGES, connection).fetch(
            store.images(),
            ask_again=followed.full is not None,
            progress=lambda done, of: progress("images", done, of),
        )
        with store.transaction():
            store.set_files({value: fetched.file for value, fetched in images.items()})
        details = {
            "server": {"url": without_credentials(source.url), "version": version},
            "project": {"id": project.id, "title": project.title},
            "watermark": store.note("watermark"),
            "label_config_drift": config_drift(project.label_config, num_keypoints),
            "tasks": asdict(followed),
            "forgotten": counts["forgotten"],
            "images": about_images(images),
        }
        return ServerPull(counts["tasks"], project.title, store.content_hash(), details)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two pulls of one source take turns; the second then finds little to do."""
    make_folder(folder)
    lock = FileLock(folder / LOCK_FILE, timeout=_WAIT_S)
    try:
        lock.acquire()
    except Timeout:
        raise StorageError(
            f"{folder}: another pull of this source has been running for {_WAIT_S // 60} minutes; see whether it "
            "goes on, end it if not, and run again"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _follow(
    source: LabelStudioSource,
    connection: Connection,
    project: Project,
    store: TaskStore,
    tombstones: Tombstones,
    progress: StepProgress,
) -> Followed:
    read = _reader(source, tombstones)
    known = flags_known(source.occlusion, lambda: offers_occluded(project.label_config))
    rules = _rules(source, tombstones)
    if store.note("rules") not in (None, rules):
        _read_anew(store, read)
    with store.transaction():
        store.notes(
            source=source.name,
            set_id=project.title,
            flags_known=known,
            name_format=source.name_format,
            image_field=source.image_field,
            rules=rules,
        )
    follower = Follower(
        store,
        TaskQueries(connection, project.id, source.page_size),
        read,
        origin=f"{connection.place} project {project.id}",
        reconcile_after=timedelta(hours=source.reconcile_hours),
        progress=progress,
    )
    return follower.follow()


def _reader(source: LabelStudioSource, tombstones: Tombstones) -> Read:
    """Makes rows of tasks: their JSON as received, but annotations by id, in which order databases may give them."""
    subject_of = subject_finder(source.subject)

    def read(task: dict[str, Any]) -> StoredTask:
        count = task.pop("total_annotations")
        about = task_record(
            task,
            source="",
            set_id="",
            key="",
            image=None,
            image_field=source.image_field,
            flags_are_known=True,
            subject_of=subject_of,
        )
        identity, updated_at = task["id"], time_of(task)
        if tombstones.cover(about.subject):
            return StoredTask(identity, updated_at, count, False, False, None, None, None)
        task["annotations"].sort(key=lambda annotation: annotation["id"])
        value = task_data(task).get(source.image_field)
        return StoredTask(
            id=identity,
            updated_at=updated_at,
            annotations=count,
            submitted=any(not annotation["was_cancelled"] for annotation in task["annotations"]),
            flagged=about.flags_known,
            subject=about.subject,
            image=value if isinstance(value, str) and value else None,
            payload=orjson.dumps(task),
        )

    return read


def _rules(source: LabelStudioSource, tombstones: Tombstones) -> str:
    """What decides, beside a task itself, what its row says."""
    csv = source.subject and source.subject.csv
    return sha256_of(
        {
            "subject": source.subject and source.subject.model_dump(),
            "subjects": "composed",
            "csv": csv and sha256_file(Path(csv)),
            "image_field": source.image_field,
            "forgotten": sorted(tombstones.graves),
        }
    )


def _read_anew(store: TaskStore, read: Read) -> None:
    """Apply changed rules to what is stored. Tasks that were left out are fetched again, as the sums lack them."""
    rows = store.tasks()
    while some := list(itertools.islice(rows, _REREAD)):
        with store.transaction():
            store.put(read(orjson.loads(row.payload or b"") | {"total_annotations": row.annotations}) for row in some)
    with store.transaction():
        store.delete_places()
