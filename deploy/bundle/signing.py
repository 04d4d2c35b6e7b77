"""Checksums over every file of a bundle, an Ed25519 signature over the checksums, and their verification.

A signature proves something only with a public key that did not come with the bundle.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from schemas.errors import InputError, SignatureError
from schemas.storage import write_bytes, write_private

KEY_VARIABLE = "FPENET_SIGNING_KEY_FILE"
SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
PUBLIC_SUFFIX = ".pub"
_SHA256_LENGTH = 64


@dataclass(frozen=True)
class Verified:
    """A bundle whose files are those of its checksums.

    Attributes:
        files: how many.
        fingerprint: of the public key that its signature fits, or '' where no signature was checked.
    """

    files: int
    fingerprint: str


def make_keys(private: Path) -> str:
    """Write a new key to `private`, readable by its owner only, and its public half to `private` + `.pub`.

    The public half comes first: if the command is cut off between the two, no private key is left without it.

    Returns:
        The fingerprint.

    Raises:
        InputError: one of the files is there: a lost key is a lost identity, so it is never overwritten.
        StorageError: the place can't be written.
    """
    public = private.with_name(private.name + PUBLIC_SUFFIX)
    if private.exists():
        raise InputError(f"{private}: is there already and is not overwritten; name another file")
    if public.exists():
        raise InputError(
            f"{public}: is there already and is not overwritten; name another file, or remove it if it was left by a "
            "command that was cut off and nobody has its private key"
        )
    key = Ed25519PrivateKey.generate()
    write_bytes(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    write_private(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return fingerprint(key.public_key())


def signing_key_from_environment() -> Ed25519PrivateKey | None:
    """The key of the file that `FPENET_SIGNING_KEY_FILE` names; None where it names none.

    Raises:
        InputError: the file can't be read, or holds no unencrypted Ed25519 private key.
    """
    named = os.environ.get(KEY_VARIABLE)
    if not named:
        return None
    wanted = f"{KEY_VARIABLE}: {named}: needed is an Ed25519 private key (PEM, PKCS#8, without a passphrase)"
    try:
        key = load_pem_private_key(Path(named).read_bytes(), password=None)
    except OSError as error:
        raise InputError(f"{KEY_VARIABLE}: {named}: can't be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{wanted}; `fpenet bundle keygen` makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{wanted}; this one is another kind of key")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A public key as `make_keys` writes it.

    Raises:
        InputError: the file can't be read, or holds no Ed25519 public key.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: not an Ed25519 public key")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of the 32 raw bytes: what two people compare on the telephone."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def checksums(files: Mapping[str, bytes]) -> bytes:
    """`SHA256SUMS` as `sha256sum` writes and checks it, sorted by path."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return "".join(lines).encode()


def with_checksums(files: Mapping[str, bytes], key: Ed25519PrivateKey | None) -> dict[str, bytes]:
    """The files with `SHA256SUMS` over them and, with a key, the 64 raw bytes of its signature."""
    sums = checksums(files)
    return {**files, SUMS: sums} | ({SIGNATURE: key.sign(sums)} if key else {})


def verify(
    files: Mapping[str, bytes], *, public_key: Ed25519PublicKey | None = None, unsigned_ok: bool = False
) -> Verified:
    """Check a bundle's files: the signature over the checksums first, then every file.

    Args:
        files: path inside the bundle -> content, all that is there.
        public_key: of whoever should have made the bundle, from elsewhere than the bundle.
        unsigned_ok: without a public key, be content with checksums.

    Raises:
        SignatureError: it is unsigned, signed by another key, or a file was changed, is missing or was added; all
            such files are named.
    """
    if SUMS not in files:
        raise SignatureError(f"there is no {SUMS}: not a bundle, or a damaged one")
    if public_key is not None:
        _check_signature(files, public_key)
    elif not unsigned_ok:
        raise SignatureError(_no_key(SIGNATURE in files))
    problems = _differences(_listed(files[SUMS]), files)
    if problems:
        raise SignatureError("changed since it was made: " + "; ".join(problems))
    return Verified(len(files) - len({SUMS, SIGNATURE} & set(files)), fingerprint(public_key) if public_key else "")


def _no_key(signed: bool) -> str:
    if not signed:
        return "unsigned: nobody vouches for it; --unsigned-ok checks the files against their checksums only"
    return "signed, but there is no key to check it with: name the signer's with --public-key FILE"


def _check_signature(files: Mapping[str, bytes], public_key: Ed25519PublicKey) -> None:
    if SIGNATURE not in files:
        raise SignatureError(f"unsigned: there is no {SIGNATURE}, so nothing says that the key's owner made it")
    try:
        public_key.verify(files[SIGNATURE], files[SUMS])
    except InvalidSignature as error:
        raise SignatureError(
            f"{SIGNATURE} does not fit {SUMS} and the key {fingerprint(public_key)}: signed by another key, or "
            f"{SUMS} was changed"
        ) from error


def _listed(sums: bytes) -> dict[str, str]:
    listed = {}
    for number, line in enumerate(sums.decode(errors="replace").splitlines(), start=1):
        sha256, separator, name = line.partition("  ")
        if len(sha256) != _SHA256_LENGTH or not separator or not name or name in listed:
            raise SignatureError(f"{SUMS}:{number}: not a line of checksums: {line!r}")
        listed[name] = sha256
    return listed


def _differences(listed: Mapping[str, str], files: Mapping[str, bytes]) -> list[str]:
    problems = []
    for name in sorted({*listed, *files} - {SUMS, SIGNATURE}):
        if name not in files:
            problems.append(f"{name} is missing")
        elif name not in listed:
            problems.append(f"{name} was added")
        elif hashlib.sha256(files[name]).hexdigest() != listed[name]:
            problems.append(f"{name} is another file")
    return problems
