"""Is an image file whole, and how large is the image: read off its structure, with nothing decoded.

PNG (ISO/IEC 15948): every chunk up to IEND with its CRC, so damage anywhere is seen. JPEG (ITU-T T.81): every marker
up to EOI; the compressed data between them carry no checksum, and decoders accept them damaged. What follows the end
of the image is left alone, as decoders do.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

Size = tuple[int, int]
"""Width and height in pixels."""

_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # neither a stuffed 0xFF, a restart nor padding
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_SOI, _EOI, _SOS, _DNL = 0xD8, 0xD9, 0xDA, 0xDC
_USUAL_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman coded
_ALL_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


class Unusual(Exception):
    """The file may be whole, but only a decoder can tell."""


def png_size(data: memoryview) -> Size:
    """Of a whole PNG file.

    Raises:
        ValueError: it is cut short or damaged; says where.
    """
    position, size, pixels = 8, None, False
    while True:
        kind, body, position = _png_chunk(data, position)
        if size is None:
            size = _png_header(kind, body)
        elif kind == b"IDAT":
            pixels = True
        elif kind == b"IEND":
            break
    if not pixels:
        raise ValueError("has no image data (IDAT)")
    return size


def jpeg_size(data: memoryview) -> Size:
    """Of a JPEG file whose markers are whole.

    Raises:
        ValueError: it is cut short or damaged; says where.
        Unusual: a lossless, hierarchical or arithmetic-coded file, or one that gives its height after the image.
    """
    position, size, scanned = 2, None, False
    while True:
        marker, position = _jpeg_marker(data, position)
        if marker == _EOI:
            break
        if marker in _STANDALONE:
            continue
        body, position = _jpeg_segment(data, marker, position)
        if marker in _ALL_FRAMES:
            size = _jpeg_frame(marker, body)
        elif marker == _DNL:
            raise Unusual
        elif marker == _SOS:
            position, scanned = _end_of_scan(data, position), True
    if size is None or not scanned:
        raise ValueError("ends before any image data")
    return size


READERS: dict[str, Callable[[memoryview], Size]] = {"PNG": png_size, "JPEG": jpeg_size}
"""By format, as `tasks.images` names it."""


def _png_chunk(data: memoryview, position: int) -> tuple[bytes, memoryview, int]:
    """A chunk's type, its data, and where the next one begins."""
    body = position + _CHUNK.size
    if body > len(data):
        raise ValueError(f"ends after {len(data)} bytes, before its last chunk (IEND)")
    length, kind = _CHUNK.unpack_from(data, position)
    end = body + length
    if end + _CRC.size > len(data):
        raise ValueError(f"ends after {len(data)} bytes, within the chunk {_shown(kind)} at {position}")
    if zlib.crc32(data[position + 4 : end]) != _CRC.unpack_from(data, end)[0]:
        raise ValueError(f"the chunk {_shown(kind)} at byte {position} is damaged: its checksum is another")
    return kind, data[body:end], end + _CRC.size


def _png_header(kind: bytes, body: memoryview) -> Size:
    if kind != b"IHDR" or len(body) != 13:
        raise ValueError(f"begins with the chunk {_shown(kind)} of {len(body)} bytes, not with its header (IHDR)")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if (
        not (width and height)
        or depth not in _PNG_DEPTHS.get(colour, ())
        or compression
        or filtering
        or interlace > 1
    ):
        raise ValueError(f"its header (IHDR) makes no sense: {body.hex(' ')}")
    return width, height


def _jpeg_marker(data: memoryview, position: int) -> tuple[int, int]:
    """The marker at `position`, and where it ends; any number of 0xFF may stand before it."""
    if position < len(data) and data[position] != 0xFF:
        raise ValueError(f"byte {position} is 0x{data[position]:02x} where a marker begins")
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position >= len(data):
        raise ValueError(f"ends after {len(data)} bytes, before its end marker (EOI)")
    return data[position], position + 1


def _jpeg_segment(data: memoryview, marker: int, position: int) -> tuple[memoryview, int]:
    end = position + int.from_bytes(data[position : position + 2], "big")
    if position + 2 > len(data) or end > len(data):
        raise ValueError(f"ends after {len(data)} bytes, within the segment 0x{marker:02x} at {position - 2}")
    if end < position + 2:
        raise ValueError(f"the segment 0x{marker:02x} at byte {position - 2} is shorter than its own length")
    return data[position + 2 : end], end


def _jpeg_frame(marker: int, body: memoryview) -> Size:
    if marker not in _USUAL_FRAMES:
        raise Unusual
    if len(body) < 6:
        raise ValueError("its frame header (SOF) is cut short")
    height, width = struct.unpack_from(">HH", body, 1)
    if height == 0:
        raise Unusual
    if width == 0:
        raise ValueError("its frame header (SOF) gives a width of 0")
    return width, height


def _end_of_scan(data: memoryview, position: int) -> int:
    """Where the first marker after compressed data begins."""
    found = _AFTER_SCAN.search(data, position)
    if found is None:
        raise ValueError(f"ends after {len(data)} bytes, within its compressed data")
    return found.start()


def _shown(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")
