"""A fleet for tests: devices behind real SSH servers on loopback, whose `trtexec` is a stand-in, and this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.devices import Device, LocalReach, Ring
from deploy.engine import Provenance
from deploy.onnx_export import export_onnx
from deploy.pointers import utc_now
from tasks.fleet.material import Material
from tasks.fleet.plan import Plan
from tasks.fleet.work_pool import open_device
from tasks.workspace import Workspace
from tests.calibration_crops import FixedCrops
from tests.networks import crops, sharp_network
from tests.ssh_servers import DeviceServer, device_server
from tests.stand_ins.devices import StandIn, stand_in


@dataclass
class TestFleet:
    """Devices that were put up, by name."""

    __test__ = False

    folder: Path
    stack: ExitStack
    devices: list[Device] = field(default_factory=list)
    servers: dict[str, DeviceServer] = field(default_factory=dict)
    programs: dict[str, StandIn] = field(default_factory=dict)

    def this_machine(self, name: str = "here", target: str = "cpu", ring: Ring = "canary") -> None:
        reach = LocalReach(kind="local", directory=str(self.folder / name))
        self.devices.append(Device(name=name, target=target, ring=ring, reach=reach))

    def jetson(
        self, name: str, target: str, kind: dict[str, Any], *, ring: Ring = "canary", **settings: Any
    ) -> DeviceServer:
        """A device whose `trtexec` pretends to be on hardware of this kind, and to take a millisecond a call."""
        folder = self.folder / name
        self.programs[name] = stand_in(folder, kind, **({"latency_ms": 1.0} | settings))
        server = self.servers[name] = self.stack.enter_context(device_server(folder))
        self.devices.append(server.device(name, target, ring, trtexec=self.programs[name].trtexec))
        return server

    def plan(self, material: Material) -> Plan:
        place = Workspace(self.folder / "workspace")
        return Plan(material, self.devices, place, open_device, "test", "a test", utc_now())


@contextmanager
def fleet(folder: Path) -> Iterator[TestFleet]:
    """An empty fleet; its servers end with it. What stands in for `dpkg-query` is on the path meanwhile."""
    path = os.environ["PATH"]
    programs = stand_in(folder / "programs")
    os.environ["PATH"] = f"{programs.path}{os.pathsep}{path}"
    try:
        with ExitStack() as stack:
            yield TestFleet(folder, stack)
    finally:
        os.environ["PATH"] = path


def small_material(folder: Path, *, version: str = "7", seed: int = 0, peaks: float = 30.0) -> Material:
    """A tiny network's graph, and crops to compare on. `peaks` as for `sharp_network`."""
    onnx = export_onnx(sharp_network(width=4, seed=seed, peaks=peaks), folder / f"{version}.onnx").path
    origin = Provenance("fpenet", version, "5" * 64)
    return Material(origin, onnx, FixedCrops(crops(4)), FixedCrops(crops(40, seed=1)))
