"""Networks and weights out of files."""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

import model.softargmax  # noqa: F401 - registers the layer that saved networks name
from schemas.errors import ModelFileError
from schemas.storage import atomic_path

log = logging.getLogger(__name__)

HEAD_PREFIX = "conv_keypoints_"


@dataclass(frozen=True)
class LoadedWeights:
    """Names of the layers that got weights from a file, and of those that kept their own."""

    loaded: tuple[str, ...]
    kept: tuple[str, ...]


def save_network(network: keras.Model, path: Path) -> None:
    """Write a `.keras` file, atomically."""
    with atomic_path(path) as temporary:
        network.save(temporary)


def load_network(path: Path | str) -> keras.Model:
    """Read a network that `model.training.train` has written (`.keras`).

    Raises:
        ModelFileError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    if not zipfile.is_zipfile(path):
        raise ModelFileError(
            f"{path}: not a Keras 3 model (.keras); damaged, or of another kind. Train or copy it again"
        )
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ModelFileError(f"{path}: can't be read as a Keras model: {error}") from error


def load_pretrained(network: keras.Model, path: Path | str) -> LoadedWeights:
    """Copy weights into `network` by layer name, from a `.keras` file or an `.hdf5` file as TAO writes it.

    Layers that the file doesn't have keep their weights, and so does a keypoint layer for another number of
    keypoints; both are logged. Any other difference in shape is an error (the reference skips it silently).

    Raises:
        ModelFileError: the file can't be read, is encrypted, shares no layer, or a layer's shapes differ.
    """
    path = Path(path)
    stored = _stored_weights(path)
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


def _stored_weights(path: Path) -> dict[str, list[np.ndarray]]:
    if path.suffix == ".tlt":
        raise ModelFileError(f"{path}: encrypted by TAO; decrypt it into an .hdf5 first")
    if path.suffix == ".keras":
        return {layer.name: layer.get_weights() for layer in load_network(path).layers if layer.weights}
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
