"""The calibration cache in TensorRT's text format, for builders that quantise by themselves (up to TensorRT 10).

    TRT-8201-EntropyCalibration2
    relu_1: 3c010204

A line per tensor: the bits of its float32 scale (largest magnitude / 127) in hexadecimal. Tensors are those of the
ONNX file without Q/DQ. Beside `cal.bin` lies `cal.bin.json`, which says of which model it is, as TensorRT's format
can't: another model of the same type has the same names.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.errors import CalibrationError, StorageError
from schemas.storage import read_json, sha256_file, write_bytes, write_json

HEADER = "TRT-8201-EntropyCalibration2"
"""TensorRT 8.2.1 of JetPack 4.6, the oldest builder that is served; newer ones read it too."""


@dataclass(frozen=True)
class CacheOrigin:
    """What a cache was made of.

    Attributes:
        network_sha256: of the float network's nodes and weights.
        faces, origin: how many crops, and where they came from.
        float_layers: convolutions left in float.
    """

    network_sha256: str
    faces: int
    origin: str
    float_layers: tuple[str, ...]


def cache_text(scales: Mapping[str, float]) -> str:
    lines = [f"{tensor}: {struct.pack('>f', scale).hex()}" for tensor, scale in scales.items()]
    return "\n".join([HEADER, *lines, ""])


def write_cache(path: Path, scales: Mapping[str, float], origin: CacheOrigin) -> None:
    """Write the cache, and what it was made of beside it."""
    _origin_path(path).unlink(missing_ok=True)
    write_bytes(path, cache_text(scales).encode())
    write_json(_origin_path(path), {**asdict(origin), "cache_sha256": sha256_file(path)})


def read_cache(path: Path) -> dict[str, float]:
    """Tensor -> scale.

    Raises:
        CalibrationError: it is not a calibration cache; the line is in the message.
    """
    header, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if not (header.startswith("TRT-") and "Calibration" in header):
        raise CalibrationError(f"{path}:1: no calibration cache: it begins '{header[:40]}', not '{HEADER}'")
    scales = {}
    for number, line in enumerate(lines, start=2):
        tensor, _, bits = line.rpartition(":")
        if not line.strip():
            continue
        try:
            (scales[tensor],) = struct.unpack(">f", bytes.fromhex(bits.strip()))
        except (ValueError, struct.error) as error:
            raise CalibrationError(f"{path}:{number}: '{line[:60]}' is not 'tensor: 8 hexadecimal digits'") from error
    return scales


def read_origin(path: Path) -> CacheOrigin | None:
    """What the cache was made of; None for one that something else wrote or changed."""
    if not _origin_path(path).is_file():
        return None
    try:
        stored = read_json(_origin_path(path))
        if stored.pop("cache_sha256") != sha256_file(path):
            return None
        return CacheOrigin(**{**stored, "float_layers": tuple(stored["float_layers"])})
    except (StorageError, ValueError, KeyError, TypeError, AttributeError):  # no JSON of ours
        return None


def require_scales(path: Path, scales: Mapping[str, float], tensors: list[str]) -> dict[str, float]:
    """The scales of `tensors`, all of which must be there and be above 0.

    Raises:
        CalibrationError: a tensor is not in the cache, or its scale is no positive number.
    """
    lacking = [tensor for tensor in tensors if tensor not in scales]
    if lacking:
        raise CalibrationError(
            f"{path}: lacks {len(lacking)} of {len(tensors)} tensors of this model ({', '.join(lacking[:5])}): it is "
            "another model's; name another file, or delete it to calibrate anew"
        )
    odd = [tensor for tensor in tensors if not 0 < scales[tensor] < float("inf")]
    if odd:
        raise CalibrationError(f"{path}: the scale of {', '.join(odd[:5])} is not a positive number; calibrate anew")
    return {tensor: scales[tensor] for tensor in tensors}


def _origin_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")
