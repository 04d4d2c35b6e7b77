"""The devices of a fleet: what each is, and how to reach it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from deploy.targets import Target, TensorRtRtxTarget, TrtexecTarget, load_targets, with_names
from schemas.errors import SpecError, nearest
from schemas.yamlspec import SpecModel, load_spec

FLEET = Path(__file__).with_name("devices.yaml")

Text = Annotated[str, Field(min_length=1)]
Ring = Literal["canary", "main"]
RINGS: tuple[Ring, ...] = ("canary", "main")


WORKERS_PYTHON = "python of the worker"
"""Stands for the interpreter that a device's worker runs in, whose path is known there."""


class LocalReach(SpecModel):
    """This machine; `directory` is where it keeps its engines, `trtexec` the program where it builds by it.

    `python`: the interpreter with this project; null is the one that runs now.
    """

    kind: Literal["local"]
    directory: Text
    trtexec: Text = "trtexec"
    python: Text | None = None


class SshReach(SpecModel):
    """A device with an SSH server.

    Attributes:
        directory: where the device keeps its engines, on the device.
        key_file: private key; null takes those of the SSH agent or of ~/.ssh.
        known_hosts: file with the device's host key; null takes ~/.ssh/known_hosts. It is always checked.
        connect_timeout_s: after which it counts as offline.
        trtexec: the program on the device; JetPack keeps it in /usr/src/tensorrt/bin.
        python: the interpreter on the device that has this project; null where it has none, as a Jetson, whose
            engines trtexec builds and runs.
    """

    kind: Literal["ssh"]
    host: Text
    port: Annotated[int, Field(gt=0, lt=65536)] = 22
    user: Text | None = None
    directory: Text
    key_file: Text | None = None
    known_hosts: Text | None = None
    connect_timeout_s: PositiveFloat = 10.0
    trtexec: Text = "/usr/src/tensorrt/bin/trtexec"
    python: Text | None = None


class WorkPoolReach(SpecModel):
    """A device with a Prefect worker of its own.

    Attributes:
        deployment: `flow/deployment` of `flows/on_device.py` on the device's work pool.
        directory: where the device keeps its engines, on the device.
        exchange: directory that both can reach, as it is called here; commands and files go through it. Whoever may
            write there may do on the device what its worker may.
        exchange_there: as the device calls it; null is the same.
        offline_after_s: a run that nobody has started after this long means that the device is offline; so does a
            silence of this length.
        trtexec: the program on the device.
        python: the interpreter on the device that has this project; null is its worker's own.
    """

    kind: Literal["work_pool"]
    deployment: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
    directory: Text
    exchange: Text
    exchange_there: Text | None = None
    offline_after_s: PositiveFloat = 60.0
    trtexec: Text = "trtexec"
    python: Text | None = None


class Device(SpecModel):
    """One device; `name` is its key in the file, and names its record in a workspace."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    target: str
    ring: Ring
    reach: Annotated[LocalReach | SshReach | WorkPoolReach, Field(discriminator="kind")]


class Fleet(SpecModel):
    devices: dict[str, Device]

    @model_validator(mode="before")
    @classmethod
    def _name_devices(cls, data: Any) -> Any:
        return with_names(data, "devices")


def load_devices(path: Path | str | None = None) -> dict[str, Device]:
    """Devices by name, in the file's order.

    Args:
        path: the fleet's file, such as a configuration's `devices`; None takes the one that comes with the project.

    Raises:
        SpecError: the file has an unknown key, a bad value, or a device of a target that the catalogue does not have
            or whose engines this project does not run.
    """
    path = Path(path or FLEET)
    known = load_targets()
    devices = load_spec(Fleet, path).devices
    for device in devices.values():
        if device.target not in known:
            raise SpecError(
                f"{path}: devices.{device.name}.target",
                f"there is no target '{device.target}'{nearest(device.target, known)}; known: {', '.join(known)}",
            )
        _require_runnable(f"{path}: devices.{device.name}.target", known[device.target], known)
    return devices


def _require_runnable(where: str, target: Target, known: dict[str, Target]) -> None:
    if isinstance(target, TensorRtRtxTarget):
        others = ", ".join(name for name, other in known.items() if not isinstance(other, TensorRtRtxTarget))
        raise SpecError(
            where,
            f"engines of target '{target.name}' are built ahead of time and bundled, not run by this project, so "
            f"none passes on a device; hand it a bundle (`fpenet bundle --target {target.name}`), or make it one of "
            f"the target of its own GPU: {others}",
        )


def program_of(device: Device, target: Target) -> str:
    """What builds and runs the engines of `target` on a device: `trtexec`, or the Python with this project.

    Raises:
        SpecError: the device is behind SSH and has no such Python.
    """
    reach = device.reach
    if isinstance(target, TrtexecTarget):
        return reach.trtexec
    if isinstance(reach, WorkPoolReach):
        return reach.python or WORKERS_PYTHON
    if isinstance(reach, LocalReach):
        return reach.python or sys.executable
    if reach.python is None:
        raise SpecError(
            f"devices.{device.name}.reach.python",
            f"engines of target '{target.name}' are built and run by this project's own Python ({target.builder}): "
            "install it on the device and name its interpreter here, or reach the device by a work pool",
        )
    return reach.python


def ring(devices: Iterable[Device], target: str, name: Ring) -> list[Device]:
    """The devices of a target in one ring."""
    return [device for device in devices if device.target == target and device.ring == name]
