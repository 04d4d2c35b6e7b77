"""What a face is painted on: an image laid out on the chart, with a strip of plain colours below it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import lru_cache

import cv2
import numpy as np

from model.faces.identity import Colour, tone_of

TEXELS_PER_CM = 14.0
HALF_WIDTH_CM, TOP_CM, BOTTOM_CM = 12.5, 8.5, -13.5
WIDTH = int(2 * HALF_WIDTH_CM * TEXELS_PER_CM) + 1
CHART_HEIGHT = int((TOP_CM - BOTTOM_CM) * TEXELS_PER_CM) + 1
STRIP = 12
_SHIFT = 4
"""Fractional bits of cv2's drawing coordinates."""


class Swatch(IntEnum):
    """Plain colours, each a strip as wide as the texture."""

    SKIN = 0
    HAIR = 1
    CLOTHES = 2
    MASK = 3
    LENS = 4


HEIGHT = CHART_HEIGHT + STRIP * len(Swatch)


def chart_to_texture(a: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Texel coordinates (..., 2) of chart positions; positions off the texture go to its border."""
    u = np.clip((a + HALF_WIDTH_CM) * TEXELS_PER_CM, 0, WIDTH - 1)
    v = np.clip((TOP_CM - h) * TEXELS_PER_CM, 0, CHART_HEIGHT - 1)
    return np.stack([u, v], axis=-1)


def swatch(which: Swatch, shape: tuple[int, ...], along: np.ndarray | float = 0.0) -> np.ndarray:
    """Texel coordinates (*shape, 2) inside a plain colour; `along` moves sideways from the middle."""
    uv = np.empty((*shape, 2))
    uv[..., 0] = np.clip(WIDTH / 2 + along, 2, WIDTH - 3)
    uv[..., 1] = CHART_HEIGHT + STRIP * (which + 0.5)
    return uv


@lru_cache
def texel_chart() -> tuple[np.ndarray, np.ndarray]:
    """Chart positions (a, h) of every texel of the chart part, float32."""
    a = np.arange(WIDTH, dtype=np.float32) / TEXELS_PER_CM - HALF_WIDTH_CM
    h = TOP_CM - np.arange(CHART_HEIGHT, dtype=np.float32) / TEXELS_PER_CM
    aa, hh = np.meshgrid(a, h)
    return aa, hh


@lru_cache
def grain() -> tuple[np.ndarray, np.ndarray]:
    """Skin mottling and hair strands, zero mean, the same for everybody: (HEIGHT, WIDTH) float32."""
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    mottle = 0.5 * cv2.GaussianBlur(noise, (0, 0), 2.0) + 1.2 * cv2.GaussianBlur(noise, (0, 0), 6.0)
    strands = cv2.GaussianBlur(noise, (0, 0), sigmaX=1.0, sigmaY=9.0) * 2.2
    return 0.35 * mottle, strands


def _fixed_point(uv: np.ndarray) -> np.ndarray:
    return np.round(uv * (1 << _SHIFT)).astype(np.int32)


class Canvas:
    """The texture while it is painted; every stroke is a soft mask blended over a small window."""

    def __init__(self, skin: Colour, channels: int) -> None:
        mottle, _ = grain()
        self._channels = channels
        self.texels = (1 + 0.35 * mottle)[..., None] * self.tone(skin)

    def tone(self, colour: Colour) -> np.ndarray:
        return tone_of(colour, self._channels)

    def polygon(self, a: np.ndarray, h: np.ndarray, colour: Colour, opacity: float, blur_cm: float) -> None:
        """Blend a filled outline given on the chart."""
        uv = chart_to_texture(np.asarray(a), np.asarray(h))
        margin = int(3 * blur_cm * TEXELS_PER_CM) + 2
        u0, v0 = np.maximum(np.floor(uv.min(0)).astype(int) - margin, 0)
        u1, v1 = np.minimum(np.ceil(uv.max(0)).astype(int) + margin + 1, (WIDTH, CHART_HEIGHT))
        mask = np.zeros((v1 - v0, u1 - u0), np.uint8)
        cv2.fillPoly(mask, [_fixed_point(uv - (u0, v0))], 255, cv2.LINE_AA, _SHIFT)
        alpha = mask.astype(np.float32) * (opacity / 255.0)
        if blur_cm > 0:
            alpha = cv2.GaussianBlur(alpha, (0, 0), blur_cm * TEXELS_PER_CM)
        self._blend((v0, v1), (u0, u1), alpha, self.tone(colour))

    def _blend(self, rows: tuple[int, int], columns: tuple[int, int], alpha: np.ndarray, tone: np.ndarray) -> None:
        window = self.texels[slice(*rows), slice(*columns)]
        window += alpha[..., None] * (tone - window)

    @contextmanager
    def inside(self, a: np.ndarray, h: np.ndarray) -> Iterator[None]:
        """What is painted within the context shows only inside this outline."""
        uv = chart_to_texture(a, h)
        margin = int(1.2 * TEXELS_PER_CM)
        u0, v0 = np.maximum(np.floor(uv.min(0)).astype(int) - margin, 0)
        u1, v1 = np.minimum(np.ceil(uv.max(0)).astype(int) + margin, (WIDTH, CHART_HEIGHT))
        before = self.texels[v0:v1, u0:u1].copy()
        yield
        outside = np.full(before.shape[:2], 255, np.uint8)
        cv2.fillPoly(outside, [_fixed_point(uv - (u0, v0))], 0, cv2.LINE_AA, _SHIFT)
        self._blend((v0, v1), (u0, u1), outside.astype(np.float32) / 255.0, before)

    def spread(self, alpha: np.ndarray, tone: np.ndarray) -> None:
        """Blend over the whole chart part."""
        self._blend((0, CHART_HEIGHT), (0, WIDTH), alpha.astype(np.float32), tone)

    def ellipse(
        self, at: tuple[float, float], radii: tuple[float, float], colour: Colour, opacity: float, blur_cm: float
    ) -> None:
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        self.polygon(at[0] + radii[0] * np.cos(turn), at[1] + radii[1] * np.sin(turn), colour, opacity, blur_cm)

    def stroke(
        self, a: np.ndarray, h: np.ndarray, width: np.ndarray | float, colour: Colour, opacity: float, blur_cm: float
    ) -> None:
        """A line of the given half width, tapering as `width` says, offset vertically."""
        self.polygon(
            np.concatenate([a, a[::-1]]), np.concatenate([h + width, (h - width)[::-1]]), colour, opacity, blur_cm
        )
