"""Folders that look like devices: programs that stand in for `trtexec`, `dpkg-query` and `nvidia-smi`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("trtexec_stand_in.py")
XAVIER: dict[str, Any] = {"tensorrt": "8.5.2", "compute_capability": 72, "gpu": "Xavier", "jetpack": "5.1.2"}
NANO: dict[str, Any] = {"tensorrt": "8.2.1", "compute_capability": 53, "gpu": "NVIDIA Tegra X1", "jetpack": "4.6.1"}
ORIN: dict[str, Any] = {"tensorrt": "10.3.0", "compute_capability": 87, "gpu": "Orin", "jetpack": "6.1"}


@dataclass(frozen=True)
class StandIn:
    """`trtexec`: the program. `path`: a folder for the front of PATH, for what tells what a device is."""

    trtexec: str
    path: Path
    settings: Path

    def change(self, **settings: Any) -> None:
        """Pretend something else from now on: `fail`, `tensorrt`, `shift_px`, ..."""
        self.settings.write_text(json.dumps({**json.loads(self.settings.read_text()), **settings}))


def stand_in(folder: Path, device: dict[str, Any] | None = None, **settings: Any) -> StandIn:
    """Programs in `folder` that pretend to be those of `device`, a Xavier by default.

    A shell finds `trtexec` by its path. What the device is, beside that, is asked of `dpkg-query`, `nvidia-smi` and
    `df`, by name: what stands in for these looks for `device.json` in the directory where it is started and in those
    above, so that devices of several kinds in one test each have their own: put the device's directory below
    `folder`. Where there is none they are what they are elsewhere.

    Args:
        settings: beside those of `trtexec_stand_in`: `jetpack`, `nvidia_smi` (its line), `free_kib`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "device.json"
    path.write_text(json.dumps({**(device or XAVIER), **settings}))
    python = shlex.quote(sys.executable)
    _program(folder / "trtexec-stand-in", f'STAND_IN_DEVICE={shlex.quote(str(path))} exec {python} {PROGRAM} "$@"')
    for tool in ("dpkg-query", "nvidia-smi", "df"):
        _program(folder / "bin" / tool, f'exec {python} -S {shlex.quote(str(Path(__file__)))} {tool} "$@"')
    return StandIn(str(folder / "trtexec-stand-in"), folder / "bin", path)


def _program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _settings() -> dict[str, Any]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "device.json").is_file():
            return json.loads((folder / "device.json").read_text())
    return {}


def _answer(tool: str, arguments: list[str]) -> str:
    settings = _settings()
    if tool == "df" and "free_kib" in settings:
        return f"stand-in 100 50 {settings['free_kib']} 50% /\n"
    if tool == "df":
        return subprocess.run(["/bin/df", *arguments], capture_output=True, text=True, check=True).stdout
    return settings.get({"dpkg-query": "jetpack", "nvidia-smi": "nvidia_smi"}[tool], "")


if __name__ == "__main__":
    sys.stdout.write(_answer(sys.argv[1], sys.argv[2:]))
