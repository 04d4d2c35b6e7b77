"""Where each keypoint is fixed on the head, for layouts of 68, 80 and 104 points.

Every keypoint is one point of the skin and moves with it. The chin points lie on a fixed curve: from the front of one
ear down along the edge of the jaw, round the chin, up to the other ear. They do not slide to the visible contour when
the head turns; those on the far side become occluded.
"""

from __future__ import annotations

import numpy as np

from model.faces.features import PUPIL_RADIUS, Eye, Features
from model.faces.parts import ear_rim
from model.faces.surface import surface

_JAW_A = np.array([11.4, 11.3, 11.0, 10.3, 8.7, 6.8, 4.7, 2.4, 0.0])
_JAW_H = np.array([-0.6, -3.0, -5.5, -8.2, -9.8, -10.5, -10.9, -11.2, -11.3])
_QUARTERS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]], np.float64)
"""Left, top, right, bottom of a pupil."""


def _chin() -> np.ndarray:
    half = np.stack([-_JAW_A, _JAW_H], 1)
    return np.concatenate([half, half[-2::-1] * (-1, 1)])


def _brows(f: Features) -> np.ndarray:
    t = np.array([0.97, 0.74, 0.50, 0.26, 0.04])
    return np.concatenate([np.stack(f.brow(-1, t), 1), np.stack(f.brow(1, t[::-1]), 1)])


def _nose(f: Features) -> np.ndarray:
    base, width = f.nose_base, f.identity.nose_width
    down = np.array([0.0, 0.36, 0.72, 1.0])
    tip = base + 1.0
    bridge = np.stack([f.identity.nose_skew * down, 0.35 + (tip - 0.35) * down], 1)
    a = np.array([-f.WING, -f.NOSTRIL, 0.0, f.NOSTRIL, f.WING]) * width
    rise = np.array([0.32 + f.wing_rise, 0.02, -0.05, 0.02, 0.32 + f.wing_rise])
    return np.concatenate([bridge, np.stack([a, base + rise], 1)])


def _eye(eye: Eye) -> np.ndarray:
    """Six points, clockwise in the image from the corner on its left."""
    e = np.array([0.0, 0.32, 0.68, 1.0]) if eye.side > 0 else np.array([1.0, 0.68, 0.32, 0.0])
    upper = np.stack([eye.chart_a(e), eye.upper_lid(e)], 1)
    lower = np.stack([eye.chart_a(e), eye.lower_lid(e)], 1)
    return np.concatenate([upper, lower[2:0:-1]])


def _mouth(f: Features) -> np.ndarray:
    mouth = f.mouth
    upper = np.array([-1.0, -0.62, -0.25, 0.0, 0.25, 0.62, 1.0])
    lower = np.array([0.62, 0.27, 0.0, -0.27, -0.62])
    within = np.array([-1.0, -0.42, 0.0, 0.42, 1.0]) * mouth.INNER
    m = np.concatenate([upper, lower, within, within[3:0:-1]])
    h = np.concatenate(
        [
            mouth.outer_upper(upper),
            mouth.outer_lower(lower),
            mouth.inner_upper(within),
            mouth.inner_lower(within[3:0:-1]),
        ]
    )
    return np.stack([m * mouth.half_width, h], 1)


def _more_eye(eye: Eye) -> np.ndarray:
    """Ten of the twelve additional points of one eye: lower lid (3), fold above the eye (7, left to right)."""
    low = np.array([0.84, 0.5, 0.16])
    above = np.linspace(0.0, 1.0, 7)[:: eye.side]
    lower = np.stack([eye.chart_a(low), eye.lower_lid(low)], 1)
    return np.concatenate([lower, np.stack([eye.chart_a(above), eye.fold(above)], 1)])


def _tear_duct(eye: Eye) -> np.ndarray:
    e = 0.1
    return np.array([[eye.chart_a(e), 0.5 * (eye.upper_lid(e) + eye.lower_lid(e))]])


def chart_points(f: Features) -> np.ndarray:
    """Keypoints on the chart, (104, 2): a, h. Rows 76 to 79 (ears) are NaN: ears are off the chart."""
    left, right = f.eyes
    parts = [_chin(), _brows(f), _nose(f), _eye(left), _eye(right), _mouth(f)]
    parts += [np.array(eye.iris) + PUPIL_RADIUS * _QUARTERS for eye in f.eyes]
    parts.append(np.full((4, 2), np.nan))
    for eye in f.eyes:
        parts += [_more_eye(eye), _tear_duct(eye)]
    parts += [np.array([eye.iris]) for eye in f.eyes]
    return np.concatenate(parts)


def anchors(f: Features) -> np.ndarray:
    """Keypoints in head coordinates, (104, 3) centimetres; layouts of 68 and 80 points are its first rows."""
    chart = chart_points(f)
    on_skin = ~np.isnan(chart[:, 0])
    xyz = np.empty((len(chart), 3))
    xyz[on_skin] = surface(chart[on_skin, 0], chart[on_skin, 1], f)
    quarter = np.pi / 2
    xyz[~on_skin] = [ear_rim(f, side, end) for side in (-1, 1) for end in (quarter, -quarter)]
    return xyz


def covered_by_lids(f: Features) -> np.ndarray:
    """(104,) True for pupil points that a lid covers."""
    chart = chart_points(f)
    covered = np.zeros(len(chart), bool)
    for first, centre, eye in zip((68, 72), (102, 103), f.eyes, strict=True):
        rows = [*range(first, first + 4), centre]
        covered[rows] = ~eye.shows(chart[rows, 0], chart[rows, 1])
    return covered
