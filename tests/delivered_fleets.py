"""A target with devices, for tests of promotion: its engines are bytes that nobody runs, unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from deploy.delivery import inspect
from deploy.devices import Device, LocalReach, Ring
from deploy.pointers import Promoted, StagedEngine
from deploy.shells.opening import open_shell
from deploy.stages import stage
from schemas.storage import write_json
from tasks.fleet.deliveries import DeviceRecord, Measure, read_records
from tasks.fleet.promotion import Promotion, promote_target, settle_target
from tasks.fleet.results import DeviceRow
from tasks.review.approval import Accepted, accepted_version
from tasks.workspace import Workspace
from tests.engines import engine_directory

WHO = {"by": "ada", "why": "reviewed"}


def passing(engine: StagedEngine, devices: Sequence[Device]) -> list[DeviceRow]:
    """A `Measure` by which every engine passes on every device."""
    return [DeviceRow(device.name, device.ring, "passed") for device in devices]


class Fleet:
    """A workspace's targets, and some devices of one; `make` makes the directory of an engine."""

    def __init__(self, root: Path, target: str = "t4", make: Callable[..., Path] = engine_directory) -> None:
        self.root, self.workspace, self.target, self._make = root, Workspace(root), target, make
        self.targets = self.workspace.targets
        self.devices: list[Device] = []

    def local(self, name: str, ring: Ring) -> Device:
        reach = LocalReach(kind="local", directory=str(self.root / "devices" / name))
        self.devices.append(Device(name=name, target=self.target, ring=ring, reach=reach))
        return self.devices[-1]

    def stage(self, name: str, *, size: int = 0) -> Path:
        """Stage an engine of a version that is accepted."""
        directory = self._make(self.root / "engines", name, size=size)
        staged = stage(self.targets, self.target, directory, **WHO).engine
        self.accept(staged.model_version)
        return directory

    def accept(self, version: str, *, name: str = "fpenet") -> None:
        accepted = Accepted(name, version, "0" * 64, "ada", "good", None, "2026-01-01T00:00:00+00:00")
        self.workspace.accepted.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.workspace.accepted, asdict(accepted))

    def promote(self, to: Promoted = "production", *, override: str = "", measure: Measure = passing) -> Promotion:
        how = {"accepted": accepted_version(self.workspace), "override": override, "measure": measure}
        return promote_target(self.targets, self.target, self.devices, to=to, **WHO, **how)

    def settle(self, measure: Measure = passing) -> tuple[DeviceRecord, ...]:
        return settle_target(self.targets, self.target, self.devices, measure=measure)

    def release(self, name: str, *, size: int = 0) -> None:
        self.stage(name, size=size)
        self.promote("canary")
        self.promote()

    def running(self) -> dict[str, str]:
        """What the devices themselves say that they run."""
        found = {}
        for device in self.devices:
            with open_shell(device) as shell:
                current, wrong = inspect(shell, self.target)
                assert wrong == ""
                found[device.name] = current.build_key if current else ""
        return found

    def recorded(self) -> dict[str, str]:
        records = read_records(self.targets, self.target)
        return {record.device: record.current.build_key if record.current else "" for record in records}

    def outcomes(self) -> dict[str, str]:
        return {record.device: record.outcome for record in read_records(self.targets, self.target)}
