"""What a rollout works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

from deploy.devices import RINGS, Device, Ring, ring
from deploy.engine import BuiltEngine
from deploy.targets import Target
from tasks.fleet.check import Checked, OpenShell, check_on
from tasks.fleet.material import Material
from tasks.workspace import Workspace

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def at_once(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Results in the order of the items, each worked on in a thread of its own, with the context of this one."""
    waiting = list(items)
    contexts = [copy_context() for _ in waiting]
    with ThreadPoolExecutor(max(1, len(waiting))) as pool:
        return list(pool.map(lambda context, item: context.run(work, item), contexts, waiting))
