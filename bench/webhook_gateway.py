"""The webhook gateway under load: how long Label Studio waits for its answer.

    python bench/webhook_gateway.py
    python bench/webhook_gateway.py --seconds 60 --rate 100

Deliveries of 42 KB, as Label Studio sends them for a face of 80 keypoints, each over a connection of its own, at a
fixed rate whatever the answers take (open loop); a time counts from when its delivery was due, so a late one can't
hide behind another. The load comes from a process of its own. In turns of `--turn` seconds:

- `gateway`: `fpenet gateway serve` as it is delivered: secret, limits, journal with fsync, metrics, and a forwarder
  whose Prefect is down.
- `plain`: a FastAPI handler that parses the JSON and answers; it writes nothing and forgets all.

And at the end the limit: a line appended to a file and fsynced, one after the other, on the same disk, which `--disk`
chooses; the default is that of temporary files. The defaults take about 40 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from hardware import hardware

from schemas.label_studio_config import labelling_config
from tasks.gateway.journal import read_status
from tasks.gateway.settings import LABEL_STUDIO_SECRET_ENV, SECRET_HEADER

SECRET = "a secret for the benchmark alone"
PATH = "/webhooks/label-studio"
HOST = "127.0.0.1"
FSYNCS = 500
LABEL_STUDIO_WAITS_MS = 1000
NOBODY = "http://127.0.0.1:9/api"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100, help="deliveries a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of load for each (default: %(default)s)")
    parser.add_argument("--turn", type=float, default=5, help="seconds of one turn (default: %(default)s)")
    parser.add_argument("--disk", type=Path, default=None, metavar="DIR", help="where the journal is kept")
    chosen = parser.parse_args()
    names = ("fastapi", "uvicorn", "starlette", "h11")
    print(f"{hardware()}, load average {os.getloadavg()[0]:.1f}; ", end="")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names))
    turns = max(1, round(chosen.seconds / chosen.turn))
    with tempfile.TemporaryDirectory(dir=chosen.disk) as folder:
        times = _take_turns(Path(folder), rate=chosen.rate, turn_s=chosen.turn, turns=turns)
        kept = read_status(Path(folder) / "journal")
        seconds = _fsyncs(Path(folder), rate=math.inf, number=FSYNCS)
    _report(times, chosen.rate)
    print(f"the disk can do {len(seconds) / sum(seconds):,.0f} fsyncs a second one after the other")
    print(f"journal: {kept.pending:,} entries of {len(times['gateway']):,} deliveries")


def _take_turns(folder: Path, *, rate: float, turn_s: float, turns: int) -> dict[str, list[float]]:
    with _gateway(folder) as gateway_port, _plain() as plain_port:
        ports = {"gateway": gateway_port, "plain": plain_port}
        times: dict[str, list[float]] = {name: [] for name in (*ports, "limit")}
        for _ in range(turns):
            for name, port in ports.items():
                times[name] += _in_a_process(port, rate, turn_s)
            times["limit"] += _fsyncs(folder, rate=rate, number=round(rate * turn_s))
    return times


@contextmanager
def _gateway(folder: Path) -> Iterator[int]:
    port = _free_port()
    command = [sys.executable, "-m", "flows.entry.cli", "gateway", "serve"]
    command += ["--port", str(port), "--journal", str(folder / "journal")]
    environment = os.environ | {LABEL_STUDIO_SECRET_ENV: SECRET, "PREFECT_API_URL": NOBODY}
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    with _awaited(process, port):
        yield port


@contextmanager
def _plain() -> Iterator[int]:
    port = _free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve_plain, args=(port,), daemon=True)
    process.start()
    with _awaited(process, port):
        yield port


@contextmanager
def _awaited(process: subprocess.Popen | BaseProcess, port: int) -> Iterator[None]:
    try:
        while not _answers(port):
            ended = process.poll() if isinstance(process, subprocess.Popen) else process.exitcode
            if ended is not None:
                raise SystemExit(f"the server for port {port} ended with status {ended} before it answered")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait() if isinstance(process, subprocess.Popen) else process.join()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def _serve_plain(port: int) -> None:
    app = FastAPI()

    @app.post(PATH)
    async def take(request: Request) -> dict[str, Any]:
        payload = await request.json()
        return {"action": payload["action"]}

    uvicorn.run(app, host=HOST, port=port, log_level="warning")


def _answers(port: int) -> bool:
    head = f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    try:
        asyncio.run(_exchange(port, head))
    except OSError:
        return False
    return True


def _in_a_process(port: int, rate: float, seconds: float) -> list[float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_load, (port, rate, seconds))


def _load(port: int, rate: float, seconds: float) -> list[float]:
    """Seconds from when each delivery was due until its answer was there."""
    requests = [_request(number) for number in range(1, 65)]
    return asyncio.run(_open_loop(port, requests, rate, round(rate * seconds)))


async def _open_loop(port: int, requests: list[bytes], rate: float, number: int) -> list[float]:
    """A delivery that is refused counts as one that never was answered."""
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.2

    async def one(index: int) -> float:
        due = start + index / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        try:
            status = await _exchange(port, requests[index % len(requests)])
        except OSError:
            return math.inf
        return loop.time() - due if status.split()[1:2] in ([b"200"], [b"202"]) else math.inf

    return await asyncio.gather(*(one(index) for index in range(number)))


async def _exchange(port: int, request: bytes) -> bytes:
    """Over a connection of its own; the answer's first line."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    status = await reader.readline()
    writer.close()
    return status


def _request(number: int) -> bytes:
    body = json.dumps(_payload(number)).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}{SECRET_HEADER}: {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _payload(number: int) -> dict[str, Any]:
    """An annotation of 80 keypoints with the project around it: about 42 KB."""
    region = {"original_width": 1280, "original_height": 960, "image_rotation": 0, "from_name": "kp"}
    region |= {"to_name": "image", "type": "keypointlabels", "origin": "manual"}
    points = [
        region
        | {
            "id": f"{i:010x}",
            "value": {"x": i / 81 * 100, "y": i / 83 * 100, "width": 0.3, "keypointlabels": [f"P{i}"]},
        }
        for i in range(1, 81)
    ]
    annotation = {"id": number, "result": points, "was_cancelled": False, "task": number, "project": 1}
    config = labelling_config(80)
    project = {"id": 1, "title": "faces", "label_config": config, "token": "x" * 40}
    project["parsed_label_config"] = {"kp": {"labels_attrs": {f"P{i}": {"value": f"P{i}"} for i in range(1, 81)}}}
    payload = {"action": "ANNOTATION_UPDATED", "annotation": annotation, "project": project, "task": {"id": number}}
    return payload | {"rest": "x" * max(0, 42_000 - len(json.dumps(payload)))}


def _fsyncs(folder: Path, *, rate: float, number: int) -> list[float]:
    """Seconds from when each line was due until it was on disk; with an infinite rate, until the one before was."""
    times, start = [], time.perf_counter()
    with (folder / "fsync").open("ab", buffering=0) as file:
        for index in range(number):
            due = time.perf_counter() if math.isinf(rate) else start + index / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            file.write(b"x" * 200)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - due)
    return times


def _report(times: dict[str, list[float]], rate: float) -> None:
    size = len(json.dumps(_payload(1)))
    print(f"{rate:g} deliveries a second, bodies of {size:,} bytes; milliseconds from when due to answered")
    print("| | deliveries | p50 | p99 | max | refused or over 1 s |")
    print("|---|---|---|---|---|---|")
    for name, seconds in times.items():
        _row(name, [value * 1e3 for value in seconds])
    gateway, plain, limit = (statistics.median(times[name]) for name in ("gateway", "plain", "limit"))
    print(
        f"at the median gateway : plain = {gateway / plain:.1f} x, gateway : limit = {gateway / limit:.1f} x; ",
        end="",
    )


def _row(name: str, milliseconds: list[float]) -> None:
    ordered = sorted(milliseconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    late = sum(value > LABEL_STUDIO_WAITS_MS for value in ordered)
    print(
        f"| {name} | {len(ordered):,} | {statistics.median(ordered):.1f} | {p99:.1f} | {ordered[-1]:.1f} | {late} |"
    )


if __name__ == "__main__":
    main()
