"""The grids that make up a bust: head, ears, neck, shoulders, long hair, and what people wear.

Each part is a grid of points in centimetres with texture coordinates. Seen from outside, its rows run downwards and
its columns to the right, so the outward normal is dP/drow x dP/dcolumn. Two-sided sheets need not keep to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np

from model.faces.canvas import Swatch, chart_to_texture, swatch
from model.faces.features import Features
from model.faces.surface import CHART_RADIUS, HIGHEST, LOWEST, smoothstep, surface


class Kind(IntEnum):
    """What a pixel shows."""

    HEAD = 0
    EAR = 1
    BODY = 2
    HAIR = 3
    WORN = 4


@dataclass(frozen=True)
class Part:
    """One grid of the bust.

    Attributes:
        xyz_RC3: centimetres.
        uv_RC2: texture coordinates in texels (pixel centres at integers).
        shade_RC: 0..1, how much of the light reaches each point (folds and hollows are darker).
        gloss: strength of the highlight.
        on_head: turns with the head, not only with the body.
        two_sided: both faces of the sheet can be seen.
    """

    kind: Kind
    xyz_RC3: np.ndarray
    uv_RC2: np.ndarray
    shade_RC: np.ndarray
    gloss: float = 0.1
    on_head: bool = True
    two_sided: bool = False


@lru_cache
def _head_grid() -> tuple[np.ndarray, np.ndarray]:
    """Chart positions of the head's rows and columns; dense on the face, symmetric about a = 0."""
    back = np.pi * CHART_RADIUS
    half = np.concatenate([np.arange(0, 6.0, 0.25), np.arange(6.0, 12.0, 0.5), np.linspace(12.0, back, 10)])
    a = np.concatenate([-half[:0:-1], half])
    rising = np.concatenate(
        [
            np.linspace(LOWEST, -11.6, 6),
            np.arange(-11.1, -9.0, 0.35),
            np.arange(-9.0, -6.0, 0.2),
            np.arange(-6.0, -3.6, 0.17),
            np.arange(-3.6, -1.0, 0.35),
            np.arange(-1.0, 1.2, 0.17),
            np.arange(1.2, 7.0, 0.45),
            np.linspace(7.0, HIGHEST, 11),
        ]
    )
    return a, rising[::-1]


def head(f: Features) -> Part:
    a, h = _head_grid()
    aa, hh = np.meshgrid(a, h)
    return Part(Kind.HEAD, surface(aa, hh, f), chart_to_texture(aa, hh), np.ones(aa.shape), gloss=0.22)


def _ear_frame(f: Features, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Origin (middle of the ear), and unit vectors backwards, upwards, outwards."""
    flare = f.identity.ear_flare
    back = np.array([side * np.sin(flare), -0.12, -np.cos(flare)])
    back /= np.linalg.norm(back)
    up = np.array([side * 0.14, 1.0, -0.18])
    up -= back * (up @ back)
    up /= np.linalg.norm(up)
    out = np.cross(back, up) * -side
    root = np.array([side * 6.75 * f.identity.head_width, -0.7, -0.9])
    return root + back * 1.15 * f.identity.ear_size, back, up, out


def _ear_point(f: Features, side: int, angle: np.ndarray, rho: np.ndarray, rise: np.ndarray) -> np.ndarray:
    origin, back, up, out = _ear_frame(f, side)
    size = f.identity.ear_size
    across = rho * size * 1.7 * np.cos(angle) * (1 + 0.28 * np.sin(angle))
    height = rho * size * 3.15 * np.sin(angle)
    return origin + across[..., None] * back + height[..., None] * up + rise[..., None] * out


def ear_rim(f: Features, side: int, angle: float) -> np.ndarray:
    """The point (3,) of an ear's rim: angle pi/2 is its top, -pi/2 the end of its lobe."""
    one = np.ones(1)
    return _ear_point(f, side, one * angle, one, one * 0.0)[0]


def ear(f: Features, side: int) -> Part:
    """A shell with a raised rim and a hollow; its back is the same outline, further in."""
    angle = np.linspace(-np.pi, np.pi, 33)
    rho = np.array([0.0, 0.2, 0.38, 0.5, 0.62, 0.74, 0.84, 0.92, 1.0, 0.93, 0.8, 0.55])
    rise = np.array([-0.55, -0.5, -0.35, 0.1, 0.18, -0.05, 0.05, 0.16, 0.0, -0.22, -0.35, -0.9])
    shade = np.array([0.45, 0.5, 0.62, 0.95, 0.95, 0.68, 0.85, 1.0, 1.0, 0.85, 0.6, 0.4])
    angles, rhos = np.meshgrid(angle, rho)
    lobe = smoothstep(-0.3, -0.9, np.sin(angles))
    rises = np.where(rhos > 0.2, rise[:, None] * (1 - 0.6 * lobe), rise[:, None])
    xyz = _ear_point(f, side, angles, rhos, np.broadcast_to(rises, angles.shape))
    shades = shade[:, None] * (1 - lobe) + np.maximum(shade[:, None], 0.85) * lobe
    return Part(Kind.EAR, xyz, swatch(Swatch.SKIN, angles.shape), shades, two_sided=True)


def neck(f: Features) -> Part:
    y = np.linspace(-3.0, -18.5, 40)
    turn = np.linspace(-np.pi, np.pi, 81)
    turns, ys = np.meshgrid(turn, y)
    flare = 1 + 0.9 * np.square(smoothstep(-12.0, -19.0, ys))
    width = 5.4 * f.identity.head_width * flare
    xyz = np.stack([width * np.sin(turns), ys, 5.6 * flare * np.cos(turns) - 2.6 - 0.06 * (ys + 8)], axis=-1)
    throat = smoothstep(-15.0, -9.5, ys)
    return Part(Kind.BODY, xyz, swatch(Swatch.SKIN, ys.shape), 1 - 0.5 * throat, gloss=0.05, on_head=False)


def shoulders(f: Features) -> Part:
    """Clothes: a yoke that rises to the neck."""
    turn = np.linspace(-np.pi, np.pi, 41)
    rho = np.linspace(0.0, 1.0, 12)
    turns, rhos = np.meshgrid(turn, rho)
    wide = 6.2 + (22.0 - 6.2) * rhos
    deep = 6.3 + (11.5 - 6.3) * np.sqrt(rhos)
    y = -14.4 - 2.0 * rhos - 16.0 * np.power(rhos, 4) - 1.6 * np.clip(np.cos(turns), 0, 1) * (1 - rhos)
    xyz = np.stack([wide * np.sin(turns), y, deep * np.cos(turns) - 3.0], axis=-1)
    return Part(Kind.BODY, xyz, swatch(Swatch.CLOTHES, rhos.shape), np.ones(rhos.shape), 0.0, False, True)


def long_hair(f: Features) -> Part:
    """A sheet from the temples round the back, over the ears, down to the shoulders."""
    volume = f.identity.hair_volume
    turn = np.linspace(-1.0, 1.0, 61)
    y = np.linspace(8.5, -17.0, 34)
    turns, ys = np.meshgrid(turn, y)
    low = smoothstep(6.0, -8.0, ys)
    edge = 1.15 - 0.05 * low + 0.25 * smoothstep(4.0, 8.5, ys)
    longitude = np.pi + turns * (np.pi - edge)
    strands = 0.12 * np.sin(23 * turns) + 0.08 * np.sin(51 * turns + ys)
    dome = np.sqrt(np.clip(1 - np.square((ys - 2.0) / 10.2), 0.0, 1.0))
    around = np.where(ys > 2.0, dome, 1.0) * (1 + 0.05 * np.sin(ys / 2.5))
    width = (8.3 + 0.7 * volume + strands) * around * f.identity.head_width
    depth = (10.4 + 0.8 * volume + strands) * around
    xyz = np.stack([width * np.sin(longitude), ys, depth * np.cos(longitude)], axis=-1)
    uv = swatch(Swatch.HAIR, ys.shape, along=turns * 40.0)
    shade = 0.75 + 0.25 * smoothstep(-1.0, 0.9, np.sin(37 * turns + 0.3 * ys))
    return Part(Kind.HAIR, xyz, uv, shade, gloss=0.25, two_sided=True)


def mask(f: Features) -> Part:
    """A face mask over nose, mouth and chin, 0.6 cm off the skin."""
    across, down = np.meshgrid(np.linspace(-1.0, 1.0, 41), np.linspace(0.0, 1.0, 30))
    top = -1.7 - 1.2 * np.square(across)
    bottom = -12.2 + 3.2 * np.square(across)
    a = across * 9.3
    xyz = surface(a, top + (bottom - top) * down, f)
    lifted = xyz.copy()
    lifted[..., 2] = np.maximum(_blurred(xyz[..., 2]), xyz[..., 2] - 0.2)
    longitude = a / CHART_RADIUS
    lifted += 0.65 * np.stack([np.sin(longitude), 0 * a, np.cos(longitude)], axis=-1)
    pleats = 0.9 + 0.1 * np.cos(down * 9 * np.pi)
    return Part(Kind.WORN, lifted, swatch(Swatch.MASK, a.shape), pleats, gloss=0.0, two_sided=True)


def _blurred(values_RC: np.ndarray) -> np.ndarray:
    """Cloth spans hollows: six passes of a 5-point mean along both axes."""
    for _ in range(6):
        padded = np.pad(values_RC, 2, mode="edge")
        rows, columns = values_RC.shape
        values_RC = sum(padded[i : i + rows, 2 : 2 + columns] for i in range(5)) / 5
        padded = np.pad(values_RC, 2, mode="edge")
        values_RC = sum(padded[2 : 2 + rows, i : i + columns] for i in range(5)) / 5
    return values_RC


def _squarish(values: np.ndarray) -> np.ndarray:
    """Turns a circle's cosine and sine into those of a rounded square."""
    return np.sign(values) * np.sqrt(np.abs(values))


def sunglasses(f: Features, side: int) -> Part:
    """One dark lens, in front of eye and part of the brow."""
    eye = f.eyes[0 if side < 0 else 1]
    angle = np.linspace(-np.pi, np.pi, 33)
    angles, rhos = np.meshgrid(angle, np.linspace(0.0, 1.0, 6))
    a = 0.5 * side * (eye.inner + eye.outer + 0.4) + rhos * 2.45 * _squarish(np.cos(angles))
    h = 0.15 + rhos * 1.75 * _squarish(np.sin(angles))
    x = a * f.identity.head_width
    xyz = np.stack([x, h, 10.4 - 0.035 * np.square(x)], axis=-1)
    return Part(Kind.WORN, xyz, swatch(Swatch.LENS, a.shape), np.ones(a.shape), gloss=0.8, two_sided=True)


def spectacles(f: Features) -> list[Part]:
    """Wire: two rims, a bridge, two temples, each a ribbon."""
    who = f.identity
    turn = np.linspace(0, 2 * np.pi, 33)
    wires = []
    for eye in f.eyes:
        x = 0.5 * eye.side * (eye.inner + eye.outer + 0.4) * who.head_width + 2.35 * _squarish(np.cos(turn))
        rim = np.stack([x, -0.15 + 1.7 * _squarish(np.sin(turn)), 10.35 - 0.035 * x * x], axis=-1)
        wires.append(_ribbon(rim, rim + 0.11 * (rim - rim.mean(0)) * (1, 1, 0)))
    for side in (-1, 1):
        x = side * np.array([5.7, 7.15, 7.7]) * who.head_width
        low = np.stack([x, np.array([0.45, 0.5, 0.4]), np.array([9.2, 6.0, -0.8])], axis=-1)
        wires.append(_ribbon(low, low + np.array([0, 0.3, 0])))
    half = 3.42 * who.eye_spacing * who.head_width - 2.3
    bridge = np.array([[-half, 0.35, 10.35], [0.0, 0.55, 10.6], [half, 0.35, 10.35]])
    wires.append(_ribbon(bridge, bridge + np.array([0, 0.25, 0])))
    return wires


def _ribbon(one_K3: np.ndarray, other_K3: np.ndarray) -> Part:
    xyz = np.stack([other_K3, one_K3])
    return Part(Kind.WORN, xyz, swatch(Swatch.LENS, xyz.shape[:2]), np.ones(xyz.shape[:2]), two_sided=True)
