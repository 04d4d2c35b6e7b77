import json
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest

from model.network import build_network
from model.pretrained import load_pretrained
from model.weights import save_network
from schemas.errors import ModelFileError
from schemas.experiment import ModelParameters

FORWARD = json.loads((Path(__file__).parent / "golden" / "forward.json").read_text())["cases"]["FpeNet_public"]
IMAGE = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 1)).astype(np.float32)


def network(*, seed: int = 0, num_keypoints: int = 5, width: int = 8, channels: int = 1, **changes):
    parameters = ModelParameters(width=width, **changes)
    return build_network(parameters, num_keypoints=num_keypoints, channels=channels, seed=seed)


def weights_of(source) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Layer -> names and values, without and with weights, as TAO's own models have them."""
    return {layer.name: [(w.name, w.numpy()) for w in layer.weights] for layer in source.layers}


def write_layers(root: h5py.Group, layers: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """Keras 2: `<layer>/<layer>/<weight>:0`, the order in the attribute `weight_names`."""
    for layer, weights in layers.items():
        group = root.create_group(layer)
        group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name, _ in weights]
        for name, value in weights:
            group[f"{layer}/{name}:0"] = value


def write_nested(root: h5py.Group, layers: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """A network inside a network: one group, whose attribute lists the weights of all layers."""
    group = root.create_group("fpenet")
    names = [f"{layer}/{name}:0" for layer, weights in layers.items() for name, _ in weights]
    group.attrs["weight_names"] = [name.encode() for name in names]
    for name, value in zip(names, [value for weights in layers.values() for _, value in weights], strict=True):
        group[name] = value


def write_hdf5(path: Path, layers: dict, *, kind: str = "model") -> Path:
    with h5py.File(path, "w") as file:
        if kind == "model":
            file.create_group("optimizer_weights")
        root = file if kind == "weights" else file.create_group("model_weights")
        (write_nested if kind == "nested" else write_layers)(root, layers)
    return path


@pytest.mark.parametrize("kind", ["model", "weights", "nested"])
def test_taos_weights_are_copied_by_layer_name(kind, tmp_path):
    source, target = network(seed=1), network(seed=2)
    loaded = load_pretrained(target, write_hdf5(tmp_path / "model.hdf5", weights_of(source), kind=kind))
    assert len(loaded.loaded) == 20 and not loaded.kept and not loaded.unused
    for ours, theirs in zip(target.predict_on_batch(IMAGE), source.predict_on_batch(IMAGE), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_of_the_reference_predicts_what_the_reference_predicts(tmp_path):
    """Kernels as Keras 2 stores them, those of transposed convolutions included; numbers of `golden/forward.json`.

    Its transposed convolutions are numbered from nothing, as Keras 2.15 does it.
    """
    layers = {}
    for i, (name, kind, shape, has_bias) in enumerate(FORWARD["layers"]):
        transposed = kind == "Conv2DTranspose"
        fan_in, channels = (shape[3], shape[2]) if transposed else (np.prod(shape[:3]), shape[3])
        kernel = np.random.RandomState(1000 + i).normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        bias = np.random.RandomState(2000 + i).normal(0, 0.1, channels).astype(np.float32)
        layers[name] = [("kernel", kernel), ("bias", bias)][: 1 + has_bias]
    layers["softargmax"] = [("grid", np.zeros((80, 80), np.float32))]
    target = network(num_keypoints=80, width=64, beta=FORWARD["beta"])
    assert not load_pretrained(target, write_hdf5(tmp_path / "model.hdf5", layers)).kept
    image = np.random.RandomState(5).uniform(0, 255, (1, 1, 80, 80)).astype(np.float32)
    keypoints, confidences, _ = target.predict_on_batch(image.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(keypoints[0], FORWARD["coords_xy"], atol=2e-3)
    np.testing.assert_allclose(confidences[0], FORWARD["confidence"], rtol=2e-3)


def test_another_number_of_keypoints_keeps_every_layer_but_the_last(tmp_path, caplog):
    source, target = network(seed=1, num_keypoints=7), network(seed=2)
    save_network(source, tmp_path / "model.keras")
    with caplog.at_level(logging.WARNING):
        loaded = load_pretrained(target, tmp_path / "model.keras")
    assert len(loaded.loaded) == 19
    assert loaded.kept == {"conv_keypoints_m5": "not in the file"} and loaded.unused == ("conv_keypoints_m7",)
    assert "19 of 20 layers have pretrained weights; without: conv_keypoints_m5 (not in the file); not used: " in (
        caplog.text
    )
    for name in loaded.loaded:
        for ours, theirs in zip(
            target.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("there", "here", "kept"),
    [
        ({"type": "FpeNet_base_5x5_conv"}, {}, "3x3x16x8 + 8 here, 5x5x16x8 + 8 in the file"),
        ({"channels": 3}, {}, "3x3x1x8 + 8 here, 3x3x3x8 + 8 in the file"),
        ({"type": "FpeNet_release"}, {}, "not in the file"),
    ],
)
def test_what_fits_of_another_network_is_kept_and_the_rest_named_with_both_shapes(there, here, kept, tmp_path):
    target = network(seed=2, **here)
    before = {layer.name: layer.get_weights() for layer in target.layers}
    loaded = load_pretrained(target, write_hdf5(tmp_path / "model.hdf5", weights_of(network(seed=1, **there))))
    assert kept in loaded.kept.values() and "block_2a_conv_1" in loaded.loaded
    for name in loaded.kept:
        for ours, theirs in zip(target.get_layer(name).get_weights(), before[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("there", "here"), [(64, 80), (80, 64)])
def test_sixty_four_keypoints_are_not_mistaken_for_the_layer_before_them(there, here, tmp_path):
    """The reference calls the hidden layer of `FpeNet_base` as it would call that of 64 keypoints."""
    source, target = (
        network(seed=seed, type="FpeNet_base", width=64, num_keypoints=n) for seed, n in ((1, there), (2, here))
    )
    loaded = load_pretrained(target, write_hdf5(tmp_path / "model.hdf5", weights_of(source)))
    assert set(loaded.kept) == {f"conv_keypoints_m{here}"} and loaded.unused == (f"conv_keypoints_m{there}",)
    hidden = [
        model.get_layer("conv_keypoints_hidden" if n == 64 else "conv_keypoints_m64")
        for model, n in ((source, there), (target, here))
    ]
    np.testing.assert_array_equal(*(layer.get_weights()[0] for layer in hidden))


def test_files_of_which_nothing_fits_are_refused(tmp_path):
    wide = write_hdf5(tmp_path / "wide.hdf5", weights_of(network(width=12)))
    with pytest.raises(ModelFileError, match=r"nothing in it fits .*3x3x1x8 \+ 8 here, 3x3x1x12 \+ 12 in the file"):
        load_pretrained(network(), wide)
    save_network(network(type="ResidualUNet", num_keypoints=7), tmp_path / "other.keras")
    with pytest.raises(ModelFileError, match=r"nothing in it fits .*block_1a_conv_1 \(not in the file\)"):
        load_pretrained(network(), tmp_path / "other.keras")


def test_files_that_are_no_models_are_named(tmp_path):
    (tmp_path / "bad.hdf5").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="can't be read as HDF5"):
        load_pretrained(network(), tmp_path / "bad.hdf5")
    with pytest.raises(ModelFileError, match="holds no layers as Keras 2"):
        load_pretrained(network(), write_hdf5(tmp_path / "empty.hdf5", {}))
    with pytest.raises(ModelFileError, match="no such model file"):
        load_pretrained(network(), tmp_path / "none.hdf5")
    for suffix in ("tlt", "etlt"):
        with pytest.raises(ModelFileError, match=r"only NVIDIA's container has.*train from that here"):
            load_pretrained(network(), tmp_path / f"model.{suffix}")
