"""What a rollout works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.devices import RINGS, Device, Ring, ring
from deploy.engine import BuiltEngine
from deploy.targets import Target
from tasks.fleet.check import Checked, OpenShell, check_on
from tasks.fleet.material import Material
from tasks.fleet.threads import at_once
from tasks.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Plan:
    """A version, a fleet, and how to reach it.

    Attributes:
        open_shell: how to reach a device.
        by, why: what stands in the targets' logs.
        began_at: when the rollout began (UTC, ISO 8601); what is rolled back later stays so.
    """

    material: Material
    devices: Sequence[Device]
    workspace: Workspace
    open_shell: OpenShell
    by: str
    why: str
    began_at: str

    def rings(self, target: Target) -> dict[Ring, list[Device]]:
        """The target's devices, ring by ring, canary first; without rings that have none."""
        found = {name: ring(self.devices, target.name, name) for name in RINGS}
        return {name: devices for name, devices in found.items() if devices}

    def check_all(self, devices: Sequence[Device], built: BuiltEngine) -> list[Checked]:
        """An engine on several devices at once, in their order."""
        return at_once(lambda device: check_on(device, self.open_shell, built, self.material), devices)
