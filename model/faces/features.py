"""Where the features lie on the chart of a head.

The chart is the (a, h) plane of the skin: a = 7.8 cm times the longitude (0 at the middle of the face, positive on
the image's right in a frontal view), h = height along the skin above the eyes. On the front of a face both are close
to centimetres of a frontal view. Geometry, paint and keypoints all read the same curves, so they agree exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.faces.expression import Expression
from model.faces.identity import Identity

PUPIL_RADIUS, IRIS_RADIUS = 0.27, 0.60


@dataclass(frozen=True)
class Eye:
    """One eye; `side` is -1 on the image's left (frontal view), +1 on its right. `e` runs from 0 (inner corner) to 1.

    Attributes:
        inner, outer: |a| of the corners.
        upper, lower: how far the lids are from the line between the corners, at their farthest.
        tilt: h of the outer corner above that of the inner.
        iris: (a, h) of the centre of iris and pupil.
    """

    side: int
    inner: float
    outer: float
    upper: float
    lower: float
    tilt: float
    iris: tuple[float, float]

    def chart_a(self, e: np.ndarray | float) -> np.ndarray:
        return self.side * (self.inner + np.asarray(e) * (self.outer - self.inner))

    def along(self, a: np.ndarray) -> np.ndarray:
        """e of chart positions a."""
        return (self.side * np.asarray(a) - self.inner) / (self.outer - self.inner)

    def _axis(self, e: np.ndarray) -> np.ndarray:
        return -0.08 + self.tilt * e

    def upper_lid(self, e: np.ndarray | float) -> np.ndarray:
        e = np.clip(e, 0.0, 1.0)
        return self._axis(e) + self.upper * np.power(4 * e * (1 - e), 0.75) * (1.08 - 0.16 * e)

    def lower_lid(self, e: np.ndarray | float) -> np.ndarray:
        e = np.clip(e, 0.0, 1.0)
        return self._axis(e) - self.lower * np.power(4 * e * (1 - e), 0.8) * (0.92 + 0.16 * e)

    def fold(self, e: np.ndarray | float) -> np.ndarray:
        """The crease above the upper lid."""
        e = np.asarray(e)
        return self.upper_lid(e) + 0.24 + 0.26 * np.sin(np.pi * np.clip(e, 0, 1))

    def shows(self, a: np.ndarray, h: np.ndarray) -> np.ndarray:
        """True where the eyeball shows between the lids."""
        e = self.along(a)
        return (e > 0) & (e < 1) & (h < self.upper_lid(e)) & (h > self.lower_lid(e))


@dataclass(frozen=True)
class Mouth:
    """`m` runs from -1 (corner on the image's left) to 1.

    Attributes:
        centre: h of the line between the lips at m = 0.
        half_width: |a| of the corners.
        lift, skew: the line between the lips is centre + lift * m^2 + skew * m.
        gap_up, gap_down: lip edges above and below that line at m = 0.
        upper_lip, lower_lip: lip heights.
        jaw_drop: centimetres.
    """

    centre: float
    half_width: float
    lift: float
    skew: float
    gap_up: float
    gap_down: float
    upper_lip: float
    lower_lip: float
    jaw_drop: float

    INNER = 0.86
    """The inner lip edges meet at |m| = INNER."""

    def line(self, m: np.ndarray | float) -> np.ndarray:
        m = np.clip(m, -1.3, 1.3)
        return self.centre + self.lift * m * m + self.skew * m

    @staticmethod
    def _arch(m: np.ndarray | float, power: float) -> np.ndarray:
        return np.power(np.clip(1 - np.square(m), 0.0, None), power)

    def inner_upper(self, m: np.ndarray | float) -> np.ndarray:
        return self.line(m) + self.gap_up * self._arch(np.divide(m, self.INNER), 0.75)

    def inner_lower(self, m: np.ndarray | float) -> np.ndarray:
        return self.line(m) - self.gap_down * self._arch(np.divide(m, self.INNER), 0.75)

    def outer_upper(self, m: np.ndarray | float) -> np.ndarray:
        bow = 1 - 0.22 * np.exp(-np.square(np.divide(m, 0.13)))
        return self.inner_upper(m) + self.upper_lip * self._arch(m, 0.8) * bow

    def outer_lower(self, m: np.ndarray | float) -> np.ndarray:
        return self.inner_lower(m) - self.lower_lip * self._arch(m, 0.65)


@dataclass(frozen=True)
class Features:
    """All curves of one person with one expression. `eyes` and `brows` are ordered image-left, image-right."""

    identity: Identity
    expression: Expression
    eyes: tuple[Eye, Eye]
    mouth: Mouth

    NOSTRIL = 0.78
    WING = 1.42

    @property
    def nose_base(self) -> float:
        """h where the nose meets the upper lip."""
        return -4.75 * self.identity.nose_length

    @property
    def wing_rise(self) -> float:
        return 0.3 * self.expression.upper_lip_raise

    def brow(self, side: int, t: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Centre line (a, h) of a brow; t from 0 at its inner end to 1."""
        who, act = self.identity, self.expression
        t = np.asarray(t, np.float64)
        inner, outer = 1.15 - 0.6 * act.brow_frown, 5.05
        arch = 0.62 * who.brow_arch * np.sin(np.pi * np.power(t, 1.25) * 0.85)
        raised = act.brow_raise * (0.8 + 0.4 * np.sin(np.pi * t)) - 1.1 * act.brow_frown * np.square(1 - t)
        h = 1.75 + who.brow_height + arch - 0.25 * t + raised + side * who.brow_skew
        return side * (inner + t * (outer - inner)), h

    def brow_half_height(self, t: np.ndarray | float) -> np.ndarray:
        t = np.asarray(t, np.float64)
        return self.identity.brow_thickness * (0.10 + 0.22 * np.sqrt(np.clip(1 - t, 0, 1)) * (0.6 + 0.8 * t))

    def hairline(self, a: np.ndarray) -> np.ndarray:
        """h of the hair's lower edge at chart position a."""
        who = self.identity
        near, far = np.abs(a), np.clip((np.abs(a) - 11.3) / 1.1, 0, 1)
        temple = 1 / (1 + np.exp(-(near - 7.9) / 0.55))
        recess = who.temples * np.exp(-np.square((near - 4.2) / 1.7))
        top = 6.1 + who.hairline + who.parting * a * 0.09 + recess
        top = top - 0.035 * near * near + 4.5 * who.balding * np.exp(-np.square(near / 7.0))
        return top * (1 - temple) + (0.4 + 2.0 * who.balding) * temple - 7.0 * far


def features_of(identity: Identity, expression: Expression) -> Features:
    """The curves of `identity` making the face `expression`."""
    return Features(
        identity=identity,
        expression=expression,
        eyes=(_eye(identity, expression, -1), _eye(identity, expression, 1)),
        mouth=_mouth(identity, expression),
    )


def _eye(who: Identity, act: Expression, side: int) -> Eye:
    centre, half = 3.22 * who.eye_spacing, 1.58 * who.eye_width
    return Eye(
        side=side,
        inner=centre - half,
        outer=centre + half,
        upper=0.68 * who.eye_opening * max(1 + act.eyes_open, 0.12),
        lower=max(0.45 * who.eye_opening * (1 + 0.35 * act.eyes_open) - act.lower_lid_raise, 0.06),
        tilt=who.eye_tilt,
        iris=(side * centre + act.gaze_x, 0.06 + 0.5 * who.eye_tilt + act.gaze_y),
    )


def _mouth(who: Identity, act: Expression) -> Mouth:
    stretch = 1 + act.mouth_wide
    gap = 0.03 + 0.5 * act.mouth_open
    thin = 1 - 0.22 * max(act.mouth_wide, 0.0) - 0.12 * act.mouth_open
    return Mouth(
        centre=-6.75 + 0.25 * act.upper_lip_raise,
        half_width=2.72 * who.mouth_width * stretch,
        lift=0.1 + act.corner_lift,
        skew=who.mouth_skew,
        gap_up=gap * 0.7 + 0.35 * act.upper_lip_raise,
        gap_down=gap * 1.1,
        upper_lip=0.68 * who.lip_fullness * thin,
        lower_lip=0.88 * who.lip_fullness * thin,
        jaw_drop=act.jaw_drop,
    )
