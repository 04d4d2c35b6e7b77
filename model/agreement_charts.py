"""Charts of an agreement on a mean face, as SVG text: drawn in crop pixels, `SCALE` of the picture's units to one."""

from __future__ import annotations

from collections.abc import Sequence

from model.svg import ACCENT, MUTED, dot, line, picture
from schemas.geometry import CROP_SIZE

SCALE, MARGIN = 5.0, 7.0
LARGEST_ARROW = 9.0
"""Crop pixels that the longest arrow is drawn with, unless that is more than `MOST_ENLARGED` times its length."""

MOST_ENLARGED = 10.0
SPREAD_ENLARGED = 3
"""Discs are drawn this many times as wide as the spread that they stand for."""

LONG_SPREAD = 3.0
"""Crop pixels of spread from which on a point is drawn in the warning colour alone."""

_BAD = "var(--bad, #b91c1c)"
_SIZE = round((CROP_SIZE + 2 * MARGIN) * SCALE)

Points = Sequence[tuple[float, float]]


def spread_chart(mean_face: Points, spread_crop_px: Sequence[float], labels: Sequence[str]) -> str:
    """A disc for each keypoint of the mean face, `SPREAD_ENLARGED` times as wide as annotators are apart there."""
    parts = []
    for (x, y), spread, label in zip(mean_face, spread_crop_px, labels, strict=True):
        bad = min(spread / LONG_SPREAD, 1.0)
        colour = f"color-mix(in srgb, {_BAD} {bad:.0%}, {ACCENT})"
        disc = (
            f'<circle cx="{_at(x):.1f}" cy="{_at(y):.1f}" r="{max(spread * SPREAD_ENLARGED * SCALE / 2, 1.5):.1f}" '
            f'style="fill:{colour};fill-opacity:0.4"><title>{label}: {spread:.2f} crop pixels</title></circle>'
        )
        parts += [disc, dot(_at(x), _at(y), radius=1.6)]
    return picture(_SIZE, _SIZE, "spread of each keypoint on the mean face", parts)


def enlargement(offsets: Sequence[Points]) -> float:
    """How much larger than they are the arrows of several charts are drawn, the same for all."""
    longest = max((max(abs(x), abs(y)) for points in offsets for x, y in points), default=0.0)
    return min(LARGEST_ARROW / longest, MOST_ENLARGED) if longest > 0 else 1.0


def bias_chart(mean_face: Points, offset_crop_px: Points, *, enlarged: float, name: str) -> str:
    """An arrow for each keypoint of the mean face: where an annotator puts it, `enlarged` times as far as it is."""
    parts = []
    for (x, y), (dx, dy) in zip(mean_face, offset_crop_px, strict=True):
        parts.append(dot(_at(x), _at(y), radius=2.2, colour=MUTED))
        end_x, end_y = x + dx * enlarged, y + dy * enlarged
        parts.append(line(_at(x), _at(y), _at(end_x), _at(end_y), ACCENT, width=2.2))
        parts.append(dot(_at(end_x), _at(end_y), radius=2.6))
    return picture(_SIZE, _SIZE, f"offset of each keypoint, annotator {name}", parts)


def _at(value: float) -> float:
    return (value + MARGIN) * SCALE
