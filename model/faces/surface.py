"""The head as a surface: chart (a, h) -> (x, y, z) in centimetres.

x is to the image's right in a frontal view, y up, z towards a frontal camera; the origin is midway between the ears
at eye level. Rows of constant h are closed curves around the head, lofted through measured-looking half widths and
depths; they tilt towards the back so that the lowest rows follow the jaw. Features are displacements along the
horizontal outward direction.
"""

from __future__ import annotations

import numpy as np

from model.faces.features import Features

CHART_RADIUS = 7.8
"""a = CHART_RADIUS * longitude."""


def _cap_rows(angle: np.ndarray) -> np.ndarray:
    """Rows of `_ROWS` over the top of the skull, a quarter ellipse from h = 5 to the crown."""
    narrowing = np.outer([7.45, 9.2, -10.1], np.cos(angle))
    return np.stack([5.0 + 14.0 / np.pi * angle, 5.2 + 6.3 * np.sin(angle), *narrowing, 0 * angle], axis=1)


# Columns: h, y, half width, front z, back z, how far the row is lifted at the side. Eye level is h = 0.
_ROWS = np.array(
    [
        [-14.5, -8.8, 2.4, 1.5, -5.0, 2.6],
        [-13.5, -10.2, 3.2, 3.8, -5.5, 3.0],
        [-12.3, -11.2, 4.1, 6.6, -5.8, 3.2],
        [-11.0, -11.0, 4.75, 8.35, -6.0, 3.1],
        [-9.5, -9.6, 5.25, 8.95, -6.5, 2.7],
        [-7.5, -7.5, 5.75, 9.1, -7.2, 1.9],
        [-5.0, -5.0, 6.3, 9.15, -8.2, 1.0],
        [-2.5, -2.5, 6.8, 9.1, -9.2, 0.4],
        [0.0, 0.0, 7.05, 9.15, -9.9, 0.0],
        [2.5, 2.5, 7.35, 9.45, -10.2, 0.0],
        [5.0, 5.2, 7.45, 9.2, -10.1, 0.0],
        *_cap_rows(np.radians([18.0, 36.0, 54.0, 72.0, 90.0])),
    ]
)  # fmt: skip
LOWEST, HIGHEST = float(_ROWS[0, 0]), float(_ROWS[-1, 0])


def _row(h: np.ndarray) -> tuple[np.ndarray, ...]:
    """Columns 1 to 5 of `_ROWS` at h: cubic Hermite with finite-difference tangents (Catmull-Rom)."""
    knots, values = _ROWS[:, 0], _ROWS[:, 1:]
    slopes = np.gradient(values, knots, axis=0)
    h = np.clip(h, LOWEST, HIGHEST)
    i = np.clip(np.searchsorted(knots, h, side="right") - 1, 0, len(knots) - 2)
    step = knots[i + 1] - knots[i]
    t = ((h - knots[i]) / step)[..., None]
    step = step[..., None]
    smooth = t * t * (3 - 2 * t)
    found = (
        values[i] * (1 - smooth)
        + values[i + 1] * smooth
        + step * t * (1 - t) * (slopes[i] * (1 - t) - slopes[i + 1] * t)
    )
    return tuple(np.moveaxis(found, -1, 0))


def smoothstep(low: np.ndarray | float, high: np.ndarray | float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _bump(a: np.ndarray, h: np.ndarray, at: tuple[float, float], sigma: tuple[float, float]) -> np.ndarray:
    return np.exp(-0.5 * (np.square((a - at[0]) / sigma[0]) + np.square((h - at[1]) / sigma[1])))


def _skull(a: np.ndarray, h: np.ndarray, f: Features) -> np.ndarray:
    """Bones and soft tissue, both halves alike."""
    who, act = f.identity, f.expression
    side = np.abs(a)
    lift = 0.5 * act.cheek_raise
    return (
        0.34 * who.brow_ridge * _bump(side, h, (2.5, 2.0), (1.9, 0.75))
        + 0.12 * _bump(a, h, (0.0, 2.2), (1.1, 0.9))
        - 0.95 * _bump(side, h, (3.0, 0.0), (1.35, 1.05))
        - 0.30 * _bump(a, h, (0.0, 0.7), (1.0, 0.7))
        + (0.34 * who.cheek + 0.45 * act.cheek_raise) * _bump(side, h, (4.9, -2.4 + lift), (1.7, 1.4))
        - 0.42 * _bump(side, h, (5.6, -6.2), (1.9, 2.0)) * (1.3 - who.cheek * 0.3)
        + 0.55 * _bump(a, h, (0.0, -6.9), (2.7, 1.7))
        - 0.42 * _bump(a, h, (0.0, -8.75), (1.7, 0.42))
        + 0.5 * who.chin * _bump(a, h, (0.0, -10.1), (1.5, 0.85))
        - 0.3 * _bump(side, h, (8.2, 3.4), (1.8, 2.0))
        - (0.12 + 0.35 * max(act.corner_lift, 0)) * _crease(side, h)
    )


def _crease(side: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The fold from the wing of the nose to beside the mouth's corner."""
    along = np.clip((-4.2 - h) / 3.0, 0.0, 1.0)
    within = smoothstep(-0.2, 0.25, (-4.2 - h) / 3.0) * (1 - smoothstep(0.7, 1.15, (-4.2 - h) / 3.0))
    return within * np.exp(-0.5 * np.square((side - (1.9 + 1.5 * along)) / 0.3))


def _nose(a: np.ndarray, h: np.ndarray, f: Features) -> np.ndarray:
    who = f.identity
    base = f.nose_base
    tip = base + 0.95
    down = np.clip((0.9 - h) / (0.9 - tip), 0.0, 1.0)
    ridge = (0.35 + 1.55 * np.power(down, 1.25)) * who.nose_height
    ridge = ridge * smoothstep(2.3, 0.6, h) * smoothstep(base - 0.28, tip + 0.1, h)
    centre = who.nose_skew * down
    width = 0.60 + 0.2 * down * who.nose_width
    wing = _bump(np.abs(a), h, (1.22 * who.nose_width, base + 0.62 + f.wing_rise), (0.4, 0.5))
    ball = _bump(a, h, (who.nose_skew, tip - 0.05), (0.7, 0.42))
    return ridge * np.exp(-0.5 * np.square((a - centre) / width)) + 0.66 * wing + 0.28 * ball


def _lids(a: np.ndarray, h: np.ndarray, f: Features) -> np.ndarray:
    """Eyeballs under the lids; the ball lies a little behind the lids' edges."""
    total = np.zeros(np.broadcast(a, h).shape)
    for eye in f.eyes:
        centre = 0.5 * eye.side * (eye.inner + eye.outer)
        total += 0.72 * _bump(a, h, (centre, 0.0), (0.95, 0.72))
        e = eye.along(a)
        edge = smoothstep(0.0, 0.1, e) * smoothstep(1.0, 0.9, e)
        inside = smoothstep(0.0, 0.12, eye.upper_lid(e) - h) * smoothstep(0.0, 0.1, h - eye.lower_lid(e))
        total -= 0.13 * edge * inside
    return total


def _lips(a: np.ndarray, h: np.ndarray, f: Features) -> np.ndarray:
    mouth = f.mouth
    m = a / mouth.half_width
    within = np.clip(1 - m * m, 0.0, 1.0)
    upper = np.clip((h - mouth.inner_upper(m)) / (mouth.upper_lip * 0.95 + 1e-3), 0.0, 1.0)
    lower = np.clip((mouth.inner_lower(m) - h) / (mouth.lower_lip * 0.95 + 1e-3), 0.0, 1.0)
    full = f.identity.lip_fullness * np.sqrt(within)
    ridge = full * (0.26 * np.sin(np.pi * np.sqrt(upper)) + 0.36 * np.sin(np.pi * np.sqrt(lower)))
    gap = mouth.gap_up + mouth.gap_down
    slope = 0.25 + 0.3 * gap
    hollow = smoothstep(0.0, slope, mouth.inner_upper(m) - h) * smoothstep(0.0, slope, h - mouth.inner_lower(m))
    seam = np.exp(-0.5 * np.square((h - mouth.line(m)) / 0.12)) * within
    return ridge - 0.14 * seam - min(0.25 + 0.9 * gap, 1.3) * hollow * within


def _hair(a: np.ndarray, h: np.ndarray, f: Features) -> np.ndarray:
    grown = smoothstep(-0.25, 0.9, h - f.hairline(a))
    crown = 1 - 0.75 * f.identity.balding * np.exp(-np.square(a / 12.0))
    return f.identity.hair_volume * crown * grown * (0.35 + 0.75 * smoothstep(4.0, 10.0, h))


def _jaw(xyz: np.ndarray, a: np.ndarray, h: np.ndarray, f: Features) -> np.ndarray:
    """Turn what lies below the lips' line about the jaw's hinge, as far as `jaw_drop` lowers the chin."""
    mouth = f.mouth
    if mouth.jaw_drop == 0:
        return xyz
    m = a / mouth.half_width
    soft = 2.6 * smoothstep(0.7, 1.7, np.abs(m))
    weight = smoothstep(mouth.inner_upper(m) + soft, mouth.inner_lower(m) - soft, h)
    swing = mouth.jaw_drop / 9.0 * weight * np.clip(xyz[..., 2] / 9.0, 0.0, 1.2)
    moved = xyz.copy()
    moved[..., 1] -= 9.0 * swing
    moved[..., 2] -= 2.2 * swing
    return moved


def surface(a: np.ndarray, h: np.ndarray, f: Features) -> np.ndarray:
    """Points (..., 3) in centimetres at chart positions a, h of equal shape."""
    a, h = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(h, np.float64))
    who = f.identity
    y, width, front, back, tilt = _row(h)
    longitude = a / CHART_RADIUS
    sine, cosine = np.sin(longitude), np.cos(longitude)
    width = width * who.head_width * (1 + (who.jaw_width - 1) * smoothstep(-2.0, -9.0, h))
    nose, rest = _displacements(a, h, f)
    steep = np.clip((h - 5.0) / (HIGHEST - 5.0), 0.0, 1.0) * np.pi / 2
    outward = (nose + rest) * np.cos(steep)
    xyz = np.empty((*a.shape, 3))
    xyz[..., 0] = width * sine * (1 + 0.15 * cosine * cosine) + outward * sine
    xyz[..., 1] = np.where(y < 0, y * who.face_length, y) + tilt * (1 - cosine) + rest * np.sin(steep)
    xyz[..., 1] -= 0.26 * nose * np.square(np.clip((0.9 - h) / 4.7, 0.0, 1.0))
    xyz[..., 2] = np.where(cosine > 0, front, -back) * cosine + outward * cosine
    return _jaw(xyz, a, h, f)


def _displacements(a: np.ndarray, h: np.ndarray, f: Features) -> tuple[np.ndarray, np.ndarray]:
    """Outward displacements in centimetres: of the nose (whose tip also sinks), of all else.

    Features of the front are computed only where they are.
    """
    nose, rest = np.zeros(a.shape), _hair(a, h, f)
    front = (np.abs(a) < 11.0) & (h < 7.0)
    af, hf = a[front], h[front]
    nose[front] = _nose(af, hf, f)
    rest[front] += _skull(af, hf, f) + _lids(af, hf, f) + _lips(af, hf, f)
    return nose, rest
