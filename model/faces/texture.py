"""The painting of a face: skin, beard, nostrils, lips, eyes, brows, hair, on the chart."""

from __future__ import annotations

import numpy as np

from model.faces.canvas import CHART_HEIGHT, STRIP, Canvas, Swatch, grain, texel_chart
from model.faces.features import IRIS_RADIUS, PUPIL_RADIUS, Eye, Features
from model.faces.identity import Colour
from model.faces.surface import smoothstep

_MASK_COLOUR, _LENS_COLOUR = (0.55, 0.68, 0.75), (0.006, 0.006, 0.008)
_EYE_WHITE, _PUPIL = (0.52, 0.48, 0.45), (0.004, 0.004, 0.004)
_TEETH, _GUM = (0.72, 0.68, 0.58), (0.10, 0.025, 0.022)


def _scaled(colour: Colour, by: Colour | float) -> Colour:
    red, green, blue = np.multiply(colour, by).tolist()
    return red, green, blue


def paint(f: Features, channels: int) -> np.ndarray:
    """The texture (HEIGHT, WIDTH, channels) of a face: linear RGB (3) or luminance (1), float32."""
    canvas = Canvas(f.identity.skin, channels)
    _paint_complexion(canvas, f)
    _paint_beard(canvas, f)
    _paint_nose(canvas, f)
    _paint_mouth(canvas, f)
    for eye in f.eyes:
        _paint_eye(canvas, eye, f)
        _paint_brow(canvas, eye.side, f)
    _paint_hair(canvas, f)
    _fill_swatches(canvas, f)
    return canvas.texels


def _paint_complexion(canvas: Canvas, f: Features) -> None:
    skin = f.identity.skin
    for side in (-1, 1):
        canvas.ellipse((side * 4.2, -2.9), (2.0, 1.4), _scaled(skin, (1.12, 0.86, 0.82)), 0.7, 0.8)
        canvas.ellipse((side * 3.2, 0.5), (2.1, 1.2), _scaled(skin, 0.66), 0.6, 0.45)
        canvas.ellipse((side * 1.25, 0.2), (0.5, 0.9), _scaled(skin, 0.6), 0.5, 0.35)
        canvas.ellipse((side * 3.1, -1.15), (1.5, 0.3), _scaled(skin, 0.74), 0.55, 0.25)
        t = np.linspace(0, 1, 8)
        strength = 0.3 + 0.5 * max(f.expression.corner_lift, f.expression.upper_lip_raise, 0.0)
        canvas.stroke(side * (1.95 + 1.5 * t), -4.3 - 3.0 * t, 0.16, _scaled(skin, 0.55), min(strength, 0.7), 0.16)
    if f.expression.brow_frown > 0:
        for side in (-1, 1):
            canvas.ellipse((side * 0.45, 1.7), (0.1, 0.6), _scaled(skin, 0.5), 2.0 * f.expression.brow_frown, 0.1)


def _paint_beard(canvas: Canvas, f: Features) -> None:
    who, mouth = f.identity, f.mouth
    a, h = texel_chart()
    _, strands = grain()
    coarse = 1 + 0.35 * strands[:CHART_HEIGHT]
    side = np.abs(a)
    if who.beard > 0:
        edge = mouth.centre - 0.9 + 0.055 * np.square(np.clip(side - 3.4, 0, None)) * 2.2
        grown = smoothstep(edge + 0.5, edge - 0.9, h) * smoothstep(11.6, 10.8, side)
        sideburn = smoothstep(9.4, 10.4, side) * smoothstep(11.8, 11.2, side) * smoothstep(1.5, 0.5, h)
        canvas.spread(np.clip(np.maximum(grown, sideburn) * coarse, 0, 1) * 0.85 * who.beard, canvas.tone(who.hair))
    if who.moustache > 0:
        low, high = mouth.centre + 0.45, f.nose_base - 0.25
        band = smoothstep(low - 0.3, low + 0.2, h) * smoothstep(high + 0.3, high - 0.3, h + 0.05 * side * side)
        drop = smoothstep(3.6, 2.8, side)
        canvas.spread(np.clip(band * drop * coarse, 0, 1) * 0.85 * who.moustache, canvas.tone(who.hair))


def _paint_nose(canvas: Canvas, f: Features) -> None:
    skin, width = f.identity.skin, f.identity.nose_width
    base = f.nose_base
    for side in (-1, 1):
        canvas.ellipse((side * 1.55 * width, base + 0.55), (0.22, 0.6), _scaled(skin, 0.5), 0.7, 0.18)
        canvas.ellipse((side * 0.72 * width, base + 0.16), (0.42, 0.17), _scaled(skin, 0.08), 0.95, 0.07)
    canvas.ellipse((0.0, base - 0.15), (1.3 * width, 0.22), _scaled(skin, 0.55), 0.6, 0.18)
    canvas.ellipse((0.0, base - 0.9), (0.22, 0.5), _scaled(skin, 0.8), 0.5, 0.12)


def _paint_mouth(canvas: Canvas, f: Features) -> None:
    mouth, skin = f.mouth, f.identity.skin
    lip = _scaled(skin, (0.80, 0.46, 0.48))
    m = np.linspace(-1, 1, 41)
    inner = m * mouth.INNER
    a, inner_a = m * mouth.half_width, inner * mouth.half_width
    canvas.ellipse((0.0, mouth.outer_lower(0.0) - 0.4), (1.7, 0.3), _scaled(skin, 0.6), 0.55, 0.22)
    lower = np.concatenate([mouth.line(m), mouth.outer_lower(m)[::-1]])
    upper = np.concatenate([mouth.outer_upper(m), mouth.line(m)[::-1]])
    both = np.concatenate([a, a[::-1]])
    canvas.polygon(both, lower, lip, 0.9, 0.05)
    canvas.polygon(both, upper, _scaled(lip, 0.82), 0.9, 0.05)
    opening = np.concatenate([mouth.inner_upper(inner), mouth.inner_lower(inner)[::-1]])
    canvas.polygon(np.concatenate([inner_a, inner_a[::-1]]), opening, _GUM, 1.0, 0.02)
    if f.expression.teeth > 0:
        _paint_teeth(canvas, f, inner)
    if mouth.gap_up + mouth.gap_down < 0.15:
        canvas.stroke(a, mouth.line(m), 0.07 * (1 - m**4) + 0.03, _scaled(skin, (0.14, 0.07, 0.07)), 0.95, 0.05)
    for side in (-1, 1):
        corner = (side * mouth.half_width, float(mouth.line(side)))
        canvas.ellipse(corner, (0.28, 0.22), _scaled(skin, 0.35), 0.6, 0.13)


def _paint_teeth(canvas: Canvas, f: Features, inner: np.ndarray) -> None:
    mouth = f.mouth
    m = inner * (0.9 - 0.2 * min(mouth.jaw_drop, 1.0))
    top, gap = mouth.inner_upper(m), mouth.gap_up + mouth.gap_down
    share = min(0.75 * f.expression.teeth / (gap + 0.3 * mouth.jaw_drop), 0.6)
    tall = share * (top - mouth.inner_lower(m))
    a = m * mouth.half_width
    canvas.polygon(np.concatenate([a, a[::-1]]), np.concatenate([top, (top - tall)[::-1]]), _TEETH, 0.95, 0.04)
    for side in (a < -1.1, a > 1.1):
        if np.count_nonzero(side) > 2:
            canvas.stroke(a[side], (top - tall / 2)[side], tall[side] / 2, _GUM, 0.5, 0.15)


def _paint_eye(canvas: Canvas, eye: Eye, f: Features) -> None:
    skin, iris = f.identity.skin, f.identity.iris
    e = np.linspace(0, 1, 25)
    a, up, low = eye.chart_a(e), eye.upper_lid(e), eye.lower_lid(e)
    with canvas.inside(np.concatenate([a, a[::-1]]), np.concatenate([up, low[::-1]])):
        canvas.ellipse((float(eye.chart_a(0.5)), 0.0), (2.0, 1.2), _EYE_WHITE, 1.0, 0.0)
        canvas.ellipse(eye.iris, (IRIS_RADIUS, IRIS_RADIUS), _scaled(iris, 0.6), 1.0, 0.03)
        canvas.ellipse(eye.iris, (IRIS_RADIUS * 0.8, IRIS_RADIUS * 0.8), iris, 1.0, 0.05)
        canvas.ellipse(eye.iris, (PUPIL_RADIUS, PUPIL_RADIUS), _PUPIL, 1.0, 0.03)
        canvas.stroke(a, up - 0.1, 0.1, _scaled(_PUPIL, 4), 0.45, 0.07)
        duct = (float(eye.chart_a(0.06)), float(eye.lower_lid(0.1)))
        canvas.ellipse(duct, (0.16, 0.12), _scaled(skin, (0.9, 0.45, 0.42)), 0.8, 0.05)
    canvas.stroke(a, up + 0.02, 0.05 + 0.05 * e, _scaled(f.identity.hair, 0.4), 0.95, 0.04)
    canvas.stroke(a, low - 0.03, 0.035, _scaled(skin, 0.4), 0.75, 0.05)
    canvas.stroke(a, eye.fold(e), 0.05, _scaled(skin, 0.42), 0.75, 0.07)


def _paint_brow(canvas: Canvas, side: int, f: Features) -> None:
    t = np.linspace(0, 1, 21)
    a, h = f.brow(side, t)
    half = f.brow_half_height(t)
    hair = _scaled(f.identity.hair, 0.8)
    canvas.stroke(a, h, half, hair, 0.55, 0.12)
    canvas.stroke(a, h, half * 0.75, hair, 0.6, 0.06)


def _paint_hair(canvas: Canvas, f: Features) -> None:
    a, h = texel_chart()
    _, strands = grain()
    edge = f.hairline(a[0]).astype(np.float32)
    grown = smoothstep(-0.15, 0.45, h - edge + 0.12 * strands[:CHART_HEIGHT])
    streaks = np.clip(1 + 0.45 * strands[:CHART_HEIGHT, :, None], 0.2, 2)
    canvas.spread(grown * 0.97, canvas.tone(f.identity.hair) * streaks)


def _fill_swatches(canvas: Canvas, f: Features) -> None:
    who = f.identity
    _, strands = grain()
    colours = {
        Swatch.SKIN: who.skin,
        Swatch.HAIR: who.hair,
        Swatch.CLOTHES: who.clothes,
        Swatch.MASK: _MASK_COLOUR,
        Swatch.LENS: _LENS_COLOUR,
    }
    for which, colour in colours.items():
        rows = slice(CHART_HEIGHT + STRIP * which, CHART_HEIGHT + STRIP * (which + 1))
        canvas.texels[rows] = canvas.tone(colour)
        if which is Swatch.HAIR:
            canvas.texels[rows] *= np.clip(1 + 0.5 * strands[CHART_HEIGHT - 1][None, :, None], 0.3, 2)
