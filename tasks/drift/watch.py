"""What devices saw against what their model was tested on: one result for each device and model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np

from model.drift import Shift, shift_of, shown_by
from schemas.config import DriftSettings
from tasks.drift.records import DeviceRecords, HourRecord
from tasks.drift.reference import Reference

State = Literal[
    "drift", "steady", "too few faces", "too few hours", "no records", "no reference", "offline", "failed"
]


@dataclass(frozen=True)
class SignalShift:
    """A signal of a device; `allowed`: index that the lower bound must exceed."""

    name: str
    shift: Shift
    allowed: float

    @property
    def moved(self) -> bool:
        return self.shift.low > self.allowed


@dataclass(frozen=True)
class DeviceDrift:
    """What became of one device and one model.

    Attributes:
        model: `fpenet/3`; '' where none is known.
        faces, unusable: that it counted in the window; `hours`: in how many hours.
        shifts: of every signal, the furthest first.
        why: what there is to say about the state; problems: of single records.
    """

    device: str
    state: State
    model: str = ""
    faces: int = 0
    unusable: int = 0
    hours: int = 0
    shifts: tuple[SignalShift, ...] = ()
    why: str = ""
    problems: tuple[str, ...] = ()

    @property
    def moved(self) -> tuple[SignalShift, ...]:
        return tuple(shift for shift in self.shifts if shift.moved)

    def with_problems(self, problems: tuple[str, ...]) -> DeviceDrift:
        return replace(self, problems=(*problems, *self.problems))


def by_model(records: DeviceRecords) -> list[tuple[str, list[HourRecord]]]:
    """The hours of each model that the device ran."""
    ordered = sorted(records.hours, key=lambda record: (record.model, record.hour))
    return [(model, list(hours)) for model, hours in groupby(ordered, key=lambda record: record.model)]


def compare(device: str, hours: Iterable[HourRecord], reference: Reference, settings: DriftSettings) -> DeviceDrift:
    """One model's hours on a device against its reference.

    Hours of another profile than the reference's, or with other bins, are problems and are left out.
    """
    known, problems = [], []
    for record in hours:
        problem = _unlike(record, reference)
        if problem:
            problems.append(f"{record.hour}: {problem}")
        else:
            known.append(record)
    counted = {
        "model": reference.version,
        "faces": sum(record.faces for record in known),
        "unusable": sum(record.unusable for record in known),
        "hours": len(known),
        "problems": tuple(problems),
    }
    if not counted["faces"]:
        return DeviceDrift(device, "no records", **counted)
    people = settings.people.get(device)
    shifts = _shifts(known, reference, settings, people)
    worth = min(shift.shift.independent for shift in shifts)
    if worth < settings.min_faces:
        why = f"worth {worth:.0f} independent faces, at least {settings.min_faces} are needed"
        return DeviceDrift(device, "too few faces", shifts=shifts, why=why, **counted)
    seen = sum(record.faces > 0 for record in known)
    if seen < settings.min_hours:
        why = f"faces in {seen} hours, at least {settings.min_hours} are needed"
        return DeviceDrift(device, "too few hours", shifts=shifts, why=why, **counted)
    moved = [_in_words(shift) for shift in shifts if shift.moved]
    if not moved:
        return DeviceDrift(device, "steady", shifts=shifts, **counted)
    why = "; ".join([*moved, _assumed(people)])
    return DeviceDrift(device, "drift", shifts=shifts, why=why, **counted)


def _unlike(record: HourRecord, reference: Reference) -> str:
    if record.profile != reference.digest:
        return f"counted by another profile of {record.model}; have the flow write the current one to the device"
    bins = {name: len(counts) for name, counts in record.counts.items()}
    if bins != {name: len(counts) for name, counts in reference.counts.items()}:
        return "its signals or bins are not those of its profile; the file was changed"
    return ""


def _shifts(
    known: list[HourRecord], reference: Reference, settings: DriftSettings, people: int | None
) -> tuple[SignalShift, ...]:
    found = []
    for name, expected in reference.counts.items():
        expected_B, confidence = np.array(expected), settings.confidence
        shift = shift_of(
            expected_B,
            np.array([record.counts[name] for record in known]),
            independent=reference.independent[name],
            confidence=confidence,
        )
        allowed = settings.min_index
        if people:
            between = reference.between[name]
            usual = shown_by(people, expected_B, faces=shift.faces, between=between, confidence=confidence)
            allowed = max(allowed, usual)
        found.append(SignalShift(name, shift, allowed))
    return tuple(sorted(found, key=lambda signal: (-signal.shift.low, -signal.shift.index, signal.name)))


def _in_words(signal: SignalShift) -> str:
    way = {-1: "lower", 0: "other", 1: "higher"}[signal.shift.direction]
    return (
        f"{signal.name} is {way}: index {signal.shift.index:.2f}, at least {signal.shift.low:.2f}, "
        f"allowed {signal.allowed:.2f}"
    )


def _assumed(people: int | None) -> str:
    if people:
        return f"allowed is what {people} people may show who are as those it was tested on"
    return "taken for many people: if the same few use it all day, write how many into the setting `drift.people`"
