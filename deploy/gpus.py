"""NVIDIA GPUs of this machine, by the driver's own tool."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
NVIDIA_SMI_TIMEOUT_S = 30.0
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """`devices`: a line each with name, compute capability and driver; empty where there is none, with `reason`."""

    devices: tuple[str, ...]
    reason: str

    @property
    def compute_capability(self) -> int | None:
        """Of the first, 86 for 8.6."""
        return read_gpu(self.devices[0])[1] if self.devices else None


def read_gpu(line: str) -> tuple[str | None, int | None, str | None]:
    """Name, compute capability and driver of a line of nvidia-smi; a Jetson's leaves the second out."""
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != 3:
        return None, None, None
    digits = parts[1].replace(".", "")
    return parts[0], int(digits) if digits.isdigit() else None, parts[2]


def visible_gpus() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names, by number or UUID; None where it is not set: all."""
    names = os.environ.get(VISIBLE)
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def find_gpu() -> Gpu:
    """What nvidia-smi lists; where CUDA_VISIBLE_DEVICES is set, what it names, in its order."""
    if shutil.which(NVIDIA_SMI[0]) is None:
        return Gpu((), "no NVIDIA driver (nvidia-smi is not here)")
    names = visible_gpus()
    if names is None:
        return _listed()
    devices: list[str] = []
    for name in names:
        # A slice of a GPU (MIG) can't be asked for; its GPU is taken to be the first.
        found = _listed() if name.startswith("MIG-") else _listed(f"--id={name}")
        if found.reason and not devices:
            return Gpu((), f"{found.reason} ({VISIBLE}={name})")
        if found.reason:  # what comes behind a name that is none, CUDA does not see
            break
        devices += found.devices[:1]
    return Gpu(tuple(devices), "" if devices else f"{VISIBLE} names none")


def _listed(*options: str) -> Gpu:
    command = (*NVIDIA_SMI, *options)
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gpu((), f"nvidia-smi failed: {error}")
    if listed.returncode:
        return Gpu((), f"nvidia-smi failed: {(listed.stderr or listed.stdout).strip()}")
    return Gpu(tuple(listed.stdout.strip().splitlines()), "")


def needs_gpu(compute_capability: int) -> str:
    """Why an engine for one GPU generation can't run here, or ''."""
    found = find_gpu().compute_capability
    if found == compute_capability:
        return ""
    here = "" if found is None else f"; here is SM{found}"
    return f"needs a GPU (SM{compute_capability}){here}"
