"""A program that stands in for `nvidia-smi` on a machine with several GPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SCRIPT = """#!/bin/sh
listed='{listed}'
for option; do
    case $option in
        --id=*) listed=$(echo "$listed" | grep "^${{option#--id=}}:\\|:${{option#--id=}}:") ;;
    esac
done
[ -n "$listed" ] || {{ echo 'No devices were found'; exit 6; }}
echo "$listed" | cut -d : -f 3
"""


def install_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, *gpus: str) -> None:
    """Have `nvidia-smi`, by name, list these lines; GPU 0 has the UUID GPU-0. What the environment hides, is not."""
    listed = "\n".join(f"{index}:GPU-{index}:{line}" for index, line in enumerate(gpus))
    program = folder / "stand-in" / "nvidia-smi"
    program.parent.mkdir(parents=True)
    program.write_text(_SCRIPT.format(listed=listed))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
