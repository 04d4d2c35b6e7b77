"""What the quick readers give: faces in which there is nothing to report.

Nearly every record has the same few keys with plain numbers below them. A quick reader reads those, and nothing else:
for a record that is in any way unusual it returns None, and the format's `read` decides. So `read` alone knows the
rules, and whatever a quick reader returns is what `read` returns for the same record, with no problem at all.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

import numpy as np

from schemas.annotation import AnnotatedFace
from schemas.geometry import Box


class PlainFace(NamedTuple):
    """An `AnnotatedFace` as bytes, its fields in the same order.

    Attributes:
        points: 2N little-endian float32, finite.
        flags: N int8.
    """

    image_name: str
    frame_size: tuple[int, int] | None
    points: bytes
    flags: bytes
    tight_box: Box | None
    outer_box: Box | None
    key_suffix: str
    face_index: int
    ground_truth: bool
    annotator: str | None
    annotation_id: str | None
    annotated_at: str | None
    session: str | None
    camera: str | None
    illumination: str | None

    def annotated(self) -> AnnotatedFace:
        """The same face as the readers of whole formats give it; its arrays can't be written to."""
        name, frame_size, points, flags, *others = self
        points_N2 = np.frombuffer(points, "<f4").reshape(-1, 2)
        return AnnotatedFace(name, frame_size, points_N2, np.frombuffer(flags, np.int8), *others)


class NotPlain(Exception):
    """Something that a quick reader leaves to the format's `read`."""


NOT_PLAIN = (NotPlain, KeyError, TypeError, AttributeError, ValueError, OverflowError, struct.error)
"""What a quick reader may stumble over in a record that is not of the form it knows."""


class QuickReader(Protocol):
    """A function that reads one payload of a format, if it is a plain one."""

    def __call__(self, payload: Any, flags_known: bool) -> list[PlainFace] | None: ...
