"""The pieces of a chart as SVG text: they scale, need no font of their own and follow a page's colours.

Colours are CSS variables with a fallback (`var(--accent, #2563eb)`), so that a chart looks right both inside the
report, light or dark, and as a file by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

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


def line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1, dashed: bool = False) -> str:
    style = f"stroke:{colour};stroke-width:{width}" + (";stroke-dasharray:4 3" if dashed else "")
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" style="{style}"/>'


def text_at(
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


def share_frame(x_axis: Axis, y_axis: Axis, x_label: str, *, percent: bool = False) -> list[str]:
    """Rules and numbers of both axes; the y axis, from 0 to 1, in per cent, the x axis if asked for."""
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(line(x_axis.start, y_axis(tick), x_axis.end, y_axis(tick), RULE))
        parts.append(text_at(x_axis.start - 6, y_axis(tick) + 4, f"{tick:.0%}", anchor="end"))
    for tick in x_axis.ticks():
        text = f"{tick:.0%}" if percent else f"{tick:g}"
        parts.append(text_at(x_axis(tick), y_axis.start + 15, text, anchor="middle"))
    parts.append(text_at((x_axis.start + x_axis.end) / 2, y_axis.start + 34, x_label, anchor="middle"))
    return parts


def vertical_rules(
    axis: Axis, top: float, bottom: float, *, written: Callable[[float], str] = "{:g}".format
) -> list[str]:
    """A rule at every tick of a horizontal axis, and its number below."""
    parts = []
    for tick in axis.ticks():
        parts.append(line(axis(tick), top, axis(tick), bottom, RULE))
        parts.append(text_at(axis(tick), bottom + 15, written(tick), anchor="middle"))
    return parts


def picture(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}" style="font-family:system-ui,sans-serif;'
        f'background:var(--surface, #ffffff)">' + "".join(parts) + "</svg>"
    )


def polyline(points: Sequence[tuple[float, float]], colour: str = ACCENT) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" style="fill:none;stroke:{colour};stroke-width:2;stroke-linejoin:round"/>'


def dot(x: float, y: float, *, radius: float = 4, colour: str = ACCENT) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" style="fill:{colour}"/>'


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(digit for digit in (1, 2, 5, 10) if digit * power >= step * (1 - 1e-9))
