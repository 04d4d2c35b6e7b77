"""Charts of a challenger beside a champion, as SVG text.

Legend: F faces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from model.paired import Outcome, Row
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

GOOD, BAD, WARN = "var(--good, #15803d)", "var(--bad, #b91c1c)", "var(--warn, #a16207)"
COLOURS = {Outcome.PASSED: GOOD, Outcome.FAILED: BAD, Outcome.INCONCLUSIVE: WARN} | dict.fromkeys(
    (Outcome.SHOWN, Outcome.TOO_FEW), MUTED
)
"""Of a row; its outcome stands in words beside it too."""

ROW_WIDTH, ROW_STEP, ROW_LEFT, ROW_RIGHT = 460, 26, 156, 40
WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 18, 38
LONGEST_NAME = 24
LEGEND_LEFT = WIDTH - RIGHT - 170
CURVE_STEPS = 120
CURVE_SHARE = 0.98
"""The curves are drawn up to the error below which this share of the worse model's faces lies."""


def paired_chart(rows: Sequence[Row]) -> str:
    """A row per region or slice: the difference to the champion with its interval, and a mark at what is allowed.

    Where there is no champion it is the error against its bound. Rows without a number are left out.

    Raises:
        ValueError: no row has a number.
    """
    shown = [row for row in rows if row.challenger_px is not None]
    if not shown:
        raise ValueError("no row has a number")
    axis = _paired_axis(shown)
    height = TOP + ROW_STEP * len(shown) + BOTTOM
    paired = shown[0].difference_px is not None

    def signed(tick: float) -> str:
        value = round(tick, 9) or 0.0  # steps add up to almost 0
        return f"{value:+g}" if paired and value else f"{value:g}"

    parts = vertical_rules(axis, TOP, height - BOTTOM, written=signed)
    if paired:
        parts.append(line(axis(0), TOP - 4, axis(0), height - BOTTOM, MUTED, width=1.4))
        parts.append(text_at(axis(0) - 6, TOP - 6, "better", anchor="end"))
        parts.append(text_at(axis(0) + 6, TOP - 6, "worse"))
    label = "challenger less champion, crop pixels" if paired else "error, crop pixels"
    parts.append(text_at((axis.start + axis.end) / 2, height - 4, label, anchor="middle"))
    for number, row in enumerate(shown):
        parts += _paired_row(axis, TOP + ROW_STEP * (number + 0.5), row)
    return picture(ROW_WIDTH, height, label, parts)


def curves_chart(errors_F: Mapping[str, np.ndarray]) -> str:
    """Cumulative distribution of the faces' mean errors in crop pixels, a line for each model.

    Args:
        errors_F: name -> errors; at most two, the first in the colour of the challenger.
    """
    top = max(float(np.quantile(values_F, CURVE_SHARE)) for values_F in errors_F.values()) or 1.0
    x_axis, y_axis = Axis(0.0, top, LEFT, WIDTH - RIGHT), Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    parts = share_frame(x_axis, y_axis, "mean error of a face, crop pixels")
    at = np.linspace(0.0, top, CURVE_STEPS + 1)
    for number, (name, values_F) in reversed(list(enumerate(errors_F.items()))):
        colour = (ACCENT, MUTED)[number]
        share = np.searchsorted(np.sort(values_F), at, side="right") / len(values_F)
        points = [(x_axis(x), y_axis(y)) for x, y in zip(at.tolist(), share.tolist(), strict=True)]
        y = HEIGHT - BOTTOM - 14 - 18 * (len(errors_F) - 1 - number)
        parts.append(polyline(points, colour))
        parts.append(line(LEGEND_LEFT, y - 4, LEGEND_LEFT + 20, y - 4, colour, width=2))
        parts.append(text_at(LEGEND_LEFT + 26, y, name, colour=INK))
    return picture(WIDTH, HEIGHT, "share of faces below an error", parts)


def _paired_axis(rows: Sequence[Row]) -> Axis:
    ends = [0.0]
    for row in rows:
        value = row.challenger_px if row.difference_px is None else row.difference_px
        ends += [end for end in (value, row.low_px, row.high_px, row.allowance_px) if end is not None]
    margin = 0.04 * (max(ends) - min(ends)) or 1.0
    low = min(ends) - margin if min(ends) < 0 else 0.0
    return Axis(low, max(ends) + margin, ROW_LEFT, ROW_WIDTH - ROW_RIGHT)


def _paired_row(axis: Axis, y: float, row: Row) -> list[str]:
    colour = COLOURS[row.outcome]
    value = row.challenger_px if row.difference_px is None else row.difference_px
    assert value is not None
    name = row.name if len(row.name) <= LONGEST_NAME else f"{row.name[: LONGEST_NAME - 1]}…"
    parts = [text_at(ROW_LEFT - 10, y + 4, name, anchor="end", colour=INK)]
    if row.allowance_px is not None:
        parts.append(line(axis(row.allowance_px), y - 9, axis(row.allowance_px), y + 9, INK, width=2))
    if row.low_px is not None and row.high_px is not None:
        low, high = axis(row.low_px), axis(row.high_px)
        parts.append(line(low, y, high, y, colour, width=2))
        parts += [line(x, y - 4, x, y + 4, colour, width=2) for x in (low, high)]
    return [*parts, dot(axis(value), y, colour=colour)]
