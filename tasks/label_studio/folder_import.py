"""From a folder of Sloth/TAO ground truth to a Label Studio project, as a labelling team would have it.

Images are uploaded to the server rather than served from a folder of its machine: that works wherever the server
runs, needs none of its settings, and costs a few milliseconds an image. They are named by content, and tasks carry
a stable `key`, so that an import which is run again, or broken off and run again, doubles nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas import sloth
from schemas.annotation import NOT_REJECTED, AnnotatedFace, Problem
from schemas.errors import SourceEmptyError, SpecError
from schemas.label_studio import IMAGE_FIELD
from schemas.label_studio_config import config_labels, labelling_config
from schemas.label_studio_task import build_task
from schemas.layouts import layout
from schemas.raw import RawRecord
from schemas.records import Violation
from schemas.sources import SlothSource, SubjectRule
from tasks.image_facts import SUFFIXES, ImageFacts, inspect_image
from tasks.label_studio.client import Connection, connected
from tasks.progress import StepProgress, silent
from tasks.pull_files import pull_sloth

BATCH = 100
"""Tasks a request; Label Studio takes at most 100 files in one."""

_HASH_LENGTH = 24
_SHOWN_BY_BROWSERS = ("JPEG", "PNG", "BMP", "WEBP")
_CONDITIONS = ("session", "camera", "illumination")


@dataclass(frozen=True)
class ImportResult:
    """What an import did.

    Attributes:
        project, title, url: the project, and where a browser finds it.
        imported, present: tasks that were added, and that had been there.
        left_out: the rules that entries and faces break which gave no task.
    """

    project: int
    title: str
    url: str
    imported: int
    present: int
    left_out: list[Violation]


@dataclass(frozen=True, eq=False)
class _Planned:
    """A task to be: one face of one image, or an image that nobody has annotated yet."""

    key: str
    record: RawRecord
    face: AnnotatedFace | None


def import_folder(
    url: str,
    token: str,
    *,
    title: str,
    folder: Path,
    num_keypoints: int,
    subject: SubjectRule,
    gt: Iterable[str] = ("gt/**/*.json",),
    origin: float = 0.0,
    progress: StepProgress = silent,
) -> ImportResult:
    """Make the project `title` if it is not there, and add what it lacks of `folder`.

    Args:
        subject: how the folder tells whose face it is; tasks get the field `subject`, `<dataset>/<id>`.
        gt: patterns of ground-truth files below `folder`; image names are relative to `folder`.
        origin: the coordinate that the files give to the centre of the top-left pixel.

    Raises:
        AnnotationFileError, SourceEmptyError: the folder has no readable ground truth.
        SpecError: the project that is there has no labels for these keypoints.
        SourceUnreachableError, SourceRefusedError: the server; what was imported stays, run again to go on.
    """
    source = SlothSource(kind="sloth", name="folder", root=str(folder), gt=list(gt), subject=subject)
    dataset = subject.dataset or folder.resolve().name
    planned, left_out = _plan(pull_sloth(source), dataset, num_keypoints, origin)
    if not planned:
        why = f"; the first that was left out: {left_out[0]}" if left_out else ""
        raise SourceEmptyError(f"{folder}: no image entry that could become a task{why}")
    with connected(url, token) as connection:
        connection.version()
        project, created = _project(connection, title, num_keypoints)
        present = set() if created else _keys(connection, project.id)
        uploads = _Uploads(connection, project.id)
        missing = [plan for plan in planned if plan.key not in present]
        imported = 0
        for start in range(0, len(missing), BATCH):
            tasks, unusable = uploads.tasks_of(missing[start : start + BATCH])
            left_out += unusable
            if tasks:
                _import(connection, project.id, tasks)
            imported += len(tasks)
            progress("tasks", min(start + BATCH, len(missing)), len(missing))
        return ImportResult(
            project=project.id,
            title=project.title,
            url=f"{connection.place}/projects/{project.id}",
            imported=imported,
            present=len(planned) - len(missing),
            left_out=left_out,
        )


def _plan(
    records: Iterable[RawRecord], dataset: str, num_keypoints: int, origin: float
) -> tuple[list[_Planned], list[Violation]]:
    """A task for every face that breaks no rule of the format, and the rules that the others break.

    A task's key does not depend on where in its file the entry stands, nor on whether other faces are left out: those
    of an entry that can't be read are counted by what it looks like.
    """
    planned: list[_Planned] = []
    left_out: list[Violation] = []
    times: Counter[str] = Counter()
    for record in records:
        faces, problems = sloth.read(record.payload, num_keypoints=num_keypoints, flags_known=record.flags_known)
        broken = [problem for problem in problems if problem.code not in NOT_REJECTED]
        left_out += [problem.in_record(record.key, record.image) for problem in broken]
        if broken and not faces:
            times.update(_names_of_unread(record.payload, dataset))
            continue
        for face in faces or [None]:
            name = f"{dataset}/{record.payload['filename']}"
            times[name] += 1
            key = name if times[name] == 1 else f"{name}#{times[name]}"
            if face is None:
                planned.append(_Planned(key, record, None))
            elif not any(problem.face in ("", face.key_suffix) for problem in broken):
                planned.append(_Planned(key, record, face.counted_from(origin)))
    return planned, left_out


def _names_of_unread(entry: Any, dataset: str) -> list[str]:
    """The name of an entry that breaks the format, as often as faces would have it once the entry is corrected."""
    if not isinstance(entry, Mapping) or not isinstance(filename := entry.get("filename"), str):
        return []
    chunks = entry.get("annotations")
    chunks = [chunk for chunk in chunks if isinstance(chunk, Mapping)] if isinstance(chunks, list) else []
    faces = sum("fiducialpoints" in str(chunk.get("class")).lower() for chunk in chunks)
    return [f"{dataset}/{filename}"] * max(1, faces)


def _project(connection: Connection, title: str, num_keypoints: int) -> tuple[Any, bool]:
    """The project `title`, and whether it had to be made. The server takes blanks off a title's ends."""
    if any(project.title == title.strip() for project in connection.projects()):
        project = connection.project(title)
        lacking = sorted(set(layout(num_keypoints).labels) - config_labels(project.label_config))
        if lacking:
            raise SpecError(
                f"project {project.id} '{title}'",
                f"its labelling config has no label {lacking[0]} ({len(lacking)} of {num_keypoints} lack); "
                "choose another title, or correct the config",
            )
        return project, False
    with connection.errors():
        return connection.sdk.projects.create(
            title=title.strip(),
            label_config=labelling_config(num_keypoints),
            description="Imported by fpenet label-studio import",
            request_options={"max_retries": 0},
        ), True


def _keys(connection: Connection, project: int) -> set[str]:
    """Keys of the tasks that are there."""
    with connection.errors():
        tasks = connection.sdk.tasks.list(project=project, fields="task_only", include="id,data", page_size=1000)
        return {key for task in tasks if isinstance(key := task.data.get("key"), str)}


def _import(connection: Connection, project: int, tasks: list[dict[str, Any]]) -> None:
    """One request, not repeated by itself: a repeated one could add the tasks twice."""
    with connection.errors():
        connection.sdk.projects.import_tasks(id=project, request=tasks, request_options={"max_retries": 0})


class _Uploads:
    """Images on the server, by the hash of their bytes."""

    def __init__(self, connection: Connection, project: int) -> None:
        self._connection, self._project = connection, project
        self._path: dict[str, str] = {}
        with connection.errors():
            self._note(connection.sdk.files.list(id=project, all_=True))

    def tasks_of(self, batch: Iterable[_Planned]) -> tuple[list[dict[str, Any]], list[Violation]]:
        """Upload the images of a batch that are not there, and build its tasks."""
        looked_at = [(plan, _look_at(plan.record)) for plan in batch]
        usable = [(plan, facts) for plan, facts in looked_at if isinstance(facts, ImageFacts)]
        self._send({facts.sha256: (plan.record.image or "", facts) for plan, facts in usable})
        tasks = [_task(plan, facts, self._path[facts.sha256[:_HASH_LENGTH]]) for plan, facts in usable]
        unusable = [
            problem.in_record(plan.record.key, plan.record.image)
            for plan, problem in looked_at
            if isinstance(problem, Problem)
        ]
        return tasks, unusable

    def _send(self, images: dict[str, tuple[str, ImageFacts]]) -> None:
        files = {
            digest: (f"{digest[:_HASH_LENGTH]}{SUFFIXES[facts.format][0]}", Path(image).read_bytes())
            for digest, (image, facts) in sorted(images.items())
            if digest[:_HASH_LENGTH] not in self._path
        }
        if not files:
            return
        path = f"/api/projects/{self._project}/import"
        with self._connection.errors():
            reply = self._connection.files.post(path, params={"commit_to_project": "false"}, files=files)
            reply.raise_for_status()
            identities = json.dumps(reply.json()["file_upload_ids"])
            self._note(self._connection.sdk.files.list(id=self._project, ids=identities))

    def _note(self, stored: Iterable[Any]) -> None:
        self._path |= {_hash_in(upload.file): f"{self._connection.root}/data/{upload.file}" for upload in stored}


def _hash_in(upload: str) -> str:
    """The hash in `upload/3/0a1b2c3d-<hash>.jpg`: the server puts eight digits before a file's name."""
    return Path(upload).stem.split("-", 1)[-1]


def _look_at(record: RawRecord) -> ImageFacts | Problem:
    facts = inspect_image(record.image or "")
    if isinstance(facts, ImageFacts) and facts.format not in _SHOWN_BY_BROWSERS:
        return Problem(
            code="image-format",
            value=f"{record.image} holds {facts.format}",
            rule="Label Studio shows what browsers show",
            hint=f"convert it to one of {', '.join(_SHOWN_BY_BROWSERS)}",
        )
    return facts


def _task(plan: _Planned, facts: ImageFacts, path: str) -> dict[str, Any]:
    record, face = plan.record, plan.face
    data = {
        IMAGE_FIELD: path,
        "key": plan.key,
        "name": record.payload["filename"],
        "set": record.set_id,
        **({"subject": record.subject} if record.subject else {}),
    }
    if face is None:
        return {"data": data}
    data |= {name: value for name in _CONDITIONS if (value := getattr(face, name)) is not None}
    return build_task(
        data,
        face.points_N2,
        face.flags_N,
        frame_size=(facts.width, facts.height),
        tight_box=face.tight_box,
    )
