"""From a rendered bust to a photograph: background, things in front of the face, lens and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from model.faces.identity import Colour, tone_of
from model.faces.view import View

OCCLUDERS = ("hand", "box", "strand", "microphone")
"""What can be drawn in front of a face; each hides the keypoints under it."""

_SHIFT = 4
_OPAQUE = 0.5


@dataclass(frozen=True, eq=False)
class Photograph:
    """`image`: (H, W) gray or (H, W, 3) BGR, uint8; keypoints as in `View`, flags with those of drawn occluders."""

    image: np.ndarray
    points_N2: np.ndarray
    occluded_N: np.ndarray


@dataclass(frozen=True, eq=False)
class _Layer:
    """Something opaque in front: its light (H, W, C) and coverage (H, W)."""

    light_HWC: np.ndarray
    alpha_HW: np.ndarray


def _filled(shape: tuple[int, int], outlines: list[np.ndarray]) -> np.ndarray:
    """Coverage (H, W) of polygons, antialiased, 0..1."""
    mask = np.zeros(shape, np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [np.round(outline * (1 << _SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return mask.astype(np.float32) / 255.0


def _rounded(alpha: np.ndarray, tone: np.ndarray, radius: float) -> _Layer:
    """Shade a silhouette so that it looks round: darker towards its edge."""
    inside = cv2.distanceTransform((alpha > _OPAQUE).astype(np.uint8), cv2.DIST_L2, 3)
    shade = 0.45 + 0.55 * np.sqrt(np.clip(inside / radius, 0.0, 1.0))
    return _Layer(tone * shade[..., None], alpha)


def _capsule(start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """Outline (K, 2) of a line with round ends."""
    along = (end - start) / (np.linalg.norm(end - start) + 1e-9)
    turn = np.arctan2(along[1], along[0]) + np.pi / 2
    half = np.linspace(0, np.pi, 9)
    arcs = [start + radius * _circle(turn + half), end + radius * _circle(turn + np.pi + half)]
    return np.concatenate(arcs)


def _circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _hand(shape: tuple[int, int], at: np.ndarray, size: float, tone: np.ndarray, rng: np.random.Generator) -> _Layer:
    """A palm with four fingers and a thumb, coming from below or the side."""
    turn = rng.uniform(-0.9, 0.9)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mirror = rng.choice([-1.0, 1.0])

    def placed(points: list[tuple[float, float]]) -> np.ndarray:
        return at + (np.array(points) * (mirror * size, size)) @ rotation.T

    outlines = [
        _capsule(*placed([(x, 0.15), (1.5 * x, -0.5 + 0.9 * abs(x - 0.06))]), 0.075 * size)
        for x in (-0.24, -0.08, 0.08, 0.24)
    ]
    outlines.append(_capsule(*placed([(0.28, 0.35), (0.5, 0.0)]), 0.09 * size))
    outlines.append(_capsule(*placed([(0.0, 0.28), (0.0, 0.42)]), 0.33 * size))
    outlines.append(_capsule(*placed([(0.0, 0.5), (0.0, 2.4)]), 0.24 * size))
    layers = [_rounded(_filled(shape, [outline]), tone, 0.1 * size) for outline in outlines]
    light = np.zeros((*shape, len(tone)), np.float32)
    for layer in layers[::-1]:
        light += layer.alpha_HW[..., None] * (layer.light_HWC - light)
    return _Layer(light, np.max([layer.alpha_HW for layer in layers], axis=0))


def _box(shape: tuple[int, int], at: np.ndarray, size: float, tone: np.ndarray, rng: np.random.Generator) -> _Layer:
    turn = rng.uniform(0, np.pi)
    wide, high = size * rng.uniform(0.25, 0.5, 2)
    corners = np.array([[-wide, -high], [wide, -high], [wide, high], [-wide, high]])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    alpha = _filled(shape, [at + corners @ rotation.T])
    return _Layer(np.broadcast_to(tone, (*shape, len(tone))).astype(np.float32), alpha)


def _strand(
    shape: tuple[int, int], at: np.ndarray, size: float, tone: np.ndarray, rng: np.random.Generator
) -> _Layer:
    """A lock of hair that falls from above the face."""
    t = np.linspace(0, 1, 16)
    sway, lean = rng.uniform(-0.25, 0.25, 2) * size
    x = at[0] + lean * (t - 0.5) + sway * np.sin(np.pi * t)
    y = at[1] + (t * 1.5 - 1.1) * size
    half = size * rng.uniform(0.03, 0.07) * np.sqrt(1 - 0.95 * t)
    outline = np.concatenate([np.stack([x - half, y], 1), np.stack([x + half, y], 1)[::-1]])
    return _rounded(_filled(shape, [outline]), tone, 0.04 * size)


def _microphone(
    shape: tuple[int, int], at: np.ndarray, size: float, tone: np.ndarray, rng: np.random.Generator
) -> _Layer:
    """A ball on a stick, held from below."""
    foot = at + np.array([rng.uniform(-0.6, 0.6), 1.8]) * size
    ball = _capsule(at, at + np.array([0.01, 0.0]), 0.19 * size)
    return _rounded(_filled(shape, [ball, _capsule(at, foot, 0.08 * size)]), tone * 0.4, 0.16 * size)


_DRAW = {"hand": _hand, "box": _box, "strand": _strand, "microphone": _microphone}


def occlude(
    light_HWC: np.ndarray, view: View, occluder: str, tone: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw `occluder` over a random part of the face, in place.

    Args:
        light_HWC: linear light of the whole frame.
        tone: (C,) its colour.

    Returns:
        (N,) True for keypoints under it: those where it covers more than half of the nearest pixel.

    Raises:
        ValueError: unknown occluder.
    """
    if occluder not in _DRAW:
        raise ValueError(f"unknown occluder {occluder!r}; there are {', '.join(_DRAW)}")
    face = view.points_N2[:68]
    low, high = face.min(0), face.max(0)
    at = low + (high - low) * rng.uniform((0.15, 0.2), (0.85, 0.95))
    layer = _DRAW[occluder](light_HWC.shape[:2], at, float(high[1] - low[1]), tone, rng)
    light_HWC += layer.alpha_HW[..., None] * (layer.light_HWC - light_HWC)
    height, width = layer.alpha_HW.shape
    nearest = np.clip(np.round(view.points_N2).astype(int), 0, (width - 1, height - 1))
    return layer.alpha_HW[nearest[:, 1], nearest[:, 0]] > _OPAQUE


def background(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A room out of focus: a gradient, some furniture; linear light (H, W, C) float32."""
    height, width, channels = shape
    small = np.empty((24, 24, channels), np.float32)
    ramp = np.linspace(-0.5, 0.5, 24, dtype=np.float32)
    base, slope = rng.uniform(0.03, 0.5), rng.uniform(-0.5, 0.5, 2)
    small[:] = (base * (1 + slope[0] * ramp[:, None] + slope[1] * ramp[None]))[..., None]
    for _ in range(rng.integers(0, 7)):
        top, left = rng.integers(0, 22, 2)
        bottom, right = top + rng.integers(2, 16), left + rng.integers(1, 10)
        small[top:bottom, left:right] = base * rng.uniform(0.2, 1.9) * rng.uniform(0.8, 1.2, channels)
    room = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(0.8, 4.0)).reshape(shape).clip(0.004, 1.0)


def photograph(view: View, *, occluder: str | None, colour: Colour, rng: np.random.Generator) -> Photograph:
    """Put a bust before a background, something in front of it, and expose it.

    Args:
        occluder: one of `OCCLUDERS`, or None.
        colour: of the occluder, linear RGB.
    """
    alpha = view.alpha_HW[..., None]
    light = view.light_HWC + (1 - alpha) * background(view.light_HWC.shape, rng)
    occluded = view.occluded_N.copy()
    if occluder is not None:
        occluded |= occlude(light, view, occluder, tone_of(colour, light.shape[2]), rng)
    return Photograph(_exposed(light, rng), view.points_N2, occluded)


def _exposed(light_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, focus, noise, display curve (gamma 2.2): uint8, (H, W) or BGR."""
    signal = np.power(np.clip(light_HWC * rng.uniform(0.75, 1.3), 0.0, 1.0), 1 / 2.2, dtype=np.float32) * 255.0
    sharpness = rng.uniform(0.0, 0.9)
    if sharpness > 0.3:
        signal = cv2.GaussianBlur(signal, (0, 0), sharpness).reshape(light_HWC.shape)
    noise = rng.standard_normal(light_HWC.shape, dtype=np.float32) * rng.uniform(0.6, 4.0)
    pixels = np.clip(np.round(signal + noise), 0, 255).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[..., ::-1])
