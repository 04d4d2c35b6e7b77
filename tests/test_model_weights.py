import logging

import h5py
import numpy as np
import pytest

from model.network import build_network
from model.weights import load_network, load_pretrained, save_network
from schemas.errors import ModelFileError
from schemas.experiment import ModelParameters

IMAGE = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 1)).astype(np.float32)


def network(*, seed: int, num_keypoints: int = 5, **changes):
    return build_network(ModelParameters(width=8, **changes), num_keypoints=num_keypoints, seed=seed)


def write_like_tao(source, path) -> None:
    """A Keras 2 HDF5 model: `model_weights/<layer>/<layer>/<weight>:0`, the order in the attribute `weight_names`."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        for layer in source.layers:
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group = root.create_group(layer.name)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


@pytest.mark.parametrize("kind", ["FpeNet_public", "ResidualUNet"])
def test_a_saved_network_predicts_the_same(kind, tmp_path):
    saved = network(seed=1, type=kind)
    save_network(saved, tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    for ours, theirs in zip(saved.predict_on_batch(IMAGE), loaded.predict_on_batch(IMAGE), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_taos_weights_are_copied_by_layer_name(tmp_path):
    source, target = network(seed=1), network(seed=2)
    write_like_tao(source, tmp_path / "model.hdf5")
    loaded = load_pretrained(target, tmp_path / "model.hdf5")
    assert loaded.kept == () and len(loaded.loaded) == 20
    for ours, theirs in zip(target.predict_on_batch(IMAGE), source.predict_on_batch(IMAGE), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_number_of_keypoints_keeps_its_own_last_layer(tmp_path, caplog):
    save_network(network(seed=1, num_keypoints=7), tmp_path / "model.keras")
    with caplog.at_level(logging.WARNING):
        loaded = load_pretrained(network(seed=2), tmp_path / "model.keras")
    assert loaded.kept == ("conv_keypoints_m5",)
    assert "conv_keypoints_m5" in caplog.text


def test_files_that_do_not_fit_are_refused(tmp_path):
    wide = build_network(ModelParameters(width=12), num_keypoints=5)
    write_like_tao(wide, tmp_path / "wide.hdf5")
    with pytest.raises(ModelFileError, match=r"layer block_1a_conv_1 has weights .* check type and width"):
        load_pretrained(network(seed=1), tmp_path / "wide.hdf5")
    save_network(network(seed=1, type="ResidualUNet", num_keypoints=7), tmp_path / "other.keras")
    with pytest.raises(ModelFileError, match="none of this network's layers"):
        load_pretrained(network(seed=1), tmp_path / "other.keras")


def test_files_that_are_no_models_are_named(tmp_path):
    bad = tmp_path / "bad.keras"
    with pytest.raises(ModelFileError, match="no such model file"):
        load_network(bad)
    bad.write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="not a Keras 3 model"):
        load_network(bad)
    (tmp_path / "bad.hdf5").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="can't be read as HDF5"):
        load_pretrained(network(seed=1), tmp_path / "bad.hdf5")
    with pytest.raises(ModelFileError, match="encrypted by TAO"):
        load_pretrained(network(seed=1), tmp_path / "model.tlt")
