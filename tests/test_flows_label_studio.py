"""What `fpenet label-studio` makes of its options; what it does is in tests/integration."""

import pytest

from flows.entry.cli import build_parser
from flows.entry.label_studio import subject_rule
from schemas.errors import SpecError
from schemas.sources import SubjectRule

THERE = ["--url", "http://one.test", "--folder", "somewhere"]
ACTIONS = {
    "init": ["--url", "http://one.test", "--title", "t", "--keypoints"],
    "import": [*THERE, "--title", "t", "--subject-field", "subject", "--num-keypoints"],
    "export": [*THERE, "--project", "7", "--num-keypoints"],
}


def rule_of(*words):
    return subject_rule(build_parser().parse_args(["label-studio", "export", *THERE, "--project", "7", *words]))


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ([], SubjectRule(field="subject")),
        (["--dataset", "team"], SubjectRule(dataset="team", field="subject")),
        (["--subject-field", "who"], SubjectRule(field="who")),
        (["--dataset", "team", "--subject-csv", "a.csv"], SubjectRule(dataset="team", csv="a.csv")),
        (
            ["--dataset", "team", "--subject-pattern", r"(?P<subject>\d+)_"],
            SubjectRule(dataset="team", pattern=r"(?P<subject>\d+)_"),
        ),
    ],
)
def test_an_export_finds_subjects_as_an_import_does(words, rule):
    assert rule_of(*words) == rule


def test_ids_need_a_dataset():
    with pytest.raises(SpecError, match="--dataset: is needed"):
        rule_of("--subject-csv", "a.csv")


@pytest.mark.parametrize("number", ["0", "-3", "many"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_number_of_keypoints_is_above_0(action, number, capsys):
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(["label-studio", action, *ACTIONS[action], number])
    assert end.value.code == 2
    assert f"'{number}' is not a whole number above 0" in capsys.readouterr().err
