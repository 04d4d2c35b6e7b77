"""Networks into files and out of them."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import keras
from keras.src.saving import saving_lib  # the public functions take paths only; these also take memory

import model.softargmax  # noqa: F401 - registers the layer that saved networks name
from schemas.errors import ModelFileError
from schemas.sealed import (
    Key,
    Kind,
    is_sealed,
    no_such_model,
    read_content,
    refuse_nvidias,
    sealed_path,
    write_sealed,
)
from schemas.storage import atomic_path

log = logging.getLogger(__name__)


def save_network(network: keras.Model, path: Path, *, key: Key | None = None) -> Path:
    """Write a `.keras` file, atomically; with a key encrypted, under its sealed name. Returns where it is."""
    if not key:
        with atomic_path(path) as temporary:
            network.save(temporary)
        return path
    content = io.BytesIO()
    saving_lib.save_model(network, content)
    sealed = sealed_path(path, key)
    write_sealed(sealed, content.getvalue(), Kind.TRAINABLE, key)
    return sealed


def load_network(path: Path | str, *, key: Key | None = None) -> keras.Model:
    """Read a network that `save_network` has written; a sealed one is decrypted in memory.

    Raises:
        ModelFileError: the file is missing, damaged, NVIDIA's, or of another kind.
        SealedFileError: it is encrypted and can't be opened with this key, or it is a deployable one.
    """
    path = Path(path)
    if not is_sealed(path):
        refuse_nvidias(path)
    if not path.is_file():
        raise no_such_model(path)
    if key and not is_sealed(path):
        log.warning("%s: not encrypted; the key is not needed", path)
    content = io.BytesIO(read_content(path, Kind.TRAINABLE, key))
    if not zipfile.is_zipfile(content):
        raise ModelFileError(f"{path}: {_not_keras(path)}")
    try:
        return saving_lib.load_model(content, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path}: can't be read as a Keras model: {error}") from error


def _not_keras(path: Path) -> str:
    if path.suffix == ".onnx":
        return "a deployable model; needed is the trainable one (.keras) that it was exported from"
    return "not a Keras 3 model (.keras); damaged, or of another kind. Train or copy it again"
