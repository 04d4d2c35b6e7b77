"""Work that may crash or hang, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """How a process ended: its output and errors together, and `failure`, a sentence, or '' for success."""

    output: str
    failure: str
    seconds: float


def run_module(module: str, *arguments: str, timeout_s: float) -> Finished:
    """Run `python -m module arguments` to its end, or kill it after `timeout_s` seconds."""
    return run_program([sys.executable, "-m", module, *arguments], timeout_s=timeout_s)


def run_program(command: Sequence[str], *, timeout_s: float, directory: Path | None = None) -> Finished:
    """Run a program to its end, or kill it after `timeout_s` seconds; it starts in `directory`."""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            cwd=directory,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return Finished(output, too_slow(timeout_s), time.perf_counter() - started)
    except OSError as error:  # not there, not executable, or of another machine
        return Finished("", f"{error.filename or command[0]}: {error.strerror}", time.perf_counter() - started)
    output = done.stdout.decode(errors="replace")
    return Finished(output, failure_of(done.returncode, output), time.perf_counter() - started)


def too_slow(timeout_s: float) -> str:
    return f"took more than {timeout_s:g} s and was stopped"


def failure_of(returncode: int, output: str) -> str:
    """Why a process failed, of its exit status (negative: the signal that ended it); '' if it did not."""
    if returncode == 0:
        return ""
    if returncode < 0:
        return f"crashed with {signal.Signals(-returncode).name}"
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with code {returncode}"
