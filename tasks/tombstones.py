"""Who has been forgotten: kept so that a pull can't bring them back, and so that nobody can read who they are.

A tombstone is an HMAC of the subject. Subjects are easy to guess (`multipie/001`), so a plain hash would tell them;
the key stands apart: in the environment variable FPENET_TOMBSTONE_KEY, else in a file that only its owner may read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from schemas.errors import StorageError
from schemas.storage import read_json, write_json, write_private
from schemas.texts import spellings

KEY_VARIABLE = "FPENET_TOMBSTONE_KEY"
FILE, KEY_FILE = "tombstones.json", "tombstone.key"
_KEY_BYTES = 32
_NAME_OF_KEY = "tombstone key"
"""What is hashed to tell one key from another; no subject has a space without a slash."""


@dataclass(frozen=True)
class Tombstones:
    """The tombstones of a workspace.

    Attributes:
        root: the workspace.
        graves: mark of a subject -> when it was forgotten, by whom and why.
    """

    root: Path
    graves: Mapping[str, dict[str, str]]
    _key: bytes = field(repr=False)

    @classmethod
    def of(cls, root: Path) -> Tombstones:
        """Those of the workspace `root`; none where nobody was ever forgotten.

        Raises:
            StorageError: there are tombstones, but their key is gone or another one.
        """
        path = root / FILE
        if not path.is_file():
            return cls(root, {}, b"")
        kept, key = read_json(path), _read_key(root)
        if key is None or _mark(key, _NAME_OF_KEY) != kept["key"]:
            state = "is not there" if key is None else "is another one"
            raise StorageError(
                f"{path}: the key of these tombstones {state}; set {KEY_VARIABLE}, or restore {root / KEY_FILE}. "
                "Without it a pull could bring back people who were forgotten"
            )
        return cls(root, kept["subjects"], key)

    def cover(self, subject: str | None) -> bool:
        """True if this subject was forgotten, in whichever spelling."""
        if not self.graves or subject is None:
            return False
        return any(_mark(self._key, spelling) in self.graves for spelling in spellings(subject))

    def with_grave(self, subject: str, *, by: str, why: str) -> Tombstones:
        """Add one, durably; a subject that has one keeps it."""
        key = self._key or _read_key(self.root) or _new_key(self.root)
        grave = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": by, "why": why}
        graves = {_mark(key, subject): grave} | dict(self.graves)
        kept: dict[str, Any] = {"key": _mark(key, _NAME_OF_KEY), "subjects": graves}
        write_json(self.root / FILE, kept)
        return Tombstones(self.root, graves, key)

    def redacted(self, subject: str) -> str:
        """What stands in for the subject where its place must be kept: `redacted/<start of its mark>`."""
        return f"redacted/{_mark(self._key, subject)[:16]}"


@lru_cache(maxsize=65536)
def _mark(key: bytes, subject: str) -> str:
    return hmac.digest(key, subject.encode(), hashlib.sha256).hex()


def _read_key(root: Path) -> bytes | None:
    if text := os.environ.get(KEY_VARIABLE):
        return text.encode()
    path = root / KEY_FILE
    return path.read_bytes() if path.is_file() else None


def _new_key(root: Path) -> bytes:
    key = secrets.token_hex(_KEY_BYTES).encode()
    write_private(root / KEY_FILE, key)
    return key
