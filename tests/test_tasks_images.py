"""What is found out about image files, sound and broken."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from hashlib import sha256

import cv2
import numpy as np
import pytest

from schemas.errors import StorageError
from tasks.image_facts import ImageFacts, inspect_image, kind_of
from tasks.images import ImageIndex
from tests.raw_records import write_image


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("JPEG", "JPEG"), ("bmp", "BMP")])
def test_facts_of_a_whole_image(tmp_path, suffix, kind):
    path = write_image(tmp_path / f"a.{suffix}", seed=1, width=40, height=30)
    assert inspect_image(str(path)) == ImageFacts(sha256(path.read_bytes()).hexdigest(), 40, 30, kind)


def problem_of(path):
    problem = inspect_image(str(path))
    assert not isinstance(problem, ImageFacts), problem
    return problem.code, problem.value


def test_missing_and_empty_images(tmp_path):
    assert problem_of(tmp_path / "a.png")[0] == "image-missing"
    (tmp_path / "a.png").touch()
    assert problem_of(tmp_path / "a.png") == ("image-empty", f"{tmp_path / 'a.png'} has 0 bytes")
    assert problem_of(tmp_path)[0] == "image-unreadable"


def test_a_name_that_no_file_can_have_costs_that_image_alone(tmp_path):
    there, nul = str(write_image(tmp_path / "a.png", seed=1)), f"{tmp_path}/a\0b.png"
    found = ImageIndex(tmp_path / "index.sqlite").inspect([nul, there])
    assert found[nul].code == "image-missing" and isinstance(found[there], ImageFacts)


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


def test_second_look_reads_nothing(tmp_path):
    images = [str(write_image(tmp_path / f"{i:02d}.png", seed=i)) for i in range(40)]
    told = []
    first = ImageIndex(tmp_path / "index").inspect(images, progress=lambda *counts: told.append(counts))
    assert told == sorted(told) and told[-1] == (40, 40) and len(told) > 1
    told.clear()
    index = ImageIndex(tmp_path / "index")
    assert index.inspect(images, progress=lambda *counts: told.append(counts)) == first
    assert told == []


def test_index_belongs_to_the_file_wherever_it_is_named_from(tmp_path, monkeypatch):
    write_image(tmp_path / "here" / "a.png", seed=1)
    stamp = (tmp_path / "here" / "a.png").stat()
    write_image(tmp_path / "there" / "a.png", seed=2)
    there = tmp_path / "there" / "a.png"
    there.write_bytes(there.read_bytes()[:-1])
    (tmp_path / "here" / "a.png").write_bytes((tmp_path / "here" / "a.png").read_bytes().ljust(there.stat().st_size))
    for folder in ("here", "there"):
        os.utime(tmp_path / folder / "a.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    for folder, known in (("here", True), ("there", False)):
        monkeypatch.chdir(tmp_path / folder)
        facts = ImageIndex(tmp_path / "index").inspect(["a.png"])["a.png"]
        assert isinstance(facts, ImageFacts) == known


def test_changed_and_broken_images_are_looked_at_again(tmp_path):
    image, index = write_image(tmp_path / "a.png", seed=1), ImageIndex(tmp_path / "index")
    before = index.inspect([str(image)])[str(image)]
    stamp = image.stat()
    write_image(image, seed=2)
    os.utime(image, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    after = ImageIndex(tmp_path / "index").inspect([str(image)])[str(image)]
    assert after != before and after == inspect_image(str(image))
    image.write_bytes(b"")
    assert ImageIndex(tmp_path / "index").inspect([str(image)])[str(image)].code == "image-empty"
    write_image(image, seed=1)
    assert ImageIndex(tmp_path / "index").inspect([str(image)])[str(image)] == before


@pytest.mark.parametrize("damage", [b"no database", b"", None])
def test_damaged_index_only_costs_time(tmp_path, damage):
    images, index = [str(write_image(tmp_path / f"{i}.png", seed=i)) for i in range(3)], tmp_path / "index"
    facts = ImageIndex(index).inspect(images)
    index.write_bytes(index.read_bytes()[:4096] + b"\xff" * 4096 if damage is None else damage)
    assert ImageIndex(index).inspect(images) == facts == ImageIndex(index).inspect(images)


def test_index_of_another_version_is_begun_anew(tmp_path):
    image = str(write_image(tmp_path / "a.png", seed=1))
    with closing(sqlite3.connect(tmp_path / "index")) as database:
        database.executescript("CREATE TABLE images (path TEXT); PRAGMA user_version = 1;")
    index = ImageIndex(tmp_path / "index")
    assert isinstance(index.inspect([image])[image], ImageFacts)
    index.close()
    assert isinstance(index.inspect([image])[image], ImageFacts)


def test_index_that_cannot_be_written_is_named(tmp_path):
    image = str(write_image(tmp_path / "a.png", seed=1))
    (tmp_path / "index").mkdir()
    with pytest.raises(StorageError, match=r"index: the index of images can't be used: unable to open"):
        ImageIndex(tmp_path / "index").inspect([image])
