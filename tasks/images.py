"""Facts about image files, found by decoding each once: their bytes' hash, size and format, or what is wrong."""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson

from schemas.annotation import Problem
from schemas.storage import write_bytes

Progress = Callable[[int, int], None]
"""Called with (done, of)."""

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Formats that are read, and the file name endings that promise them."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"P5", "PPM"), (b"P6", "PPM"), (b"GIF8", "GIF"), (b"%PDF", "PDF"), (b"PK\x03\x04", "ZIP"),
)  # fmt: skip
_INDEX_VERSION = 1
_SAVE_EVERY = 20_000
_UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow's decoders raise


@dataclass(frozen=True)
class ImageFacts:
    """A whole image: hex SHA-256 of the file's bytes, width and height in pixels as stored, format."""

    sha256: str
    width: int
    height: int
    format: str


class ImageIndex:
    """Remembers the facts of files by path, size and modification time, so that none is decoded twice.

    Broken files are not remembered; they are looked at again.

    Args:
        path: where the memory is kept between runs; None keeps it in this object.
    """

    def __init__(self, path: Path | None = None, *, workers: int = 2) -> None:
        self._path, self._workers = path, workers
        self._known: dict[str, list] = self._load()

    def inspect(self, images: Iterable[str], *, progress: Progress | None = None) -> dict[str, ImageFacts | Problem]:
        """Facts of every file, or the problem with it. Only files that are new or changed are decoded.

        The index is saved on the way, so an interrupted run keeps what it has learnt.
        """
        wanted = sorted(set(images))
        recalled = {image: self._recall(image) for image in wanted}
        found: dict[str, ImageFacts | Problem] = {image: facts for image, facts in recalled.items() if facts}
        unknown = [image for image in wanted if image not in found]
        with ThreadPoolExecutor(self._workers) as pool:
            for start in range(0, len(unknown), _SAVE_EVERY):
                batch = unknown[start : start + _SAVE_EVERY]
                for image, (stamp, facts) in zip(batch, pool.map(_stamped_facts, batch), strict=True):
                    found[image] = facts
                    if stamp is not None and isinstance(facts, ImageFacts):
                        self._known[image] = [*stamp, *dataclasses.astuple(facts)]
                    if progress is not None:
                        progress(len(found), len(wanted))
                self._save()
        return found

    def _load(self) -> dict[str, list]:
        if self._path is None or not self._path.is_file():
            return {}
        try:
            index = orjson.loads(self._path.read_bytes())
        except orjson.JSONDecodeError:
            return {}  # it only saves time
        return index["images"] if index.get("version") == _INDEX_VERSION else {}

    def _recall(self, image: str) -> ImageFacts | None:
        known = self._known.get(image)
        return ImageFacts(*known[2:]) if known and tuple(known[:2]) == _stamp(Path(image)) else None

    def _save(self) -> None:
        if self._path is not None:
            index = {"version": _INDEX_VERSION, "images": self._known}
            write_bytes(self._path, orjson.dumps(index, option=orjson.OPT_SORT_KEYS))


def inspect_image(path: Path) -> ImageFacts | Problem:
    """Decode a whole file. Problems: `image-missing`, `image-unreadable`, `image-empty`, `image-mislabelled`,
    `image-format`, `image-truncated`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _problem("image-missing", f"{path} does not exist", "correct the file's name or the image folder")
    except OSError as error:
        return _problem("image-unreadable", f"{path}: {error.strerror}", "make the file readable")
    if not data:
        return _problem("image-empty", f"{path} has 0 bytes", "copy the image again")
    kind, promised = kind_of(data), _promised(path)
    if kind != promised and promised is not None:
        hint = f"rename it to {SUFFIXES[kind][0]}" if kind in SUFFIXES else "put the image in its place"
        return _problem("image-mislabelled", f"{path.name} holds {kind}, not {promised}", hint)
    if kind not in SUFFIXES:
        return _problem("image-format", f"{path.name} holds {kind}", f"convert it to one of {', '.join(SUFFIXES)}")
    return _decode(path, data, kind)


def kind_of(data: bytes) -> str:
    """What a file holds, by its first bytes: an image format, or a word for something else."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF or video"
    try:
        text = data[:4096].decode()
    except UnicodeDecodeError as error:
        if error.start < len(data[:4096]) - 4:  # not merely a character cut in two
            return "unknown data"
        text = data[: error.start].decode()
    if not all(c.isprintable() or c.isspace() for c in text):
        return "unknown data"
    return "HTML" if "<html" in text.lower() else "text"


def _decode(path: Path, data: bytes, kind: str) -> ImageFacts | Problem:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            width, height = image.size
            image.load()
    except Image.DecompressionBombError as error:
        return _problem(
            "image-too-large", f"{path.name}: {error}", "check that it is the right file, or scale it down"
        )
    except _UNDECODABLE as error:
        return _problem("image-truncated", f"{path.name}: {error}", "copy the image again, whole")
    return ImageFacts(sha256(data).hexdigest(), width, height, kind)


def _promised(path: Path) -> str | None:
    return next((kind for kind, suffixes in SUFFIXES.items() if path.suffix.lower() in suffixes), None)


def _stamped_facts(image: str) -> tuple[tuple[int, int] | None, ImageFacts | Problem]:
    """The stamp is taken first: a file that changes meanwhile is decoded again next time."""
    return _stamp(Path(image)), inspect_image(Path(image))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _problem(code: str, value: str, hint: str) -> Problem:
    return Problem(
        code=code, value=value, rule="every annotation has its image, whole and named as what it is", hint=hint
    )
