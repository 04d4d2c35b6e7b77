"""Facts about one image file, found by reading it once: its bytes' hash, size and format, or what is wrong."""

from __future__ import annotations

import io
import os
import struct
import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from schemas.annotation import Problem
from tasks.image_structure import READERS, Size, Unusual

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Formats that are read, and the file name endings that promise them."""

_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"P5", "PPM"), (b"P6", "PPM"), (b"GIF8", "GIF"), (b"%PDF", "PDF"), (b"PK\x03\x04", "ZIP"),
)  # fmt: skip
_HEAD = 4096  # bytes that tell what a file holds
_MAX_PIXELS = 178_956_970  # where Pillow, too, takes an image for a decompression bomb
_UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow's decoders raise
_buffers = threading.local()


@dataclass(frozen=True)
class ImageFacts:
    """A whole image: hex SHA-256 of the file's bytes, width and height in pixels as stored, format."""

    sha256: str
    width: int
    height: int
    format: str


def inspect_image(image: str) -> ImageFacts | Problem:
    """Read a whole file. Problems: `image-missing`, `image-unreadable`, `image-empty`, `image-mislabelled`,
    `image-format`, `image-truncated`, `image-too-large`.

    A PNG or JPEG file is not decoded: its structure is checked to the end, see `tasks.image_structure`. Damage within
    a JPEG's compressed data stays unseen; decoders make an image of it without a word, too.
    """
    try:
        data = _read(image)
    except FileNotFoundError:
        return _problem("image-missing", f"{image} does not exist", "correct the file's name or the image folder")
    except OSError as error:
        return _problem("image-unreadable", f"{image}: {error.strerror}", "make the file readable")
    except ValueError as error:
        return _problem("image-missing", f"{image!r}: {error}", "correct the file's name: no file can be called so")
    if not data:
        return _problem("image-empty", f"{image} has 0 bytes", "copy the image again")
    path = Path(image)
    name, kind, promised = path.name, kind_of(bytes(data[:_HEAD])), _KIND_OF_SUFFIX.get(path.suffix.lower())
    if kind != promised and promised is not None:
        hint = f"rename it to {SUFFIXES[kind][0]}" if kind in SUFFIXES else "put the image in its place"
        return _problem("image-mislabelled", f"{name} holds {kind}, not {promised}", hint)
    if kind not in SUFFIXES:
        return _problem("image-format", f"{name} holds {kind}", f"convert it to one of {', '.join(SUFFIXES)}")
    return _measure(name, data, kind)


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
        text = data[:_HEAD].decode()
    except UnicodeDecodeError as error:
        if error.start < len(data[:_HEAD]) - 4:  # not merely a character cut in two
            return "unknown data"
        text = data[: error.start].decode()
    if not all(c.isprintable() or c.isspace() for c in text):
        return "unknown data"
    return "HTML" if "<html" in text.lower() else "text"


def _read(image: str) -> memoryview:
    """The bytes of a file, in this thread's buffer: they hold until its next call."""
    with Path(image).open("rb", buffering=0) as file:
        size, length = os.fstat(file.fileno()).st_size, 0
        if len(getattr(_buffers, "bytes", b"")) <= size:
            _buffers.bytes = bytearray(2 * size + 1)
        view = memoryview(_buffers.bytes)[:size]
        while number := file.readinto(view[length:]):
            length += number
    return view[:length]


def _measure(name: str, data: memoryview, kind: str) -> ImageFacts | Problem:
    try:
        width, height = _size(data, kind)
    except ValueError as error:
        return _problem("image-truncated", f"{name}: {error}", "copy the image again, whole")
    if width * height > _MAX_PIXELS:
        value = f"{name}: {width} x {height} is more than {_MAX_PIXELS:,} pixels"
        return _problem("image-too-large", value, "check that it is the right file, or scale it down")
    return ImageFacts(sha256(data).hexdigest(), width, height, kind)


def _size(data: memoryview, kind: str) -> Size:
    try:
        return READERS[kind](data) if kind in READERS else _decoded_size(data, kind)
    except Unusual:
        return _decoded_size(data, kind)


def _decoded_size(data: memoryview, kind: str) -> Size:
    """By a decoder, which must get through the whole image; one that is too large is not decoded.

    Raises:
        ValueError: it can't be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if image.width * image.height <= _MAX_PIXELS:
                image.load()
            return image.size
    except _UNDECODABLE as error:
        raise ValueError(str(error)) from error


def _problem(code: str, value: str, hint: str) -> Problem:
    return Problem(
        code=code, value=value, rule="every annotation has its image, whole and named as what it is", hint=hint
    )
