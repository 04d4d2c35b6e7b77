"""The tensorfile against one laid out by hand as TAO's tools lay it out."""

import h5py
import numpy as np
import pytest

from deploy.tensorfile import read_tensorfile, tensorfile_shape, write_tensorfile
from schemas.errors import CalibrationError

ARRAY = "_tensorfile_array_key_"


def by_hand(path, *, count=2, shape=(3, 1, 80, 80)):
    random = np.random.default_rng(0)
    data = [random.uniform(0, 255, shape) for _ in range(2)]
    with h5py.File(path, "w") as file:
        for index, images in enumerate(data):
            file.create_group(f"_tensorfile_array_key__{index}").create_dataset(
                ARRAY, data=images, compression="gzip"
            )
        file.attrs["count"] = count
        file.attrs["shape"] = shape
    return data


def test_taos_file_is_read(tmp_path):
    data = by_hand(tmp_path / "cal.tensorfile")
    assert tensorfile_shape(tmp_path / "cal.tensorfile") == (2, (3, 1, 80, 80))
    batches = list(read_tensorfile(tmp_path / "cal.tensorfile"))
    assert [(batch.shape, batch.dtype) for batch in batches] == [((3, 80, 80, 1), np.float32)] * 2
    np.testing.assert_array_equal(batches[1][2, 4, 5, 0], np.float32(data[1][2, 0, 4, 5]))


def test_ours_is_laid_out_like_taos_and_comes_back(tmp_path):
    batches = [np.random.default_rng(seed).uniform(0, 255, (2, 80, 80, 1)).astype(np.float32) for seed in (1, 2, 3)]
    paths = [tmp_path / name for name in ("cal.tensorfile", "again.tensorfile")]
    for path in paths:
        write_tensorfile(path, batches)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with h5py.File(paths[0]) as file:
        assert sorted(file) == [f"_tensorfile_array_key__{i}" for i in range(3)]
        stored = file["_tensorfile_array_key__0"][ARRAY]
        assert (stored.dtype, stored.shape, stored.compression) == (np.float64, (2, 1, 80, 80), "gzip")
        assert (file.attrs["count"], tuple(file.attrs["shape"])) == (3, (2, 1, 80, 80))
    for found, expected in zip(read_tensorfile(paths[0]), batches, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_is_no_tensorfile(tmp_path):
    (tmp_path / "text").write_text("no HDF5")
    for name in ("text", "missing"):
        with pytest.raises(CalibrationError, match=f"{name}: can't be read as a tensorfile"):
            tensorfile_shape(tmp_path / name)
    by_hand(tmp_path / "short", count=5)
    with pytest.raises(CalibrationError, match="says it has 5 batches and has 2"):
        tensorfile_shape(tmp_path / "short")
    by_hand(tmp_path / "flat", shape=(3, 80))
    with pytest.raises(CalibrationError, match=r"batch 0 has the shape \(3, 80\)"):
        tensorfile_shape(tmp_path / "flat")


def test_batches_of_other_shapes_are_named(tmp_path):
    write_tensorfile(tmp_path / "mixed", [np.zeros((2, 80, 80, 1)), np.zeros((1, 80, 80, 1))])
    with pytest.raises(CalibrationError, match=r"batch 1 has the shape \(1, 1, 80, 80\), not \(2, 1, 80, 80\)"):
        list(read_tensorfile(tmp_path / "mixed"))
