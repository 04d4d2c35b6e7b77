"""Where calibration faces come from: a folder of face crops, the training set's TFRecords, or a tensorfile.

All are gone through batch by batch, again and again, so that any number of them needs little memory. Noise, which the
reference takes where no folder is given, calibrates nothing and is not offered.

Legend: B faces of a batch, S side of the crop, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from deploy.tensorfile import read_tensorfile, tensorfile_shape
from schemas.errors import CalibrationError
from schemas.experiment import ExperimentSpec

SUFFIXES = (".jpg", ".jpeg", ".png")
TRAINING_SHARE = 0.1
"""Of the training faces, by default: what TAO's documentation recommends at least."""

SEED = 42

FEWEST_CROPS = 32
"""Below that, scales follow the faces that happen to be there."""

FLAT = 2.0
"""Standard deviation of the gray values of an image that shows nothing."""


class Crops(Protocol):
    """A fixed set of crops, read when first called for.

    Attributes:
        id: names what it gives, without reading it.
    """

    @property
    def id(self) -> str: ...

    def __call__(self) -> np.ndarray:
        """Float32 crops (B, S, S, C), 0..255."""
        ...


class CalibrationFaces(Protocol):
    """Float32 crops (B, S, S, C), 0..255; iterating again gives the same ones.

    Attributes:
        count: how many.
        origin: where they come from, for people.
    """

    @property
    def count(self) -> int: ...

    @property
    def origin(self) -> str: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class FolderFaces:
    """Image files, each a face crop, brought to the network's input as the reference does: Lanczos, 'L'."""

    files: tuple[Path, ...]
    origin: str
    side: int
    channels: int
    batch_size: int

    @property
    def count(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.count, self.batch_size):
            files = self.files[start : start + self.batch_size]
            yield np.stack([_read(path, self.side, self.channels) for path in files])


@dataclass(frozen=True)
class RecordFaces:
    """Faces `chosen`, by their number, of TFRecord files: the crops that training sees, without augmentation."""

    files: tuple[Path, ...]
    spec: ExperimentSpec
    chosen: frozenset[int]
    origin: str
    batch_size: int

    @property
    def count(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        for image_SSC in self._images():
            waiting.append(image_SSC)
            if len(waiting) == self.batch_size:
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack(waiting)

    def _images(self) -> Iterator[np.ndarray]:
        from model.pipeline import evaluation_batches

        number = 0
        for batch in evaluation_batches(self.files, self.spec):
            for image_SSC in batch.images_BHWC:
                if number in self.chosen:
                    yield image_SSC
                number += 1


@dataclass(frozen=True)
class TensorfileFaces:
    """The crops of a tensorfile."""

    path: Path
    batches: int
    batch_size: int

    @property
    def count(self) -> int:
        return self.batches * self.batch_size

    @property
    def origin(self) -> str:
        return str(self.path)

    def __iter__(self) -> Iterator[np.ndarray]:
        return read_tensorfile(self.path)


def folder_faces(
    folder: Path, *, image_shape: tuple[int, int, int], batches: int | None = None, batch_size: int = 1
) -> FolderFaces:
    """A random sample, the same each time, of the images right inside `folder`.

    Args:
        image_shape: (C, S, S) that the model takes.
        batches: None takes every image that fills a batch.

    Raises:
        CalibrationError: there is no such folder, or it has too few images.
    """
    if not folder.is_dir():
        raise CalibrationError(
            f"{folder}: no such folder of calibration images; give one with face crops "
            f"({', '.join(SUFFIXES)}), or the experiment spec with -e to calibrate on the training faces"
        )
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    count = _sample_size(
        len(files), len(files) // batch_size if batches is None else batches, batch_size, str(folder)
    )
    chosen = np.random.default_rng(SEED).choice(len(files), count, replace=False)
    channels, side, _ = image_shape
    return FolderFaces(
        tuple(files[i] for i in chosen), f"{count} of {len(files)} images in {folder}", side, channels, batch_size
    )


def record_faces(
    files: Sequence[Path], spec: ExperimentSpec, *, batches: int | None = None, batch_size: int = 1
) -> RecordFaces:
    """A random sample, the same each time, of the training faces.

    Args:
        batches: None takes as many as make `TRAINING_SHARE` of the faces.

    Raises:
        ShardError: a file is missing or damaged.
        CalibrationError: there are too few faces.
    """
    from model.shards import survey

    total = sum(shard.records for shard in survey(files, spec))
    wanted = math.ceil(total * TRAINING_SHARE / batch_size) if batches is None else batches
    count = _sample_size(total, wanted, batch_size, "the training set")
    chosen = np.random.default_rng(SEED).choice(total, count, replace=False)
    origin = f"{count:,} of {total:,} training faces ({count / total:.0%})"
    return RecordFaces(tuple(files), spec, frozenset(chosen.tolist()), origin, batch_size)


def tensorfile_faces(
    path: Path, *, image_shape: tuple[int, int, int], batches: int | None = None, batch_size: int | None = None
) -> TensorfileFaces:
    """All crops of a tensorfile.

    Args:
        batches, batch_size: what it must hold; None takes what there is.

    Raises:
        CalibrationError: it can't be read, or holds something else.
    """
    found, shape = tensorfile_shape(path)
    if shape[1:] != image_shape:
        raise CalibrationError(
            f"{path}: holds crops of the shape {shape[1:]}, the model takes {image_shape}; name another file, or "
            "delete this one to have it made anew"
        )
    for what, has, asked in (("batches", found, batches), ("faces a batch", shape[0], batch_size)):
        if asked not in (None, has):
            raise CalibrationError(
                f"{path}: exists and holds {has} {what}, {asked} were asked for; leave the option out to use it as "
                "it is, or delete it to have it made anew"
            )
    return TensorfileFaces(path, found, shape[0])


def require_usable(images_BSSC: np.ndarray, image_shape: tuple[int, int, int], origin: str) -> None:
    """Let crops pass that INT8 can be calibrated on.

    Args:
        image_shape: (C, S, S) that the model takes.
        origin: where they come from, for the message.

    Raises:
        CalibrationError: too few, of another size, not 0..255, or images of nothing.
    """
    channels, side, _ = image_shape
    if images_BSSC.shape[1:] != (side, side, channels):
        raise CalibrationError(
            f"{origin}: crops of the shape {images_BSSC.shape[1:]}, the model takes {(side, side, channels)} (rows, "
            "columns, channels); calibrate on crops made with the model's own experiment spec"
        )
    if len(images_BSSC) < FEWEST_CROPS:
        raise CalibrationError(
            f"{origin}: {len(images_BSSC)} faces; INT8 is calibrated on {FEWEST_CROPS} at least, better on hundreds: "
            "add training faces, or use fp16"
        )
    _require_pictures(images_BSSC, origin)


def _require_pictures(images_BSSC: np.ndarray, origin: str) -> None:
    lowest, highest = float(images_BSSC.min()), float(images_BSSC.max())
    if not (lowest >= 0 and 2 < highest <= 255):
        raise CalibrationError(
            f"{origin}: gray values from {lowest:g} to {highest:g}; the network takes 0 to 255, so give the crops as "
            "they are in image files, not scaled"
        )
    flat = np.flatnonzero(images_BSSC.std(axis=(1, 2, 3)) < FLAT)
    if len(flat):
        shown = ", ".join(map(str, flat[:5])) + (" ..." if len(flat) > 5 else "")
        raise CalibrationError(
            f"{origin}: {len(flat)} of {len(images_BSSC)} images show nothing, all gray values alike (numbers "
            f"{shown}, from 0); take them out: scales made of them cut real faces off"
        )


def _sample_size(available: int, batches: int, batch_size: int, where: str) -> int:
    count = batches * batch_size
    if not 0 < count <= available:
        raise CalibrationError(
            f"{where}: {max(batches, 1)} batches of {batch_size} need {max(batches, 1) * batch_size} faces, "
            f"{available} are there; add faces, or ask for fewer with --batches and --batch_size"
        )
    return count


def _read(path: Path, side: int, channels: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            resized = image.convert("L" if channels == 1 else "RGB").resize((side, side), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise CalibrationError(
            f"{path}: can't be read as an image; remove it from the folder or repair it"
        ) from error
    crop_SSC = np.asarray(resized, np.float32).reshape(side, side, channels)
    if crop_SSC.std() < FLAT:
        raise CalibrationError(
            f"{path}: shows nothing, all gray values are alike; take it out of the folder: scales made of it cut "
            "real faces off"
        )
    return crop_SSC
