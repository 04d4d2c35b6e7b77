import dataclasses

import numpy as np
import pytest

from schemas.config import QualitySettings
from schemas.records import Face
from tasks.quality.label_errors import find_label_errors
from tests.rendered_shapes import rendered_shapes

SETTINGS = QualitySettings()


def some_faces(number=80):
    points, subjects = rendered_shapes(number)
    return [
        Face(
            source_key=f"studio:task/{row + 1}/annotation/{row + 501}",
            image=f"images/{row}.png",
            image_name=f"{row}.png",
            image_sha256=f"{row:064x}",
            frame_width=192,
            frame_height=192,
            subject=subjects[row],
            set_id="all",
            points_N2=points[row, :68].astype(np.float32),
            flags_N=np.full(68, -1, np.int8),
        )
        for row in range(number)
    ]


def broken(face, point, by):
    points = face.points_N2.copy()
    points[point] += by
    return dataclasses.replace(face, points_N2=points)


def test_a_suspect_leads_to_its_task():
    faces = some_faces()
    faces[12] = broken(faces[12], 30, (15, -10))
    found = find_label_errors(faces, SETTINGS)
    first = found.suspects[0]
    assert first.source_key == "studio:task/13/annotation/513"
    assert (first.kind, first.keypoint, first.subject) == ("point-off", "P31", "made/006")
    assert "P31" in first.value and first.hint
    assert found.notes == ("100% of the occlusion flags are unknown and were not judged",)


@pytest.mark.slow
def test_the_order_of_the_faces_changes_nothing():
    faces = some_faces()
    faces[3] = broken(faces[3], 40, (9, 9))
    assert find_label_errors(faces[::-1], SETTINGS) == find_label_errors(faces, SETTINGS)


def test_the_list_is_bounded_and_says_so():
    faces = some_faces()
    everything = find_label_errors(faces, QualitySettings(min_suspicion=0.0)).suspects
    bounded = find_label_errors(faces, QualitySettings(min_suspicion=0.0, max_suspects=5))
    assert bounded.suspects == everything[:5]
    assert bounded.notes[-1] == f"{len(everything)} labels look wrong; the first 5 are listed"
    least = everything[10].score
    assert len(find_label_errors(faces, QualitySettings(min_suspicion=least - 0.001)).suspects) == 11


def test_a_face_without_a_subject_does_not_explain_itself():
    faces = [dataclasses.replace(face, subject=None) for face in some_faces()]
    faces[5] = broken(faces[5], 30, (15, -10))
    assert find_label_errors(faces, SETTINGS).suspects[0].source_key == faces[5].source_key


def test_too_few_faces_are_said_to_be_too_few():
    assert find_label_errors([], SETTINGS).notes == ("no faces",)
    few = find_label_errors(some_faces(10), SETTINGS)
    assert not few.suspects and "10 faces of 5 subjects" in few.notes[0]
