"""Annotations of any source as a folder, by command."""

import json

import pytest

from flows.entry.cli import main
from tests.landmark_files import made_faces, wflw_line, write_images


@pytest.fixture
def project(tmp_path):
    """A configuration with a WFLW list of three faces, the second one broken."""
    made = made_faces(3, 98)
    images = write_images(tmp_path / "WFLW_images", made)
    lines = [wflw_line(face) for face in made]
    (tmp_path / "train.txt").write_text("\n".join([lines[0], lines[1].replace(" ", ",", 1), lines[2]]))
    source = {"kind": "wflw", "name": "wflw", "files": [str(tmp_path / "train.txt")], "image_root": str(images)}
    config = {
        "workspace": str(tmp_path / "ws"),
        "num_keypoints": 68,
        "sources": [source],
        "experiment_spec": "x.yaml",
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    return tmp_path


def convert(project, source="wflw"):
    config, out = str(project / "config.yaml"), str(project / "out")
    return main(["annotations", "convert", "--config", config, "--source", source, "--folder", out])


def test_convert_tells_what_it_wrote_and_what_not(project, capsys):
    assert convert(project) == 0
    told = capsys.readouterr().out.replace("\n", " ")
    assert "left out wflw:train.txt:2: malformed: 206 fields" in told
    assert "out: 2 faces in train, 2 pictures; 0 not annotated" in told
    entries = json.loads((project / "out/gt/train.json").read_text())
    assert [entry["filename"] for entry in entries] == ["images/000_0.png", "images/001_2.png"]
    assert {entry["occlusion"] for entry in entries} == {"unknown"}
    assert "P68x" in entries[0]["annotations"][1] and "P69x" not in entries[0]["annotations"][1]


def test_a_source_of_which_nothing_can_be_used_writes_nothing(project, capsys):
    (project / "train.txt").write_text("no face\n" * 3)
    assert convert(project) == 2
    told = capsys.readouterr().err
    assert "none of 3 annotations can be used, and nothing was written: malformed 3. The first: wflw:train" in told
    assert not (project / "out").exists()


def test_of_many_faces_left_out_the_first_are_named(project, capsys):
    lines = (project / "train.txt").read_text().splitlines()
    (project / "train.txt").write_text("\n".join([lines[0], *["no face"] * 8]))
    assert convert(project) == 0
    told = capsys.readouterr().out
    assert told.count("left out wflw:") == 5
    assert "left out 3 more: malformed 3" in told


def test_a_source_that_the_configuration_does_not_have(project, capsys):
    assert convert(project, "wflv") == 2
    assert "no source 'wflv' (did you mean 'wflw'?); there are wflw" in capsys.readouterr().err


def test_import_wants_to_know_the_dataset(project, capsys):
    words = ["--url", "http://127.0.0.1:1", "--title", "x", "--folder", str(project), "--subject-csv", "a.csv"]
    assert main(["label-studio", "import", *words]) == 2
    assert "--dataset: is needed: the same id means another person" in capsys.readouterr().err
