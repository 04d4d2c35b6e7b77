"""NVIDIA GPUs of this machine, by the driver's own tool."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
NVIDIA_SMI_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Gpu:
    """`devices`: a line each with name, compute capability and driver; empty where there is none, with `reason`."""

    devices: tuple[str, ...]
    reason: str

    @property
    def compute_capability(self) -> int | None:
        """Of the first, 86 for 8.6."""
        parts = self.devices[0].split(",") if self.devices else []
        digits = parts[1].strip().replace(".", "") if len(parts) == 3 else ""
        return int(digits) if digits.isdigit() else None


def find_gpu() -> Gpu:
    """What nvidia-smi lists."""
    if shutil.which(NVIDIA_SMI[0]) is None:
        return Gpu((), "no NVIDIA driver (nvidia-smi is not here)")
    try:
        listed = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S)
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
