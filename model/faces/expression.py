"""What a face does: the six expressions of Multi-PIE, as movements of its features in centimetres."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Expression:
    """Movements from the neutral face.

    Attributes:
        mouth_open: gap between the lips before the jaw moves.
        jaw_drop: how far the chin sinks.
        mouth_wide: factor on the mouth's width, minus 1.
        corner_lift: mouth corners up.
        upper_lip_raise: upper lip (and wings of the nose) up.
        teeth: 0 (hidden) to 1.
        eyes_open: factor on the lid opening, minus 1.
        lower_lid_raise: lower lids up.
        brow_raise, brow_frown: brows up; their inner ends down and together.
        cheek_raise: cheeks forward.
        gaze_x, gaze_y: irises to the image's right and up.
    """

    mouth_open: float = 0.0
    jaw_drop: float = 0.0
    mouth_wide: float = 0.0
    corner_lift: float = 0.0
    upper_lip_raise: float = 0.0
    teeth: float = 0.0
    eyes_open: float = 0.0
    lower_lid_raise: float = 0.0
    brow_raise: float = 0.0
    brow_frown: float = 0.0
    cheek_raise: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0

    def scaled(self, strength: float) -> Expression:
        """Every movement times `strength`."""
        return Expression(**{f.name: getattr(self, f.name) * strength for f in fields(self)})


EXPRESSIONS = {
    "neutral": Expression(),
    "smile": Expression(
        mouth_open=0.5, jaw_drop=0.15, mouth_wide=0.24, corner_lift=0.6, upper_lip_raise=0.12, teeth=1.0,
        eyes_open=-0.2, lower_lid_raise=0.12, cheek_raise=0.5,
    ),
    "surprise": Expression(
        mouth_open=0.9, jaw_drop=1.5, mouth_wide=-0.18, eyes_open=0.35, brow_raise=0.75,
    ),
    "squint": Expression(
        corner_lift=0.1, mouth_wide=0.06, eyes_open=-0.62, lower_lid_raise=0.16, brow_raise=-0.3, brow_frown=0.25,
        cheek_raise=0.4,
    ),
    "disgust": Expression(
        mouth_open=0.28, mouth_wide=0.05, corner_lift=-0.28, upper_lip_raise=0.42, teeth=0.5, eyes_open=-0.45,
        lower_lid_raise=0.12, brow_raise=-0.35, brow_frown=0.3, cheek_raise=0.35,
    ),
    "scream": Expression(
        mouth_open=1.5, jaw_drop=2.4, mouth_wide=0.08, corner_lift=0.1, upper_lip_raise=0.22, teeth=1.0,
        eyes_open=-0.6, lower_lid_raise=0.12, brow_raise=-0.2, brow_frown=0.2, cheek_raise=0.4,
    ),
}  # fmt: skip
"""Expression name -> movements at full strength."""
