"""What a measurement runs on: for the first line that a bench prints."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
TELLING = ("amx_bf16", "avx512_bf16", "avx512_vnni")
"""Instructions that make bfloat16 or INT8 fast."""


def hardware() -> str:
    """The processor with what it is fast at, and how many cores."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or platform.machine()
    fast = [word for word in TELLING if word in told.get("flags", "").split()]
    return f"{name}, {', '.join([*fast, f'{os.cpu_count()} cores'])}"
