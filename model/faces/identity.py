"""Who is rendered: proportions, colours, hair. Lengths in centimetres, colours linear RGB in 0..1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

_SKINS: tuple[Colour, ...] = (
    (0.66, 0.44, 0.34), (0.60, 0.38, 0.28), (0.52, 0.32, 0.22), (0.42, 0.25, 0.16), (0.29, 0.165, 0.10),
    (0.17, 0.095, 0.06),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (0.012, 0.010, 0.009), (0.030, 0.019, 0.013), (0.075, 0.042, 0.024), (0.21, 0.13, 0.065), (0.36, 0.27, 0.16),
    (0.15, 0.05, 0.022), (0.33, 0.33, 0.34),
)  # fmt: skip
_IRISES: tuple[Colour, ...] = (
    (0.045, 0.024, 0.014), (0.075, 0.042, 0.020), (0.09, 0.085, 0.035), (0.10, 0.16, 0.24), (0.10, 0.15, 0.11),
)  # fmt: skip


_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


def tone_of(colour: Colour, channels: int) -> np.ndarray:
    """A linear colour as an image of so many channels holds it: (3,) RGB, or (1,) luminance (Rec. 709), float32."""
    rgb = np.asarray(colour, np.float32)
    return rgb if channels == 3 else (rgb @ _LUMINANCE)[None]


@dataclass(frozen=True)
class Identity:
    """One person. Factors are about 1, offsets about 0; `skew`s are what makes the two halves differ.

    Attributes:
        long_hair: hair to the shoulders, over the ears.
        temples: how far the hairline recedes above the outer ends of the brows.
        balding: 0 (full hair) to 1 (bald).
        beard, moustache: 0 (shaven) to 1 (full).
        glasses: clear spectacles; they hide no keypoint.
        parting, mouth_skew, brow_skew, nose_skew: added on the image's right half (frontal), taken on the left.
    """

    head_width: float = 1.0
    face_length: float = 1.0
    jaw_width: float = 1.0
    chin: float = 1.0
    cheek: float = 1.0
    brow_ridge: float = 1.0
    eye_spacing: float = 1.0
    eye_width: float = 1.0
    eye_opening: float = 1.0
    eye_tilt: float = 0.0
    nose_length: float = 1.0
    nose_width: float = 1.0
    nose_height: float = 1.0
    mouth_width: float = 1.0
    lip_fullness: float = 1.0
    brow_height: float = 0.0
    brow_arch: float = 1.0
    brow_thickness: float = 1.0
    ear_size: float = 1.0
    ear_flare: float = 0.5
    hairline: float = 0.0
    temples: float = 0.4
    parting: float = 0.0
    hair_volume: float = 1.0
    long_hair: bool = False
    balding: float = 0.0
    beard: float = 0.0
    moustache: float = 0.0
    glasses: bool = False
    mouth_skew: float = 0.0
    brow_skew: float = 0.0
    nose_skew: float = 0.0
    skin: Colour = _SKINS[1]
    hair: Colour = _HAIRS[2]
    iris: Colour = _IRISES[1]
    clothes: Colour = (0.05, 0.07, 0.12)


def _mixed(palette: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    """A colour between two neighbours of the palette, its brightness varied by a tenth."""
    at = rng.uniform(0, len(palette) - 1)
    first = int(at)
    low, high = np.array(palette[first]), np.array(palette[min(first + 1, len(palette) - 1)])
    red, green, blue = (low + (high - low) * (at - first)) * rng.uniform(0.92, 1.08)
    return float(red), float(green), float(blue)


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a person; equal generator states give equal people."""

    def about(mean: float, spread: float) -> float:
        return float(np.clip(rng.normal(mean, spread), mean - 2 * spread, mean + 2 * spread))

    masculine = bool(rng.random() < 0.55)
    bearded = masculine and rng.random() < 0.4
    skin = _mixed(_SKINS, rng)
    dark = skin[0] < 0.4
    return Identity(
        head_width=about(1.0, 0.035),
        face_length=about(1.0, 0.03),
        jaw_width=about(1.03 if masculine else 0.95, 0.04),
        chin=about(1.1 if masculine else 0.9, 0.2),
        cheek=about(1.0, 0.35),
        brow_ridge=about(1.2 if masculine else 0.6, 0.3),
        eye_spacing=about(1.0, 0.03),
        eye_width=about(1.0, 0.045),
        eye_opening=about(0.97 if masculine else 1.08, 0.1),
        eye_tilt=about(0.08, 0.08),
        nose_length=about(1.0, 0.05),
        nose_width=about(1.0, 0.1),
        nose_height=about(1.0, 0.12),
        mouth_width=about(1.0, 0.06),
        lip_fullness=about(0.95 if masculine else 1.12, 0.18),
        brow_height=about(0.0, 0.16),
        brow_arch=about(0.8 if masculine else 1.2, 0.3),
        brow_thickness=about(1.15 if masculine else 0.8, 0.2),
        ear_size=about(1.0, 0.06),
        ear_flare=about(0.5, 0.1),
        hairline=about(0.0, 0.45),
        temples=float(rng.uniform(-0.2, 1.5)),
        parting=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.0, 1.6)),
        hair_volume=about(1.0, 0.3),
        long_hair=not masculine and bool(rng.random() < 0.5),
        balding=float(rng.uniform(0.4, 1.0)) if masculine and rng.random() < 0.2 else 0.0,
        beard=float(rng.uniform(0.25, 1.0)) if bearded else 0.0,
        moustache=float(rng.uniform(0.3, 1.0)) if bearded or (masculine and rng.random() < 0.08) else 0.0,
        glasses=bool(rng.random() < 0.15),
        mouth_skew=about(0.0, 0.06),
        brow_skew=about(0.0, 0.07),
        nose_skew=about(0.0, 0.05),
        skin=skin,
        hair=_mixed(_HAIRS[:2] if dark else _HAIRS, rng),
        iris=_mixed(_IRISES[:2] if dark else _IRISES, rng),
        clothes=tuple(float(v) for v in rng.uniform(0.02, 0.4) * rng.uniform(0.4, 1.0, 3)),
    )
