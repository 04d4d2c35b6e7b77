"""Snapshots: named by content alone, whole, and read back as they were."""

from __future__ import annotations

import dataclasses
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.config import SplitPolicy, ValidationRules
from schemas.errors import StorageError, SubjectLeakError
from schemas.geometry import Box
from schemas.records import Flag, Split
from schemas.storage import read_json
from tasks.images import ImageIndex
from tasks.snapshot import load_snapshot, snapshot_id, take_snapshot
from tasks.validate import validate
from tests.raw_records import NUM_KEYPOINTS, sloth_record, sloth_records
from tests.small_files import small_files

POLICY = SplitPolicy(kpi_subjects=["d/000"], validation_share=0.4)


def validated(folder: Path, records):
    return validate(
        records,
        num_keypoints=NUM_KEYPOINTS,
        rules=ValidationRules(max_rejected_share=1.0),
        index=ImageIndex(folder / "image-index.json"),
        violations_path=folder / "violations.parquet",
    )


def snap(folder: Path, validation, policy=POLICY, **provenance):
    return take_snapshot(
        validation,
        policy=policy,
        num_keypoints=NUM_KEYPOINTS,
        snapshots=folder / "snapshots",
        provenance=provenance,
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    return validated(folder, sloth_records(folder, 8)).faces


def test_snapshot_reads_back(tmp_path):
    validation = validated(tmp_path, [*sloth_records(tmp_path, 8), sloth_record(tmp_path, 3, source="t")])
    boxed = [replace(face, tight_box=Box(1.25, 2, 3, 4)) for face in validation.faces[:3]]
    validation = replace(validation, faces=[*boxed, *validation.faces[3:]])
    output = snap(tmp_path, validation, sources=["s", "t"])
    snapshot = load_snapshot(output.directory)
    assert snapshot.id == output.key == output.directory.name and len(snapshot.id) == 64
    hashes = [face.content_hash() for face in snapshot.faces]
    assert hashes == sorted(face.content_hash() for face in validation.faces)
    by_hash = {face.content_hash(): face for face in validation.faces}
    for face in snapshot.faces:
        for field in dataclasses.fields(face):
            np.testing.assert_array_equal(
                getattr(face, field.name), getattr(by_hash[face.content_hash()], field.name)
            )
    assert {f.subject for f, s in zip(snapshot.faces, snapshot.splits, strict=True) if s is Split.KPI} == {"d/000"}
    assert snapshot.violations == validation.violations and snapshot.kpi_subjects == {"d/000"}
    assert output.result["rejected"] == {"duplicate-face": 1} and output.result["counts"]["accepted"] == 8
    assert sum(split["faces"] for split in output.result["splits"].values()) == 8
    assert read_json(output.directory / "provenance.json")["sources"] == ["s", "t"]


@given(order=st.randoms(use_true_random=False))
def test_id_knows_nothing_of_order_places_people_and_times(faces, order):
    shuffled = list(faces)
    order.shuffle(shuffled)
    elsewhere = [
        replace(
            face, image=f"/other/{order.random()}", image_name="x", source_key=str(order.random()), set_id="y",
            annotator="somebody", annotation_id="7", annotated_at="2026-01-01", camera="05_1",
        )
        for face in shuffled
    ]  # fmt: skip
    assert snapshot_id(elsewhere, POLICY) == snapshot_id(faces, POLICY)


def _moved(face):
    points_N2 = face.points_N2.copy()
    points_N2[1, 0] = np.nextafter(points_N2[1, 0], np.float32(np.inf))
    return points_N2


CONTENT = {
    "image_sha256": lambda face: face.image_sha256[::-1],
    "subject": lambda face: "d/999",
    "points_N2": _moved,
    "flags_N": lambda face: np.where(np.arange(NUM_KEYPOINTS) == 2, Flag.UNKNOWN, face.flags_N),
    "tight_box": lambda face: Box(1, 2, 3, 4),
    "outer_box": lambda face: Box(1, 2, 3, 4),
}


@given(which=st.integers(0, 7), field=st.sampled_from(sorted(CONTENT)))
def test_id_changes_with_every_field_of_the_content(faces, which, field):
    changed = list(faces)
    changed[which] = replace(faces[which], **{field: CONTENT[field](faces[which])})
    assert snapshot_id(changed, POLICY) != snapshot_id(faces, POLICY)


def test_id_changes_with_the_version_of_the_schema(faces, monkeypatch):
    first = snapshot_id(faces, POLICY)
    monkeypatch.setattr("tasks.snapshot.SCHEMA_VERSION", "another")
    assert snapshot_id(faces, POLICY) != first


def test_id_changes_with_the_policy_and_the_faces_but_not_with_file_names(tmp_path, faces):
    first = snapshot_id(faces, POLICY)
    assert snapshot_id(faces[1:], POLICY) != first
    for change in ({"seed": 1}, {"validation_share": 0.3}, {"kpi_subjects": ["d/001"]}):
        assert snapshot_id(faces, POLICY.model_copy(update=change)) != first
    (tmp_path / "kpi.txt").write_text("000\n")
    from_file = {"kpi_subjects": [], "kpi_subject_files": {"d": str(tmp_path / "kpi.txt")}}
    assert snapshot_id(faces, POLICY.model_copy(update=from_file)) == first


def test_summary_counts_known_people_and_unknown_flags(tmp_path):
    validation = validated(tmp_path, sloth_records(tmp_path, 6))
    nobody = {"subject": None, "flags_N": np.full(NUM_KEYPOINTS, Flag.UNKNOWN, np.int8)}
    faces = [replace(face, **nobody) if face.subject == "d/001" else face for face in validation.faces]
    policy = POLICY.model_copy(update={"validation_share": 0.0})
    told = snap(tmp_path, replace(validation, faces=faces), policy).result
    assert told["splits"]["kpi"] == {"faces": 2, "subjects": 1, "images": 2}
    assert told["splits"]["train"] == {"faces": 4, "subjects": 1, "images": 4}
    assert told["unknown_flags"] == 2 / 6


def test_superseded_faces_are_kept_by_source_key_each_with_the_split_of_its_subject(tmp_path):
    validation = validated(tmp_path, sloth_records(tmp_path, 8))
    superseded = [replace(face, source_key=f"t:{number}") for number, face in enumerate(validation.faces)]
    output = snap(tmp_path, replace(validation, superseded=superseded[::-1]))
    snapshot = load_snapshot(output.directory)
    assert [face.source_key for face in snapshot.superseded] == [face.source_key for face in superseded]
    split_of = dict(zip((face.subject for face in snapshot.faces), snapshot.splits, strict=True))
    told = pq.read_table(output.directory / "superseded.parquet")["split"].to_pylist()
    assert told == [split_of[face.subject] for face in superseded]


def test_an_image_of_a_kpi_subject_under_another_name_is_refused(tmp_path):
    validation = validated(tmp_path, sloth_records(tmp_path, 8))
    held_out = next(face for face in validation.faces if face.subject == "d/000")
    leaked = [replace(face, image_sha256=held_out.image_sha256) for face in validation.faces]
    with pytest.raises(SubjectLeakError, match="snapshot, split train"):
        snap(tmp_path, replace(validation, faces=leaked))
    assert not (tmp_path / "snapshots").exists()


def test_same_content_is_reused(tmp_path):
    validation = validated(tmp_path, sloth_records(tmp_path, 6))
    assert not snap(tmp_path, validation).reused
    shuffled = random.Random(0).sample(validation.faces, len(validation.faces))
    again = snap(tmp_path, replace(validation, faces=shuffled))
    assert again.reused


def test_damaged_snapshot_is_made_again(tmp_path):
    validation = validated(tmp_path, sloth_records(tmp_path, 6))
    first = snap(tmp_path, validation)
    table = first.directory / "faces.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[:-1])
    assert not snap(tmp_path, validation).reused and table.read_bytes() == whole


def test_images_that_moved_are_found_again_under_the_same_id(tmp_path):
    first = snap(tmp_path, validated(tmp_path, sloth_records(tmp_path / "old", 6)))
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = validated(tmp_path, sloth_records(tmp_path / "new", 6))
    with small_files(), pytest.raises(StorageError, match=r"faces\.parquet: can't be written"):
        snap(tmp_path, moved)
    assert load_snapshot(first.directory).faces and not load_snapshot(first.directory).violations
    second = snap(tmp_path, moved)
    assert second.key == first.key and not second.reused
    assert all(Path(face.image).is_file() for face in load_snapshot(second.directory).faces)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(7)))
def test_snapshot_of_shuffled_records_has_identical_bytes(tmp_path, order):
    records = [*sloth_records(tmp_path, 6), sloth_record(tmp_path, 2, source="t")]
    outputs = []
    for number, sequence in enumerate((records, [records[i] for i in order])):
        folder = tmp_path / str(number)
        outputs.append(snap(folder, validated(tmp_path, sequence)))
    first, second = (
        {path.name: path.read_bytes() for path in output.directory.glob("*.parquet")} for output in outputs
    )
    assert first == second and outputs[0].key == outputs[1].key
