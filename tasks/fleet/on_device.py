"""The device's end of `tasks.fleet.work_pool`: does what is asked for in a folder, until it is closed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.devices import WORKERS_PYTHON
from deploy.shells.base import Shell
from deploy.shells.local import LocalShell
from schemas.errors import FpenetError, StorageError
from schemas.storage import read_json, write_bytes, write_json
from tasks.fleet.work_pool import ALIVE, ANSWER, FILE, OPEN, POLL_S, REQUEST

COUNT_S = 1.0
LEFT_ALONE_S = 3600.0
"""With nothing asked for in so long, whoever opened the shell is taken to be gone."""


def serve(session: Path, directory: str, name: str) -> int:
    """Answer requests until the shell is closed, or nobody asks for anything any more.

    Args:
        session: the folder.
        directory: where this device keeps its engines.

    Returns:
        How many requests there were.
    """
    shell, number = LocalShell(name, directory), 1
    with _counting(session):
        asked_at = time.monotonic()
        while _is_open(session) and time.monotonic() - asked_at < LEFT_ALONE_S:
            if (session / f"{number:04d}.{REQUEST}").is_file():
                with _while_open(session):
                    _answer(shell, session, f"{number:04d}")
                number, asked_at = number + 1, time.monotonic()
            else:
                time.sleep(POLL_S)
    return number - 1


def _is_open(session: Path) -> bool:
    """A folder says nothing: a write that is late brings it back."""
    return (session / OPEN).is_file()


@contextmanager
def _while_open(session: Path) -> Iterator[None]:
    """What can't be read or written in a folder that is being removed is no failure."""
    try:
        yield
    except (OSError, StorageError):
        if _is_open(session):
            raise


def _answer(shell: Shell, session: Path, number: str) -> None:
    asked = read_json(session / f"{number}.{REQUEST}")
    file = session / f"{number}.{FILE}"
    try:
        answer: dict[str, Any] = {"result": _done(shell, asked["method"], file, asked["arguments"])}
    except FpenetError as error:
        answer = {"error": type(error).__name__, "words": str(error)}
    if _is_open(session):
        write_json(session / f"{number}.{ANSWER}", answer)


def _done(shell: Shell, method: str, file: Path, arguments: dict[str, Any]) -> Any:
    if method == "directory":
        return str(shell.directory)
    if method == "run":
        command = [sys.executable if word == WORKERS_PYTHON else word for word in arguments["command"]]
        return asdict(shell.run(command, timeout_s=arguments["timeout_s"]))
    if method == "write":
        return shell.put(file, arguments["remote"])
    if method == "read":
        content = shell.read(arguments["remote"])
        if content is not None:
            write_bytes(file, content)
        return content is not None
    return {"sha256": shell.sha256, "remove": shell.remove, "list": shell.list}[method](arguments["remote"])


@contextmanager
def _counting(session: Path) -> Iterator[None]:
    """Count up in a thread, so that a long build is no silence."""
    over = threading.Event()

    def count() -> None:
        number = 0
        while not over.is_set() and _is_open(session):
            with _while_open(session):
                write_bytes(session / ALIVE, str(number := number + 1).encode())
            over.wait(COUNT_S)

    thread = threading.Thread(target=count, name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
