"""Image files cut short or damaged anywhere are found by their structure alone, and whole ones measured."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.image_structure import Unusual, jpeg_size, png_size

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)


def encoded(form, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, form, **options)
    return file.getvalue()


PNG = encoded("png", pnginfo=None, dpi=(72, 72))
JPEGS = {
    "baseline": encoded("jpeg"),
    "gray": encoded("jpeg", "L"),
    "progressive": encoded("jpeg", progressive=True),
    "restarts": encoded("jpeg", restart_marker_blocks=1),
    "thumbnail": encoded("jpeg", exif=b"Exif\0\0" + encoded("jpeg")),
    "comment": encoded("jpeg", comment=b"\xff\xd9\xff\xda"),
}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_size_of_every_kind_of_png(mode):
    assert png_size(memoryview(encoded("png", mode))) == (34, 21)


@pytest.mark.parametrize("name", JPEGS)
def test_size_of_every_usual_jpeg(name):
    assert jpeg_size(memoryview(JPEGS[name])) == (34, 21)


@given(st.integers(8, len(PNG) - 1))
def test_png_cut_anywhere(length):
    with pytest.raises(ValueError, match="ends after"):
        png_size(memoryview(PNG[:length]))


@pytest.mark.parametrize("name", JPEGS)
@given(st.data())
def test_jpeg_cut_anywhere(name, data):
    whole = JPEGS[name]
    with pytest.raises(ValueError, match="ends"):
        jpeg_size(memoryview(whole[: data.draw(st.integers(3, len(whole) - 1))]))


@given(st.integers(8, len(PNG) - 1), st.integers(1, 255))
def test_one_changed_byte_of_a_png(position, change):
    damaged = bytearray(PNG)
    damaged[position] ^= change
    with pytest.raises(ValueError, match=r"damaged|ends after|begins with"):
        png_size(memoryview(damaged))


@pytest.mark.parametrize("whole", [PNG, JPEGS["baseline"]], ids=["png", "jpeg"])
def test_what_follows_the_image_is_left_alone(whole):
    read = png_size if whole is PNG else jpeg_size
    assert read(memoryview(whole + b"\0\xffmore")) == (34, 21)


def test_png_without_pixels_and_with_a_senseless_header():
    with pytest.raises(ValueError, match="no image data"):
        png_size(memoryview(PNG[:33] + PNG[-12:]))
    header = bytearray(PNG[12:29])
    header[4:8] = bytes(4)
    changed = PNG[:12] + bytes(header) + zlib.crc32(header).to_bytes(4, "big") + PNG[33:]
    with pytest.raises(ValueError, match="makes no sense: 00 00 00 00 00 00 00 15"):
        png_size(memoryview(changed))


def test_jpeg_that_only_a_decoder_can_judge():
    whole = bytearray(JPEGS["baseline"])
    frame = whole.index(b"\xff\xc0")
    whole[frame + 1] = 0xC9  # arithmetic coding
    with pytest.raises(Unusual):
        jpeg_size(memoryview(whole))
    whole[frame + 1] = 0xC0
    whole[frame + 5 : frame + 7] = bytes(2)  # the height comes after the image
    with pytest.raises(Unusual):
        jpeg_size(memoryview(whole))


def test_jpeg_with_bytes_between_its_segments():
    whole = JPEGS["baseline"]
    frame = whole.index(b"\xff\xc0")
    with pytest.raises(ValueError, match=f"byte {frame} is 0x41 where a marker begins"):
        jpeg_size(memoryview(whole[:frame] + b"A" + whole[frame:]))


@pytest.mark.parametrize(
    ("at", "new", "problem"),
    [
        (2, b"\0\1", "the segment 0xc0 at byte {frame} is shorter than its own length"),
        (2, b"\0\7", r"its frame header \(SOF\) is cut short"),
        (7, b"\0\0", r"its frame header \(SOF\) gives a width of 0"),
    ],
)
def test_jpeg_whose_frame_header_makes_no_sense(at, new, problem):
    whole = bytearray(JPEGS["baseline"])
    frame = whole.index(b"\xff\xc0")
    whole[frame + at : frame + at + 2] = new
    with pytest.raises(ValueError, match=problem.format(frame=frame)):
        jpeg_size(memoryview(whole))
