"""Pulling and validating a Label Studio project, against the server's own plain export.

    python bench/label_studio_pull.py
    python bench/label_studio_pull.py --tasks 10000 --repetitions 3

A Label Studio of its own is started in a temporary folder, and filled with tasks of 80 keypoints, every tenth of them
occluded. Then, taking turns:

- `export`: `GET /api/projects/N/export?exportType=JSON`, the bytes received and nothing done with them. Nothing gets
  the annotations out of this server faster. It keeps a copy of each export on its disk; a pull does not use it.
- `pull + validate`: into an empty workspace: fetched, stored, every rule applied.
- `10 changed`: that many annotations are corrected, then pulled. Part of that is the question whether any task was
  deleted. `1 deleted`: a task is deleted, then found; `nothing`: a pull when nothing was done.

All tasks show one tiny image on this machine, so that no image is fetched: that is another matter, and done once. The
server computes on one core, so a second one should be free. The default takes about two minutes, most of it the start
of the server; 10,000 tasks take about half an hour.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from hardware import hardware

from schemas.config import ValidationRules
from schemas.geometry import tight_square
from schemas.label_studio_config import labelling_config
from schemas.label_studio_task import build_task
from schemas.raw import read_raw
from schemas.sources import LabelStudioSource, SubjectRule
from tasks.images import ImageIndex
from tasks.label_studio.client import Connection, connected
from tasks.label_studio.server import HEALTH_PATH, HOST, LabelStudioServer
from tasks.pull import PullResult, pull
from tasks.validate import validate
from tasks.workspace import Workspace

N, WIDTH, HEIGHT = 80, 128, 80
IMPORTED_AT_ONCE = 250
TOKEN, TOKEN_ENV = "0123456789abcdef0123456789abcdef01234567", "FPENET_BENCH_TOKEN"
EXPORT, FULL, CHANGED, DELETED, NOTHING = "export", "pull + validate", "changed", "1 deleted", "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500, help="tasks in the project (default: %(default)s)")
    parser.add_argument("--changed", type=int, default=10, help="tasks that change (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="medians are of so many (default: %(default)s)")
    parser.add_argument("--url", help="a server that is up, instead of one of its own; its token in " + TOKEN_ENV)
    chosen = parser.parse_args()
    os.environ.setdefault(TOKEN_ENV, TOKEN)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with _server(folder, chosen.url) as url, connected(url, os.environ[TOKEN_ENV]) as connection:
            print(f"{hardware()}; Label Studio {connection.version()}")
            bench = _fill(connection, folder, chosen.tasks)
            for repetition in range(chosen.repetitions):
                bench.measure(chosen.changed, repetition)
            bench.tell(chosen.changed)
            connection.files.delete(f"/api/projects/{bench.project}/").raise_for_status()


@dataclass
class Bench:
    """A filled project.

    Attributes:
        annotations: annotation of each task, the tasks that are yet to be deleted last.
        seconds: of what was measured.
    """

    connection: Connection
    project: int
    folder: Path
    annotations: dict[int, int]
    seconds: dict[str, list[float]]
    received: int = 0

    def measure(self, changed: int, repetition: int) -> None:
        workspace = Workspace(self.folder / f"workspace-{repetition}")
        self._time(EXPORT, self._export)
        self._time(FULL, lambda: self._pull_and_validate(workspace))
        self._time(NOTHING, lambda: self._pull(workspace, fetched=0))
        for number, annotation in enumerate(list(self.annotations.values())[:: len(self.annotations) // changed]):
            if number < changed:
                self._correct(annotation, repetition)
        self._time(CHANGED, lambda: self._pull(workspace, fetched=changed))
        task, _ = self.annotations.popitem()
        self.connection.files.delete(f"/api/tasks/{task}/").raise_for_status()
        self._time(DELETED, lambda: self._pull(workspace, deleted=1))

    def tell(self, changed: int) -> None:
        medians = {way: statistics.median(taken) for way, taken in self.seconds.items()}
        rate = len(self.annotations) / medians[FULL]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{len(self.annotations):,} tasks x {N} keypoints, {self.received / 1e6:.1f} MB exported")
        print("| what | median s | all s |\n|---|---|---|")
        for way, taken in self.seconds.items():
            name = f"{changed} {way}" if way == CHANGED else way
            print(f"| {name} | {medians[way]:.2f} | {', '.join(f'{each:.2f}' for each in taken)} |")
        print(f"pull + validate : export = {medians[FULL] / medians[EXPORT]:.2f}; {rate:,.0f} tasks/s")
        print(f"peak memory of this process: {peak:,.0f} MiB")

    def _time(self, way: str, run: Callable[[], object]) -> None:
        started = time.perf_counter()
        run()
        self.seconds.setdefault(way, []).append(time.perf_counter() - started)
        print(f"  {way}: {self.seconds[way][-1]:.2f} s", flush=True)

    def _export(self) -> None:
        path = f"/api/projects/{self.project}/export"
        reply = self.connection.files.get(path, params={"exportType": "JSON"}, timeout=None)
        reply.raise_for_status()
        self.received = len(reply.content)

    def _pull(self, workspace: Workspace, **expected: int) -> PullResult:
        source = LabelStudioSource(
            kind="label_studio",
            name="bench",
            url=self.connection.url,
            project=self.project,
            token_env=TOKEN_ENV,
            subject=SubjectRule(field="subject"),
        )
        result = pull(source, workspace, num_keypoints=N)
        took = result.details["tasks"]
        if any(took[name] != number for name, number in expected.items()):
            raise AssertionError(f"expected {expected}: {took}")
        return result

    def _pull_and_validate(self, workspace: Workspace) -> None:
        result = self._pull(workspace, fetched=len(self.annotations))
        index = ImageIndex(workspace.image_index)
        found = validate(read_raw(result.raw), num_keypoints=N, rules=ValidationRules(), index=index)
        index.close()
        if found.counts.accepted != len(self.annotations):
            raise AssertionError(f"{found.counts}: {found.violations[:3]}")

    def _correct(self, annotation: int, seed: int) -> None:
        result = _task(10_000_000 + seed * 1000 + annotation, "")["annotations"][0]["result"]
        self.connection.files.patch(f"/api/annotations/{annotation}/", json={"result": result}).raise_for_status()


def _fill(connection: Connection, folder: Path, tasks: int) -> Bench:
    image = folder / "frame.bmp"
    cv2.imwrite(str(image), np.zeros((HEIGHT, WIDTH), np.uint8))
    created = connection.files.post("/api/projects/", json={"title": "bench", "label_config": labelling_config(N)})
    project = created.json()["id"]
    for start in range(0, tasks, IMPORTED_AT_ONCE):
        some = [_task(number, str(image)) for number in range(start, min(start + IMPORTED_AT_ONCE, tasks))]
        connection.files.post(f"/api/projects/{project}/import", json=some).raise_for_status()
        print(f"  filled {start + len(some):,} of {tasks:,}", flush=True)
    return Bench(connection, project, folder, _annotations(connection, project), {})


def _annotations(connection: Connection, project: int) -> dict[int, int]:
    params: dict[str, Any] = {"project": project, "page_size": 100_000, "include": "id,annotations", "fields": "all"}
    reply = connection.files.get("/api/tasks", params=params, timeout=None)
    return {task["id"]: task["annotations"][0]["id"] for task in sorted(reply.json()["tasks"], key=lambda t: t["id"])}


def _task(number: int, image: str) -> dict[str, Any]:
    random = np.random.default_rng(number)
    points_N2 = random.uniform((20, 5), (100, 70), (N, 2)).astype(np.float32)
    flags_N = (random.random(N) < 0.1).astype(np.int8)
    data = {"image": image, "subject": "bench/one", "number": number}
    return build_task(data, points_N2, flags_N, frame_size=(WIDTH, HEIGHT), tight_box=tight_square(points_N2))


@contextmanager
def _server(folder: Path, url: str | None) -> Iterator[str]:
    """The address of a server that is up."""
    if url is not None:
        yield url
        return
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    server = LabelStudioServer(folder / "label-studio", port, os.environ[TOKEN_ENV])
    server.check()
    server.data.mkdir()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(server.command(), stdout=log, stderr=log, env=server.variables())
        try:
            while not _is_up(f"{server.url}{HEALTH_PATH}"):
                if process.poll() is not None:
                    raise RuntimeError((folder / "server.log").read_text(errors="replace")[-2000:])
                time.sleep(0.5)
            yield server.url
        finally:
            process.kill()
            process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
