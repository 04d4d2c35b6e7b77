"""Boxed faces to serialised records, with the crops of their images where they are to be embedded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

from schemas.annotation import Problem
from schemas.errors import ImageError
from schemas.geometry import Box
from schemas.records import Face
from tasks.images import ImageIndex

BoxedFace = tuple[Face, Box]

_WORKERS = 2
_LOOKED_UP = 64  # images at a time
_AHEAD = 256  # images whose records are being made, or wait to be written


def face_records(boxed: Iterable[BoxedFace]) -> Iterator[bytes]:
    """A record for every face, in order; no image is read."""
    from model.tfrecords import serialize_face

    return (serialize_face(face, box) for face, box in boxed)


def embedded_records(
    boxed: Iterable[BoxedFace], *, color: Literal["gray", "rgb"], index: ImageIndex
) -> Iterator[bytes]:
    """A record for every face, in order, with the crop of its image.

    Threads decode; an image is decoded once for all its faces that come in a row. However many faces there are, some
    hundred images are under way at a time.

    Args:
        index: tells whether an image is the one that was validated, by its hash, or by size and modification time
            where it has been hashed before.

    Raises:
        ImageError: an image is gone, is another one than was validated, or can't be decoded.
    """
    channels = 1 if color == "gray" else 3
    waiting: deque[Future[list[bytes]]] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        for faces in _checked(_by_image(boxed), index):
            waiting.append(pool.submit(_embed, faces, channels))
            if len(waiting) == _AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _by_image(boxed: Iterable[BoxedFace]) -> Iterator[list[BoxedFace]]:
    for _, faces in groupby(boxed, key=lambda pair: (pair[0].image, pair[0].image_sha256)):
        yield list(faces)


def _checked(groups: Iterable[list[BoxedFace]], index: ImageIndex) -> Iterator[list[BoxedFace]]:
    """The same faces, once their images are known to be those that were validated."""
    remaining = iter(groups)
    while batch := list(islice(remaining, _LOOKED_UP)):
        found = index.inspect(faces[0][0].image for faces in batch)
        for faces in batch:
            face, _ = faces[0]
            facts = found[face.image]
            if isinstance(facts, Problem):
                raise ImageError(f"{facts.value}: it was there, and whole, when it was validated; run again")
            if facts.sha256 != face.image_sha256:
                raise ImageError(
                    f"{face.image}: has changed since it was validated; run again to take it as it is now"
                )
            yield faces


def _embed(faces: list[BoxedFace], channels: int) -> list[bytes]:
    from model.images import read_image
    from model.tfrecords import serialize_face

    frame = read_image(Path(faces[0][0].image), channels=channels)
    return [serialize_face(face, box, frame) for face, box in faces]
