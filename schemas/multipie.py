"""Multi-PIE's file names and cameras.

    session01/multiview/001/01/05_1/001_01_01_051_07.png
    session            subject, recording, camera          subject, session, recording, camera, illumination

The name alone is read: it says all that the folders say, and stays with a photograph that is moved. Source of names
and cameras: Gross, Matthews, Cohn, Kanade and Baker, "Multi-PIE", Image and Vision Computing 28 (2010): thirteen
cameras at head height, every 15 degrees, and two above (08_1 and 19_1), which have no yaw here.

Which end is which: facereclib, the face recognition library of the Idiap Research Institute, calls the pictures of
24_0 the right profile and those of 11_0 the left one (`config/database/multipie_P.py`), after the side of the face
that is seen. Whose right side is seen looks towards the right of the image, which is positive here as in
`model.pose`. Published tables of Multi-PIE's angles for synthesis have the same signs (24_0: +90).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CAMERA_YAW = {
    "11_0": -90, "12_0": -75, "09_0": -60, "08_0": -45, "13_0": -30, "14_0": -15, "05_1": 0,
    "05_0": 15, "04_1": 30, "19_0": 45, "20_0": 60, "01_0": 75, "24_0": 90,
}  # fmt: skip
"""Camera -> yaw in degrees of a face that looks straight ahead: how far it is turned to the right of the image."""

SUBJECT_PATTERN = r"(?:^|/)(?P<subject>\d{3})_\d{2}_\d{2}_\d{3}_\d{2}\.\w+$"
"""For a subject rule. The id is the three digits: 001 and 1 would be two people."""

_NAME = re.compile(
    r"(?:^|/)(?P<subject>\d{3})_(?P<session>\d{2})_(?P<recording>\d{2})_(?P<camera>\d{3})_(?P<illumination>\d{2})\.\w+$",
    re.ASCII,
)


@dataclass(frozen=True)
class MultiPieName:
    """What a file name says, as the digits in it; `camera` as the paper and the folders write it: `05_1`."""

    subject: str
    session: str
    recording: str
    camera: str
    illumination: str

    @property
    def conditions(self) -> dict[str, str]:
        """Those that a face record has a place for; the recording stays in the image's name."""
        return {"session": self.session, "camera": self.camera, "illumination": self.illumination}


def parse_name(image_name: str) -> MultiPieName | None:
    """Read a photograph's name, with or without folders before it; None if it is no such name."""
    match = _NAME.search(image_name)
    if match is None:
        return None
    parts = match.groupdict()
    camera = parts.pop("camera")
    return MultiPieName(camera=camera_label(camera), **parts)


def camera_label(digits: str) -> str:
    """`05_1` for `051`."""
    return f"{digits[:2]}_{digits[2]}"
