"""Charts of a training and of region errors, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.region_error import Points, Unit
from model.svg import ACCENT, INK, RULE, SECOND, Axis, dot, line, picture, polyline, text_at, vertical_rules

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 34
BAR_STEP, BAR_HEIGHT, BAR_LEFT = 34, 10, 76
LOG_FROM_RATIO = 4.0
"""A line chart whose largest value is this many times the smallest gets a logarithmic axis."""

UNIT_NAMES = {
    Unit.SOURCE: "source pixels",
    Unit.CROP: "crop pixels",
    Unit.INTER_OCULAR: "% inter-ocular",
}


def line_chart(values: Sequence[tuple[float, float]], *, label: str, mark: float | None = None) -> str:
    """A line through points (epoch, y), finite, with axes; `mark` is the epoch to name with its value.

    Raises:
        ValueError: there is no point.
    """
    if not values:
        raise ValueError("a chart needs at least one point")
    xs, ys = zip(*values, strict=True)
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_axis = _value_axis(min(ys), max(ys))
    parts = _horizontal_rules(y_axis)
    for tick in x_axis.ticks() if len(values) > 1 else xs:
        if float(tick).is_integer():
            parts.append(text_at(x_axis(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", anchor="middle"))
    parts.append(text_at((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "epoch", anchor="middle"))
    parts.append(polyline([(x_axis(x), y_axis(y)) for x, y in values]))
    for x, y in values:
        if x == mark or len(values) == 1:
            parts += _marked_point(x_axis(x), y_axis(y), _number(y))
    return picture(WIDTH, HEIGHT, label, parts)


def region_chart(regions: Mapping[str, Mapping[str, Any]]) -> str:
    """Bars of region errors in crop pixels with their 95 % intervals, all points above visible points.

    Args:
        regions: those of `report.json`.
    """
    cells = {
        region: [(points, cell) for points in Points if (cell := table[Unit.CROP][points])["error"] is not None]
        for region, table in regions.items()
    }
    top = max((cell["high"] or cell["error"] for row in cells.values() for _, cell in row), default=1.0)
    height = TOP + BAR_STEP * len(cells) + BOTTOM
    axis = Axis(0.0, top or 1.0, BAR_LEFT, WIDTH - RIGHT - 24)
    parts = vertical_rules(axis, TOP, height - BOTTOM)
    parts.append(text_at((BAR_LEFT + WIDTH) / 2, height - 3, UNIT_NAMES[Unit.CROP], anchor="middle"))
    for row, (region, bars) in enumerate(cells.items()):
        y = TOP + row * BAR_STEP + 4
        middle = y + len(bars) * (BAR_HEIGHT + 2) / 2
        parts.append(text_at(BAR_LEFT - 8, middle + 3, region, anchor="end", colour=INK))
        for order, (points, cell) in enumerate(bars):
            parts += _bar(axis, y + order * (BAR_HEIGHT + 2), cell, ACCENT if points is Points.ALL else SECOND)
    return picture(WIDTH, height, "error per region", parts)


def _bar(axis: Axis, y: float, cell: Mapping[str, Any], colour: str) -> list[str]:
    x, middle = axis(cell["error"]), y + BAR_HEIGHT / 2
    parts = [
        f'<rect x="{axis.start}" y="{y:.1f}" width="{x - axis.start:.1f}" height="{BAR_HEIGHT}" rx="2" '
        f'style="fill:{colour}"/>'
    ]
    end = x
    if cell["low"] is not None:
        end = axis(cell["high"])
        parts.append(line(axis(cell["low"]), middle, end, middle, INK, width=1.4))
    parts.append(text_at(end + 4, middle + 3.5, f"{cell['error']:.2f}", size=10))
    return parts


def _value_axis(low: float, high: float) -> Axis:
    logarithmic = low > 0 and high / low >= LOG_FROM_RATIO
    if not logarithmic:
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - margin, high + margin
    return Axis(low, high, HEIGHT - BOTTOM, TOP, logarithmic)


def _horizontal_rules(axis: Axis) -> list[str]:
    parts = []
    for tick in axis.ticks():
        y = axis(tick)
        parts.append(line(LEFT, y, WIDTH - RIGHT, y, RULE))
        parts.append(text_at(LEFT - 6, y + 4, _number(tick), anchor="end"))
    return parts


def _marked_point(x: float, y: float, text: str) -> list[str]:
    anchor, shift = ("end", -2) if x > WIDTH / 2 else ("start", 2)
    return [
        dot(x, y),
        text_at(x + shift, y - 9, text, anchor=anchor, colour=INK, weight=600),
    ]


def _number(value: float) -> str:
    return f"{value:.3g}"
