"""An engine that is close enough: built, and run on the devices of a target's first ring, precision by precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.builders.registry import BUILDERS
from deploy.device.facts import read_facts
from deploy.devices import Device, program_of
from deploy.engine import (
    NOT_RUN_HERE,
    BuiltEngine,
    EngineCheck,
    build_engine,
    build_engine_on,
    check_engine,
    write_manifest,
)
from deploy.ladder import climb
from deploy.parity import Parity, compare, graph_predictions
from deploy.precision import PreparedGraph
from deploy.target_gates import gate_engine
from deploy.targets import GpuTarget, Target
from schemas.errors import DeviceOfflineError, DeviceRefusedError, EngineMismatchError, FpenetError, GateError
from tasks.engines import why_not_here
from tasks.fleet.check import Checked
from tasks.fleet.deliveries import outcome_of
from tasks.fleet.plan import Plan
from tasks.fleet.results import DeviceRow

HERE = "here"


@dataclass(frozen=True, eq=False)
class Ascent:
    """What came of it.

    Attributes:
        built: the last engine; None where none was built.
        built_on: `here`, or the device.
        checked: what it was on the devices; empty where it came to none.
        rows: of all devices that were to be asked.
        tried: precisions that were left, and why.
        why: what kept it from being built or run, where the rows do not tell it; ''.
    """

    built: BuiltEngine | None
    built_on: str | None
    checked: tuple[Checked, ...]
    rows: tuple[DeviceRow, ...]
    tried: tuple[str, ...]
    why: str


def ascend(plan: Plan, target: Target, devices: Sequence[Device]) -> Ascent:
    """Try the target's precision and those below it until an engine is close enough on every device that answers.

    Args:
        devices: of the first ring; an engine that is tied to its TensorRT is built on the first of them that can,
            or here where the versions are the same; any other is built here.
    """
    attempt, why = _Attempt(plan, target, devices), ""
    material = plan.material
    try:
        ladder = climb(
            material.onnx,
            target,
            expected=material.expected,
            images_BSSC=material.kpi(),
            calibration=material.calibration,
            measure=attempt.measure,
        )
        attempt.tried = [str(rung) for rung in ladder.rungs if rung.failure]
        if ladder.result is None and not attempt.checked:
            why = "no precision is close enough to the FP32 graph"
    except FpenetError as error:
        told = [row.why for row in attempt.rows if row.why]
        summed_up = bool(told) and isinstance(error, DeviceOfflineError)
        why = "" if summed_up or str(error) in told else str(error)
    return Ascent(attempt.built, attempt.built_on, tuple(attempt.checked), attempt.rows, tuple(attempt.tried), why)


def build_here(plan: Plan, target: Target) -> Ascent:
    """The same where no device is to be asked: the engine, and its graph held against the gates.

    Raises:
        FpenetError: it can't be built.
    """
    material = plan.material
    ladder = climb(
        material.onnx,
        target,
        expected=material.expected,
        images_BSSC=material.kpi(),
        calibration=material.calibration,
    )
    rung = target.model_copy(update={"precision": ladder.require(target).precision})
    built = build_engine(material.onnx, rung, plan.workspace.engines, calibration=material.calibration)
    check = check_engine(built, material.expected, material.kpi())
    tried = tuple(str(rung) for rung in ladder.rungs if rung.failure)
    write_manifest(built, check, material.provenance, ladder=tried)
    return Ascent(built, HERE, (), (), tried, "")


def record_passed(plan: Plan, found: Ascent) -> None:
    """Write into the manifest of an engine that passed what the first of its devices measured.

    Raises:
        GateError: it did not pass.
    """
    assert found.built is not None
    measured = next(checked.measured for checked in found.checked if checked.row.state == "passed")
    material = plan.material
    check = check_engine(found.built, material.expected, material.kpi(), measured=measured)
    write_manifest(found.built, check, material.provenance, ladder=found.tried)


class _Attempt:
    """The rung that is tried: what was built of it, and what it was on the devices."""

    def __init__(self, plan: Plan, target: Target, devices: Sequence[Device]) -> None:
        self._plan, self._target, self._devices = plan, target, devices
        self._elsewhere = why_not_here(target)
        self._builders: dict[str, DeviceRow] = {}
        self.built: BuiltEngine | None = None
        self.built_on: str | None = None
        self.checked: list[Checked] = []
        self.tried: list[str] = []

    @property
    def rows(self) -> tuple[DeviceRow, ...]:
        found = self._builders | {checked.row.device: checked.row for checked in self.checked}
        return tuple(
            found.get(device.name, DeviceRow(device.name, device.ring, "not reached")) for device in self._devices
        )

    def measure(self, prepared: PreparedGraph) -> Parity:
        """Build a graph, run the engine on the devices and compare.

        Raises:
            GateError: it is too far from the FP32 graph on a device.
            DeviceOfflineError: no device ran it.
        """
        rung = self._target.model_copy(update={"precision": prepared.precision})
        self.checked = []
        self.built, self.built_on = self._build(rung)
        self._record_unchecked(self.built, prepared)
        self.checked = self._plan.check_all(self._devices, self.built)
        lost = [f"on {found.row.device}: {found.row.why}" for found in self.checked if found.lost_parity]
        if lost:
            self.tried.append(f"{prepared.precision}: {'; '.join(lost)}")
            raise GateError("; ".join(lost))
        found = next((found.parity for found in self.checked if found.parity is not None), None)
        if found is None:
            raise DeviceOfflineError("no device ran it")
        return found

    def _build(self, rung: Target) -> tuple[BuiltEngine, str]:
        if not isinstance(rung, GpuTarget):
            return self._build_here(rung), HERE
        for device in self._devices:
            try:
                built = self._build_on(device, rung)
            except FpenetError as error:
                self._builders[device.name] = DeviceRow(device.name, device.ring, outcome_of(error), str(error))
                if not isinstance(error, DeviceOfflineError | DeviceRefusedError | EngineMismatchError):
                    raise
            else:
                return (self._build_here(rung), HERE) if built is None else (built, device.name)
        raise DeviceOfflineError("no device could build it")

    def _build_here(self, rung: Target) -> BuiltEngine:
        material = self._plan.material
        return build_engine(material.onnx, rung, self._plan.workspace.engines, calibration=material.calibration)

    def _build_on(self, device: Device, rung: Target) -> BuiltEngine | None:
        """None where the engine of this machine is the device's too."""
        plan, program = self._plan, program_of(device, rung)
        with plan.open_shell(device) as shell:
            facts = read_facts(shell, rung, program=program)
            if not self._elsewhere and facts.versions == BUILDERS[rung.builder].versions():
                return None
            return build_engine_on(
                shell,
                plan.material.onnx,
                rung,
                plan.workspace.engines,
                program=program,
                facts=facts,
                calibration=plan.material.calibration,
            )

    def _record_unchecked(self, built: BuiltEngine, prepared: PreparedGraph) -> None:
        """The manifest that an engine has until a device has run it: a delivery needs one."""
        material, reason = self._plan.material, "its devices run it"
        graph = compare(material.expected, graph_predictions(prepared.model, material.kpi()))
        gates = gate_engine(built.target, size=built.size, not_measured=reason)
        write_manifest(built, EngineCheck(NOT_RUN_HERE, reason, graph, None, None, gates), material.provenance)
