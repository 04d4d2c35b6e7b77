"""The quick reader of Label Studio tasks gives what the whole reader gives, or leaves the task to it."""

from __future__ import annotations

import copy

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.label_studio import read
from schemas.label_studio_quick import quick_reader
from tests.label_studio_faces import region, some_task
from tests.quick_readers import assert_same_faces

N = 5


def assert_same_as_read(task, flags_known=True) -> bool:
    """True if the quick reader read it."""
    payload = orjson.loads(orjson.dumps(task))
    quick = quick_reader(N)(payload, flags_known)
    if quick is not None:
        assert_same_faces(quick, read(payload, num_keypoints=N, flags_known=flags_known))
    return quick is not None


@st.composite
def sound_tasks(draw):
    """Tasks of one to three annotations."""
    task = some_task(N, occluded=tuple(draw(st.sets(st.integers(1, N)))))
    for position in range(draw(st.integers(0, 2))):
        other = copy.deepcopy(task["annotations"][0]) | {"id": 50 + position}
        task["annotations"].append(other | draw(fields))
    for annotation in task["annotations"]:
        if draw(st.booleans()):
            annotation["result"] = draw(st.permutations(annotation["result"]))
        for entry in annotation["result"]:
            entry["value"]["x"] = draw(st.floats(-10, 110) | st.integers(0, 100))
    task["data"] |= draw(st.dictionaries(st.sampled_from(["name", "session", "camera"]), st.text(max_size=3)))
    return task


fields = st.fixed_dictionaries(
    {},
    optional={
        "ground_truth": st.booleans() | st.none(),
        "was_cancelled": st.sampled_from([False, None]),
        "completed_by": st.integers(0, 9) | st.none() | st.just({"id": 4, "email": "a@example.test"}),
        "updated_at": st.text(max_size=3),
    },
)
values = st.sampled_from(
    [True, False, None, 0, 1, 2.5, -0.0, 1.0, 90, 360, 10**4, 10**18, -1e300, "P1", "", [], ["P2"], ["occluded"],
     ["P1", "P2"], ["FaceBbox"], {}, {"P3": 1}, {"id": 4}, "rectanglelabels", "choices", "relation", "2026"]
)  # fmt: skip
keys = {
    "task": st.sampled_from(["id", "data", "annotations"]),
    "annotation": st.sampled_from(
        ["id", "result", "was_cancelled", "ground_truth", "completed_by", "created_at", "updated_at"]
    ),
    "region": st.sampled_from(["id", "type", "original_width", "original_height", "image_rotation", "value"]),
    "value": st.sampled_from(
        ["x", "y", "width", "height", "rotation", "keypointlabels", "rectanglelabels", "choices"]
    ),
}


def _at(draw, task, level):
    """A random object of the task at one of the levels of `keys`; None where damage has left none."""
    if level == "task":
        return task
    annotations = task.get("annotations")
    annotation = draw(st.sampled_from(annotations)) if isinstance(annotations, list) and annotations else None
    if level == "annotation" or not isinstance(annotation, dict):
        return annotation
    result = annotation.get("result")
    found = draw(st.sampled_from(result)) if isinstance(result, list) and result else None
    return found if level == "region" or not isinstance(found, dict) else found.get("value")


@st.composite
def damaged_tasks(draw):
    """Sound tasks with a few values replaced, taken away or doubled, at every level."""
    task = draw(sound_tasks())
    for _ in range(draw(st.integers(1, 3))):
        level = draw(st.sampled_from(["task", "annotation", "region", "region", "value", "value", "double"]))
        if level == "double":
            annotation = _at(draw, task, "annotation")
            if isinstance(annotation, dict) and isinstance(result := annotation.get("result"), list) and result:
                result.append(copy.deepcopy(draw(st.sampled_from(result))))
        elif isinstance(found := _at(draw, task, level), dict):
            key = draw(keys[level])
            if draw(st.integers(0, 3)):
                found[key] = draw(values)
            else:
                found.pop(key, None)
    return task


@given(task=sound_tasks(), flags_known=st.booleans())
def test_sound_tasks_are_read_quickly_and_the_same(task, flags_known):
    assert assert_same_as_read(task, flags_known)


@given(task=damaged_tasks(), flags_known=st.booleans())
@example(task=[], flags_known=True)
@example(task={"data": {}, "annotations": "none"}, flags_known=True)
def test_damaged_tasks_are_read_the_same_or_left_to_the_whole_reader(task, flags_known):
    assert_same_as_read(task, flags_known)


def with_change(change, occluded=()):
    task = some_task(N, occluded=occluded)
    change(task)
    return task


@pytest.mark.parametrize(
    "change",
    [
        lambda t: region(t, "P2")["value"].update(x=True),
        lambda t: region(t, "P2")["value"].update(x=10_001),
        lambda t: region(t, "P2")["value"].update(keypointlabels={"P2": 1}),
        lambda t: region(t, "P2").update(image_rotation=90),
        lambda t: region(t, "P2").update(image_rotation=False),
        lambda t: region(t, "P2").update(original_width=640),
        lambda t: region(t, "P2").update(id=2),
        lambda t: region(t, "FaceBbox", "rectanglelabels")["value"].update(rotation=1),
        lambda t: region(t, "FaceBbox", "rectanglelabels")["value"].update(width=0),
        lambda t: t["annotations"][0].update(was_cancelled=True),
        lambda t: t["annotations"][0].update(was_cancelled=0),
        lambda t: t["annotations"].clear(),
    ],
)
def test_other_forms_are_left_to_the_whole_reader(change):
    assert assert_same_as_read(some_task(N))
    assert not assert_same_as_read(with_change(change))


def test_a_choice_that_belongs_to_no_keypoint_is_left_to_the_whole_reader():
    task = with_change(lambda t: region(t, "P2", "choices").update(id="FaceBbox"), occluded=(2,))
    assert not assert_same_as_read(task)


def test_keypoints_above_n_are_left_to_the_whole_reader():
    """They are noted, and notes are its business."""
    assert not assert_same_as_read(some_task(N + 2))
