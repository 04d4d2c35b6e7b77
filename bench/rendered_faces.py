"""Draw the figure of rendered faces: `python bench/rendered_faces.py docs/rendered-faces.png`.

Rows are subjects. The last two rows repeat the ones above them as 80-pixel network inputs, and with their keypoints:
green is visible, red is occluded. Takes about ten seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from model.crop import crop_face
from model.faces.capture import Capture
from model.faces.photograph import Photograph
from model.faces.sitting import Sitting
from schemas.geometry import CROP_SIZE, SquareCrop, tight_square
from schemas.storage import write_bytes

SUBJECTS = ("006", "079", "254", "342", "012")
SHOTS = (
    ("01", "01", "051", "06"), ("01", "02", "050", "09"), ("02", "02", "140", "03"), ("02", "03", "041", "16"),
    ("03", "03", "080", "04"), ("04", "02", "190", "00"), ("04", "01", "110", "02"), ("03", "01", "200", "11"),
)  # fmt: skip
_VISIBLE, _OCCLUDED = (60, 220, 60), (60, 60, 235)


def with_points(shot: Photograph) -> np.ndarray:
    image = shot.image.copy()
    for (x, y), hidden in zip(shot.points_N2[:80], shot.occluded_N[:80], strict=True):
        centre = (round(x * 16), round(y * 16))
        cv2.circle(image, centre, 18, _OCCLUDED if hidden else _VISIBLE, cv2.FILLED, cv2.LINE_AA, 4)
    return image


def as_network_input(shot: Photograph) -> np.ndarray:
    crop = SquareCrop.of_box(tight_square(shot.points_N2[:80]))
    small = crop_face(cv2.cvtColor(shot.image, cv2.COLOR_BGR2GRAY), crop)
    canvas = np.full_like(shot.image, 255)
    margin = (len(canvas) - 2 * CROP_SIZE) // 2
    enlarged = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    canvas[margin : margin + 2 * CROP_SIZE, margin : margin + 2 * CROP_SIZE] = enlarged[..., None]
    return canvas


def main(path: Path) -> None:
    rows = [
        [Sitting(subject, 0).photograph(Capture(subject, *shot), channels=3) for shot in SHOTS]
        for subject in SUBJECTS
    ]
    plain = [np.hstack([shot.image for shot in row]) for row in rows]
    drawn = [
        np.hstack([as_network_input(shot) for shot in rows[-2]]),
        np.hstack([with_points(shot) for shot in rows[-1]]),
    ]
    # Five bits a channel keep the file small.
    sheet = cv2.resize(np.vstack(plain + drawn), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) & 0xF8
    _, png = cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_bytes(path, png.tobytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="PNG file to write")
    main(parser.parse_args().path)
