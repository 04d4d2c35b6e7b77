"""Charts of an evaluation's `report.json`, as SVG text: slices, error curves, and what the confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.charts import UNIT_NAMES, region_chart
from model.region_error import Unit
from model.svg import (
    ACCENT,
    INK,
    MUTED,
    Axis,
    dot,
    line,
    picture,
    polyline,
    share_frame,
    text_at,
    vertical_rules,
)
from schemas.layouts import layout

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 14, 38
ROW_WIDTH, ROW_STEP, ROW_LEFT, ROW_RIGHT = 380, 26, 158, 46
LONGEST_NAME = 28


def evaluation_charts(report: Mapping[str, Any]) -> dict[str, str]:
    """Name -> SVG: `region_error`, `slices_yaw` and its like, `curve_crop_px` and its like, `roc`, `reliability`.

    A chart is missing where the report has no numbers for it.
    """
    regions = {region: report["regions"][region] for region in layout(report["num_keypoints"]).regions}
    charts = {"region_error": region_chart(regions)}
    whole = regions["All"][Unit.CROP]["all"]["error"]
    for dimension, slices in report["slices"].items():
        charts[f"slices_{dimension}"] = slice_chart(slices, whole=whole)
    for unit, curve in report["curves"].items():
        charts[f"curve_{unit}"] = error_curve_chart(curve, Unit(unit))
    if quality := report["confidence"].get("All"):
        charts["roc"] = roc_chart(quality)
        charts["reliability"] = reliability_chart(quality["bins"])
    return charts


def slice_chart(slices: Sequence[Mapping[str, Any]], *, whole: float) -> str:
    """A row per slice: its error over all points in crop pixels with its 95 % interval; a rule at the whole set's.

    Args:
        slices: of one dimension, as in `report.json`.
        whole: error of the whole set.
    """
    cells = [part["regions"]["All"][Unit.CROP]["all"] for part in slices]
    top = max(whole, *(cell["high"] or cell["error"] for cell in cells))
    axis = Axis(0.0, top or 1.0, ROW_LEFT, ROW_WIDTH - ROW_RIGHT)
    height = TOP + ROW_STEP * len(slices) + BOTTOM
    parts = vertical_rules(axis, TOP, height - BOTTOM)
    parts.append(line(axis(whole), TOP, axis(whole), height - BOTTOM, MUTED, dashed=True))
    parts.append(text_at((axis.start + axis.end) / 2, height - 4, "crop pixels, all points", anchor="middle"))
    for row, (part, cell) in enumerate(zip(slices, cells, strict=True)):
        y = TOP + ROW_STEP * (row + 0.5)
        parts.append(text_at(ROW_LEFT - 10, y + 4, _short(part["name"]), anchor="end", colour=INK))
        parts += _dot_and_whiskers(axis, y, cell)
    return picture(ROW_WIDTH, height, "error per slice", parts)


def error_curve_chart(curve: Mapping[str, Any], unit: Unit) -> str:
    """Share of faces over their mean error; a rule where the area ends and failure begins."""
    x_axis = Axis(0.0, curve["points"][-1][0], LEFT, WIDTH - RIGHT)
    y_axis = _share_axis()
    parts = share_frame(x_axis, y_axis, f"mean error of a face, {UNIT_NAMES[unit]}")
    bound = x_axis(curve["bound"])
    parts.append(line(bound, TOP, bound, HEIGHT - BOTTOM, MUTED, dashed=True))
    parts.append(polyline([(x_axis(x), y_axis(share)) for x, share in curve["points"]]))
    parts.append(text_at(bound + 6, HEIGHT - BOTTOM - 10, f"bound {curve['bound']:g}"))
    return picture(WIDTH, HEIGHT, f"cumulative error distribution, {UNIT_NAMES[unit]}", parts)


def roc_chart(quality: Mapping[str, Any]) -> str:
    """Occluded points found over visible points wrongly taken for occluded, threshold by threshold."""
    x_axis, y_axis = Axis(0.0, 1.0, LEFT, WIDTH - RIGHT), _share_axis()
    parts = share_frame(x_axis, y_axis, "share of visible points below the threshold", percent=True)
    parts.append(line(x_axis(0), y_axis(0), x_axis(1), y_axis(1), MUTED, dashed=True))
    parts.append(polyline([(x_axis(x), y_axis(y)) for x, y in quality["roc"]]))
    parts.append(text_at(x_axis(0.97), y_axis(0.08), f"area {quality['auc']:.3f}", anchor="end", colour=INK, size=13))
    return picture(WIDTH, HEIGHT, "ROC curve of the confidence", parts)


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """Share of visible points over the mean confidence of each bin; on the dashed line the two would be equal."""
    top = max(part["confidence"] for part in bins)
    x_axis, y_axis = Axis(0.0, 1.0 if top > 0.5 else 1.1 * top or 1.0, LEFT, WIDTH - RIGHT), _share_axis()
    parts = share_frame(x_axis, y_axis, "mean confidence")
    parts.append(line(x_axis(0), y_axis(0), x_axis(x_axis.high), y_axis(x_axis.high), MUTED, dashed=True))
    points = [(x_axis(part["confidence"]), y_axis(part["visible_share"])) for part in bins]
    parts.append(polyline(points))
    parts += [dot(x, y) for x, y in points]
    return picture(WIDTH, HEIGHT, "reliability of the confidence", parts)


def _dot_and_whiskers(axis: Axis, y: float, cell: Mapping[str, Any]) -> list[str]:
    parts, end = [], axis(cell["error"])
    if cell["low"] is not None:
        low, end = axis(cell["low"]), axis(cell["high"])
        parts = [line(low, y, end, y, ACCENT, width=1.6)]
        parts += [line(x, y - 4, x, y + 4, ACCENT, width=1.6) for x in (low, end)]
    return [*parts, dot(axis(cell["error"]), y), text_at(end + 8, y + 4, f"{cell['error']:.2f}", colour=INK)]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _share_axis() -> Axis:
    return Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
