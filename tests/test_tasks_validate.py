"""Every rule on a record that breaks it, several annotators, and counts that add up whatever comes in."""

from __future__ import annotations

import copy
import random
from dataclasses import fields, replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.config import ValidationRules
from schemas.errors import SourceEmptyError, ViolationsError
from schemas.label_studio_task import build_task
from schemas.raw import RawRecord
from schemas.records import violations_from_table
from tasks import candidates
from tasks import validate as validate_module
from tasks.images import ImageIndex
from tasks.validate import validate
from tests.raw_records import (
    HEIGHT,
    NUM_KEYPOINTS,
    WIDTH,
    sloth_record,
    sloth_records,
    some_flags,
    some_points,
    write_image,
)


@pytest.fixture
def check(tmp_path):
    def run(records, share=1.0, **rules):
        return validate(
            records,
            num_keypoints=NUM_KEYPOINTS,
            rules=ValidationRules(max_rejected_share=share, **rules),
            index=ImageIndex(tmp_path / "image-index.json"),
            violations_path=tmp_path / "violations.parquet",
        )

    return run


def codes(outcome):
    return [violation.code for violation in outcome.violations]


def edited(record, **keypoints):
    payload = copy.deepcopy(record.payload)
    payload["annotations"][-1] |= keypoints
    return replace(record, payload=payload)


def test_sound_records_become_faces(tmp_path, check):
    records = sloth_records(tmp_path, 6)
    outcome = check(records)
    assert outcome.counts.accepted == outcome.counts.records == 6 and outcome.violations == []
    face = outcome.faces[3]
    assert (face.source_key, face.subject, face.set_id) == ("s:gt/all.json#3", "d/001", "all")
    assert (face.frame_width, face.frame_height) == (WIDTH, HEIGHT)
    assert (face.points_N2 == some_points(3)).all() and (face.flags_N == some_flags(3)).all()
    assert not list(tmp_path.glob(".faces*")), "the file that they are read from has no name"


BROKEN = {
    "schema": lambda r: edited(r, P1x=None),
    "keypoint-outside-frame": lambda r: edited(r, P2x=WIDTH - 0.25),
    "wrong-keypoint-count": lambda r: replace(
        r, payload=copy.deepcopy(r.payload) | {"annotations": [{"class": "FiducialPoints", "P1x": 3, "P1y": 4}]}
    ),
    "duplicate-label": lambda r: edited(r, p3X=1, p3Y=1),
    "unknown-label": lambda r: edited(r, P0x=1, P0y=1),
    "degenerate-face": lambda r: edited(
        r, **{f"P{n}{axis}": 9 for n in range(1, NUM_KEYPOINTS + 1) for axis in "xy"}
    ),
    "subject-unknown": lambda r: replace(r, subject=None),
    "subject-malformed": lambda r: replace(r, subject="079"),
    "image-missing": lambda r: replace(r, image=r.image + ".png"),
}


@pytest.mark.parametrize("code", BROKEN)
def test_each_rule_rejects_and_names_the_record(tmp_path, check, code):
    records = sloth_records(tmp_path, 3)
    records[1] = BROKEN[code](records[1])
    outcome = check(records)
    assert codes(outcome) == [code]
    assert outcome.violations[0].record == "s:gt/all.json#1"
    assert (outcome.counts.accepted, outcome.counts.rejected) == (2, 1)


def test_an_image_that_the_source_has_not_got_is_to_be_looked_for_there(tmp_path, check):
    records = sloth_records(tmp_path, 3)
    records[1] = replace(records[1], image=None)
    (violation,) = check(records).violations
    assert violation.code == "image-missing" and "its pull.json says what is wrong" in violation.hint


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("image-missing", lambda path: path.unlink()),
        ("image-empty", lambda path: path.write_bytes(b"")),
        ("image-truncated", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("image-mislabelled", lambda path: path.write_text("not an image")),
    ],
)
def test_broken_images_reject_their_records(tmp_path, check, code, spoil):
    records = sloth_records(tmp_path, 3)
    spoil(tmp_path / "images" / "0001.png")
    outcome = check(records)
    assert codes(outcome) == [code] and outcome.counts.accepted == 2


def test_record_without_a_file_for_its_image(tmp_path, check):
    outcome = check([replace(sloth_record(tmp_path, 0), image=None)])
    assert codes(outcome) == ["image-missing"] and "images/0000.png" in outcome.violations[0].value


def test_frame_covers_half_a_pixel_around_its_pixel_centres(tmp_path, check):
    record = sloth_record(tmp_path, 0)
    assert codes(check([edited(record, P1x=-0.5, P2y=HEIGHT - 0.5)])) == []
    outcome = check([edited(record, P1x=-0.51, P2y=HEIGHT - 0.49)])
    assert [v.keypoint for v in outcome.violations] == ["P1", "P2"]


def test_all_violations_of_a_record_are_listed(tmp_path, check):
    record = edited(sloth_record(tmp_path, 0), P1x=-9, P2x=900, P4hidden=1)
    outcome = check([replace(record, subject=None)])
    assert codes(outcome) == ["keypoint-outside-frame", "keypoint-outside-frame", "subject-unknown", "unknown-key"]
    assert outcome.counts.rejected == 1


def test_second_face_of_an_image_can_fail_alone(tmp_path, check):
    record = sloth_record(tmp_path, 0)
    good, bad = sloth_record(tmp_path, 1).payload["annotations"][0], edited(record, P1x=-9).payload["annotations"][0]
    outcome = check([replace(record, payload=record.payload | {"annotations": [good, bad]})])
    assert [face.source_key for face in outcome.faces] == ["s:gt/all.json#0/face1"]
    assert [violation.record for violation in outcome.violations] == ["s:gt/all.json#0/face2"]


def test_subject_may_stay_unknown_where_that_is_allowed(tmp_path, check):
    outcome = check([replace(sloth_record(tmp_path, 0), subject=None)], require_subject=False)
    assert outcome.faces[0].subject is None


def test_exact_duplicate_counts_once_whatever_the_order(tmp_path, check):
    first, second = sloth_record(tmp_path, 0), sloth_record(tmp_path, 0, source="t")
    for records in ([first, second], [second, first]):
        outcome = check(records)
        assert [face.source_key for face in outcome.faces] == [first.source_key]
        assert codes(outcome) == ["duplicate-face"] and first.source_key in outcome.violations[0].value


def test_each_duplicate_is_told_the_face_of_the_image_that_it_repeats(tmp_path, check):
    first, second = sloth_record(tmp_path, 0), sloth_record(tmp_path, 1)
    faces = first.payload["annotations"] + second.payload["annotations"]
    both = replace(first, payload=first.payload | {"annotations": faces})
    outcome = check([both, replace(both, source="t")])
    kept = [face.source_key for face in outcome.faces]
    assert len(kept) == 2 and codes(outcome) == ["duplicate-face"] * 2
    assert all(key in violation.value for key, violation in zip(kept, outcome.violations, strict=True))


def test_same_image_under_two_subjects_is_used_by_neither(tmp_path, check):
    other = edited(sloth_record(tmp_path, 0, subject="kpi/1", source="t"), P1x=20)
    outcome = check([sloth_record(tmp_path, 0), sloth_record(tmp_path, 1), other])
    assert codes(outcome) == ["image-under-two-subjects"] * 2 and outcome.counts.accepted == 1
    assert outcome.violations[0].value == "d/000 and kpi/1"


def test_same_image_with_and_without_a_subject_is_used_by_neither(tmp_path, check):
    unknown = replace(edited(sloth_record(tmp_path, 0, source="t"), P1x=20), subject=None)
    outcome = check([sloth_record(tmp_path, 0), unknown], require_subject=False)
    assert codes(outcome) == ["image-under-two-subjects"] * 2
    assert outcome.violations[0].value == "d/000 and unknown"


def label_studio_record(tmp_path, annotations):
    image = write_image(tmp_path / "images" / "ls.png", seed=9)
    task = build_task({"image": "ls.png"}, some_points(0), some_flags(0), frame_size=(WIDTH, HEIGHT))
    given = task["annotations"][0]
    payload = task | {"annotations": [given | {"id": i} | more for i, more in annotations.items()]}
    return RawRecord("label_studio", "p", "7", "task/3", payload, str(image), True, "d/001")


@pytest.mark.parametrize(
    ("annotations", "used"),
    [
        ({1: {"updated_at": "2026-01-02T00:00:00Z"}, 2: {"updated_at": "2026-01-01T00:00:00Z"}}, 1),
        ({9: {"ground_truth": True, "updated_at": "2025"}, 10: {"ground_truth": False, "updated_at": "2026"}}, 9),
        ({9: {"updated_at": "2026"}, 10: {"updated_at": "2026"}}, 10),
    ],
)
def test_one_annotation_of_a_face_is_used_and_the_others_are_kept(tmp_path, check, annotations, used):
    annotations = {i: {"ground_truth": False} | more for i, more in annotations.items()}
    outcome = check([label_studio_record(tmp_path, annotations)])
    assert [face.annotation_id for face in outcome.faces] == [str(used)]
    assert [face.annotation_id for face in outcome.superseded] == [str(i) for i in annotations if i != used]
    assert outcome.counts.superseded == 1 and outcome.violations == []


def test_broken_ground_truth_leaves_the_sound_annotation(tmp_path, check):
    outcome = check(
        [label_studio_record(tmp_path, {1: {"ground_truth": True, "result": []}, 2: {"ground_truth": False}})]
    )
    assert [face.annotation_id for face in outcome.faces] == ["2"]
    assert codes(outcome) == ["wrong-keypoint-count"]


def test_skipped_annotation_is_listed_and_not_held_against_the_source(tmp_path, check):
    outcome = check([label_studio_record(tmp_path, {1: {}, 2: {"was_cancelled": True}})], share=0.0)
    assert (outcome.counts.accepted, outcome.counts.skipped, outcome.counts.rejected) == (1, 1, 0)
    assert codes(outcome) == ["annotation-cancelled"]


def test_keypoints_of_a_larger_face_are_noted_and_the_annotation_is_used(tmp_path, check):
    record = label_studio_record(tmp_path, {1: {}})
    more = [*range(NUM_KEYPOINTS), 0, 1]
    task = build_task({"image": "ls.png"}, some_points(0)[more], some_flags(0)[more], frame_size=(WIDTH, HEIGHT))
    larger = replace(record, payload=record.payload | {"annotations": [task["annotations"][0] | {"id": 1}]})
    outcome, smaller = check([larger], share=0.0), check([record])
    assert contents(outcome.faces) == contents(smaller.faces)
    assert codes(outcome) == ["keypoints-beyond-layout"] and smaller.violations == []
    assert outcome.violations[0].record == outcome.faces[0].source_key
    assert outcome.counts == smaller.counts


def test_a_face_box_without_an_area_is_noted_and_the_annotation_is_used(tmp_path, check):
    record, sides = sloth_record(tmp_path, 1), {"x": 9, "y": 9, "width": 0, "height": 5}
    boxed = copy.deepcopy(record.payload)
    boxed["annotations"].append({"class": "FaceBbox"} | {f"face_tight_bbox{k}": v for k, v in sides.items()})
    outcome = check([replace(record, payload=boxed)], share=0.0)
    assert contents(outcome.faces) == contents(check([record]).faces)
    assert codes(outcome) == ["degenerate-face-box"] and outcome.counts.accepted == 1


def test_what_is_noted_of_a_rejected_annotation_is_listed_too(tmp_path, check):
    record = label_studio_record(tmp_path, {1: {}})
    result = record.payload["annotations"][0]["result"]
    beyond = result[0] | {"id": "x", "value": result[0]["value"] | {"keypointlabels": [f"P{NUM_KEYPOINTS + 1}"]}}
    record.payload["annotations"][0]["result"] = [*result, beyond, result[0] | {"id": "y"}]
    outcome = check([record])
    assert codes(outcome) == ["duplicate-label", "keypoints-beyond-layout"]
    assert (outcome.counts.accepted, outcome.counts.rejected) == (0, 1)


def test_image_of_another_size_than_annotated(tmp_path, check):
    record = label_studio_record(tmp_path, {1: {}})
    write_image(tmp_path / "images" / "ls.png", seed=9, width=HEIGHT, height=WIDTH)
    violation = next(v for v in check([record]).violations if v.code == "image-size-mismatch")
    assert violation.value == "48 x 64, annotated as 64 x 48" and "EXIF" in violation.hint


def test_too_many_rejected_stops_with_counts_and_a_table(tmp_path, check):
    records = sloth_records(tmp_path, 4)
    records[2] = edited(records[2], P1x=-9, P2x=-9)
    with pytest.raises(ViolationsError) as caught:
        check(records, share=0.2)
    message = str(caught.value)
    assert message.startswith("1 of 4 annotations rejected (25.0%, allowed 20.0%): keypoint-outside-frame 2.")
    table = pq.read_table(tmp_path / "violations.parquet")
    assert str(tmp_path / "violations.parquet") in message
    assert [v.keypoint for v in violations_from_table(table)] == ["P1", "P2"]
    assert check(records, share=0.25).counts.rejected == 1


def test_nothing_to_validate(check):
    with pytest.raises(SourceEmptyError, match="no annotations"):
        check([])


def test_order_of_records_does_not_matter(tmp_path, check):
    records = [
        *sloth_records(tmp_path, 5),
        sloth_record(tmp_path, 0, source="t"),
        sloth_record(tmp_path, 2, subject="x/1"),
    ]
    first = check(records)
    random.Random(1).shuffle(records)
    second = check(records)
    assert [f.source_key for f in first.faces] == [f.source_key for f in second.faces]
    assert first.violations == second.violations and first.counts == second.counts


damage = st.sampled_from([*BROKEN, "skip", "twice", "other-subject", None, None])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damages=st.lists(damage, min_size=1, max_size=8))
def test_counts_add_up_under_any_damage(tmp_path, check, damages):
    records, lost = [], set()
    for number, kind in enumerate(damages):
        record = sloth_record(tmp_path, number)
        if kind == "skip":
            record = replace(record, payload=record.payload | {"annotations": []})
        elif kind == "twice":
            records.append(replace(record, source="t"))
        elif kind == "other-subject":
            records.append(replace(record, source="t", subject="x/1"))
        elif kind is not None:
            record = BROKEN[kind](record)
        if kind in BROKEN or kind in ("skip", "other-subject"):
            lost.add(number)
        records.append(record)
    counts = (outcome := check(records)).counts
    assert counts.records == counts.annotations == len(records)
    assert counts.accepted == len(outcome.faces) == len(damages) - len(lost)
    assert counts.skipped == damages.count("skip")
    listed = {violation.record for violation in outcome.violations}
    used = {face.source_key for face in outcome.faces}
    assert listed | used == {record.source_key for record in records} and not listed & used


def contents(faces):
    return [
        {
            field.name: value.tobytes() if isinstance(value := getattr(face, field.name), np.ndarray) else value
            for field in fields(face)
        }
        for face in faces
    ]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damages=st.lists(damage, min_size=1, max_size=8), several=st.booleans())
def test_quick_readers_and_batches_change_nothing(tmp_path, check, damages, several):
    """Faces, violations and counts are those of the whole readers, and of one batch for all."""
    records = []
    for number, kind in enumerate(damages):
        record = sloth_record(tmp_path, number)
        if kind in ("twice", "other-subject"):
            records.append(replace(record, source="t", subject="x/1" if kind == "other-subject" else record.subject))
        records.append(BROKEN[kind](record) if kind in BROKEN else record)
    if several:
        records.append(label_studio_record(tmp_path, {1: {}, 2: {"ground_truth": True}, 3: {"was_cancelled": True}}))
    usual = check(records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "QUICK_READERS", dict.fromkeys(candidates.READERS, lambda n: lambda *payload: None))
        patch.setattr(validate_module, "_BATCH", 2)
        whole = check(records)
    assert contents(usual.faces) == contents(whole.faces) and contents(usual.superseded) == contents(whole.superseded)
    assert usual.violations == whole.violations and usual.counts == whole.counts


def test_faces_are_read_where_they_are_asked_for(tmp_path, check):
    """They lie on disk, so each look makes them anew; slices and numbers from the end work as in a list."""
    faces = check(sloth_records(tmp_path, 5)).faces
    keys = [face.source_key for face in faces]
    assert [face.source_key for face in faces] == keys == sorted(keys) and len(faces) == 5
    assert faces[-1].source_key == keys[-1] and [face.source_key for face in faces[1:3]] == keys[1:3]
    with pytest.raises(IndexError):
        faces[5]
