"""How tests compare a quick reader with the whole reader of its format."""

from __future__ import annotations

import dataclasses

import numpy as np

from schemas.annotation import AnnotatedFace, Problem
from schemas.plain_face import PlainFace


def assert_same_faces(quick: list[PlainFace], whole: tuple[list[AnnotatedFace], list[Problem]]) -> None:
    """The whole reader found the same faces, to the bit and the type, and no problem."""
    faces, problems = whole
    assert problems == [] and len(quick) == len(faces)
    for plain, face in zip(quick, faces, strict=True):
        for field in dataclasses.fields(face):
            mine, theirs = getattr(plain.annotated(), field.name), getattr(face, field.name)
            if isinstance(theirs, np.ndarray):
                assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
            else:
                assert mine == theirs and type(mine) is type(theirs)
