"""What is about a subject, and what only looks like it."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.forget.traces import Traces

MARK = "redacted/0123456789abcdef"
HASH = "ab" * 32
TRACES = Traces(
    "team/7", MARK, images=frozenset({HASH}), names=frozenset({"a/7_1.png"}), records=frozenset({"ls:task/17"})
)


@pytest.mark.parametrize(
    "text",
    ["team/7", "faces of team/7.", "'team/7'", '"team/7",', "x: team/7\n", "images/team/7/1.png", "team/7, team/70"],
)
def test_the_subject_is_found_as_a_word(text):
    assert TRACES.within(text)
    assert not TRACES.within(TRACES.redacted_text(text))


@pytest.mark.parametrize(
    "text", ["team/70", "team/7-b", "team/7.5", "big-team/7", "my.team/7", "steam/7", "team/07", "team", "7"]
)
def test_other_subjects_are_left_alone(text):
    assert not TRACES.within(text)
    assert TRACES.redacted_text(text) == text
    assert TRACES.redacted_lines(text) == text


@given(st.text(alphabet="team/70-._ \n\"'", max_size=30))
def test_redacting_is_done_once(text):
    once = TRACES.redacted_lines(text)
    assert not TRACES.pattern.search(once)
    assert TRACES.redacted_lines(once) == once


@pytest.mark.parametrize(
    "text",
    ["a/7_1.png", "Too dark: a/7_1.png.", "images/a/7_1.png, a/7_10.png", "of ls:task/17", "ls:task/17/annotation/4"],
)
def test_lines_that_name_a_frame_or_a_record_are_gone(text):
    assert TRACES.within(text)
    assert TRACES.redacted_lines(f"{text}\na/7_10.png 0.5\nteam/7 2\n") == f"a/7_10.png 0.5\n{MARK} 2\n"


@pytest.mark.parametrize("text", ["a/7_10.png", "a/7_1.png.json", "aa/7_1.png", "ls:task/170", "ls:task/17.5"])
def test_lines_that_name_other_frames_and_records_stay(text):
    assert not TRACES.within(text)
    assert TRACES.redacted_lines(f"{text}\n") == f"{text}\n"


def test_json_keeps_its_form():
    value = {
        "faces": [{"name": "a/7_1.png", "error": 2.0}, {"name": "a/8_1.png", "of": "team/7"}, {"name": "a/9_1.png"}],
        "by_subject": {"team/7": {"error": 2.0}, "team/70": {"error": 1.0}, "team/7 or team/8": {"error": 3.0}},
        "subjects": ["team/7", "team/70"],
        "worst": "a/7_1.png",
        "note": "team/7 was held out",
        "nested": [[{"record": "ls:task/17"}, 3], None, True],
    }
    assert TRACES.redacted_json(value) == {
        "faces": [{"name": "a/9_1.png"}],
        "by_subject": {MARK: None, "team/70": {"error": 1.0}, f"{MARK} or team/8": {"error": 3.0}},
        "subjects": [MARK, "team/70"],
        "worst": MARK,
        "note": f"{MARK} was held out",
        "nested": [[3], None, True],
    }


def test_annotations_of_its_records_are_told_too():
    value = {
        "/data/upload/3/0a1b2c3d-a/7_1.png": 1,
        "0a1b2c3d-7_1.png": 2,
        "ls:task/17/annotation/4": 3,
        "ls:task/170": 4,
    }
    assert TRACES.redacted_json([{"record": "ls:task/17/annotation/4"}, {"record": "ls:task/170"}]) == [
        {"record": "ls:task/170"}
    ]
    assert set(TRACES.redacted_json(value)) == {MARK, "0a1b2c3d-7_1.png", "ls:task/170"}


def test_a_table_loses_its_rows_and_keeps_its_columns():
    table = pa.table(
        {
            "subject": ["team/7", "team/70", None, "team/8", "team/8"],
            "image_sha256": ["00", "01", HASH, "02", "03"],
            "value": ["", "", "", "seen beside team/7", None],
            "points": [[0.0], [1.0], [2.0], [3.0], [4.0]],
        }
    )
    redacted = TRACES.redacted_table(table)
    assert redacted.schema == table.schema
    assert redacted["points"].to_pylist() == [[1.0], [3.0], [4.0]]
    assert redacted["value"].to_pylist() == ["", f"seen beside {MARK}", None]
    assert TRACES.redacted_table(redacted).equals(redacted)
    assert TRACES.redacted_table(table.slice(0, 0)).schema == table.schema
