"""Writing TFRecord files of faces: TAO's nine features, and ours beside them. `model.shards` reads them.

Records are `tf.train.Example` messages, written here byte by byte: it spares a conversion the import of TensorFlow,
which takes longer than to convert twenty thousand faces. Sources: the encoding of Protocol Buffers (protobuf.dev),
TensorFlow's `example.proto`, `feature.proto` and `record_writer.cc`.

Legend: N keypoints, S side of the context crop in pixels, C channels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from model.crc32c import crc32c
from model.crop import context_crop, crop_face
from model.images import encode_png
from schemas.errors import ShardError
from schemas.geometry import Box
from schemas.records import Face, Flag
from schemas.storage import atomic_path

_BYTES, _FLOATS, _INTS = b"\x0a", b"\x12", b"\x1a"  # fields 1, 2 and 3 of a `Feature`
_UNKNOWN, _OCCLUDED = int(Flag.UNKNOWN), int(Flag.OCCLUDED)  # Python 3.11 looks a member up slowly
_HEADER, _CHECKSUM = 12, 4  # bytes before and behind a record
_AT_A_TIME = 512  # records, and
_BYTES_AT_A_TIME = 4 << 20


def serialize_face(face: Face, face_box: Box, frame: np.ndarray | None = None) -> bytes:
    """One face as a `tf.train.Example`; equal arguments give equal bytes.

    Args:
        face_box: square, whole pixels, in the frame or partly outside.
        frame: uint8, (H, W) or (H, W, C); with it the crop with context is embedded.
    """
    x, y, width, height = map(int, face_box)
    crop = context_crop(face_box) if frame is not None else None
    # By key, in the order of Protocol Buffers' deterministic serialisation: of equal beginnings, the longer is first.
    features = (
        *(() if crop is None else [_bytes("image/encoded", encode_png(crop_face(frame, crop)))]),
        _bits("image/occ_known", face.flags_N != _UNKNOWN),
        *(() if crop is None else [_floats("image/region", np.array([crop.x0, crop.y0, crop.side]))]),
        _bytes("image/set", face.set_id.encode()),
        _bytes("image/subject", (face.subject or "").encode()),
        _integer("train/facebbx_h", height),
        _integer("train/facebbx_w", width),
        _integer("train/facebbx_x", x),
        _integer("train/facebbx_y", y),
        _integer("train/image_frame_height", face.frame_height),
        _bytes("train/image_frame_name", face.image_name.encode()),
        _integer("train/image_frame_width", face.frame_width),
        _bits("train/landmarks_occ", face.flags_N == _OCCLUDED),
        _floats("train/landmarks", face.points_N2),
    )
    return _field(b"\x0a", b"".join(features))


def write_records(path: Path, records: Iterable[bytes]) -> int:
    """Replace `path` by a TFRecord file of `records`, atomically; return their number. Some megabytes are held.

    Raises:
        StorageError: the disk is full or the place can't be written; nothing half-written is left.
    """
    count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for batch in _batches(records):
            file.write(_framed(batch))
            count += len(batch)
    return count


def record_spans(path: Path) -> Iterator[tuple[int, int]]:
    """Where every record of a file begins, and its length in bytes.

    Raises:
        ShardError: the file ends within a record.
    """
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(_HEADER)
            length = int.from_bytes(header[:8], "little")
            start, position = position + _HEADER, position + _HEADER + length + _CHECKSUM
            if position > size:
                raise ShardError(f"{path}: ends within a record; delete it and convert again")
            yield start, length


def record_offsets(path: Path) -> Iterator[int]:
    """Bytes of a file before each of its records.

    Raises:
        ShardError: the file ends within a record.
    """
    return (start - _HEADER for start, _ in record_spans(path))


def count_records(files: Iterable[Path]) -> int:
    """Number of records, which are not looked at.

    Raises:
        ShardError: a file ends within a record.
    """
    return sum(1 for path in files for _ in record_spans(path))


def _batches(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch, size = [], 0
    for record in records:
        batch.append(record)
        size += len(record)
        if len(batch) == _AT_A_TIME or size >= _BYTES_AT_A_TIME:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _framed(records: list[bytes]) -> bytes:
    """Each record between its length with a checksum, and its own checksum."""
    lengths = [struct.pack("<Q", len(record)) for record in records]
    checks = (_masked(lengths), records, _masked(records))
    return b"".join(part for parts in zip(lengths, *checks, strict=True) for part in parts)


def _masked(messages: list[bytes]) -> list[bytes]:
    """The checksums as TFRecord files hold them, rotated and shifted: a CRC of data with CRCs in them is weak."""
    crcs = crc32c(messages)
    masked = ((crcs >> 15 | crcs << 17) + np.uint32(0xA282EAD8)).astype("<u4").tobytes()
    return [masked[start : start + 4] for start in range(0, len(masked), 4)]


def _bytes(key: str, value: bytes) -> bytes:
    return _feature(key, _BYTES, value)


def _floats(key: str, values: np.ndarray) -> bytes:
    return _feature(key, _FLOATS, np.asarray(values, "<f4").tobytes())


def _bits(key: str, values: np.ndarray) -> bytes:
    return _feature(key, _INTS, np.asarray(values, np.uint8).tobytes())


@lru_cache(maxsize=65536)  # boxes and frame sizes come again and again
def _integer(key: str, value: int) -> bytes:
    return _feature(key, _INTS, _varint(value))


def _feature(key: str, kind: bytes, values: bytes) -> bytes:
    return _head(key, kind, len(values)) + values


@lru_cache(maxsize=65536)
def _head(key: str, kind: bytes, length: int) -> bytes:
    """What stands before the values in an entry of the map of features, whose value is a list of `kind`."""
    one = b"\x0a" + _varint(length)  # the only element of a list of bytes, or packed numbers
    listed = kind + _varint(len(one) + length) + one
    name = _field(b"\x0a", key.encode())
    value = b"\x12" + _varint(len(listed) + length) + listed
    return b"\x0a" + _varint(len(name) + len(value) + length) + name + value


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as 64 bits of two's complement."""
    if 0 <= value < 128:
        return _SMALL[value]
    value &= (1 << 64) - 1
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


_SMALL = [bytes([value]) for value in range(128)]
