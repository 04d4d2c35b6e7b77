"""One engine on one device: copied there, run, held against the gates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.delivery import put_whole
from deploy.device.facts import DeviceFacts, read_facts, require_match, require_same
from deploy.device.run import CROPS_LEFT_S, RUNNING, run_there
from deploy.device.scratch import scratch
from deploy.devices import Device, program_of
from deploy.engine import BuiltEngine, EngineRun
from deploy.engine_directory import RECORD
from deploy.parity import Latency, Parity, compare
from deploy.shells.base import Shell
from deploy.target_gates import TargetGate, failures, gate_engine
from schemas.errors import DeviceOfflineError, FpenetError
from schemas.storage import read_json
from tasks.fleet.deliveries import outcome_of
from tasks.fleet.material import Material
from tasks.fleet.results import DeviceRow
from tasks.fleet.threads import at_once

OpenShell = Callable[[Device], AbstractContextManager[Shell]]


@dataclass(frozen=True, eq=False)
class Checked:
    """What an engine was on a device.

    Attributes:
        measured, parity: None where it did not run.
        beyond: the gates that it failed.
    """

    row: DeviceRow
    measured: EngineRun | None = None
    parity: Parity | None = None
    beyond: tuple[TargetGate, ...] = ()

    @property
    def lost_parity(self) -> bool:
        return any(gate.name.startswith("parity") for gate in self.beyond)


def absent(devices: Sequence[Device], open_shell: OpenShell) -> dict[str, DeviceRow]:
    """Rows of the devices that do not answer, by name. What is prepared for a device takes minutes: ask first."""

    def ask(device: Device) -> DeviceRow | None:
        try:
            with open_shell(device):
                return None
        except DeviceOfflineError as error:
            return _failed(device, error, 0.0)
        except FpenetError:  # it answers; what is wrong comes out when it is checked
            return None

    return {row.device: row for row in at_once(ask, devices) if row is not None}


def check_on(device: Device, open_shell: OpenShell, built: BuiltEngine, material: Material) -> Checked:
    """Run and gate an engine on a device; what goes wrong there is in the row.

    Raises:
        FpenetError: the crops or the graph to compare on are gone here, or were changed.
    """
    images_BSSC, expected = material.kpi(), material.expected
    began = time.perf_counter()
    try:
        measured, facts = _measure(device, open_shell, built, images_BSSC)
    except FpenetError as error:
        return Checked(_failed(device, error, time.perf_counter() - began))
    parity = compare(expected, measured.predictions)
    gates = gate_engine(built.target, parity=parity, latency=measured.latency, size=built.size)
    beyond = tuple(failures(gates))
    row = DeviceRow(
        device=device.name,
        ring=device.ring,
        state="gated" if beyond else "passed",
        why="; ".join(gate.words for gate in beyond),
        facts=_described(facts),
        seconds=time.perf_counter() - began,
        **_numbers(parity, measured.latency),
    )
    return Checked(row, measured, parity, beyond)


def _measure(
    device: Device, open_shell: OpenShell, built: BuiltEngine, images_BSSC: np.ndarray
) -> tuple[EngineRun, DeviceFacts]:
    """What the device measured, and what it is. It runs a copy that is removed: `deploy.delivery.activate` removes
    engines that nobody has activated, also while one is measured."""
    target = built.target
    program = program_of(device, target)
    with open_shell(device) as shell:
        facts = read_facts(shell, target, program=program)
        require_match(facts, target)
        require_same(read_json(built.directory / RECORD), facts)
        with scratch(shell, RUNNING, leftover_s=CROPS_LEFT_S) as folder:
            engine = f"{folder}/{built.file.name}"
            put_whole(shell, built.file, engine, built.sha256)
            predictions, latency = run_there(shell, target, engine, images_BSSC, program=program)
    return EngineRun(predictions, latency, device.name), facts


def _failed(device: Device, error: FpenetError, seconds: float) -> DeviceRow:
    return DeviceRow(device.name, device.ring, outcome_of(error), str(error), seconds=seconds)


def _described(facts: DeviceFacts) -> str:
    known = {
        "SM": facts.compute_capability,
        "TensorRT ": facts.tensorrt,
        "JetPack ": facts.jetpack,
        "driver ": facts.driver,
    }
    return ", ".join([*filter(None, [facts.gpu]), *(f"{name}{value}" for name, value in known.items() if value)])


def _numbers(parity: Parity, latency: Latency) -> dict[str, Any]:
    return {
        "parity_px": _finite(parity.mean_px["All"]),
        "parity_max_px": _finite(parity.max_px["All"]),
        "regions_px": {region: _finite(px) for region, px in parity.mean_px.items()},
        "p50_ms": latency.p50_ms,
        "p99_ms": latency.p99_ms,
        "fps": latency.faces_per_second,
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity; the gate that an engine of such outputs fails says it in words."""
    return value if math.isfinite(value) else None
