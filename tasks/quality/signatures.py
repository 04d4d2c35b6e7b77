"""What a picture of a face is told again by, and a memory of it, so that no picture is decoded twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from model.images import read_image
from model.near_duplicates import THUMBNAIL_SIZE, face_view, hashes_of, thumbnail
from schemas.errors import ImageError, StorageError
from schemas.records import Face
from tasks.sqlite_memory import batches, open_memory

_VERSION = 1  # raise it when `model.near_duplicates` makes other hashes
_CREATE = f"""
DROP TABLE IF EXISTS signatures;
CREATE TABLE signatures (image BLOB, points BLOB, hashes BLOB, thumbnail BLOB, PRIMARY KEY (image, points));
PRAGMA user_version = {_VERSION};
"""
_SELECT = "SELECT image, points, hashes, thumbnail FROM signatures WHERE image IN ({})"
_DELETE = "DELETE FROM signatures WHERE image = ? AND points = ?"
_SAVE_EVERY = 2048  # faces
_WORKERS = 2
_A_QUERY = 500  # images that are looked up at a time

_Key = tuple[bytes, bytes]


@dataclass(frozen=True, eq=False)
class Signature:
    """`hashes_H`: see `model.near_duplicates.hashes_of`; `thumbnail_SS`: uint8."""

    hashes_H: np.ndarray
    thumbnail_SS: np.ndarray


class SignatureStore:
    """Remembers signatures by the SHA-256 of the image and by where the face is in it.

    It holds thumbnails of faces, which are personal data; `tasks.forget` finds them by `image`. A damaged file, or
    one of another version, is begun anew: it only saves time.

    Args:
        path: an SQLite file; None keeps nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def signatures(self, faces: Sequence[Face]) -> list[Signature | None]:
        """The signature of every face; None where its image can't be decoded. Only new faces' images are read.

        What is remembered of other faces is wiped: nobody's thumbnail stays longer than the face is looked at.

        Raises:
            StorageError: the file can't be written.
        """
        keys = [_key(face) for face in faces]
        with self._usable() as database, ThreadPoolExecutor(_WORKERS) as pool:
            found: dict[_Key, Signature | None] = dict(_recall(database, keys))
            unknown = {key: face for key, face in zip(keys, faces, strict=True) if key not in found}
            for batch in batches(sorted(unknown), _SAVE_EVERY):
                made = dict(zip(batch, pool.map(_sign, [unknown[key] for key in batch]), strict=True))
                _save(database, made)
                found |= made
            _forget_others(database, keys)
        return [found[key] for key in keys]

    @contextmanager
    def _usable(self) -> Iterator[sqlite3.Connection]:
        """The database, open. What keeps it from being used is an error that names the file."""
        try:
            with closing(open_memory(self._path, _prepare)) as database:
                yield database
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path}: what is known of the faces' pictures can't be used: {error}. Free space, end the "
                "other run that uses it, or delete it: it only saves time"
            ) from error


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA secure_delete = ON")
    if database.execute("PRAGMA user_version").fetchone() != (_VERSION,):
        database.executescript(_CREATE)


def _key(face: Face) -> _Key:
    return bytes.fromhex(face.image_sha256), sha256(np.asarray(face.points_N2, "<f4").tobytes()).digest()


def _sign(face: Face) -> Signature | None:
    try:
        gray = read_image(Path(face.image), channels=1)
    except ImageError:
        return None
    view_SS = face_view(gray, face.points_N2)
    return Signature(hashes_of(view_SS), thumbnail(view_SS))


def _recall(database: sqlite3.Connection, keys: Sequence[_Key]) -> Iterator[tuple[_Key, Signature]]:
    wanted = set(keys)
    for images in batches(sorted({image for image, _ in wanted}), _A_QUERY):
        for image, points, hashes, pixels in database.execute(_SELECT.format(",".join("?" * len(images))), images):
            if (image, points) in wanted:
                thumbnail_SS = np.frombuffer(pixels, np.uint8).reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE)
                yield (image, points), Signature(np.frombuffer(hashes, "<u8").astype(np.uint64), thumbnail_SS)


def _save(database: sqlite3.Connection, made: dict[_Key, Signature | None]) -> None:
    rows = [
        (*key, signature.hashes_H.astype("<u8").tobytes(), signature.thumbnail_SS.tobytes())
        for key, signature in made.items()
        if signature is not None
    ]
    with database:
        database.executemany("INSERT OR REPLACE INTO signatures VALUES (?, ?, ?, ?)", rows)


def _forget_others(database: sqlite3.Connection, keys: Sequence[_Key]) -> None:
    others = set(database.execute("SELECT image, points FROM signatures")) - set(keys)
    with database:
        database.executemany(_DELETE, sorted(others))
