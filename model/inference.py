"""Keypoints of faces in images, from TAO's JSON with face boxes: `fpenet inference`.

Like TAO, a box is made square by its longer side and clamped to the frame. Unlike TAO
  - every face box of an image is used, not the last one alone, so `result.txt` has a line per face;
  - the crop is resampled by this project's `crop_face`, not by a cubic filter that overshoots, and colours are
    weighted 0.299 R + 0.587 G + 0.114 B, where TAO swaps red and blue;
  - an image without a usable box or that can't be read is listed with its reason, where TAO shows the keypoints
    of the image before it, or stops;
  - crop and frame are related as in `schemas.geometry`, where TAO is half a source pixel off;
  - beside `result.txt` there are `result.json` with confidences, and the images with the keypoints drawn.

Legend: B faces, H W C rows, columns, channels; N keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any

import cv2
import numpy as np
import orjson

from model.crop import crop_face
from model.evaluation import Predict
from model.figures import draw_keypoints, encode_image
from schemas.errors import AnnotationFileError
from schemas.geometry import CROP_SIZE, Box, SquareCrop
from schemas.sloth import load_sloth_file, read_face_boxes
from schemas.storage import atomic_path, write_bytes

RESULT_TEXT, RESULT_JSON, IMAGES = "result.txt", "result.json", "images"
HELD_BYTES = 256 * 2**20
"""Images wait for their batch to fill up to this size in memory."""
RADIUS_SHARE = 0.008
"""Radius of a drawn keypoint over the side of the face."""

Progress = Callable[[int, int], None]
"""Called with the number of entries done and of all entries."""

CropOf = Callable[[Box, int, int], SquareCrop | None]
"""A face box and its frame's width and height -> what the network sees of it."""


@dataclass(frozen=True)
class Skipped:
    """An entry, or one of its boxes, without a result: image name, stable code, reason in words."""

    image: str
    code: str
    reason: str


@dataclass(frozen=True)
class InferenceSummary:
    """How many entries came in, images and faces were done, and entries or boxes skipped."""

    entries: int
    images: int
    faces: int
    skipped: int


@dataclass(frozen=True, eq=False)
class _Frame:
    """A decoded image (H, W, 3) BGR with its name and its faces' crops."""

    name: str
    image_HW3: np.ndarray
    boxes: list[Box]
    crops: list[SquareCrop]


def run_inference(
    predict: Predict,
    annotations: Path,
    output: Path,
    *,
    root: Path | str = "",
    input_size: int = CROP_SIZE,
    channels: int = 1,
    enlarge_ratio: float = 1.0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> InferenceSummary:
    """Find the keypoints of every face box in `annotations`, and write `result.txt`, `result.json`, `images/`.

    Images are read as they are needed and let go, so memory does not grow with their number.

    Args:
        annotations: TAO's JSON, a list of images with `FaceBbox` chunks.
        root: directory the image names are relative to.
        enlarge_ratio: by how much the network's crop is larger than the face box: the spec's `bbox_enlarge_ratio`.

    Raises:
        AnnotationFileError: `annotations` can't be read, is not JSON or not a list of images.
        StorageError: the disk is full or the place can't be written.
    """
    entries = load_sloth_file(annotations)
    if not entries:
        raise AnnotationFileError(annotations, "lists no image")
    images = faces = 0
    skipped: list[Skipped] = []
    with ExitStack() as stack:
        text = _open(stack, output / RESULT_TEXT)
        data = _open(stack, output / RESULT_JSON)
        data.write(b'{"images": [')
        names = _Names()
        crop_of = partial(square_crop, size=input_size, enlarge_ratio=enlarge_ratio)
        frames = _frames(entries, Path(root), crop_of, skipped, progress)
        for batch in _batches(frames, batch_size):
            for frame, points_BN2, confidence_BN in _predict(predict, batch, channels):
                text.writelines(_text_line(frame.name, points_N2) for points_N2 in points_BN2)
                record = _record(frame, points_BN2, confidence_BN)
                data.write((b",\n" if images else b"\n") + orjson.dumps(record))
                _draw(frame, points_BN2, output / IMAGES / names.unused(frame.name))
                images += 1
                faces += len(points_BN2)
        summary = InferenceSummary(len(entries), images, faces, len(skipped))
        tail = {"skipped": [asdict(item) for item in skipped], "summary": asdict(summary)}
        data.write(b"],\n" + orjson.dumps(tail)[1:] + b"\n")
    return summary


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


def _open(stack: ExitStack, path: Path) -> IO[bytes]:
    """A file that appears under its name when the stack closes without an error."""
    return stack.enter_context(stack.enter_context(atomic_path(path)).open("wb"))


def _frames(
    entries: Sequence[Any], root: Path, crop_of: CropOf, skipped: list[Skipped], progress: Progress | None
) -> Iterator[_Frame]:
    """Images with at least one usable box; what is not usable is added to `skipped`."""
    for number, entry in enumerate(entries, start=1):
        frame = _frame(entry, f"entry {number}", root, crop_of, skipped)
        if frame is not None:
            yield frame
        if progress:
            progress(number, len(entries))


def _frame(entry: Any, place: str, root: Path, crop_of: CropOf, skipped: list[Skipped]) -> _Frame | None:
    name, boxes, problems = read_face_boxes(entry)
    skipped += [Skipped(name or place, problem.code, f"{problem.value} ({problem.rule})") for problem in problems]
    if not boxes:
        if not problems:
            skipped.append(Skipped(name, "no-face-box", "the entry has no FaceBbox with a tight box"))
        return None
    path = root / name
    image_HW3 = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image_HW3 is None:
        code, reason = (
            ("image-unreadable", "can't be decoded") if path.is_file() else ("image-missing", "no such file")
        )
        skipped.append(Skipped(name, code, f"{path}: {reason}"))
        return None
    height, width = image_HW3.shape[:2]
    usable = []
    for box in boxes:
        if not (box.width > 0 and box.height > 0):
            continue  # one of the problems above
        crop = crop_of(box, width, height)
        if crop is None:
            shown = ", ".join(f"{value:g}" for value in box)
            reason = f"nothing of the box {shown} is inside the frame of {width} x {height}"
            skipped.append(Skipped(name, "face-box-outside-frame", reason))
        else:
            usable.append((box, crop))
    return _Frame(name, image_HW3, *map(list, zip(*usable, strict=True))) if usable else None


def _batches(frames: Iterator[_Frame], batch_size: int) -> Iterator[list[_Frame]]:
    """Frames until they have `batch_size` faces or fill the memory set aside for them."""
    batch: list[_Frame] = []
    faces = held = 0
    for frame in frames:
        batch.append(frame)
        faces += len(frame.crops)
        held += frame.image_HW3.nbytes
        if faces >= batch_size or held >= HELD_BYTES:
            yield batch
            batch, faces, held = [], 0, 0
    if batch:
        yield batch


def _predict(
    predict: Predict, frames: list[_Frame], channels: int
) -> Iterator[tuple[_Frame, np.ndarray, np.ndarray]]:
    """Every frame with its faces' keypoints (B, N, 2) in source pixels and confidences (B, N)."""
    images_BHWC = np.stack([crop for frame in frames for crop in _face_images(frame, channels)])
    points_BN2, confidence_BN = (np.asarray(output) for output in predict(images_BHWC))
    start = 0
    for frame in frames:
        mine = slice(start, start + len(frame.crops))
        points = [crop.to_frame(p.astype(np.float64)) for crop, p in zip(frame.crops, points_BN2[mine], strict=True)]
        yield frame, np.stack(points), confidence_BN[mine]
        start = mine.stop


def _face_images(frame: _Frame, channels: int) -> Iterator[np.ndarray]:
    conversion = cv2.COLOR_BGR2GRAY if channels == 1 else cv2.COLOR_BGR2RGB
    image = cv2.cvtColor(frame.image_HW3, conversion)
    for crop in frame.crops:
        yield crop_face(image, crop).reshape(crop.size, crop.size, channels).astype(np.float32)


def _text_line(name: str, points_N2: np.ndarray) -> bytes:
    """TAO's line: the name, then x y of every keypoint in source pixels."""
    return f"{name} {' '.join(f'{value:.4f}' for value in points_N2.reshape(-1))}\n".encode()


def _record(frame: _Frame, points_BN2: np.ndarray, confidence_BN: np.ndarray) -> dict[str, Any]:
    height, width = frame.image_HW3.shape[:2]
    faces = [
        {
            "face_box": list(box),
            "keypoints": np.round(points_N2, 4).tolist(),
            "confidences": np.round(confidence_N.astype(np.float64), 6).tolist(),
        }
        for box, points_N2, confidence_N in zip(frame.boxes, points_BN2, confidence_BN, strict=True)
    ]
    return {"image": frame.name, "width": width, "height": height, "faces": faces}


def _draw(frame: _Frame, points_BN2: np.ndarray, path: Path) -> None:
    for crop, points_N2 in zip(frame.crops, points_BN2, strict=True):
        draw_keypoints(frame.image_HW3, points_N2, radius_px=max(1.0, RADIUS_SHARE * crop.side))
    write_bytes(path, encode_image(frame.image_HW3, path.suffix))


class _Names:
    """Relative file names for drawn images: below the output whatever the image is called, and no name twice."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def unused(self, name: str) -> Path:
        parts = [part for part in PurePath(name).parts if part not in ("..", PurePath(name).anchor)]
        path = Path(*parts)
        if not cv2.haveImageWriter(path.name):
            path = path.with_name(f"{path.name}.png")
        stem, count = path.stem, 1
        while str(path) in self._used:
            count += 1
            path = path.with_stem(f"{stem}-{count}")
        self._used.add(str(path))
        return path
