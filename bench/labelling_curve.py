"""Error against labels, for two orders of labelling: who needs fewer, and by how much.

Legend: K numbers of labels, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from model.svg import ACCENT, INK, MUTED, RULE, Axis, dot, line, picture, polyline, text_at

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 86, 16, 40
COLOURS = (ACCENT, "var(--other, #b45309)")


def labels_for_error(labels_K: Sequence[int], errors_K: Sequence[float], error: float) -> float | None:
    """How many labels a curve needs to come down to `error`, straight between its points over the logarithm of the
    labels; None where it never does.

    Before it is used the curve is made to never rise, since a point that is higher than one with fewer labels is
    noise: more labels can be left unused.
    """
    falling_K = np.minimum.accumulate(np.asarray(errors_K, np.float64))
    for k, value in enumerate(falling_K):
        if value > error:
            continue
        if k == 0 or falling_K[k - 1] == value:
            return float(labels_K[k])
        share = (falling_K[k - 1] - error) / (falling_K[k - 1] - value)
        low, high = math.log(labels_K[k - 1]), math.log(labels_K[k])
        return math.exp(low + share * (high - low))
    return None


def curve_chart(labels_K: Sequence[int], curves: Mapping[str, np.ndarray], *, label: str, y_label: str) -> str:
    """Curves by name, each (S, K): a thin line a seed, a thick one for the mean with its points, as SVG text.

    Raises:
        ValueError: there are more than two curves, or no label.
    """
    if not 0 < len(curves) <= len(COLOURS) or not len(labels_K):
        raise ValueError(f"a chart of one or two curves over some labels, not {len(curves)} over {len(labels_K)}")
    every = np.concatenate([np.ravel(errors_SK) for errors_SK in curves.values()])
    margin = 0.06 * float(np.ptp(every)) or 0.1
    x_axis = Axis(labels_K[0], labels_K[-1], LEFT, WIDTH - RIGHT, logarithmic=True)
    y_axis = Axis(float(every.min()) - margin, float(every.max()) + margin, HEIGHT - BOTTOM, TOP)
    parts = _frame(labels_K, x_axis, y_axis, y_label)
    for errors_SK, colour in zip(curves.values(), COLOURS, strict=False):
        parts += [
            _thin([(x_axis(x), y_axis(y)) for x, y in zip(labels_K, row, strict=True)], colour) for row in errors_SK
        ]
        mean = [(x_axis(x), y_axis(y)) for x, y in zip(labels_K, errors_SK.mean(axis=0), strict=True)]
        parts += [polyline(mean, colour), *(dot(x, y, radius=3.5, colour=colour) for x, y in mean)]
    return picture(WIDTH, HEIGHT, label, [*parts, *_legend(curves)])


def _frame(labels_K: Sequence[int], x_axis: Axis, y_axis: Axis, y_label: str) -> list[str]:
    parts = []
    for tick in y_axis.ticks():
        y = y_axis(tick)
        parts += [line(LEFT, y, WIDTH - RIGHT, y, RULE), text_at(LEFT - 6, y + 4, f"{tick:g}", anchor="end")]
    for labels in labels_K:
        parts.append(text_at(x_axis(labels), HEIGHT - BOTTOM + 16, f"{labels:,}", anchor="middle"))
    parts.append(text_at((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "labelled faces", anchor="middle"))
    return [*parts, text_at(LEFT, TOP - 4, y_label, colour=MUTED)]


def _thin(points: Sequence[tuple[float, float]], colour: str) -> str:
    return "".join(line(*start, *end, colour, width=0.7) for start, end in pairwise(points))


def _legend(names: Mapping[str, np.ndarray]) -> list[str]:
    parts = []
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        y = TOP + 14 + 18 * number
        parts += [dot(WIDTH - RIGHT + 12, y - 4, colour=colour), text_at(WIDTH - RIGHT + 21, y, name, colour=INK)]
    return parts
