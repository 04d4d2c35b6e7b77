import pytest

from schemas.errors import SpecError
from schemas.sources import SubjectRule
from tasks.subjects import subject_finder


def test_without_a_rule_nobody_is_known():
    assert subject_finder(None)("a.png", {"subject": "set/1"}) is None


@pytest.mark.parametrize(
    ("rule", "fields", "subject"),
    [
        (SubjectRule(field="subject"), {"subject": "w300/1003"}, "w300/1003"),
        (SubjectRule(dataset="w300", field="person"), {"person": " 007 "}, "w300/007"),
        (SubjectRule(dataset="w300", field="person"), {"person": 7}, None),
        (SubjectRule(field="person"), {"person": 7}, "7"),
        (SubjectRule(dataset="w300", field="person"), {"person": ""}, None),
        (SubjectRule(dataset="w300", field="person"), {}, None),
    ],
)
def test_a_field_of_the_task(rule, fields, subject):
    assert subject_finder(rule)("a.png", fields) == subject


def test_a_pattern_on_the_image_s_name():
    find = subject_finder(SubjectRule(dataset="multipie", pattern=r"(?:^|/)(?P<subject>\d{3})_"))
    assert find("images/079_01_01_051_07.png", {}) == "multipie/079"
    assert find("images/face.png", {}) is None


def test_a_table(tmp_path):
    table = tmp_path / "manifest.csv"
    table.write_text("﻿file,subject_id,split\na.png,0079,kpi\nb.png,,train\na.png,0079,kpi\n", encoding="utf-8")
    find = subject_finder(SubjectRule(dataset="set", csv=str(table)))
    assert [find(name, {}) for name in ("a.png", "b.png", "c.png")] == ["set/0079", None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,subject\na,1\n", r"no column 'subject_id' \(did you mean 'subject'\?\); it has file, subject"),
        (b"file,subject_id\na,1\nb,2\na,3\n", r"manifest.csv:4: a has two subjects: 1 and 3"),
        (b"file,subject_id\n\xff\xfe,1\n", "is no CSV in UTF-8"),
        (b"", "no column 'file'"),
    ],
)
def test_a_table_that_can_t_be_used(tmp_path, content, message):
    table = tmp_path / "manifest.csv"
    table.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        subject_finder(SubjectRule(dataset="set", csv=str(table)))


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match=r"manifest.csv: can't be read: No such file"):
        subject_finder(SubjectRule(dataset="set", csv=str(tmp_path / "manifest.csv")))
    with pytest.raises(SpecError, match="can't be read: embedded null byte"):
        subject_finder(SubjectRule(dataset="set", csv="x\0y"))


COMPOSED, DECOMPOSED = "j\u00f6rg", "jo\u0308rg"


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
def test_a_subject_is_the_same_however_its_letters_are_composed(tmp_path, written):
    """A Mac names files with two characters for one letter."""
    table = tmp_path / "manifest.csv"
    name = f"{written}_01.png"
    rules = [
        SubjectRule(field="subject"),
        SubjectRule(dataset="team", pattern=r"(?P<subject>\w+)_"),
        SubjectRule(dataset="team", csv=str(table)),
    ]
    for key in (COMPOSED, DECOMPOSED):
        table.write_text(f"file,subject_id\n{key}_01.png,{written}\n", encoding="utf-8")
        found = {subject_finder(rule)(name, {"subject": f"team/{written}"}) for rule in rules}
        assert found == {f"team/{COMPOSED}"}
