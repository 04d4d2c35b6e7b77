"""Faces on their way, kept on disk: a million of them do not fit in memory."""

from __future__ import annotations

import marshal
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from schemas.errors import StorageError
from schemas.geometry import Box
from schemas.records import Face


class FaceRow(NamedTuple):
    """A `Face`, its fields in the same order, of types that `marshal` knows: arrays as bytes, boxes as tuples."""

    source_key: str
    image: str
    image_name: str
    image_sha256: str
    frame_width: int
    frame_height: int
    subject: str | None
    set_id: str
    points: bytes
    flags: bytes
    tight_box: tuple[float, ...] | None
    outer_box: tuple[float, ...] | None
    session: str | None
    camera: str | None
    illumination: str | None
    annotator: str | None
    annotation_id: str | None
    annotated_at: str | None

    def face(self) -> Face:
        """The face; its arrays can't be written to."""
        fields: list[Any] = list(self)
        fields[8] = np.frombuffer(self.points, "<f4").reshape(-1, 2)
        fields[9] = np.frombuffer(self.flags, np.int8)
        fields[10] = self.tight_box and Box(*self.tight_box)
        fields[11] = self.outer_box and Box(*self.outer_box)
        return Face(*fields)


class FaceSpool:
    """A file of faces without a name, gone with the last object that reads it.

    Args:
        folder: where it is written; the system's place for temporary files if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = _NamelessFile(folder)
        self._lengths: list[np.ndarray] = []

    def add(self, rows: Iterable[tuple]) -> None:
        """Append `FaceRow`s, or tuples that hold the same.

        Raises:
            StorageError: the disk is full.
        """
        texts = [marshal.dumps(row if type(row) is tuple else tuple(row)) for row in rows]
        self._file.write(b"".join(texts))
        self._lengths.append(np.fromiter(map(len, texts), np.int64, len(texts)))

    def faces(self, order: np.ndarray) -> SpooledFaces:
        """The faces with these numbers, counted as they came in; nothing can be added any more."""
        ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *self._lengths]))
        return SpooledFaces(self._file, ends, np.asarray(order, np.int64))


class SpooledFaces(Sequence[Face]):
    """Faces of a `FaceSpool` in some order. Each is read when it is asked for, and made anew each time."""

    def __init__(self, file: _NamelessFile, ends: np.ndarray, order: np.ndarray) -> None:
        self._file, self._ends, self._order = file, ends, order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice) -> SpooledFaces: ...
    def __getitem__(self, index: int | slice) -> Face | SpooledFaces:
        if isinstance(index, slice):
            return SpooledFaces(self._file, self._ends, self._order[index])
        return self._row(self._order[index]).face()

    def __iter__(self) -> Iterator[Face]:
        return (row.face() for row in self.rows())

    def rows(self) -> Iterator[FaceRow]:
        """The faces as they are kept, which is cheaper to look at."""
        return map(self._row, self._order)

    def _row(self, number: np.int64) -> FaceRow:
        start, end = self._ends[number : number + 2].tolist()
        return FaceRow._make(marshal.loads(self._file.read(start, end)))


class _NamelessFile:
    """A temporary file that is closed, and so gone, with the last object that holds this one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor, name = tempfile.mkstemp(prefix=".faces.", suffix=".tmp", dir=self._folder)
            weakref.finalize(self, os.close, self._descriptor)
            Path(name).unlink()
        except OSError as error:
            raise self._error(error) from error

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise self._error(error) from error

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self._descriptor, end - start, start)

    def _error(self, error: OSError) -> StorageError:
        return StorageError(f"{self._folder}: faces can't be kept here meanwhile: {error.strerror}; free space there")
