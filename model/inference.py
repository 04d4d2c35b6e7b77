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

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import IO, Any

import numpy as np
import orjson

from model import face_frames
from model.evaluation import Predict
from model.face_frames import EntryReader, FaceFrame, ReadAhead, Skipped, in_order
from model.figures import draw_keypoints, encode_image, has_colour_writer
from schemas.errors import AnnotationFileError, ModelFileError
from schemas.geometry import CROP_SIZE
from schemas.sloth import read_entries
from schemas.storage import atomic_path, write_bytes

RESULT_TEXT, RESULT_JSON, IMAGES = "result.txt", "result.json", "images"
RADIUS_SHARE = 0.008
"""Radius of a drawn keypoint over the side of the face."""

Progress = Callable[[int, int], None]
"""Called with the number of entries done and of all entries."""


@dataclass(frozen=True)
class InferenceSummary:
    """How many entries came in, images and faces were done, and entries or boxes skipped."""

    entries: int
    images: int
    faces: int
    skipped: int


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
    draw: bool = True,
    progress: Progress | None = None,
) -> InferenceSummary:
    """Find the keypoints of every face box in `annotations`, and write `result.txt`, `result.json`, `images/`.

    The JSON is read twice, a few entries at a time: once to see that it is whole and how long it is. Threads read
    images ahead of the network and write the drawn ones behind it, a bounded number at a time. So of an image nothing
    stays in memory but its name, and why it was skipped. The results are in the order of the entries.

    Args:
        annotations: TAO's JSON, a list of images with `FaceBbox` chunks.
        root: directory the image names are relative to.
        enlarge_ratio: by how much the network's crop is larger than the face box: the spec's `bbox_enlarge_ratio`.
        draw: False writes no images, which takes most of the time where they are large.

    Raises:
        AnnotationFileError: `annotations` can't be read, is not JSON or not a list of images.
        ModelFileError: the model predicts something that is not a number.
        StorageError: the disk is full or the place can't be written.
    """
    total = sum(1 for _ in read_entries(annotations))
    if not total:
        raise AnnotationFileError(annotations, "lists no image")
    reader = EntryReader(Path(root), input_size, channels, enlarge_ratio, keep_picture=draw)
    images = faces = 0
    skipped: list[Skipped] = []
    with ExitStack() as stack:
        pool = _pool(stack)
        text, data = (_open(stack, output / name) for name in (RESULT_TEXT, RESULT_JSON))
        pictures = stack.enter_context(_Pictures(pool, output / IMAGES)) if draw else None
        data.write(b'{"images": [')
        frames = _frames(read_entries(annotations), total, reader, pool, batch_size, skipped, progress)
        for batch in _batches(frames, batch_size):
            for frame, points_BN2, confidence_BN in _predict(predict, batch):
                text.writelines(_text_line(frame.name, points_N2) for points_N2 in points_BN2)
                record = _record(frame, points_BN2, confidence_BN)
                data.write((b",\n" if images else b"\n") + orjson.dumps(record))
                if pictures:
                    pictures.draw(frame, points_BN2)
                images += 1
                faces += len(points_BN2)
        summary = InferenceSummary(total, images, faces, len(skipped))
        tail = {"skipped": [asdict(item) for item in skipped], "summary": asdict(summary)}
        data.write(b"],\n" + orjson.dumps(tail)[1:] + b"\n")
    return summary


def _pool(stack: ExitStack) -> ThreadPoolExecutor:
    """A thread per core, told to drop what it has not begun when the stack closes."""
    pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="inference")
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool


def _open(stack: ExitStack, path: Path) -> IO[bytes]:
    """A file that appears under its name when the stack closes without an error."""
    return stack.enter_context(stack.enter_context(atomic_path(path)).open("wb"))


def _frames(
    entries: Iterable[Any],
    total: int,
    reader: EntryReader,
    pool: Executor,
    batch_size: int,
    skipped: list[Skipped],
    progress: Progress | None,
) -> Iterator[FaceFrame]:
    """Images with at least one usable box; what is not usable is added to `skipped`."""
    ahead = ReadAhead(fewest=os.cpu_count() or 1, most=batch_size)
    numbered = enumerate(entries, start=1)
    for number, (frame, problems) in enumerate(in_order(pool, reader, numbered, ahead), start=1):
        skipped += problems
        if frame is not None:
            ahead.saw(frame)
            yield frame
        if progress:
            progress(number, total)


def _batches(frames: Iterator[FaceFrame], batch_size: int) -> Iterator[list[FaceFrame]]:
    """Frames until they have `batch_size` faces or fill the memory set aside for them."""
    batch: list[FaceFrame] = []
    faces = held = 0
    for frame in frames:
        batch.append(frame)
        faces += len(frame.crops)
        held += frame.nbytes
        if faces >= batch_size or held >= face_frames.HELD_BYTES:
            yield batch
            batch, faces, held = [], 0, 0
    if batch:
        yield batch


def _predict(predict: Predict, frames: list[FaceFrame]) -> Iterator[tuple[FaceFrame, np.ndarray, np.ndarray]]:
    """Every frame with its faces' keypoints (B, N, 2) in source pixels and confidences (B, N).

    Raises:
        ModelFileError: a keypoint or a confidence is not a number.
    """
    images_BHWC = np.concatenate([frame.faces_BHWC for frame in frames]).astype(np.float32)
    points_BN2, confidence_BN = (np.asarray(output) for output in predict(images_BHWC))
    finite_B = np.isfinite(points_BN2).all(axis=(1, 2)) & np.isfinite(confidence_BN).all(axis=1)
    start = 0
    for frame in frames:
        mine = slice(start, start + len(frame.crops))
        if not finite_B[mine].all():
            raise ModelFileError(f"the model predicts something that is not a number for {frame.name}")
        points = [crop.to_frame(p.astype(np.float64)) for crop, p in zip(frame.crops, points_BN2[mine], strict=True)]
        yield frame, np.stack(points), confidence_BN[mine]
        start = mine.stop


def _text_line(name: str, points_N2: np.ndarray) -> bytes:
    """TAO's line: the name, then x y of every keypoint in source pixels."""
    return f"{name} {' '.join(f'{value:.4f}' for value in points_N2.reshape(-1).tolist())}\n".encode()


def _record(frame: FaceFrame, points_BN2: np.ndarray, confidence_BN: np.ndarray) -> dict[str, Any]:
    faces = [
        {
            "face_box": list(box),
            "keypoints": np.round(points_N2, 4).tolist(),
            "confidences": np.round(confidence_N.astype(np.float64), 6).tolist(),
        }
        for box, points_N2, confidence_N in zip(frame.boxes, points_BN2, confidence_BN, strict=True)
    ]
    return {"image": frame.name, "width": frame.width, "height": frame.height, "faces": faces}


class _Pictures:
    """Draws and writes images in the pool's threads; on closing, all are written or an error is raised."""

    def __init__(self, pool: Executor, directory: Path) -> None:
        self._pool, self._directory, self._names = pool, directory, _Names()
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._held = 0

    def draw(self, frame: FaceFrame, points_BN2: np.ndarray) -> None:
        """Begin to draw a frame; wait while too many are not yet written."""
        while self._waiting and (self._held >= face_frames.HELD_BYTES or self._waiting[0][1].done()):
            self._finish_first()
        path = self._directory / self._names.unused(frame.name)
        self._waiting.append((frame.nbytes, self._pool.submit(_write_picture, frame, points_BN2, path)))
        self._held += frame.nbytes

    def _finish_first(self) -> None:
        nbytes, written = self._waiting.popleft()
        self._held -= nbytes
        written.result()

    def __enter__(self) -> _Pictures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._waiting and kind is None:
            self._finish_first()


def _write_picture(frame: FaceFrame, points_BN2: np.ndarray, path: Path) -> None:
    for crop, points_N2 in zip(frame.crops, points_BN2, strict=True):
        draw_keypoints(frame.picture, points_N2, radius_px=max(1.0, RADIUS_SHARE * crop.side))
    write_bytes(path, encode_image(frame.picture, path.suffix))


class _Names:
    """Relative file names for drawn images: below the output whatever the image is called, and no name twice."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def unused(self, name: str) -> Path:
        parts = [part for part in PurePath(name).parts if part not in ("..", PurePath(name).anchor)]
        path = Path(*parts)
        if not has_colour_writer(path.suffix):
            path = path.with_name(f"{path.name}.png")
        stem, count = path.stem, 1
        while str(path) in self._used:
            count += 1
            path = path.with_stem(f"{stem}-{count}")
        self._used.add(str(path))
        return path
