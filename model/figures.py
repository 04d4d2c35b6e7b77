"""Pictures of faces with their keypoints, and the figures that an evaluation leaves.

Legend: H W C rows, columns, channels; N keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.charts import line_chart
from model.evaluation import Evaluation, ExampleFace
from model.evaluation_charts import evaluation_charts
from schemas.layouts import layout
from schemas.storage import write_bytes

BGR = tuple[int, int, int]

TRUTH: BGR = (200, 220, 40)
PREDICTION: BGR = (40, 120, 255)
"""Turquoise and orange: apart in lightness too, for those who can't tell red from green."""

REGION_COLOURS: Mapping[str, BGR] = {
    "Chin": (200, 200, 200),
    "Eyebrows": (60, 200, 255),
    "Nose": (120, 230, 120),
    "Eyes": (255, 170, 60),
    "Mouth": (110, 110, 255),
    "Pupil": (255, 90, 230),
    "Ears": (150, 220, 220),
}
OTHER_COLOUR: BGR = (60, 200, 255)
OUTLINE: BGR = (20, 20, 20)
SUBPIXEL_BITS = 4
ENLARGED = 4

_COLOUR_SUFFIXES = {
    *(".avif", ".bmp", ".dib", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png"),
    *(".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
}


@dataclass(frozen=True)
class FaceFigure:
    """A drawn face: file name in the figures' directory, and what it shows."""

    file: str
    name: str
    subject: str
    error_crop_px: float


def draw_comparison(face: ExampleFace, *, scale: int = ENLARGED) -> np.ndarray:
    """The face enlarged, (H * scale, W * scale, 3) BGR: truth and prediction as dots, joined by a line."""
    canvas = _colour(cv2.resize(face.image_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
    true_N2, predicted_N2 = ((points_N2 + 0.5) * scale - 0.5 for points_N2 in (face.true_N2, face.predicted_N2))
    for a, b in zip(true_N2.tolist(), predicted_N2.tolist(), strict=True):
        draw_line(canvas, a, b, PREDICTION)
    for points_N2, colour in ((true_N2, TRUTH), (predicted_N2, PREDICTION)):
        for point in points_N2.tolist():
            draw_dot(canvas, point, 0.5 * scale, colour)
    return canvas


def draw_keypoints(image: np.ndarray, points_N2: np.ndarray, *, radius_px: float) -> None:
    """Draw keypoints into a BGR image (H, W, 3), each in the colour of its region; what is no number is left out."""
    for point, colour in zip(points_N2.tolist(), point_colours(len(points_N2)), strict=True):
        if np.isfinite(point).all():
            draw_dot(image, point, radius_px, colour)


def draw_dot(canvas: np.ndarray, point: Sequence[float], radius_px: float, colour: BGR) -> None:
    """A dot with a dark rim in a BGR image, `point` to a sixteenth of a pixel."""
    centre = _fixed(point)
    for extra_px, fill in ((0.8, OUTLINE), (0.0, colour)):
        radius = round((radius_px + extra_px) * 2**SUBPIXEL_BITS)
        cv2.circle(canvas, centre, radius, fill, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_ring(canvas: np.ndarray, point: Sequence[float], radius_px: float, colour: BGR) -> None:
    """A ring, two pixels wide with a dark rim."""
    for width, line_colour in ((4, OUTLINE), (2, colour)):
        radius = round(radius_px * 2**SUBPIXEL_BITS)
        cv2.circle(canvas, _fixed(point), radius, line_colour, width, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_line(canvas: np.ndarray, start: Sequence[float], end: Sequence[float], colour: BGR) -> None:
    """A line of one pixel's width."""
    cv2.line(canvas, _fixed(start), _fixed(end), colour, 1, cv2.LINE_AA, SUBPIXEL_BITS)


@lru_cache
def point_colours(num_keypoints: int) -> tuple[BGR, ...]:
    """The colour of every keypoint of a layout."""
    regions = layout(num_keypoints).regions
    colours = dict.fromkeys(range(num_keypoints), OTHER_COLOUR)
    for region, colour in REGION_COLOURS.items():
        colours |= dict.fromkeys(regions.get(region, ()), colour)
    return tuple(colours[i] for i in range(num_keypoints))


def has_colour_writer(suffix: str) -> bool:
    """Whether a BGR uint8 image can be written as this kind of file; a `.pgm` for one is gray."""
    return suffix.lower() in _COLOUR_SUFFIXES and cv2.haveImageWriter(suffix)


def encode_image(image: np.ndarray, suffix: str = ".png") -> bytes:
    """File content of a BGR or gray uint8 image.

    Raises:
        ValueError: OpenCV can't write this image as this kind of file.
    """
    written, data = cv2.imencode(suffix, image) if cv2.haveImageWriter(suffix) else (False, b"")
    if not written:
        raise ValueError(f"an image of shape {image.shape} can't be written as {suffix}")
    return data.tobytes()


def history_charts(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Title -> SVG: training loss and, where faces were held out, validation error, per epoch.

    Args:
        history: `model.checkpoint.EpochResult`s as mappings.
    """
    charts = {}
    best = max((row["epoch"] for row in history if row["best"]), default=None)
    for key, title in (("loss", "Training loss"), ("validation_error_px", "Validation error, crop pixels")):
        values = [(row["epoch"], row[key]) for row in history if row[key] is not None]
        if values:
            charts[title] = line_chart(values, label=title, mark=best)
    return charts


def write_figures(
    evaluation: Evaluation, report: Mapping[str, Any], history: Sequence[Mapping[str, Any]], directory: Path
) -> dict[str, list[FaceFigure]]:
    """Write charts and the best and worst faces below `directory`; return the faces, `best` and `worst`."""
    for title, svg in history_charts(history).items():
        write_bytes(directory / f"{title.split(',')[0].lower().replace(' ', '_')}.svg", svg.encode())
    for name, svg in evaluation_charts(report).items():
        write_bytes(directory / f"{name}.svg", svg.encode())
    figures = {}
    for kind, faces in (("best", evaluation.best), ("worst", evaluation.worst)):
        figures[kind] = [_write_face(face, directory, f"{kind}-{i:02d}.png") for i, face in enumerate(faces, 1)]
    return figures


def _write_face(face: ExampleFace, directory: Path, file: str) -> FaceFigure:
    write_bytes(directory / file, encode_image(draw_comparison(face)))
    return FaceFigure(file, face.name, face.subject, face.error_crop_px)


def _colour(image: np.ndarray) -> np.ndarray:
    """Gray (H, W[, 1]) or RGB (H, W, 3) to BGR."""
    gray = image.ndim == 2 or image.shape[2] == 1
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if gray else cv2.COLOR_RGB2BGR)


def _fixed(point: Sequence[float]) -> tuple[int, int]:
    """OpenCV's fixed-point coordinates. Plain numbers: NumPy takes ten times as long for two of them."""
    x, y = (round(min(max(value, -1e4), 1e5) * 2**SUBPIXEL_BITS) for value in point)
    return x, y
