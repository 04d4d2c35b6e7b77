"""What differs between two sets of faces."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import SplitPolicy
from schemas.geometry import Box
from schemas.records import Face
from tasks.changes import Changes, FaceChange, Kind, changes_since, compare
from tasks.snapshot import load_snapshot, take_snapshot
from tasks.validate import Counts, Validation

N = 3


def face(number: int, **changes) -> Face:
    points_N2 = np.array([[1, 2], [30, 4], [15, 20]], np.float32) + number
    fields = {
        "source_key": f"ls:task/{number}/annotation/1",
        "image": f"{number}.png",
        "image_name": f"{number}.png",
        "image_sha256": f"{number:064x}",
        "frame_width": 640,
        "frame_height": 480,
        "subject": f"d/{number % 5}",
        "set_id": "all",
        "points_N2": points_N2,
        "flags_N": np.zeros(N, np.int8),
        "tight_box": Box(0.1, 2, 30, 30),
    }
    return Face(**fields | changes)


def moved(original: Face, keypoint: int, dx: float, dy: float) -> Face:
    points_N2 = original.points_N2.copy()
    points_N2[keypoint] += (dx, dy)
    return replace(original, points_N2=points_N2)


def counts(changes: Changes) -> dict[Kind, int]:
    return {kind: sum(change.kind is kind for change in changes.faces) for kind in Kind}


numbers = st.sets(st.integers(0, 60), max_size=30)


@given(numbers, st.randoms(use_true_random=False))
def test_the_same_faces_in_any_order_by_anybody_are_no_change(chosen, random):
    faces = [face(number) for number in sorted(chosen)]
    same = [replace(f, annotator="someone else", annotated_at="2031-01-01", image="/elsewhere") for f in faces]
    random.shuffle(same)
    assert compare(faces, same) == Changes(len(faces), len(faces), ())


@given(kept=numbers, removed=numbers, added=numbers, edited=numbers)
def test_every_face_that_was_added_removed_or_edited_counts_once_whichever_way_one_looks(
    kept, removed, added, edited
):
    removed, added = removed - kept, added - kept - removed
    before = [face(number) for number in sorted(kept | removed)]
    after = [
        moved(face(number), 0, 3, 4) if number in edited & kept else face(number) for number in sorted(kept | added)
    ]
    forward, backward = compare(before, after), compare(after, before)
    expected = {Kind.ADDED: len(added), Kind.REMOVED: len(removed), Kind.CHANGED: len(edited & kept)}
    assert counts(forward) == expected
    assert len(forward) == sum(expected.values())
    assert forward.share == len(forward) / max(1, len(before))
    assert counts(backward) == expected | {Kind.ADDED: len(removed), Kind.REMOVED: len(added)}
    assert {c.source_key for c in forward.faces} == {c.source_key for c in backward.faces}
    assert all(c.furthest_px == 5 for c in forward.faces + backward.faces if c.kind is Kind.CHANGED)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda f: moved(moved(f, 1, 0, 0.25), 2, 3, 4), {"moved": 2, "furthest_px": 5.0}),
        (lambda f: replace(f, flags_N=np.array([1, 0, -1], np.int8)), {"flags": 2}),
        (lambda f: replace(f, tight_box=None, source_key="ls:task/1/annotation/2"), {"boxes": True}),
        (lambda f: replace(f, outer_box=Box(0, 0, 40, 40)), {"boxes": True}),
        (
            lambda f: replace(
                f, points_N2=np.ones((4, 2), np.float32), flags_N=np.zeros(4, np.int8), source_key="ls:task/1/other"
            ),
            {"moved": 4, "flags": 4},
        ),
        (lambda f: replace(f, source_key="ls:task/1/annotation/2"), None),
    ],
)
def test_what_of_a_face_changed(edit, told):
    before = face(1)
    after = edit(before)
    changes = compare([before], [after]).faces
    assert changes == (() if told is None else (FaceChange(Kind.CHANGED, after.source_key, **told),))


def test_another_person_in_the_same_image_is_another_face():
    changes = compare([face(1)], [replace(face(1), subject="d/other")])
    assert counts(changes) == {Kind.ADDED: 1, Kind.REMOVED: 1, Kind.CHANGED: 0}


def test_of_equal_faces_those_are_new_that_there_are_more_of():
    twice = [face(1), replace(face(1), source_key="ls:task/1/annotation/2")]
    assert counts(compare(twice[:1], twice)) == {Kind.ADDED: 1, Kind.REMOVED: 0, Kind.CHANGED: 0}


def test_several_unknown_people_in_an_image_are_told_apart_by_where_they_are():
    left, right = (
        replace(face(1), subject=None, source_key=f"s:0/face{i}", points_N2=face(1).points_N2 + 100 * i)
        for i in range(2)
    )
    nudged = moved(replace(right, source_key="s:0/face0"), 0, 0, 1)
    newcomer = replace(face(1), subject=None, source_key="s:0/face1", points_N2=face(1).points_N2 + 300)
    changes = compare([left, right], [nudged, newcomer, replace(left, source_key="s:0/face2")])
    assert changes.faces == (
        FaceChange(Kind.CHANGED, "s:0/face0", moved=1, furthest_px=1.0),
        FaceChange(Kind.ADDED, "s:0/face1"),
    )


def test_since_a_snapshot_as_between_the_faces_themselves(tmp_path):
    before = [face(number) for number in range(20)]
    validation = Validation(before, [], [], Counts(20, 20, 0, 0, 0))
    policy = SplitPolicy(kpi_subjects=["d/0"])
    output = take_snapshot(validation, policy=policy, num_keypoints=N, snapshots=tmp_path, provenance={})
    snapshot = load_snapshot(output.directory)
    assert changes_since(snapshot, before) == Changes(20, 20, ())
    after = [moved(before[0], 1, 1, 0), *before[2:], face(50)]
    found = changes_since(snapshot, after)
    assert found == compare(before, after)
    assert {source: dict(kinds) for source, kinds in found.by_source().items()} == {"ls": dict.fromkeys(Kind, 1)}
    assert found.share == 3 / 20
