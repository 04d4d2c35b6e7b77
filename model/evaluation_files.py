"""The files that an evaluation leaves: TAO's three and `report.json`.

The CSV files are in source pixels, as TAO's, and their column `non_occ` holds every point that is not marked
occluded, as TAO's: a point of unknown flag too. `report.json` is stricter: its `visible` are the points that an
annotator declared visible. On records that TAO wrote the two are the same, because all flags count as known there.

Where no face has a point that is not occluded, TAO writes an error of 0.0 and -1 samples and averages the 0.0 into
the region; here the error is empty, there are 0 samples, and the region is the mean of its other points. Keypoints in
the JSON file are in pixels of the network's input, pixel centres at integers (`schemas.geometry`), where TAO's are
half a source pixel off.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model.evaluation import Evaluation
from model.evaluation_report import evaluation_report
from model.region_error import FaceErrors, Points, Unit, point_means, region_errors, region_means
from schemas.records import Flag
from schemas.storage import atomic_path, write_bytes, write_json

ALL_DATA = "kpi_testing_all_data.json"
PER_POINT = "kpi_testing_error_per_point.csv"
PER_REGION = "kpi_testing_error_per_region.csv"
REPORT = "report.json"


def write_reference_files(evaluation: Evaluation, directory: Path) -> dict[str, Any]:
    """Write the reference's three files and `report.json` into `directory`; return the report."""
    report = evaluation_report(evaluation)
    with atomic_path(directory / ALL_DATA) as temporary, temporary.open("w") as file:
        file.writelines(_all_data(evaluation))
    write_bytes(directory / PER_POINT, _per_point_csv(evaluation.errors).encode())
    write_bytes(directory / PER_REGION, _per_region_csv(evaluation.errors).encode())
    write_json(directory / REPORT, report)
    return report


def _all_data(evaluation: Evaluation) -> Iterator[str]:
    """The text of a list with a dict for every face, indented by 4, a face at a time."""
    for i in range(len(evaluation)):
        face = {
            "image_path": evaluation.names[i],
            "face_box": [int(v) if float(v).is_integer() else float(v) for v in evaluation.boxes_F4[i]],
            "gt_keypoints": evaluation.true_FN2[i].tolist(),
            "pred_keypoints": evaluation.predicted_FN2[i].tolist(),
            "gt_occlusions": (evaluation.flags_FN[i] != Flag.OCCLUDED).astype(float).tolist(),
            "pred_conf": evaluation.confidence_FN[i].tolist(),
        }
        yield (",\n    " if i else "[\n    ") + json.dumps(face, indent=4).replace("\n", "\n    ")
    yield "\n]"


def _per_point_csv(errors: FaceErrors) -> str:
    all_K, _ = point_means(*errors.select(Unit.SOURCE, Points.ALL))
    shown_K, number_K = point_means(errors.source_px_BK, errors.flags_BK != Flag.OCCLUDED)
    rows = ([k, _cell(all_K[k]), _cell(shown_K[k]), int(number_K[k])] for k in range(len(all_K)))
    header = ["Error per point", "mean_pxl_err_xy_all", "mean_pxl_err_xy_non_occ", "num_samples_non_occluded"]
    return _csv(header, rows)


def _per_region_csv(errors: FaceErrors) -> str:
    shown_K, _ = point_means(errors.source_px_BK, errors.flags_BK != Flag.OCCLUDED)
    everything, shown = region_errors(errors, Unit.SOURCE, Points.ALL), region_means(shown_K, errors.regions)
    rows = ([region, _cell(everything[region]), _cell(shown[region])] for region in everything)
    return _csv(["Error per region", "mean_region_err_xy_all", "mean_region_err_xy_non_occ"], rows)


def _csv(header: list[str], rows: Iterable[list[Any]]) -> str:
    """CRLF lines, as the reference writes them."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def _cell(value: float) -> float | str:
    return "" if math.isnan(value) else float(value)
