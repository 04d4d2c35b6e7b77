"""Faces that a challenger sees better or worse than the champion, drawn side by side.

Legend: F faces, N keypoints.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schemas.experiment import ExperimentSpec
from tasks.paired_scores import ScoredFaces

SCALE = 3
QUALITY = ".jpg"


@dataclass(frozen=True)
class ComparedFace:
    """A face as both models see it; the pictures are data URLs, the champion's None where there is none."""

    name: str
    subject: str
    challenger_px: float
    champion_px: float | None
    challenger_picture: str
    champion_picture: str | None

    @property
    def change_px(self) -> float:
        return self.challenger_px - (self.champion_px or 0.0)


def most_changed(faces: ScoredFaces, number: int) -> tuple[list[int], list[int]]:
    """Indices of the faces that got worse, the most first, and of those that got better; `number` of each at most.

    Without a champion the first are those with the largest error, and the second are none.
    """
    change_F = faces.challenger_px_F.astype(np.float64)
    if faces.champion_px_F is not None:
        change_F = change_F - faces.champion_px_F
    order = sorted(range(len(faces)), key=lambda i: (-change_F[i], faces.names[i], i))
    worse = [i for i in order[:number] if change_F[i] > 0]
    better = [i for i in reversed(order[-number:]) if change_F[i] < 0]
    return worse, better


def draw_faces(
    faces: ScoredFaces, chosen: Sequence[int], files: Sequence[Path], spec: ExperimentSpec
) -> list[ComparedFace]:
    """The chosen faces out of the KPI shards, through the challenger's crop.

    Args:
        files: the KPI shards that the faces were scored on.

    Raises:
        ShardError: a shard can't be read.
    """
    images = _images(files, spec, {int(faces.position_F[i]) for i in chosen})
    return [_compared(faces, i, images[int(faces.position_F[i])]) for i in chosen]


def _images(files: Sequence[Path], spec: ExperimentSpec, positions: set[int]) -> dict[int, np.ndarray]:
    from model.pipeline import evaluation_batches

    found: dict[int, np.ndarray] = {}
    start = 0
    for batch in evaluation_batches(files, spec) if positions else ():
        for position in sorted(positions & set(range(start, start + len(batch)))):
            found[position] = np.clip(np.rint(batch.images_BHWC[position - start]), 0, 255).astype(np.uint8)
        start += len(batch)
    return found


def _compared(faces: ScoredFaces, index: int, image_HWC: np.ndarray) -> ComparedFace:
    champion_px = None if faces.champion_px_F is None else float(faces.champion_px_F[index])
    other_N2 = None if faces.champion_FN2 is None else faces.champion_FN2[index]
    own_N2 = faces.challenger_FN2[index]
    return ComparedFace(
        name=faces.names[index],
        subject=faces.subjects[index],
        challenger_px=float(faces.challenger_px_F[index]),
        champion_px=champion_px,
        challenger_picture=_picture(faces, index, image_HWC, own_N2),
        champion_picture=None if other_N2 is None else _picture(faces, index, image_HWC, other_N2),
    )


def _picture(faces: ScoredFaces, index: int, image_HWC: np.ndarray, predicted_N2: np.ndarray) -> str:
    from model.evaluation import ExampleFace
    from model.figures import draw_comparison, encode_image
    from schemas.geometry import Box, SquareCrop

    crop = SquareCrop.of_box(Box(*faces.boxes_F4[index].tolist()), image_HWC.shape[0])
    face = ExampleFace(
        name=faces.names[index],
        subject=faces.subjects[index],
        image_HWC=image_HWC,
        true_N2=crop.to_crop(faces.true_FN2[index]),
        predicted_N2=crop.to_crop(predicted_N2),
        flags_N=faces.flags_FN[index],
        error_crop_px=0.0,
    )
    data = encode_image(draw_comparison(face, scale=SCALE), QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
