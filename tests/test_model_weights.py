import numpy as np
import pytest

from model.network import build_network
from model.weights import load_network, save_network
from schemas.errors import ModelFileError
from schemas.experiment import ModelParameters

IMAGE = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 1)).astype(np.float32)


def network(*, seed: int, num_keypoints: int = 5, **changes):
    return build_network(ModelParameters(width=8, **changes), num_keypoints=num_keypoints, seed=seed)


@pytest.mark.parametrize("kind", ["FpeNet_public", "ResidualUNet"])
def test_a_saved_network_predicts_the_same(kind, tmp_path):
    saved = network(seed=1, type=kind)
    save_network(saved, tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    for ours, theirs in zip(saved.predict_on_batch(IMAGE), loaded.predict_on_batch(IMAGE), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_files_that_are_no_models_are_named(tmp_path):
    bad = tmp_path / "bad.keras"
    with pytest.raises(ModelFileError, match="no such model file"):
        load_network(bad)
    bad.write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="not a Keras 3 model"):
        load_network(bad)
