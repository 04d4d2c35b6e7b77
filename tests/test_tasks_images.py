"""What is found out about image files, sound and broken."""

from __future__ import annotations

import os
from hashlib import sha256

import cv2
import numpy as np
import pytest

from tasks.images import ImageFacts, ImageIndex, inspect_image, kind_of
from tests.raw_records import write_image


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("JPEG", "JPEG"), ("bmp", "BMP")])
def test_facts_of_a_whole_image(tmp_path, suffix, kind):
    path = write_image(tmp_path / f"a.{suffix}", seed=1, width=40, height=30)
    assert inspect_image(path) == ImageFacts(sha256(path.read_bytes()).hexdigest(), 40, 30, kind)


def problem_of(path):
    problem = inspect_image(path)
    assert not isinstance(problem, ImageFacts), problem
    return problem.code, problem.value


def test_missing_and_empty_images(tmp_path):
    assert problem_of(tmp_path / "a.png")[0] == "image-missing"
    (tmp_path / "a.png").touch()
    assert problem_of(tmp_path / "a.png") == ("image-empty", f"{tmp_path / 'a.png'} has 0 bytes")
    assert problem_of(tmp_path)[0] == "image-unreadable"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.98])
def test_truncated_image(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert problem_of(path)[0] == "image-truncated"


def test_damaged_pixels_are_found(tmp_path):
    path = write_image(tmp_path / "a.png", seed=1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert problem_of(path)[0] == "image-truncated"


def test_mislabelled_image_says_what_it_is(tmp_path):
    jpeg = write_image(tmp_path / "a.jpg", seed=1)
    jpeg.rename(tmp_path / "a.png")
    assert problem_of(tmp_path / "a.png") == ("image-mislabelled", "a.png holds JPEG, not PNG")
    (tmp_path / "b.jpg").write_text("login required\n")
    assert problem_of(tmp_path / "b.jpg") == ("image-mislabelled", "b.jpg holds text, not JPEG")
    (tmp_path / "c").write_bytes(b"GIF89a....")
    assert problem_of(tmp_path / "c") == ("image-format", "c holds GIF")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!doctype html><html><body>404", "HTML"),
        ("ä".encode() * 2048 + b"x", "text"),
        (b"x" + "ä".encode() * 4096, "text"),
        (b"\x00\x01\x02", "unknown data"),
        (b"abc\xff\xfe rest of it", "unknown data"),
        (b"\0\0\0\x18ftypheic", "HEIC, AVIF or video"),
    ],
)
def test_kinds_of_other_files(data, kind):
    assert kind_of(data) == kind


def test_second_look_decodes_nothing(tmp_path):
    images = [str(write_image(tmp_path / f"{i}.png", seed=i)) for i in range(3)]
    decoded = []
    first = ImageIndex(tmp_path / "index.json").inspect(images, progress=lambda done, of: decoded.append((done, of)))
    assert decoded == [(1, 3), (2, 3), (3, 3)]
    decoded.clear()
    index = ImageIndex(tmp_path / "index.json")
    assert index.inspect(images, progress=lambda *counts: decoded.append(counts)) == first
    assert decoded == []


def test_changed_and_broken_images_are_looked_at_again(tmp_path):
    image, index = write_image(tmp_path / "a.png", seed=1), ImageIndex(tmp_path / "index.json")
    before = index.inspect([str(image)])[str(image)]
    stamp = image.stat()
    write_image(image, seed=2)
    os.utime(image, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    after = ImageIndex(tmp_path / "index.json").inspect([str(image)])[str(image)]
    assert after != before and after == inspect_image(image)
    image.write_bytes(b"")
    assert ImageIndex(tmp_path / "index.json").inspect([str(image)])[str(image)].code == "image-empty"
    write_image(image, seed=1)
    assert ImageIndex(tmp_path / "index.json").inspect([str(image)])[str(image)] == before


def test_damaged_index_only_costs_time(tmp_path):
    image = str(write_image(tmp_path / "a.png", seed=1))
    (tmp_path / "index.json").write_text('{"version": 1, "im')
    assert isinstance(ImageIndex(tmp_path / "index.json").inspect([image])[image], ImageFacts)
