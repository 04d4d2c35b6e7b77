"""A list read in pieces is the list read at once, however it is written and wherever it is cut."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import AnnotationFileError
from schemas.json_lists import read_list

texts = st.text(max_size=4) | st.sampled_from(['"}]},{"class":', "[{", "\\", "ü,", "}, {"])
leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | texts
keys = st.sampled_from(["class", "id", "a", "ü"])
objects = st.dictionaries(keys, st.lists(st.dictionaries(keys, leaves, max_size=3), max_size=3) | leaves, max_size=3)
layouts = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def read_back(path, text, piece):
    path.write_bytes(text)
    return list(read_list(path, of="things", piece=piece))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(objects | leaves, max_size=30), layout=layouts, piece=st.integers(1, 200))
def test_pieces_make_the_whole(tmp_path, items, layout, piece):
    text = json.dumps(items, **layout).encode()
    assert read_back(tmp_path / "list.json", text, piece) == items


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(objects, min_size=1, max_size=12), layout=layouts, piece=st.integers(1, 100), data=st.data())
def test_a_broken_list_fails_where_a_parser_of_the_whole_fails(tmp_path, items, layout, piece, data):
    text = json.dumps(items, **layout).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    broken = (
        text[:at] + data.draw(st.sampled_from([b"", b"]", b"}", b"{", b",", b'"', b"\xff", b"}, {"])) + text[at + 1 :]
    )
    try:
        expected = orjson.loads(broken)
    except orjson.JSONDecodeError as error:
        with pytest.raises(AnnotationFileError, match="not JSON") as caught:
            read_back(tmp_path / "list.json", broken, piece)
        assert (caught.value.line, caught.value.column) == (error.lineno, error.colno)
    else:
        if isinstance(expected, list):
            assert read_back(tmp_path / "list.json", broken, piece) == expected


def test_pieces_are_short(tmp_path):
    """The parser never sees much more than a piece, though the list is a hundred times as long."""
    items = [{"class": "image", "annotations": [{"class": "a", "x": [n]}, {"class": "b"}]} for n in range(4000)]
    path = tmp_path / "list.json"
    path.write_text(json.dumps(items, indent=1))
    lengths = []

    def parse(text):
        lengths.append(len(text))
        return orjson.loads(text)

    assert list(read_list(path, of="things", parse=parse, piece=2000)) == items
    assert max(lengths) <= 4200 < path.stat().st_size / 100
