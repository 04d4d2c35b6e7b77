"""Texts that people write: files of them (specs, configurations, lists), and the two ways to write `ö`."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from schemas.errors import SpecError


def read_text(path: Path | str, *, named_by: str | None = None) -> str:
    """A file's text, which is UTF-8, without the byte order mark that some editors put before it.

    Args:
        named_by: the key or variable that names the file, for the message.

    Raises:
        SpecError: it can't be read, or is not UTF-8; with the line.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"is no text in UTF-8: line {line} has the byte 0x{error.object[error.start]:02x}; save it as UTF-8"
    except ValueError as error:  # of a name that no file can have
        problem = f"can't be read: {error}"
    raise SpecError(str(path), problem) if named_by is None else SpecError(named_by, f"{path} {problem}")


def composed(text: str) -> str:
    """The text with one character for `ö` (NFC). A Mac names files with two, which look alike and differ."""
    return unicodedata.normalize("NFC", text)


def spellings(text: str) -> frozenset[str]:
    """The text as it is, composed and decomposed: what was written down before may be either."""
    return frozenset({text, composed(text), unicodedata.normalize("NFD", text)})
