"""Files encrypted with a key: models and checkpoints that `fpenet -k KEY` writes.

    magic     8 bytes, `MAGIC`
    length    4 bytes, big-endian: of the header
    header    JSON: version, kind, cipher, nonce, and the parameters and salt of the key derivation
    content   AES-256-GCM, its 16-byte tag included; magic, length and header are authenticated with it
    digest    SHA-256 of all before it: a damaged file is told from a wrong key

The AES key is scrypt's (RFC 7914) of the key's text and a salt of the file's own. What this protects from and what
not: `docs/adr/005-sealed-files.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from schemas.errors import ModelFileError, SealedFileError
from schemas.storage import canonical_json, write_bytes

SUFFIX = ".sealed"
NVIDIAS_SUFFIXES = (".tlt", ".etlt")
MAGIC = b"\x89FPESEAL"
VERSION = 1
CIPHER = "AES-256-GCM"
SCRYPT = {"n": 2**15, "r": 8, "p": 3}
"""OWASP's smallest recommended setting: 32 MiB and about a quarter of a second a file."""

LARGEST_SCRYPT = {"n": 2**18, "r": 8, "p": 16}
"""A header may not ask for more: opening a foreign file must not take all memory."""

_HEADER_AT = len(MAGIC) + 4
_LONGEST_HEADER = 4096
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES, _DIGEST_BYTES = 16, 12, 32, 32


class Kind(StrEnum):
    """What is inside. A device gets deployable files only; training, fine-tuning and export need trainable ones."""

    TRAINABLE = "trainable"
    DEPLOYABLE = "deployable"
    CHECKPOINT = "checkpoint"


_WHAT = {
    Kind.TRAINABLE: "a trainable model (.keras, as train writes it)",
    Kind.DEPLOYABLE: "a deployable model (.onnx, as export writes it)",
    Kind.CHECKPOINT: "a training's checkpoint",
}


class Key:
    """A key's text, shown nowhere: not by `str`, `repr` or a traceback's locals, and not pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = unicodedata.normalize("NFC", text)

    def __repr__(self) -> str:
        return "Key('***')"

    def __bool__(self) -> bool:
        """False for an empty key, which is none."""
        return bool(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not to be written anywhere")

    def derive(self, salt: bytes, *, n: int, r: int, p: int) -> bytes:
        """32 bytes for AES."""
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        return Scrypt(salt=salt, length=_KEY_BYTES, n=n, r=r, p=p).derive(
            self._text.encode("utf-8", "surrogateescape")
        )


def sealed_path(path: Path, key: Key | None) -> Path:
    """Where `path`'s content goes: with a key, under the sealed name."""
    return path.with_name(path.name + SUFFIX) if key else path


def existing(path: Path) -> Path:
    """`path`, or its sealed name where only that file is there."""
    sealed = path.with_name(path.name + SUFFIX)
    return sealed if sealed.is_file() and not path.exists() else path


def no_such_model(path: Path) -> ModelFileError:
    """For where there is no file; tells of the sealed one."""
    sealed = existing(path)
    hint = "" if sealed == path else f"; {sealed} is there: name that, with its key"
    return ModelFileError(f"{path}: no such model file{hint}")


def is_sealed(path: Path) -> bool:
    """Whether a file's content or its name says so; False where there is no file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _says_sealed(file.read(len(MAGIC)), path)


def refuse_nvidias(path: Path) -> None:
    """Stop at a file that is encrypted by NVIDIA's own codec, whether it is there or not.

    Raises:
        ModelFileError: its name says so.
    """
    if path.suffix in NVIDIAS_SUFFIXES:
        raise ModelFileError(
            f"{path}: NVIDIA's .tlt and .etlt files are encrypted by a codec that only NVIDIA's container has, so no "
            "key opens them here. TAO 5 writes what it trains, also out of a .tlt, as model.epoch-N.hdf5: train from "
            "that here, or from fresh weights (model.model_parameters.pretrained_model_path: FILE.hdf5, or null)"
        )


def kind_of(path: Path) -> Kind:
    """What is inside a sealed file; needs no key, and is not yet authenticated.

    Raises:
        SealedFileError: the header is damaged, or of a newer version.
    """
    with path.open("rb") as file:
        return Kind(_header(file.read(_HEADER_AT + _LONGEST_HEADER), path)["kind"])


def write_sealed(path: Path, content: bytes, kind: Kind, key: Key) -> None:
    """Write `content` encrypted, atomically; it is on disk in no other form.

    Raises:
        StorageError: the place can't be written.
    """
    write_bytes(path, seal(content, kind, key))


def read_content(path: Path, kind: Kind, key: Key | None) -> bytes:
    """A file's content, decrypted in memory where it is sealed.

    Raises:
        SealedFileError: it is sealed and the key is missing or wrong, it is damaged, or it holds another kind.
    """
    data = path.read_bytes()
    return unseal(data, kind, key, path) if _says_sealed(data, path) else data


def seal(content: bytes, kind: Kind, key: Key) -> bytes:
    """`content` encrypted; the same content gives other bytes each time."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    header = canonical_json(
        {
            "version": VERSION,
            "kind": kind.value,
            "cipher": CIPHER,
            "nonce": nonce.hex(),
            "kdf": {"name": "scrypt", "salt": salt.hex(), **SCRYPT},
        }
    )
    head = MAGIC + len(header).to_bytes(4, "big") + header
    sealed = head + AESGCM(key.derive(salt, **SCRYPT)).encrypt(nonce, content, head)
    return sealed + hashlib.sha256(sealed).digest()


def unseal(data: bytes, kind: Kind, key: Key | None, where: Path | str) -> bytes:
    """What `seal` was given.

    Args:
        kind: which is needed.
        where: stands for the file in messages.

    Raises:
        SealedFileError: the key is missing or wrong, the file is damaged, or it holds another kind.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(sealed).digest() != digest:
        raise _damaged(where)
    header = _header(sealed, where)
    _require_kind(Kind(header["kind"]), kind, where)
    if not key:
        raise SealedFileError(f"{where}: encrypted; give the key it was written with: FPENET_KEY or -k")
    kdf = header["kdf"]
    start = _HEADER_AT + int.from_bytes(sealed[len(MAGIC) : _HEADER_AT], "big")
    cipher = AESGCM(key.derive(bytes.fromhex(kdf["salt"]), **{name: kdf[name] for name in SCRYPT}))
    try:
        return cipher.decrypt(bytes.fromhex(header["nonce"]), sealed[start:], sealed[:start])
    except InvalidTag:
        raise SealedFileError(f"{where}: the key is wrong; this file was written with another one") from None


def _says_sealed(start: bytes, path: Path) -> bool:
    return start.startswith(MAGIC) or path.suffix == SUFFIX


def _header(data: bytes, where: Path | str) -> dict[str, Any]:
    length = int.from_bytes(data[len(MAGIC) : _HEADER_AT], "big")
    if not data.startswith(MAGIC) or length > min(_LONGEST_HEADER, len(data) - _HEADER_AT):
        raise _damaged(where)
    try:
        header = json.loads(data[_HEADER_AT : _HEADER_AT + length])
        if header["version"] > VERSION:
            raise SealedFileError(f"{where}: written by a newer fpenet-workflow; update this one")
        if not _sound(header):
            raise _damaged(where)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(where) from error
    return header


def _sound(header: dict[str, Any]) -> bool:
    kdf = header["kdf"]
    return (
        header["kind"] in list(Kind)
        and header["cipher"] == CIPHER
        and kdf["name"] == "scrypt"
        and all(type(kdf[name]) is int and 0 < kdf[name] <= largest for name, largest in LARGEST_SCRYPT.items())
        and kdf["n"] > 1
        and kdf["n"].bit_count() == 1
        and len(bytes.fromhex(kdf["salt"])) == _SALT_BYTES
        and len(bytes.fromhex(header["nonce"])) == _NONCE_BYTES
    )


def _require_kind(found: Kind, needed: Kind, where: Path | str) -> None:
    if found is not needed:
        raise SealedFileError(f"{where}: holds {_WHAT[found]}; needed is {_WHAT[needed]}")


def _damaged(where: Path | str) -> SealedFileError:
    return SealedFileError(f"{where}: damaged: these are not the bytes that were written; copy or make it again")
