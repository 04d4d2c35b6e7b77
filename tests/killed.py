"""Run code in a process that is killed by SIGKILL at its n-th `os.fsync`: just before, or just after, a rename."""

import signal
import subprocess
import sys

_KILLER = """
import os, signal
calls, real = 0, os.fsync
def fsync(descriptor):
    global calls
    calls += 1
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
"""


def killed_at_fsync(at: int, code: str, *arguments: object) -> bool:
    """Run `code`; True if it was killed, False if it was done before its `at`-th fsync."""
    command = [sys.executable, "-c", _KILLER.format(at=at) + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0
