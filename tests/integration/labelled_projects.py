"""A Label Studio project that people work in, for tests of what a pull makes of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from schemas.label_studio_config import labelling_config
from schemas.label_studio_task import build_task
from schemas.raw import read_raw
from schemas.sources import LabelStudioSource, SubjectRule
from tasks.label_studio.client import Connection

N = 3
FRAME = (32, 24)
_DRAWN = np.array([[4, 4], [20, 6], [12, 18]], np.float32)


class LabelledProject:
    """What can be done in a project, each by the request that the server's own pages send.

    Args:
        folder: for the one image that all tasks show; it lies on this machine and is not fetched.
    """

    def __init__(self, connection: Connection, title: str, folder: Path) -> None:
        self._http = connection.files
        created = self._send("POST", "/api/projects/", {"title": title, "label_config": labelling_config(N)})
        self.id: int = created["id"]
        self.image = folder / "frame.png"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(self.image), np.zeros((FRAME[1], FRAME[0], 3), np.uint8))

    def add(self, count: int, *, annotated: bool = True, first: int = 0) -> list[int]:
        """Import tasks; their ids."""
        tasks = [self._task(number) for number in range(first, first + count)]
        for task in tasks if not annotated else ():
            del task["annotations"]
        return self._send("POST", f"/api/projects/{self.id}/import?return_task_ids=1", tasks)["task_ids"]

    def _task(self, number: int) -> dict[str, Any]:
        data = {"image": str(self.image), "subject": f"team/{number % 4}", "number": number}
        return build_task(data, _DRAWN + number % 3, np.zeros(N, np.int8), frame_size=FRAME)

    def annotate(self, task: int, shift: int = 0, **fields: Any) -> int:
        """Submit an annotation; its id."""
        return self._send("POST", f"/api/tasks/{task}/annotations/", {"result": _result(shift)} | fields)["id"]

    def correct(self, annotation: int, shift: int) -> None:
        self._send("PATCH", f"/api/annotations/{annotation}/", {"result": _result(shift)})

    def mark(self, annotation: int, **fields: Any) -> None:
        self._send("PATCH", f"/api/annotations/{annotation}/", fields)

    def remove_annotation(self, annotation: int) -> None:
        self._send("DELETE", f"/api/annotations/{annotation}/")

    def skip(self, task: int) -> None:
        self._send("POST", f"/api/tasks/{task}/annotations/", {"result": [], "was_cancelled": True})

    def edit(self, task: int, **data: Any) -> None:
        held = self._send("GET", f"/api/tasks/{task}/")["data"]
        self._send("PATCH", f"/api/tasks/{task}/", {"data": held | data})

    def remove(self, *tasks: int) -> None:
        for task in tasks:
            self._send("DELETE", f"/api/tasks/{task}/")

    def act(self, action: str, tasks: list[int]) -> None:
        """One of the data manager's actions on some tasks at once."""
        chosen = {"selectedItems": {"all": False, "included": tasks}}
        self._send("POST", f"/api/dm/actions?id={action}&project={self.id}", chosen)

    def predict(self, task: int) -> None:
        prediction = {"task": task, "project": self.id, "result": _result(1), "model_version": "v1", "score": 0.5}
        self._send("POST", "/api/predictions/", prediction)

    def draft(self, task: int) -> None:
        self._send("POST", f"/api/tasks/{task}/drafts", {"result": _result(2)})

    def change(self, **fields: Any) -> None:
        """Of the project itself."""
        self._send("PATCH", f"/api/projects/{self.id}/", fields)

    def delete(self) -> None:
        self._send("DELETE", f"/api/projects/{self.id}/")

    def content(self) -> dict[int, dict[str, Any]]:
        """Everything that the server holds, by its export: another way than the pull's."""
        query = {"exportType": "JSON", "download_all_tasks": "true"}
        reply = self._http.get(f"/api/projects/{self.id}/export", params=query)
        reply.raise_for_status()
        return {task["id"]: task for task in json.loads(reply.content)}

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._http.request(method, path, json=body)
        reply.raise_for_status()
        return reply.json() if reply.content else None


def _result(shift: int) -> list[dict[str, Any]]:
    task = build_task({}, _DRAWN + shift % 5, np.zeros(N, np.int8), frame_size=FRAME)
    return task["annotations"][0]["result"]


def source_of(project: LabelledProject, url: str, token_env: str, **settings: Any) -> LabelStudioSource:
    settings = {"subject": SubjectRule(field="subject"), "page_size": 3} | settings
    return LabelStudioSource(
        kind="label_studio", name="server", url=url, project=project.id, token_env=token_env, **settings
    )


def assert_equal_to_server(raw: Path, project: LabelledProject) -> None:
    """See that a store holds all tasks and annotations of a project as they are, and nothing else."""
    theirs = project.content()
    ours = {record.payload["id"]: record.payload for record in read_raw(raw)}
    assert sorted(ours) == sorted(theirs)
    for identity, task in ours.items():
        exported = theirs[identity]
        for name in ("data", "updated_at", "created_at", "inner_id"):
            assert task[name] == exported[name], (identity, name)
        annotations = {annotation["id"]: annotation for annotation in exported["annotations"]}
        assert [annotation["id"] for annotation in task["annotations"]] == sorted(annotations)
        for annotation in task["annotations"]:
            same = annotations[annotation["id"]]
            assert annotation == {name: same[name] for name in annotation}, identity
