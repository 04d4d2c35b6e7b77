"""What `fpenet label-studio` makes of its options; what it does is in tests/integration."""

import json

import pytest

from flows.entry.cli import build_parser
from flows.entry.label_studio import subject_rule
from schemas.errors import SourceEmptyError, SpecError
from schemas.sloth import image_entry
from schemas.sources import SubjectRule
from tasks.label_studio.folder_import import import_folder
from tests.killed import killed_at_fsync

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


def test_the_token_is_its_owners_though_the_command_is_killed_behind_its_write(tmp_path):
    code = "import sys; from flows.entry.cli import main; main(['label-studio', 'serve', '--data', sys.argv[1]])"
    assert killed_at_fsync(2, code, tmp_path)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("0", "'0' is not a whole number above 0"),
        ("-3", "'-3' is not a whole number above 0"),
        ("many", "'many' is not a whole number above 0"),
        ("6800000", "a face has at most 1000 keypoints, not 6800000"),
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_face_has_some_keypoints_and_not_too_many(action, number, reason, capsys):
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(["label-studio", action, *ACTIONS[action], number])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chunk", "left_out"),
    [
        ({"P1x": 9, "P1y": 9, "P2x": 20, "P2y": 9, "P2ocluded": True}, "train.json#0: unknown-key: P2ocluded"),
        ({"P1x": 9, "P1y": 9}, "train.json#0 P2: wrong-keypoint-count: 1 of 2; missing P2"),
    ],
)
def test_an_import_of_broken_faces_alone_names_the_first_and_asks_no_server(chunk, left_out, tmp_path):
    entry = image_entry("a.png", [[{"class": "FiducialPoints"} | chunk]])
    (tmp_path / "train.json").write_text(json.dumps([entry]))
    rule = SubjectRule(dataset="team", field="subject")
    with pytest.raises(SourceEmptyError, match=f"the first that was left out: {left_out}"):
        import_folder(
            "http://one.test", "token", title="t", folder=tmp_path, num_keypoints=2, subject=rule, gt=["*.json"]
        )
