"""Raw records out of COFW's MATLAB files. The images in them become PNG files, which everything else can read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schemas.errors import AnnotationFileError
from schemas.raw import RawRecord
from schemas.sources import CofwSource
from schemas.storage import sha256_file, write_bytes
from tasks.pull_files import files_of
from tasks.subjects import subject_finder
from tasks.tombstones import Tombstones

if TYPE_CHECKING:
    import h5py

_SUFFIXES = ("Tr", "T")  # of the arrays in the files of the training and the test images
_DIGEST_LENGTH = 16  # hexadecimal digits
_POINTS_FILE = re.compile(r"^(\d+)_points\.mat$")


def pull_cofw(source: CofwSource, images: Path, tombstones: Tombstones) -> Iterator[RawRecord]:
    """A record for every image, which is named `<file without .mat>/<number from 1>.png`.

    Images are written once for each content of a file, below `images/<file's stem>-<its SHA-256>/`: a file that
    has replaced another one brings its own, and those of the other one are removed. Images of forgotten subjects are
    not written.

    Raises:
        AnnotationFileError: a file can't be read, is no file of COFW, or has other numbers of images and rows.
    """
    files = files_of(source.files)
    points_68 = None if source.points_68 is None else _points_files(Path(source.points_68))
    if points_68 is not None and len(files) != 1:
        raise AnnotationFileError(source.points_68 or "", "belongs to the images of one file; name one in `files`")
    subject_of = subject_finder(source.subject)
    folders = [images / f"{path.stem}-{_sha256(path)[:_DIGEST_LENGTH]}" for _, path in files]
    for (key, path), folder in zip(files, folders, strict=True):
        for number, row in enumerate(_rows(path), start=1):
            if points_68 is not None and number not in points_68:
                continue
            name = f"{key.removesuffix(path.suffix)}/{number:04d}.png"
            image, subject = folder / f"{number:04d}.png", subject_of(name, {})
            if not image.is_file() and not tombstones.cover(subject):
                write_bytes(image, _png(row.pixels(), path, number))
            yield RawRecord(
                format="cofw",
                source=source.name,
                set_id=path.stem,
                key=f"{key}#{number}",
                payload={
                    "image": name,
                    "phis": row.phis if points_68 is None else _phis_68(points_68[number]),
                    "bbox": row.bbox,
                },
                image=str(image),
                flags_known=True,
                subject=subject,
            )
    for other in set(images.glob("*/")) - set(folders):
        shutil.rmtree(other)


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise AnnotationFileError(path, f"can't be read: {error.strerror}") from error


class _Row(NamedTuple):
    """One face. `pixels` reads its image, as long as the next row has not been asked for."""

    pixels: Callable[[], np.ndarray]
    phis: list[float | None]
    bbox: list[float | None] | None


def _rows(path: Path) -> Iterator[_Row]:
    import h5py

    try:
        with h5py.File(path) as file:
            images, phis, boxes = _arrays(file, path)
            for index in range(phis.shape[1]):
                pixels = partial(_stored, file, images[0, index])
                yield _Row(pixels, _numbers(phis[:, index]), None if boxes is None else _numbers(boxes[:, index]))
    except OSError as error:
        raise AnnotationFileError(path, f"is no whole MATLAB 7.3 file: {error}") from error


def _stored(file: h5py.File, reference: h5py.Reference) -> np.ndarray:
    try:
        return np.asarray(file[reference])
    except (OSError, ValueError) as error:
        raise AnnotationFileError(file.filename, f"an image in it can't be read: {error}") from error


def _arrays(file: h5py.File, path: Path) -> tuple[h5py.Dataset, h5py.Dataset, h5py.Dataset | None]:
    """`Is`, `phis` and `bboxes`, as HDF5 has them: MATLAB's last dimension first."""
    import h5py

    for suffix in _SUFFIXES:
        images, phis, boxes = (file.get(f"{name}{suffix}") for name in ("Is", "phis", "bboxes"))
        if images is not None and phis is not None:
            count = phis.shape[-1]
            wanted = [(1, count), (len(phis), count), (4, count)]
            shapes = [images.shape, phis.shape, wanted[2] if boxes is None else boxes.shape]
            if shapes != wanted or h5py.check_ref_dtype(images.dtype) is None:
                raise AnnotationFileError(path, f"Is, phis and bboxes are {shapes}, not images and a row for each")
            return images, phis, boxes
    raise AnnotationFileError(path, f"has no arrays IsTr and phisTr, or IsT and phisT; it has {', '.join(file)}")


def _numbers(column: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in column]


def _png(stored: np.ndarray, path: Path, number: int) -> bytes:
    """A picture of (channels, width, height) or (width, height), as MATLAB leaves it in HDF5."""
    import cv2

    if stored.dtype != np.uint8 or stored.ndim not in (2, 3) or (stored.ndim == 3 and stored.shape[0] != 3):
        raise AnnotationFileError(path, f"image {number} is {stored.dtype} of {stored.shape}, not a picture")
    pixels = stored.T if stored.ndim == 2 else stored.T[..., ::-1]
    return cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()


def _points_files(folder: Path) -> dict[int, Path]:
    """Number of the image -> file."""
    found = {int(match[1]): path for path in folder.glob("*.mat") if (match := _POINTS_FILE.match(path.name))}
    if not found:
        raise AnnotationFileError(folder, "holds no files such as 1_points.mat")
    return found


def _phis_68(path: Path) -> list[float | None]:
    """`Points` and `Occ` of one file, in COFW's order."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(path, variable_names=["Points", "Occ"])
        points, flags = (np.asarray(content[name], np.float64) for name in ("Points", "Occ"))
    except (MatReadError, OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise AnnotationFileError(path, f"is no MATLAB file with Points and Occ: {error}") from error
    if points.ndim != 2 or points.shape[1] != 2 or flags.size != len(points):
        raise AnnotationFileError(path, f"Points is {points.shape}, Occ {flags.shape}, not N x 2 and N")
    return _numbers(np.concatenate([points[:, 0], points[:, 1], flags.ravel()]))
