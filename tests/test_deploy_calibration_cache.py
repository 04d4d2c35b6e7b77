import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.calibration_cache import (
    CacheOrigin,
    cache_text,
    read_cache,
    read_origin,
    require_scales,
    write_cache,
)
from schemas.errors import CalibrationError
from schemas.storage import sha256_file

ORIGIN = CacheOrigin("a" * 64, 40, "40 of 400 training faces (10%)", ("conv_1", "conv_26"))


def test_the_text_is_tensorrts():
    """1/127, 1 and 0.5 by their IEEE 754 bits."""
    text = cache_text({"relu_1": 1 / 127, "softargmax:1": 1.0, "maxpool_1": 0.5})
    assert text == "TRT-8201-EntropyCalibration2\nrelu_1: 3c010204\nsoftargmax:1: 3f800000\nmaxpool_1: 3f000000\n"


@given(st.dictionaries(st.from_regex(r"[a-z_/:0-9]{1,12}", fullmatch=True), st.floats(2.0**-20, 2.0**20, width=32)))
def test_what_is_written_is_read(tmp_path_factory, scales):
    path = tmp_path_factory.mktemp("cache") / "cal.bin"
    write_cache(path, scales, ORIGIN)
    assert read_cache(path) == scales
    assert read_origin(path) == ORIGIN


def test_a_cache_of_another_tool_has_no_origin(tmp_path):
    path = tmp_path / "cal.bin"
    path.write_text(
        "TRT-8503-EntropyCalibration2\nrelu_1: 3c010204\n(Unnamed Layer* 5) [Constant]_output: 00000000\n"
    )
    assert read_origin(path) is None
    assert read_cache(path)["relu_1"] == pytest.approx(1 / 127)
    write_cache(path, {"relu_1": 1.0}, ORIGIN)
    path.write_text(cache_text({"relu_1": 2.0}))
    assert read_origin(path) is None, "changed since"


@pytest.mark.parametrize("beside", ["", "{", "[]", "7", "{}", '{"cache_sha256": "HASH"}'])
def test_json_beside_it_that_is_not_ours_says_nothing(tmp_path, beside):
    path = tmp_path / "cal.bin"
    path.write_text(cache_text({"relu_1": 1.0}))
    (tmp_path / "cal.bin.json").write_text(beside.replace("HASH", sha256_file(path)))
    assert read_origin(path) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cal\.bin:1: no calibration cache: it begins ''"),
        ("PK\x03\x04", r"cal\.bin:1: no calibration cache"),
        ("TRT-8201-EntropyCalibration2\nrelu_1: 3c01", r"cal\.bin:2: 'relu_1: 3c01' is not"),
        ("TRT-8201-EntropyCalibration2\n\nrelu_1: xxxxxxxx", r"cal\.bin:3: "),
        ("TRT-8201-EntropyCalibration2\nrelu_1", r"cal\.bin:2: "),
    ],
)
def test_a_line_that_is_wrong_is_named(text, message, tmp_path):
    (tmp_path / "cal.bin").write_text(text)
    with pytest.raises(CalibrationError, match=message):
        read_cache(tmp_path / "cal.bin")


def test_every_tensor_must_have_a_scale(tmp_path):
    scales = {"a": 1.0, "b": 0.0, "c": 2.0}
    assert require_scales(tmp_path, scales, ["c", "a"]) == {"c": 2.0, "a": 1.0}
    with pytest.raises(CalibrationError, match=r"lacks 1 of 2 tensors of this model \(d\): it is another model's"):
        require_scales(tmp_path, scales, ["a", "d"])
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(CalibrationError, match="the scale of b is not a positive number"):
            require_scales(tmp_path, {**scales, "b": bad}, ["a", "b"])


def test_the_scale_is_stored_as_32_bits(tmp_path):
    (tmp_path / "cal.bin").write_text(cache_text({"a": 0.1}))
    assert read_cache(tmp_path / "cal.bin")["a"] == struct.unpack(">f", struct.pack(">f", 0.1))[0]
