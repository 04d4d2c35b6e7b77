"""Weights of an earlier network, layer by layer, for one that need not be quite the same."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from model.network import HIDDEN_NAME
from model.weights import load_network
from schemas.errors import ModelFileError
from schemas.sealed import Key, is_sealed, no_such_model, refuse_nvidias

log = logging.getLogger(__name__)

GRIDS = "softargmax"
"""Layer whose weights are constants of the network's size, and nothing to learn from."""
_UP = "conv2d_transpose"


@dataclass(frozen=True)
class LoadedWeights:
    """What a network took from a file.

    Attributes:
        loaded: names of the layers that have the file's weights.
        kept: layer -> why it kept its own.
        unused: layers of the file that nobody took.
    """

    loaded: tuple[str, ...]
    kept: Mapping[str, str]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} of {len(self.loaded) + len(self.kept)} layers have pretrained weights"]
        if self.kept:
            parts.append("without: " + ", ".join(f"{name} ({why})" for name, why in self.kept.items()))
        if self.unused:
            parts.append("not used: " + ", ".join(self.unused))
        return "; ".join(parts)


def check_pretrained(path: Path) -> None:
    """Refuse what can't be a pretrained model, before anything is made of it.

    Raises:
        ModelFileError: it is NVIDIA's closed format, or not there.
    """
    refuse_nvidias(path)
    if not path.is_file():
        raise no_such_model(path)


def load_pretrained(network: keras.Model, path: Path | str, *, key: Key | None = None) -> LoadedWeights:
    """Copy every weight that fits into `network`, by layer name.

    The file is a `.keras` file (sealed or not) or an `.hdf5` file as TAO writes it, of a network that may differ in
    keypoints, type, width or channels. A layer that the file lacks, or has in another shape, keeps its weights; a
    warning names it. (The reference skips such layers silently.)

    Raises:
        ModelFileError: the file can't be read, is NVIDIA's closed format, or nothing in it fits.
        SealedFileError: it is encrypted and can't be opened with this key, or it is a deployable one.
    """
    path = Path(path)
    check_pretrained(path)
    stored = _stored_weights(path, key)
    layers = {layer.name: layer for layer in network.layers if layer.weights and layer.name != GRIDS}
    names, sources = _roles(layers), _roles(stored)
    kept = {
        names[role]: why for role in names if (why := _misfit(layers[names[role]], stored.get(sources.get(role))))
    }
    taken = [role for role in names if names[role] not in kept]
    if not taken:
        reasons = ", ".join(f"{name} ({why})" for name, why in list(kept.items())[:3])
        raise ModelFileError(f"{path}: nothing in it fits this network: {reasons} ...; check type and width")
    for role in taken:
        layers[names[role]].set_weights(stored[sources[role]])
    unused = tuple(sources[role] for role in sources if role not in taken)
    result = LoadedWeights(tuple(names[role] for role in taken), kept, unused)
    log.log(logging.WARNING if kept or unused else logging.INFO, "%s: %s", path, result)
    return result


def _misfit(layer: keras.Layer, values: list[np.ndarray] | None) -> str | None:
    """Why a layer can't take these weights; None if it can."""
    if values is None:
        return "not in the file"
    here, there = [tuple(weight.shape) for weight in layer.weights], [value.shape for value in values]
    return None if here == there else f"{_shapes(here)} here, {_shapes(there)} in the file"


def _shapes(shapes: Iterable[tuple[int, ...]]) -> str:
    return " + ".join("x".join(map(str, shape)) for shape in shapes)


def _roles(names: Iterable[str]) -> dict[str, str]:
    """Role -> name of each layer: its name, with two exceptions.

    `conv_keypoints_m64` beside a layer for another number of keypoints is the convolution before it, which two types
    have; alone it is the layer of 64 keypoints. Keras numbers `conv2d_transpose` through a process, from nothing or
    from 1; what counts is their order.
    """
    names = list(names)
    last = [name for name in names if re.fullmatch(r"conv_keypoints_m\d+", name)]
    numbers = {name: int(found[1] or 0) for name in names if (found := re.fullmatch(rf"{_UP}(?:_(\d+))?", name))}
    ups = {name: f"{_UP}_{order}" for order, name in enumerate(sorted(numbers, key=numbers.__getitem__), 1)}
    hidden = {"conv_keypoints_m64": HIDDEN_NAME} if len(last) > 1 else {}
    return {(ups | hidden).get(name, name): name for name in names}


def _stored_weights(path: Path, key: Key | None) -> dict[str, list[np.ndarray]]:
    if path.suffix in (".keras", ".onnx") or is_sealed(path):
        layers = load_network(path, key=key).layers
        return {layer.name: layer.get_weights() for layer in layers if layer.weights and layer.name != GRIDS}
    try:
        with h5py.File(path, "r") as file:
            groups = file.get("model_weights", file)
            stored = {}
            for name, group in groups.items():
                if isinstance(group, h5py.Group) and name != GRIDS:
                    stored |= _layers_of(name, group)
    except (OSError, KeyError) as error:
        raise ModelFileError(f"{path}: can't be read as HDF5: {error}") from error
    if not stored:
        raise ModelFileError(f"{path}: holds no layers as Keras 2, and so TAO, writes them")
    return stored


def _layers_of(name: str, group: h5py.Group) -> dict[str, list[np.ndarray]]:
    """Weights of a layer, or of all layers of a network that another one holds as a layer.

    Kernel, then bias, the order of the attribute `weight_names`: `<layer>/kernel:0`, below what it may be nested in.
    Transposed convolutions are (height, width, out, in) in Keras 2 and 3 alike.
    """
    listed = group.attrs.get("weight_names", [])
    paths = [path.decode() if isinstance(path, bytes) else path for path in listed]
    owners = [path.split("/")[-2] if "/" in path else name for path in paths]
    layers: dict[str, list[np.ndarray]] = {}
    for path, owner in zip(paths, owners, strict=True):
        layers.setdefault(owner if len(set(owners)) > 1 else name, []).append(np.asarray(group[path]))
    return {layer: values for layer, values in layers.items() if layer != GRIDS}
