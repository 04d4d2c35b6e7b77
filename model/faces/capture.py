"""Cameras, flashes and sessions, after the Multi-PIE protocol (Gross et al., Image and Vision Computing 28, 2010).

Thirteen cameras at head height, every 15 degrees from one profile to the other; flash 00 is the room's light alone,
01 to 13 stand by the cameras, 14 to 18 above them. Four sessions, whose recordings fix the expression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.config import MULTIPIE_KPI_IDS
from schemas.multipie import CAMERA_YAW

CAMERAS = {label.replace("_", ""): yaw for label, yaw in CAMERA_YAW.items()}
"""Camera as in a file name -> yaw in degrees, see `schemas.multipie`."""

_CAMERA_WEIGHTS = {0: 3.0, 15: 2.6, 30: 2.2, 45: 1.7, 60: 0.8, 75: 0.5, 90: 0.4}

FLASHES: dict[str, tuple[float, float] | None] = {
    "00": None,
    **{f"{k + 1:02d}": (-90.0 + 15.0 * k, 5.0) for k in range(13)},
    **{f"{k + 14:02d}": (-60.0 + 30.0 * k, 45.0) for k in range(5)},
}
"""Illumination -> (azimuth, elevation) of the flash as the frontal camera sees it, degrees; None: no flash."""

RECORDINGS = {
    ("01", "01"): "neutral", ("01", "02"): "smile",
    ("02", "01"): "neutral", ("02", "02"): "surprise", ("02", "03"): "squint",
    ("03", "01"): "neutral", ("03", "02"): "smile", ("03", "03"): "disgust",
    ("04", "01"): "neutral", ("04", "02"): "scream", ("04", "03"): "neutral",
}  # fmt: skip
"""(session, recording) -> expression."""

KPI_SUBJECTS = tuple(f"{number:03d}" for number in MULTIPIE_KPI_IDS)


@dataclass(frozen=True, order=True)
class Capture:
    """One photograph of one subject."""

    subject: str
    session: str
    recording: str
    camera: str
    illumination: str

    @property
    def file_name(self) -> str:
        parts = (self.subject, self.session, self.recording, self.camera, self.illumination)
        return "_".join(parts) + ".png"

    @property
    def yaw(self) -> float:
        return float(CAMERAS[self.camera])

    @property
    def expression(self) -> str:
        return RECORDINGS[self.session, self.recording]

    @property
    def flash(self) -> tuple[float, float] | None:
        return FLASHES[self.illumination]


def sample_captures(subject: str, count: int, rng: np.random.Generator) -> list[Capture]:
    """Draw `count` different photographs of a subject, sorted; cameras near the front are likelier.

    Raises:
        ValueError: there are not that many combinations.
    """
    limit = len(CAMERAS) * len(FLASHES) * len(RECORDINGS)
    if not 0 < count <= limit:
        raise ValueError(f"images_per_subject must be 1 to {limit}, not {count}")
    combinations = [
        (Capture(subject, *recording, camera, flash), _CAMERA_WEIGHTS[abs(CAMERAS[camera])])
        for recording in RECORDINGS
        for camera in CAMERAS
        for flash in FLASHES
    ]
    weights = np.array([weight for _, weight in combinations])
    chosen = rng.choice(len(combinations), size=count, replace=False, p=weights / weights.sum())
    return sorted(combinations[i][0] for i in chosen)
