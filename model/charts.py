"""Charts as SVG text: they scale, need no font of their own and follow a page's colours.

Colours are CSS variables with a fallback (`var(--accent, #2563eb)`), so that a chart looks right both inside the
report, light or dark, and as a file by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from model.region_error import Points, Unit

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 34
BAR_STEP, BAR_HEIGHT, BAR_LEFT = 34, 10, 76
LOG_FROM_RATIO = 4.0
"""A line chart whose largest value is this many times the smallest gets a logarithmic axis."""

INK, MUTED, RULE = "var(--ink, #1c2430)", "var(--muted, #5f6b7a)", "var(--rule, #d9dee5)"
ACCENT, SECOND = "var(--accent, #2563eb)", "var(--second, #93b4f5)"


@dataclass(frozen=True)
class Axis:
    """Maps values in [low, high] to positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value

    def ticks(self) -> list[float]:
        """Round numbers (1, 2, 5 times a power of ten) inside the axis."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            numbers = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
            found = [number for number in numbers if self.low <= number <= self.high]
            return found if len(found) <= 6 else found[:: math.ceil(len(found) / 6)]
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(
    values: Sequence[tuple[float, float]], *, label: str, x_label: str = "epoch", mark: float | None = None
) -> str:
    """A line through points (x, y), finite, with axes; `mark` is the x of a point to name with its value.

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
            parts.append(_text(x_axis(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, x_label, anchor="middle"))
    path = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in values)
    parts.append(
        f'<polyline points="{path}" style="fill:none;stroke:{ACCENT};stroke-width:2;stroke-linejoin:round"/>'
    )
    for x, y in values:
        if x == mark or len(values) == 1:
            parts += _marked_point(x_axis(x), y_axis(y), _number(y))
    return _svg(WIDTH, HEIGHT, label, parts)


def region_chart(regions: Mapping[str, Mapping[str, Any]], *, unit: Unit = Unit.CROP) -> str:
    """Bars of region errors with their 95 % intervals, all points above visible points; regions of `report.json`."""
    cells = {
        region: [(points, table[unit][points]) for points in Points if table[unit][points]["error"] is not None]
        for region, table in regions.items()
    }
    top = max((cell["high"] or cell["error"] for row in cells.values() for _, cell in row), default=1.0)
    height = TOP + BAR_STEP * len(cells) + BOTTOM
    axis = Axis(0.0, top or 1.0, BAR_LEFT, WIDTH - RIGHT - 24)
    parts = []
    for tick in axis.ticks():
        x = axis(tick)
        parts.append(_line(x, TOP, x, height - BOTTOM, RULE))
        parts.append(_text(x, height - BOTTOM + 16, f"{tick:g}", anchor="middle"))
    parts.append(_text((BAR_LEFT + WIDTH) / 2, height - 3, _unit_name(unit), anchor="middle"))
    for row, (region, bars) in enumerate(cells.items()):
        y = TOP + row * BAR_STEP + 4
        middle = y + len(bars) * (BAR_HEIGHT + 2) / 2
        parts.append(_text(BAR_LEFT - 8, middle + 3, region, anchor="end", colour=INK))
        for order, (points, cell) in enumerate(bars):
            parts += _bar(axis, y + order * (BAR_HEIGHT + 2), cell, ACCENT if points is Points.ALL else SECOND)
    return _svg(WIDTH, height, "error per region", parts)


def _bar(axis: Axis, y: float, cell: Mapping[str, Any], colour: str) -> list[str]:
    x, middle = axis(cell["error"]), y + BAR_HEIGHT / 2
    parts = [
        f'<rect x="{axis.start}" y="{y:.1f}" width="{x - axis.start:.1f}" height="{BAR_HEIGHT}" rx="2" '
        f'style="fill:{colour}"/>'
    ]
    end = x
    if cell["low"] is not None:
        end = axis(cell["high"])
        parts.append(_line(axis(cell["low"]), middle, end, middle, INK, width=1.4))
    parts.append(_text(end + 4, middle + 3.5, f"{cell['error']:.2f}", size=10))
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
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, RULE))
        parts.append(_text(LEFT - 6, y + 4, _number(tick), anchor="end"))
    return parts


def _marked_point(x: float, y: float, text: str) -> list[str]:
    anchor, shift = ("end", -2) if x > WIDTH / 2 else ("start", 2)
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{ACCENT}"/>',
        _text(x + shift, y - 9, text, anchor=anchor, colour=INK, weight=600),
    ]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(digit for digit in (1, 2, 5, 10) if digit * power >= step * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:.3g}"


def _unit_name(unit: Unit) -> str:
    return {Unit.CROP: "crop pixels", Unit.SOURCE: "source pixels"}[unit]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1) -> str:
    style = f"stroke:{colour};stroke-width:{width}"
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" style="{style}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: float = 11,
    colour: str = MUTED,
    weight: int = 400,
) -> str:
    style = f"fill:{colour};font-size:{size}px;font-weight:{weight};text-anchor:{anchor}"
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{escape(text)}</text>'


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}" style="font-family:system-ui,sans-serif;'
        f'background:var(--surface, #ffffff)">' + "".join(parts) + "</svg>"
    )
