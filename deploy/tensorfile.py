"""Calibration crops in TAO's tensorfile: HDF5, a group per batch.

    attributes of the file        count: batches, shape: of a batch
    _tensorfile_array_key__<i>    group of batch i, from 0
        _tensorfile_array_key_    float64 (B, C, S, S), 0..255, gzip

Legend: B faces of a batch, S side of the crop, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import CalibrationError
from schemas.storage import atomic_path

if TYPE_CHECKING:
    import h5py

ARRAY = "_tensorfile_array_key_"


def write_tensorfile(path: Path, batches: Iterable[np.ndarray]) -> None:
    """Write (B, S, S, C) crops, atomically; the same crops give the same bytes."""
    import h5py

    count, shape = 0, ()
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for images_BSSC in batches:
            images_BCSS = np.moveaxis(images_BSSC, -1, 1).astype(np.float64)
            group = file.create_group(f"{ARRAY}_{count}")
            group.create_dataset(ARRAY, data=images_BCSS, compression="gzip", track_times=False)
            count, shape = count + 1, images_BCSS.shape
        file.attrs["count"], file.attrs["shape"] = count, shape


def tensorfile_shape(path: Path) -> tuple[int, tuple[int, ...]]:
    """How many batches a tensorfile has, and the shape (B, C, S, S) of the first.

    Raises:
        CalibrationError: it is missing or is no tensorfile.
    """
    with _opened(path) as file:
        return int(file.attrs["count"]), _batch(file, 0, path).shape


def read_tensorfile(path: Path) -> Iterator[np.ndarray]:
    """Float32 crops (B, S, S, C), a batch at a time.

    Raises:
        CalibrationError: it is missing or damaged, or its batches differ in shape.
    """
    with _opened(path) as file:
        shape = _batch(file, 0, path).shape
        for index in range(int(file.attrs["count"])):
            images_BCSS = _batch(file, index, path)
            if images_BCSS.shape != shape:
                raise CalibrationError(
                    f"{path}: batch {index} has the shape {images_BCSS.shape}, not {shape}; {_AGAIN}"
                )
            yield np.moveaxis(images_BCSS, 1, -1).astype(np.float32)


def _opened(path: Path) -> h5py.File:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise CalibrationError(f"{path}: can't be read as a tensorfile (HDF5): {error}; {_AGAIN}") from error
    groups = sum(name.startswith(f"{ARRAY}_") for name in file)
    if not groups or file.attrs.get("count") != groups:
        found = file.attrs.get("count", "none")
        file.close()
        raise CalibrationError(f"{path}: says it has {found} batches and has {groups}; {_AGAIN}")
    return file


def _batch(file: h5py.File, index: int, path: Path) -> np.ndarray:
    try:
        images_BCSS = file[f"{ARRAY}_{index}"][ARRAY][()]
    except (KeyError, OSError) as error:
        raise CalibrationError(f"{path}: batch {index} can't be read: {error}; {_AGAIN}") from error
    if images_BCSS.ndim != 4:
        raise CalibrationError(f"{path}: batch {index} has the shape {images_BCSS.shape}, not (B, C, S, S); {_AGAIN}")
    return images_BCSS


_AGAIN = "delete it, and give --cal_image_dir to have it made again"
