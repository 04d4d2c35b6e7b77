"""Images with face boxes, read and cropped by threads ahead of the network that wants the crops.

Legend: B faces, H W C rows, columns, channels of the network's input.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from model.crop import crop_face
from schemas.geometry import Box, SquareCrop
from schemas.sloth import read_face_boxes

HELD_BYTES = 96 * 2**20
"""Decoded images wait for the network, are in its batch, or are being written: so many bytes each at most."""

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True)
class Skipped:
    """An entry, or one of its boxes, without a result: image name, stable code, reason in words."""

    image: str
    code: str
    reason: str


@dataclass(frozen=True, eq=False)
class FaceFrame:
    """An image's faces.

    Attributes:
        name: as in the JSON.
        width, height: of the image.
        boxes: face boxes as given.
        crops: what the network sees of each.
        faces_BHWC: uint8, the same as pixels.
        picture: (height, width, 3) BGR to draw into; None where nothing is to be drawn.
    """

    name: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    crops: tuple[SquareCrop, ...]
    faces_BHWC: np.ndarray
    picture: np.ndarray | None

    @property
    def nbytes(self) -> int:
        return self.faces_BHWC.nbytes + (0 if self.picture is None else self.picture.nbytes)


@dataclass(frozen=True)
class EntryReader:
    """Makes a frame of an entry of TAO's JSON; to be called by threads.

    Attributes:
        root: directory the image names are relative to.
        input_size, channels: of the network's input.
        enlarge_ratio: by how much the crop is larger than the face box.
        keep_picture: whether the whole image is still needed.
    """

    root: Path
    input_size: int
    channels: int
    enlarge_ratio: float
    keep_picture: bool

    def __call__(self, numbered: tuple[int, Any]) -> tuple[FaceFrame | None, list[Skipped]]:
        """The frame, None without a usable box; and what could not be used, and why."""
        number, entry = numbered
        name, boxes, problems = read_face_boxes(entry)
        place = name or f"entry {number}"
        skipped = [Skipped(place, problem.code, f"{problem.value} ({problem.rule})") for problem in problems]
        if not boxes and not problems:
            skipped.append(Skipped(name, "no-face-box", "the entry has no FaceBbox with a tight box"))
        if not boxes:
            return None, skipped
        image = self._decode(name)
        if isinstance(image, Skipped):
            return None, [*skipped, image]
        usable, outside = self._crops(name, boxes, *image.shape[1::-1])
        return self._frame(name, image, usable) if usable else None, [*skipped, *outside]

    def _decode(self, name: str) -> np.ndarray | Skipped:
        path = self.root / name
        try:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # more pixels than OpenCV wants to decode
            image = None
        if image is not None:
            return image
        if os.path.isfile(path):  # noqa: PTH113 - any text may stand there, too long for a name
            return Skipped(name, "image-unreadable", f"{path}: can't be decoded")
        return Skipped(name, "image-missing", f"{path}: no such file")

    def _crops(
        self, name: str, boxes: Iterable[Box], width: int, height: int
    ) -> tuple[list[tuple[Box, SquareCrop]], list[Skipped]]:
        usable, outside = [], []
        for box in boxes:
            crop = square_crop(box, width, height, size=self.input_size, enlarge_ratio=self.enlarge_ratio)
            if crop is not None:
                usable.append((box, crop))
                continue
            shown = ", ".join(f"{value:g}" for value in box)
            reason = f"nothing of the box {shown} is inside the frame of {width} x {height}"
            outside.append(Skipped(name, "face-box-outside-frame", reason))
        return usable, outside

    def _frame(self, name: str, image: np.ndarray, usable: list[tuple[Box, SquareCrop]]) -> FaceFrame:
        colours = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if self.channels == 1 else cv2.COLOR_BGR2RGB)
        boxes, crops = zip(*usable, strict=True)
        shape = (len(crops), self.input_size, self.input_size, self.channels)
        return FaceFrame(
            name=name,
            width=image.shape[1],
            height=image.shape[0],
            boxes=boxes,
            crops=crops,
            faces_BHWC=np.stack([crop_face(colours, crop) for crop in crops]).reshape(shape),
            picture=image if self.keep_picture else None,
        )


def square_crop(
    box: Box, frame_width: int, frame_height: int, *, size: int, enlarge_ratio: float = 1.0
) -> SquareCrop | None:
    """TAO's square: the longer side about the box's middle, in whole pixels, its corner and then its side clamped
    to the frame; then enlarged as for training, past the frame if need be. None where nothing of it is inside."""
    if not np.isfinite(box).all():
        return None
    x, y, width, height = (int(value) for value in box)
    side = max(width, height)
    x = min(max(int(x - (side - width) / 2), 0), frame_width)
    y = min(max(int(y - (side - height) / 2), 0), frame_height)
    side = min(side, frame_width - x, frame_height - y)
    return SquareCrop.of_box(Box(x, y, side, side).enlarged(enlarge_ratio), size) if side > 0 else None


class ReadAhead:
    """How many entries may be read or wait read: as many as the largest frame so far lets `HELD_BYTES` hold.

    Attributes:
        fewest: whatever their size: as many as there are threads.
        most: however small they are: as many as a batch has faces.
    """

    def __init__(self, *, fewest: int, most: int) -> None:
        self._fewest, self._most, self._largest = fewest, most, 0

    def saw(self, frame: FaceFrame) -> None:
        """Learn the size of a frame."""
        self._largest = max(self._largest, frame.nbytes)

    def __call__(self) -> int:
        held = HELD_BYTES // self._largest if self._largest else 0
        return max(self._fewest, min(self._most, held))


def in_order(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: Callable[[], int]
) -> Iterator[Result]:
    """`function` of every item, in the items' order, computed by the pool; `ahead()` results wait at most."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        while len(waiting) > ahead():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
