"""What is installed here, and what can be built and run here."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from deploy.builders.base import Probe
from deploy.builders.registry import BUILDERS
from deploy.gpus import Gpu, find_gpu
from deploy.targets import Target, load_targets

PACKAGES = (
    "fpenet-workflow",
    "tensorflow",
    "keras",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "prefect",
    "mlflow",
    "label-studio-sdk",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt",
    "cuda-python",
    "asyncssh",
)


@dataclass(frozen=True)
class TargetHealth:
    """Whether a target's engine can be built here and run here; `why_not` is '' for what can be done."""

    name: str
    title: str
    build_why_not: str
    run_why_not: str


@dataclass(frozen=True)
class Health:
    """This machine.

    Attributes:
        python, system, cpus: interpreter, kernel and processor, cores.
        packages: name -> version, None where it is not installed.
        gpu: NVIDIA GPUs.
        builders: name -> probe.
        targets: every target of the catalogue.
    """

    python: str
    system: str
    cpus: int
    packages: dict[str, str | None]
    gpu: Gpu
    builders: dict[str, Probe]
    targets: tuple[TargetHealth, ...]


def examine() -> Health:
    """Look at packages, GPU and builders; each builder is tried in a process of its own."""
    builders = {name: builder.probe() for name, builder in BUILDERS.items()}
    return Health(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        cpus=os.cpu_count() or 1,
        packages=installed(PACKAGES),
        gpu=find_gpu(),
        builders=builders,
        targets=tuple(_target_health(target, builders[target.builder]) for target in load_targets().values()),
    )


def installed(packages: Iterable[str]) -> dict[str, str | None]:
    """Versions, without importing anything."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _target_health(target: Target, probe: Probe) -> TargetHealth:
    return TargetHealth(
        name=target.name,
        title=target.title,
        build_why_not="" if probe.available else probe.reason,
        run_why_not=BUILDERS[target.builder].not_runnable(target),
    )
