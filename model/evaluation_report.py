"""The report of an evaluation as JSON: all that its page, its terminal table and MLflow show."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from model.bootstrap import Estimate, Interval, estimates_of
from model.confidence import ConfidenceQuality, confidence_by_region
from model.curves import BOUNDS, ErrorCurve, error_curve
from model.evaluation import Evaluation
from model.region_error import FaceErrors, Points, Unit, intervals, region_errors, subject_errors
from model.slices import Slice, all_slices
from schemas.records import Flag

SUBJECT_UNITS = (Unit.CROP, Unit.SOURCE)


def evaluation_report(evaluation: Evaluation) -> dict[str, Any]:
    """Everything that was measured, with 95 % intervals over subjects where there are two subjects or more.

    Returns:
        `regions`: region -> `samples` and unit -> `all` or `visible` -> `error`, `low`, `high`.
        `slices`: dimension -> list of `name`, `faces`, `subjects`, `regions` (see `model.slices.all_slices`).
        `offsets`: set -> `faces`, and `right` and `below` -> `px`, `low`, `high`: how far true points lie right of
            and below predicted ones on average, in source pixels.
        `by_subject`: subject -> `faces` and unit -> region -> error over all points.
        `curves`: unit -> `model.curves.ErrorCurve`.
        `confidence`: region -> `model.confidence.ConfidenceQuality`; empty where no flags tell occluded from visible.
        Sizes of the sample. Numbers that are not defined are None.
    """
    errors, flags_FN = evaluation.errors, evaluation.flags_FN
    slices = all_slices(evaluation.true_FN2, flags_FN, evaluation.subjects, evaluation.sets)
    curves = {unit: error_curve(errors, unit) for unit in BOUNDS}
    quality = confidence_by_region(evaluation.confidence_FN, flags_FN, evaluation.subjects, errors.regions)
    return {
        "num_keypoints": evaluation.num_keypoints,
        "input_size": evaluation.input_size,
        "faces": len(evaluation),
        "subjects": len(set(evaluation.subjects) - {""}),
        "faces_without_subject": evaluation.subjects.count(""),
        "sets": {name: evaluation.sets.count(name) for name in sorted(set(evaluation.sets))},
        "points": {flag.name.lower(): int((flags_FN == flag).sum()) for flag in Flag},
        "unreachable_share": evaluation.unreachable_share,
        "regions": _region_table(errors),
        "slices": {dimension: [_slice(errors, part) for part in parts] for dimension, parts in slices.items()},
        "offsets": _offsets(evaluation),
        "by_subject": _by_subject(errors),
        "curves": {unit.value: _curve(curve) for unit, curve in curves.items() if curve},
        "confidence": {region: _confidence(found) for region, found in quality.items()},
    }


def _region_table(errors: FaceErrors) -> dict[str, Any]:
    """Region -> unit -> choice of points -> `error`, `low`, `high`; and how many points were averaged."""
    samples = {points: errors.select(Unit.SOURCE, points)[1] for points in Points}
    table: dict[str, Any] = {
        region: {"samples": {points.value: int(counts[:, list(index)].sum()) for points, counts in samples.items()}}
        for region, index in errors.regions.items()
    }
    for (unit, points), bounds in intervals(errors).items():
        for region, value in region_errors(errors, unit, points).items():
            cell = {"error": _number(value), **_bounds(bounds[region])}
            table[region].setdefault(unit.value, {})[points.value] = cell
    return table


def _slice(errors: FaceErrors, part: Slice) -> dict[str, Any]:
    chosen = errors.of_faces(part.faces_F)
    return {
        "name": part.name,
        "faces": len(chosen),
        "subjects": len(set(chosen.subjects) - {""}),
        "regions": _region_table(chosen),
    }


def _offsets(evaluation: Evaluation) -> dict[str, Any]:
    table = {}
    for name in sorted(set(evaluation.sets)):
        faces = [index for index, own in enumerate(evaluation.sets) if own == name]
        subjects = [evaluation.subjects[index] for index in faces]
        sums_F3 = np.column_stack([evaluation.offsets_F2[faces], np.ones(len(faces))])
        right, below = estimates_of(subjects, sums_F3, lambda sums_D3: sums_D3[:, :2] / sums_D3[:, 2:])
        table[name] = {"faces": len(faces), "right": _offset(right), "below": _offset(below)}
    return table


def _offset(estimate: Estimate) -> dict[str, float | None]:
    return {"px": estimate.value, "low": estimate.low, "high": estimate.high}


def _by_subject(errors: FaceErrors) -> dict[str, Any]:
    in_units = {unit: subject_errors(errors, unit, Points.ALL) for unit in SUBJECT_UNITS}
    return {
        subject: {
            "faces": errors.subjects.count(subject),
            **{
                unit.value: {region: _number(value) for region, value in found[subject].items()}
                for unit, found in in_units.items()
            },
        }
        for subject in sorted(set(errors.subjects))
    }


def _curve(curve: ErrorCurve) -> dict[str, Any]:
    data = asdict(curve)
    intervals_of = {"auc": data.pop("auc_interval"), "failure_rate": data.pop("failure_interval")}
    for name, bounds in intervals_of.items():
        data |= {f"{name}_{end}": bounds and bounds[end] for end in ("low", "high")}
    return data | {"points": [list(point) for point in curve.points]}


def _confidence(quality: ConfidenceQuality) -> dict[str, Any]:
    data = asdict(quality)
    data.pop("interval")
    bins = [asdict(part) for part in quality.bins]
    return data | _bounds(quality.interval) | {"roc": [list(point) for point in quality.roc], "bins": bins}


def _bounds(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval and interval.low, "high": interval and interval.high}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
