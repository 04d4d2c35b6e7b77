"""Reading a JSON file that holds one long list of objects, a few objects at a time.

A list of a million faces does not fit in memory, and a parser wants the whole text. So the text is cut between two
objects, and every piece is parsed by itself. Where to cut is a guess, and a wrong one is harmless: if the text of
every piece, put into brackets, is JSON, then the whole text is, and its list is theirs joined together. A piece that
is not JSON was cut in the wrong place, or the file is broken: more is read, and in the end all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from schemas.errors import AnnotationFileError

Parse = Callable[[bytes], Any]
"""Parses JSON; raises `orjson.JSONDecodeError` where it is none."""

_PIECE = 1 << 18  # bytes; what was parsed should still be in the cache when it is looked at
_GUESSES = 4
_OPENING = re.compile(rb"\s*\[\s*(?=\{)")
_NEXT_ITEM = re.compile(rb'\s*,\s*(?=(\{\s*"[^"\\]*"\s*:))')


@dataclass(frozen=True)
class _Seam:
    """What the text between two items looks like.

    Attributes:
        text: the brackets that close an item, the comma, and how the next one begins.
        closing, opening: where in `text` the first item ends and the next one begins.
    """

    text: bytes
    closing: int
    opening: int


def read_list(path: Path, *, of: str, parse: Parse = orjson.loads, piece: int = _PIECE) -> Iterator[Any]:
    """The items of the list in a file, in order; about `piece` bytes of the text are in memory at a time.

    Args:
        of: what the items are, for the message: `images`.

    Raises:
        AnnotationFileError: the file can't be read, is not JSON (with line and column), or is not a list. Items
            before the fault may have been given by then.
    """
    try:
        with path.open("rb") as file:
            yield from _items(file, path, of, parse, piece)
    except OSError as error:
        raise AnnotationFileError(path, f"can't be read: {error.strerror}") from error


def _items(file: BinaryIO, path: Path, of: str, parse: Parse, piece: int) -> Iterator[Any]:
    text = file.read(piece)
    opening = _OPENING.match(text)
    text = text[opening.end() :] if opening else text
    seam, size = None, piece
    while opening and (more := file.read(size)):
        seam = seam or _first_seam(text)
        text += more
        found = _front(text, seam, parse) if seam else None
        if found is None:
            size = len(text)  # doubled, so that a text that can't be cut is gone through a few times, not often
            continue
        items, begin = found
        yield from items
        text, size = text[begin:], piece
    yield from _end(text, file, path, of, parse) if opening else _whole(file, path, of, parse)


def _front(text: bytes, seam: _Seam, parse: Parse) -> tuple[list[Any], int] | None:
    """The items before the last seam at which the text can be cut, and where the item after it begins."""
    place = len(text)
    for _ in range(_GUESSES):
        if (place := text.rfind(seam.text, 0, place)) < 0:
            return None
        try:
            return parse(b"[%b]" % text[: place + seam.closing]), place + seam.opening
        except orjson.JSONDecodeError:
            continue
    return None


def _first_seam(text: bytes) -> _Seam | None:
    """The seam after the first item; None if the text ends before it."""
    characters = text.decode(errors="ignore")
    try:
        _, end = json.JSONDecoder().raw_decode(characters)
    except ValueError:
        return None
    end = len(characters[:end].encode())
    following = _NEXT_ITEM.match(text, end)
    if following is None:
        return None
    begin = len(text[:end].rstrip(b" \t\r\n]}"))
    return _Seam(text[begin : following.end(1)], closing=end - begin, opening=following.end() - begin)


def _end(text: bytes, file: BinaryIO, path: Path, of: str, parse: Parse) -> list[Any]:
    try:
        return parse(b"[" + text)
    except orjson.JSONDecodeError:
        return _whole(file, path, of, parse)  # which says in which line


def _whole(file: BinaryIO, path: Path, of: str, parse: Parse) -> list[Any]:
    file.seek(0)
    try:
        items = parse(file.read())
    except orjson.JSONDecodeError as error:
        raise AnnotationFileError(path, f"not JSON: {error.msg}", line=error.lineno, column=error.colno) from error
    if not isinstance(items, list):
        raise AnnotationFileError(path, f"holds a JSON {type(items).__name__}, not a list of {of}")
    return items
