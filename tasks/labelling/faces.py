"""Faces as the current model sees them: those that are labelled, and those of tasks that nobody has touched."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.crop import crop_face
from model.evaluation import Predict
from model.face_frames import square_crop
from model.images import read_image
from schemas import label_studio
from schemas.errors import ImageError
from schemas.geometry import Box, SquareCrop, tight_square
from schemas.records import Face
from schemas.sources import LabelStudioSource
from tasks.image_download import ImageStore
from tasks.label_studio.client import Connection
from tasks.label_studio.predictions import ListedTask
from tasks.progress import StepProgress, silent
from tasks.subjects import subject_finder
from tasks.tombstones import Tombstones

BOX_FIELDS = tuple(f"face_tight_bbox{side}" for side in ("x", "y", "width", "height"))
"""Fields of a task's data with a face box in source pixels, named as in TAO's JSON."""

DOWNLOADED_AT_ONCE = 128

BoxOrigin = Literal["task", "searched"]


@dataclass(frozen=True)
class ModelInput:
    """What the current model takes: side in pixels, channels, and how much larger its crop is than a face box."""

    size: int
    channels: int
    enlarge_ratio: float


@dataclass(frozen=True, eq=False)
class OpenFace:
    """The face of a task that nobody has labelled.

    Attributes:
        box: the face box, source pixels.
        origin: where it comes from: the task, or a search because the task has none.
        crop: what the model sees, and `pixels_HWC` (uint8) of it.
    """

    task: int
    frame_size: tuple[int, int]
    box: Box
    origin: BoxOrigin
    crop: SquareCrop
    pixels_HWC: np.ndarray


@dataclass(frozen=True)
class LeftOut:
    """A task without a prediction, and why."""

    task: int
    reason: str


def labelled_crops(faces: Iterable[Face], wanted: ModelInput) -> Iterator[tuple[Face, np.ndarray]]:
    """Labelled faces with what the model sees of them, uint8; those whose image is gone or has changed its size are
    left out."""
    for face in faces:
        try:
            frame = read_image(Path(face.image), channels=wanted.channels)
        except ImageError:
            continue
        if frame.shape[1::-1] == (face.frame_width, face.frame_height):
            box = tight_square(face.points_N2).enlarged(wanted.enlarge_ratio)
            yield face, _pixels(frame, SquareCrop.of_box(box, wanted.size), wanted)


def usable_tasks(
    tasks: Iterable[ListedTask], source: LabelStudioSource, *, held_out: frozenset[str], tombstones: Tombstones
) -> tuple[list[ListedTask], list[LeftOut]]:
    """Untouched tasks with an image that may be looked at, and the untouched ones that are left out.

    Args:
        held_out: KPI subjects: a label of theirs would never be trained on.
    """
    subject_of = subject_finder(source.subject)
    usable, left_out = [], []
    for task in tasks:
        if task.touched:
            continue
        subject = subject_of(label_studio.image_name(task.data, source.image_field), task.data)
        if tombstones.cover(subject):
            left_out.append(LeftOut(task.id, "its subject was forgotten"))
        elif subject in held_out:
            left_out.append(LeftOut(task.id, "its subject is held out for the KPI"))
        elif not isinstance(task.data.get(source.image_field), str):
            left_out.append(LeftOut(task.id, f"its data has no field '{source.image_field}'"))
        else:
            usable.append(task)
    return usable, left_out


def open_faces(
    tasks: Sequence[ListedTask],
    source: LabelStudioSource,
    connection: Connection,
    wanted: ModelInput,
    *,
    predict: Predict,
    search: bool,
    folder: Path,
    progress: StepProgress = silent,
) -> Iterator[OpenFace | LeftOut]:
    """The faces of tasks, in their order. Images are fetched a few at a time and not kept.

    Args:
        search: look for a face where a task has no box (`model.face_search`); else it is left out.
        folder: of this call alone, where images are while they are looked at; removed in the end.
    """
    remaining, done = iter(tasks), 0
    store = ImageStore(folder, connection)
    try:
        while batch := list(islice(remaining, DOWNLOADED_AT_ONCE)):
            fetched = store.fetch(task.data[source.image_field] for task in batch)
            for task in batch:
                image = fetched[task.data[source.image_field]]
                if image.file is None:
                    yield LeftOut(task.id, f"its image can't be had: {image.problem}")
                else:
                    box = task_box(task)
                    yield _open_face(task, image.file, box, wanted, predict if search else None)
            done += len(batch)
            progress("images", done, len(tasks))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def task_box(task: ListedTask) -> Box | None:
    """The face box of a task, source pixels: drawn in a draft, predicted by somebody else, or in its data as TAO's
    `face_tight_bboxx`, `y`, `width`, `height`. None if there is none of these."""
    for rectangles in task.boxes:
        payload = {"data": dict(task.data), "annotations": [{"result": rectangles}]}
        faces, _ = label_studio.read(payload, num_keypoints=1, flags_known=False)
        if faces and faces[0].tight_box is not None:
            return faces[0].tight_box
    return _box_in(task.data)


def _box_in(data: Mapping[str, Any]) -> Box | None:
    values = [data.get(field) for field in BOX_FIELDS]
    if not all(isinstance(value, int | float) and np.isfinite(value) for value in values):
        return None
    return Box(*map(float, values))


def _open_face(
    task: ListedTask, image: Path, box: Box | None, wanted: ModelInput, search: Predict | None
) -> OpenFace | LeftOut:
    try:
        frame = read_image(image, channels=wanted.channels)
    except ImageError:
        return LeftOut(task.id, "its image can't be read")
    frame_size, origin = frame.shape[1::-1], "task"
    if box is None:
        if search is None:
            return LeftOut(task.id, f"it has no face box: no {BOX_FIELDS[0]} ..., no rectangle in a prediction")
        from model.face_search import find_face

        origin = "searched"
        box = find_face(search, frame, input_size=wanted.size, enlarge_ratio=wanted.enlarge_ratio)
    crop = square_crop(box, *frame_size, size=wanted.size, enlarge_ratio=wanted.enlarge_ratio)
    if crop is None:
        return LeftOut(task.id, "nothing of its face box is inside the image")
    return OpenFace(task.id, frame_size, box, origin, crop, _pixels(frame, crop, wanted))


def _pixels(frame: np.ndarray, crop: SquareCrop, wanted: ModelInput) -> np.ndarray:
    return crop_face(frame, crop).reshape(wanted.size, wanted.size, wanted.channels)
