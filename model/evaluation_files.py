"""The files that an evaluation leaves: TAO's three and `report.json`.

The CSV files are in source pixels, as TAO's. Where no face has a point visible, TAO writes an error of 0.0 and -1
samples and averages the 0.0 into the region; here the error is empty, there are 0 samples, and the region is the
mean of its other points. Keypoints in the JSON file are in pixels of the network's input, pixel centres at
integers (`schemas.geometry`), where TAO's are half a source pixel off.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation import Evaluation
from model.region_error import FaceErrors, Points, Unit, intervals, point_means, region_errors, subject_errors
from schemas.layouts import layout
from schemas.records import Flag
from schemas.storage import write_bytes, write_json

ALL_DATA = "kpi_testing_all_data.json"
PER_POINT = "kpi_testing_error_per_point.csv"
PER_REGION = "kpi_testing_error_per_region.csv"
REPORT = "report.json"


def write_reference_files(evaluation: Evaluation, directory: Path) -> dict[str, Any]:
    """Write the reference's three files and `report.json` into `directory`; return the report."""
    report = evaluation_report(evaluation)
    write_bytes(directory / ALL_DATA, json.dumps(_all_data(evaluation), indent=4).encode())
    write_bytes(directory / PER_POINT, _per_point_csv(evaluation.errors).encode())
    write_bytes(directory / PER_REGION, _per_region_csv(evaluation.errors).encode())
    write_json(directory / REPORT, report)
    return report


def evaluation_report(evaluation: Evaluation) -> dict[str, Any]:
    """JSON: region errors in both units with intervals, overall and by dataset; sizes of the sample; subjects."""
    errors, flags_FN = evaluation.errors, evaluation.flags_FN
    return {
        "num_keypoints": evaluation.num_keypoints,
        "input_size": evaluation.input_size,
        "faces": len(evaluation),
        "subjects": len(set(evaluation.subjects) - {""}),
        "faces_without_subject": evaluation.subjects.count(""),
        "points": {flag.name.lower(): int((flags_FN == flag).sum()) for flag in Flag},
        "unreachable_share": evaluation.unreachable_share,
        "regions": _region_table(errors),
        "by_dataset": _by_dataset(errors),
        "by_subject": {
            subject: {"faces": evaluation.subjects.count(subject), "crop_px": _without_nan(regions)}
            for subject, regions in subject_errors(errors, Unit.CROP, Points.ALL).items()
        },
    }


def _all_data(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "image_path": evaluation.names[i],
            "face_box": [int(v) if float(v).is_integer() else float(v) for v in evaluation.boxes_F4[i]],
            "gt_keypoints": evaluation.true_FN2[i].tolist(),
            "pred_keypoints": evaluation.predicted_FN2[i].tolist(),
            "gt_occlusions": (evaluation.flags_FN[i] != Flag.OCCLUDED).astype(float).tolist(),
            "pred_conf": evaluation.confidence_FN[i].tolist(),
        }
        for i in range(len(evaluation))
    ]


def _per_point_csv(errors: FaceErrors) -> str:
    all_K, _ = point_means(*errors.select(Unit.SOURCE, Points.ALL))
    visible_K, number_K = point_means(*errors.select(Unit.SOURCE, Points.VISIBLE))
    rows = ([k, _cell(all_K[k]), _cell(visible_K[k]), int(number_K[k])] for k in range(len(all_K)))
    header = ["Error per point", "mean_pxl_err_xy_all", "mean_pxl_err_xy_non_occ", "num_samples_non_occluded"]
    return _csv(header, rows)


def _per_region_csv(errors: FaceErrors) -> str:
    everything, visible = (region_errors(errors, Unit.SOURCE, points) for points in (Points.ALL, Points.VISIBLE))
    rows = ([region, _cell(everything[region]), _cell(visible[region])] for region in everything)
    return _csv(["Error per region", "mean_region_err_xy_all", "mean_region_err_xy_non_occ"], rows)


def _csv(header: list[str], rows: Iterable[list[Any]]) -> str:
    """CRLF lines, as the reference writes them."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def _cell(value: float) -> float | str:
    return "" if math.isnan(value) else float(value)


def _region_table(errors: FaceErrors) -> dict[str, Any]:
    """Region -> unit -> choice of points -> `error`, `low`, `high`; and how many points were averaged."""
    regions = layout(errors.visible_BK.shape[1]).regions
    table: dict[str, Any] = {
        region: {
            "samples": {
                Points.ALL.value: len(errors.subjects) * len(points),
                Points.VISIBLE.value: int(errors.visible_BK[:, list(points)].sum()),
            }
        }
        for region, points in regions.items()
    }
    for unit in Unit:
        for points in Points:
            bounds = intervals(errors, unit, points)
            for region, value in _without_nan(region_errors(errors, unit, points)).items():
                interval = bounds[region]
                table[region].setdefault(unit.value, {})[points.value] = {
                    "error": value,
                    "low": interval and interval.low,
                    "high": interval and interval.high,
                }
    return table


def _by_dataset(errors: FaceErrors) -> dict[str, Any]:
    """The same table for each dataset, the first part of a subject; {} where there is one or one is unknown."""
    datasets_B = np.array([subject.split("/")[0] for subject in errors.subjects])
    datasets = sorted(set(datasets_B))
    if len(datasets) < 2 or "" in datasets:
        return {}
    parts = {dataset: errors.of_faces(datasets_B == dataset) for dataset in datasets}
    return {
        dataset: {"faces": len(part.subjects), "subjects": len(set(part.subjects)), "regions": _region_table(part)}
        for dataset, part in parts.items()
    }


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in values.items()}
