import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.faces.sitting import Sitting
from schemas.config import QualitySettings
from schemas.errors import StorageError
from schemas.records import Face, Split
from schemas.storage import sha256_file
from tasks.forget.files import purge_file
from tasks.forget.traces import Traces
from tasks.quality import duplicates
from tasks.quality.duplicates import find_duplicates
from tasks.quality.signatures import SignatureStore

SETTINGS = QualitySettings()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two photographs of each of three people."""
    folder = tmp_path_factory.mktemp("pictures")
    faces = []
    for subject in ("001", "002", "003"):
        sitting = Sitting(subject, 0)
        for capture in sitting.captures(2):
            shot = sitting.photograph(capture, channels=1)
            cv2.imwrite(str(folder / capture.file_name), shot.image)
            faces.append(face_of(folder / capture.file_name, f"a/{subject}", shot.points_N2[:68]))
    return folder, faces


def face_of(path: Path, subject: str | None, points, source="a"):
    return Face(
        source_key=f"{source}:{path.name}",
        image=str(path),
        image_name=path.name,
        image_sha256=sha256_file(path),
        frame_width=192,
        frame_height=192,
        subject=subject,
        set_id="all",
        points_N2=np.asarray(points, np.float32),
        flags_N=np.full(68, -1, np.int8),
    )


def copied(face, folder, name, subject, *, quality=None):
    """The same file under another name, or a JPEG of it."""
    path = folder / name
    if quality is None:
        shutil.copy(face.image, path)
    else:
        cv2.imwrite(str(path), cv2.imread(face.image, cv2.IMREAD_GRAYSCALE), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return face_of(path, subject, face.points_N2, source="b")


def test_one_picture_under_two_subjects_is_found(pictures, tmp_path):
    _, faces = pictures
    same = copied(faces[0], tmp_path, "same.png", "b/9")
    alike = copied(faces[2], tmp_path, "alike.jpg", "b/8", quality=50)
    splits = [Split.TRAIN] * 6 + [Split.TRAIN, Split.KPI]
    found = find_duplicates([*faces, same, alike], SETTINGS, splits=splits)
    second, first = found.pairs
    assert (first.first, first.second, first.distance) == (faces[0].source_key, "b:same.png", 0)
    assert (first.subjects_known, first.crosses) == (True, None)
    assert (second.first, second.second, second.crosses) == (faces[2].source_key, "b:alike.jpg", "train-kpi")
    assert found.notes == (
        "1 pairs are files of the same bytes, 1 only look the same",
        "1 pairs cross train-kpi: a model is judged on pictures that it learnt from",
        "1 pairs are of different subjects: one person under two names, or one photograph twice",
    )


def test_what_a_subject_has_twice_does_not_leak(pictures, tmp_path):
    _, faces = pictures
    again = copied(faces[0], tmp_path, "again.png", faces[0].subject)
    assert find_duplicates([*faces, again], SETTINGS).pairs == ()


def test_of_an_unknown_subject_it_is_not_known_whether_it_leaks(pictures, tmp_path):
    _, faces = pictures
    unknown = copied(faces[4], tmp_path, "unknown.jpg", None, quality=60)
    (pair,) = find_duplicates([*faces, unknown], SETTINGS).pairs
    assert not pair.subjects_known and pair.crosses is None


def test_people_that_differ_are_no_duplicates(pictures):
    assert find_duplicates(pictures[1], SETTINGS) == find_duplicates([], SETTINGS)


def test_the_order_of_the_faces_changes_nothing(pictures, tmp_path):
    _, faces = pictures
    several = [
        *faces,
        copied(faces[1], tmp_path, "x.jpg", "b/1", quality=70),
        copied(faces[3], tmp_path, "y.png", "b/2"),
    ]
    assert find_duplicates(several[::-1], SETTINGS) == find_duplicates(several, SETTINGS)


def test_of_many_pairs_the_first_are_listed(pictures, tmp_path, monkeypatch):
    copies = [copied(pictures[1][0], tmp_path, f"{number}.png", f"b/{number}") for number in range(4)]
    splits = [Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.KPI]
    every = find_duplicates(copies, SETTINGS, splits=splits)
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 4)
    found = find_duplicates(copies, SETTINGS, splits=splits)
    assert (len(every.pairs), found.pairs) == (6, every.pairs[:4])
    assert [pair.crosses for pair in found.pairs] == ["train-kpi"] * 3 + [None]
    assert found.notes == (every.notes[0], "of 6 pairs the first 4 are listed", *every.notes[1:])


def test_a_face_that_is_gone_is_wiped_from_the_memory(pictures, tmp_path):
    _, faces = pictures
    memory = tmp_path / "signatures.sqlite"
    store = SignatureStore(memory)
    gone, kept = (signature.thumbnail_SS.tobytes() for signature in store.signatures(faces[:2]))
    assert gone in memory.read_bytes()
    store.signatures(faces[1:2])
    left = memory.read_bytes()
    assert gone not in left and kept in left


def test_a_second_search_reads_no_image(pictures, tmp_path):
    _, faces = pictures
    alike = copied(faces[2], tmp_path, "alike.jpg", "b/8", quality=50)
    memory = tmp_path / "signatures.sqlite"
    first = find_duplicates([*faces, alike], SETTINGS, memory=memory)
    gone = [dataclasses.replace(face, image=str(tmp_path / "gone")) for face in [*faces, alike]]
    assert find_duplicates(gone, SETTINGS, memory=memory) == first
    assert len(first.pairs) == 1


def test_a_face_labelled_anew_is_looked_at_anew(pictures, tmp_path):
    _, faces = pictures
    store = SignatureStore(tmp_path / "signatures.sqlite")
    (before,) = store.signatures(faces[:1])
    moved = dataclasses.replace(faces[0], points_N2=faces[0].points_N2 + np.float32(6))
    (after,) = store.signatures([moved])
    assert (before.thumbnail_SS != after.thumbnail_SS).any()


def test_an_image_that_is_gone_is_counted(pictures, tmp_path):
    _, faces = pictures
    lost = dataclasses.replace(faces[0], image=str(tmp_path / "gone.png"), image_sha256="f" * 64)
    assert find_duplicates([lost, *faces[1:]], SETTINGS).notes == (
        "1 faces' images can't be decoded and were not compared",
    )


def test_two_faces_of_one_file_count_even_if_it_is_gone(pictures, tmp_path):
    _, faces = pictures
    lost = [dataclasses.replace(face, image=str(tmp_path / "gone.png"), image_sha256="f" * 64) for face in faces[1:3]]
    (pair,) = find_duplicates(lost, SETTINGS).pairs
    assert pair.distance == 0


def test_what_is_forgotten_is_nowhere_in_the_file(pictures, tmp_path):
    _, faces = pictures
    memory = tmp_path / "signatures.sqlite"
    store = SignatureStore(memory)
    kept = [signature.thumbnail_SS.tobytes() for signature in store.signatures(faces)]
    assert kept[0] in memory.read_bytes() and kept[1] in memory.read_bytes()
    traces = Traces("set/0", "redacted/0", images=frozenset({faces[0].image_sha256}))
    assert purge_file(memory, traces)
    left = memory.read_bytes()
    assert kept[0] not in left and bytes.fromhex(faces[0].image_sha256) not in left
    assert kept[1] in left
    assert not purge_file(memory, traces)


def test_a_damaged_memory_is_begun_anew(pictures, tmp_path):
    _, faces = pictures
    memory = tmp_path / "signatures.sqlite"
    memory.write_bytes(b"no database at all" * 400)
    assert SignatureStore(memory).signatures(faces[:1])[0] is not None


def test_a_memory_that_can_t_be_written_is_named(pictures, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        SignatureStore(tmp_path / "folder").signatures(pictures[1][:1])
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="file: can't be made"):
        SignatureStore(tmp_path / "file" / "signatures.sqlite").signatures(pictures[1][:1])
