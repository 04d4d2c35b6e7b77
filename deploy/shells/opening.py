"""Connections to the devices of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from deploy.devices import Device, LocalReach, SshReach
from deploy.shells.base import Shell
from schemas.errors import DeviceError

OpenShell = Callable[[Device], AbstractContextManager[Shell]]
"""How to reach a device: `open_shell`, or something that reaches more kinds of devices."""


@contextmanager
def open_shell(device: Device) -> Iterator[Shell]:
    """A connection to `device`, closed at the end. The device's directory is made if it is not there.

    Raises:
        DeviceOfflineError: it does not answer.
        DeviceRefusedError: it refuses the user or the key, or is not the host that it should be.
        DeviceError: it is reached by its work pool: a flow runs there, and opens a local shell itself.
        StorageError: its directory can't be made.
    """
    reach = device.reach
    if isinstance(reach, LocalReach):
        from deploy.shells.local import LocalShell

        yield LocalShell(device.name, reach.directory)
    elif isinstance(reach, SshReach):
        from deploy.shells.ssh import SshShell

        with SshShell.connect(device.name, reach) as shell:
            yield shell
    else:
        raise DeviceError(
            f"device '{device.name}' is reached by its work pool ({reach.deployment}), not by a shell; "
            "its flow runs there"
        )
