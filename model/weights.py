"""Networks and weights out of files."""

from __future__ import annotations

import io
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
from keras.src.saving import saving_lib  # the public functions take paths only; these also take memory

import model.softargmax  # noqa: F401 - registers the layer that saved networks name
from schemas.errors import ModelFileError
from schemas.sealed import Key, Kind, is_sealed, read_content, sealed_path, write_sealed
from schemas.storage import atomic_path

log = logging.getLogger(__name__)

HEAD_PREFIX = "conv_keypoints_"


@dataclass(frozen=True)
class LoadedWeights:
    """Names of the layers that got weights from a file, and of those that kept their own."""

    loaded: tuple[str, ...]
    kept: tuple[str, ...]


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
        ModelFileError: the file is missing, damaged, or of another kind.
        SealedFileError: it is encrypted and can't be opened with this key, or it is a deployable one.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
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


def load_pretrained(network: keras.Model, path: Path | str, *, key: Key | None = None) -> LoadedWeights:
    """Copy weights into `network` by layer name, from a `.keras` file (sealed or not) or TAO's `.hdf5`.

    Layers that the file doesn't have keep their weights, and so does a keypoint layer for another number of
    keypoints; both are logged. Any other difference in shape is an error (the reference skips it silently).

    Raises:
        ModelFileError: the file can't be read, is encrypted by TAO, shares no layer, or a layer's shapes differ.
        SealedFileError: it is encrypted and can't be opened with this key, or it is a deployable one.
    """
    path = Path(path)
    stored = _stored_weights(path, key)
    loaded, kept = [], []
    for layer in network.layers:
        if not layer.weights or layer.name == "softargmax":
            continue
        values = stored.get(layer.name)
        if values is None:
            kept.append(layer.name)
            continue
        shapes, found = [tuple(w.shape) for w in layer.weights], [v.shape for v in values]
        if shapes == found:
            layer.set_weights(values)
            loaded.append(layer.name)
        elif layer.name.startswith(HEAD_PREFIX):
            kept.append(layer.name)
        else:
            raise ModelFileError(
                f"{path}: layer {layer.name} has weights {found}, this network {shapes}; check type and width"
            )
    if not loaded:
        raise ModelFileError(f"{path}: has none of this network's layers ({', '.join(sorted(stored)[:5])} ...)")
    if kept:
        log.warning("%s: layers without pretrained weights: %s", path, ", ".join(kept))
    return LoadedWeights(tuple(loaded), tuple(kept))


def _stored_weights(path: Path, key: Key | None) -> dict[str, list[np.ndarray]]:
    if path.suffix == ".tlt":
        raise ModelFileError(f"{path}: encrypted by TAO; decrypt it into an .hdf5 first")
    if path.suffix in (".keras", ".onnx") or is_sealed(path):
        return {layer.name: layer.get_weights() for layer in load_network(path, key=key).layers if layer.weights}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            return {name: _layer_values(root[name]) for name in root if isinstance(root[name], h5py.Group)}
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read as HDF5: {error}") from error


def _layer_values(group: h5py.Group) -> list[np.ndarray]:
    """Kernel, then bias: the order in which Keras lists them in `weight_names`."""
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs.get("weight_names", [])]
    return [np.asarray(group[name]) for name in names]
