"""Work that may crash or hang, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """How a process ended: its output and errors together, and `failure`, a sentence, or '' for success."""

    output: str
    failure: str
    seconds: float


def run_module(module: str, *arguments: str, timeout_s: float) -> Finished:
    """Run `python -m module arguments` to its end, or kill it after `timeout_s` seconds."""
    command = [sys.executable, "-m", module, *arguments]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return Finished(output, f"took more than {timeout_s:g} s and was stopped", time.perf_counter() - started)
    output = done.stdout.decode(errors="replace")
    return Finished(output, _failure(done.returncode, output), time.perf_counter() - started)


def _failure(returncode: int, output: str) -> str:
    if returncode == 0:
        return ""
    if returncode < 0:
        return f"crashed with {signal.Signals(-returncode).name}"
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with code {returncode}"
