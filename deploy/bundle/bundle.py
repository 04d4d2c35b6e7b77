"""A bundle: everything that a device team needs of one engine.

    README.md            what it is, what was measured, how it is used, and what was not run
    engine/              the engine, the ONNX file it was built of, its manifest, reproduce.sh
    calibration/         for INT8: FP32 graph and calibration cache, for builders that quantise by themselves
    deepstream/          ONNX file with the heatmap, nvinfer configuration, labels, parameters of NVIDIA's sample
    triton/              model repository
    sbom.cdx.json        bill of materials
    SHA256SUMS(.sig)     checksums of all of these, and the signature over them

The same engine at the same stage gives the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.bundle.archive import ENGINE_FOLDER, ENGINE_MANIFEST, read_bundle, write_bundle
from deploy.bundle.calibration import calibration_files
from deploy.bundle.deepstream import deepstream_files
from deploy.bundle.readme import README, Accuracy, readme
from deploy.bundle.release import Release
from deploy.bundle.sbom import NAME as SBOM
from deploy.bundle.sbom import bill_of_materials
from deploy.bundle.signing import Verified, fingerprint, read_public_key, verify, with_checksums
from deploy.bundle.triton import triton_files
from schemas.errors import SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        path: folder or archive.
        files: path inside it -> size in bytes.
        fingerprint: of the key that signed it, '' where none did.
    """

    path: Path
    files: dict[str, int]
    fingerprint: str


def make_bundle(
    release: Release, output: Path, *, accuracy: Accuracy | None = None, key: Ed25519PrivateKey | None = None
) -> Bundle:
    """Write the bundle of an engine.

    Args:
        output: a folder that is not there yet, or a `.tar.gz` file, replaced.
        accuracy: of its model, for the README.
        key: signs it; without one it is unsigned, and says so.

    Raises:
        InputError, StorageError: see `write_bundle`.
        ModelFileError: see `deepstream_files`.
    """
    signer = fingerprint(key.public_key()) if key else ""
    files = with_checksums(contents(release, accuracy=accuracy, signer=signer), key)
    write_bundle(output, release.name, files)
    return Bundle(output, {name: len(content) for name, content in sorted(files.items())}, signer)


def contents(release: Release, *, accuracy: Accuracy | None = None, signer: str = "") -> dict[str, bytes]:
    """Path in the bundle -> content, without checksums. `signer`: fingerprint of the key that will sign it."""
    files = _engine_files(release) | calibration_files(release) | deepstream_files(release) | triton_files(release)
    files[README] = readme(release, files, accuracy=accuracy, signer=signer).encode()
    return files | {SBOM: bill_of_materials(release, files)}


def verify_bundle(path: Path, *, public_key: Path | None = None, unsigned_ok: bool = False) -> Verified:
    """Check a bundle, a folder or an archive.

    Raises:
        InputError: there is no bundle, or no public key.
        SignatureError: see `read_bundle` and `deploy.bundle.signing.verify`; the message begins with the path.
    """
    key = read_public_key(public_key) if public_key else None
    files = read_bundle(path)
    try:
        return verify(files, public_key=key, unsigned_ok=unsigned_ok)
    except SignatureError as error:
        raise SignatureError(f"{path}: {error}") from error


def _engine_files(release: Release) -> dict[str, bytes]:
    script = release.directory / release.manifest["reproduce"]
    paths = (release.engine, release.model, script, release.timing_cache)
    files = {f"{ENGINE_FOLDER}/{path.name}": path.read_bytes() for path in paths if path is not None}
    return files | {ENGINE_MANIFEST: json.dumps(release.manifest, indent=2, sort_keys=True).encode() + b"\n"}
