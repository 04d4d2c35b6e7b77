import hashlib

import cv2
import numpy as np
import pytest

from model.faces import dataset
from model.faces.dataset import SUBJECT_RULE, default_subjects, render_dataset
from schemas.config import MULTIPIE_KPI_IDS
from schemas.records import Flag
from schemas.sloth import load_sloth_file, read
from tasks.subjects import subject_finder

SUBJECTS = ("001", "079")


def small(directory, **changes):
    return render_dataset(
        directory, **{"subjects": SUBJECTS, "images_per_subject": 2, "seed": 4, "workers": 1} | changes
    )


def digest(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(str(p.relative_to(directory)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    directory = tmp_path_factory.mktemp("faces") / "rendered"
    small(directory)
    return directory


def test_the_number_of_processes_does_not_change_a_byte(rendered, tmp_path):
    small(tmp_path / "other", workers=2)
    assert digest(tmp_path / "other") == digest(rendered)


def test_a_killed_run_goes_on_with_the_next_subject(rendered, tmp_path, monkeypatch):
    render_subject = dataset.render_subject

    def killed_at_the_second(directory, subject, order):
        if subject == "079":
            raise KeyboardInterrupt
        render_subject(directory, subject, order)

    monkeypatch.setattr(dataset, "render_subject", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "rendered")

    done = []
    monkeypatch.setattr(dataset, "render_subject", lambda d, s, o: (done.append(s), render_subject(d, s, o)))
    small(tmp_path / "rendered")
    assert done == ["079"]
    assert digest(tmp_path / "rendered") == digest(rendered)


def test_the_ground_truth_is_sloth_json(rendered):
    assert sorted(str(p.relative_to(rendered)) for p in rendered.glob("gt/*/*")) == [
        "gt/multipie-like-kpi/079.json",
        "gt/multipie-like/001.json",
    ]
    subject_of = subject_finder(SUBJECT_RULE)
    for path in sorted(rendered.glob("gt/*/*.json")):
        entries = load_sloth_file(path)
        assert len(entries) == 2
        for entry in entries:
            assert subject_of(entry["filename"], entry) == f"multipie-like/{path.stem}"
            check_entry(rendered, entry)


def check_entry(rendered, entry):
    faces, problems = read(entry, num_keypoints=80, flags_known=True)
    assert not problems and len(faces) == 1
    box, keypoints = entry["annotations"]
    assert box["class"] == "FaceBbox" and keypoints["class"] == "FiducialPoints"
    assert box["tool-version"] == keypoints["tool-version"] == "1.0"
    assert all(value is True for key, value in keypoints.items() if key.endswith("occluded"))
    image = cv2.imread(str(rendered / entry["filename"]), cv2.IMREAD_UNCHANGED)
    assert image.shape == (192, 192)
    points, flags = faces[0].points_N2, faces[0].flags_N
    assert (points >= 0).all() and (points <= 191).all()
    assert np.allclose(points, np.round(points, 3), atol=1e-4)
    assert set(flags) <= {Flag.VISIBLE, Flag.OCCLUDED}
    assert faces[0].tight_box.inside(192, 192)


@pytest.mark.parametrize("number", [68, 104])
def test_layouts_share_pictures_and_points(rendered, tmp_path, number):
    small(tmp_path / "other", num_keypoints=number)
    images = {path.name: path.read_bytes() for path in (rendered / "images").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "other" / "images").iterdir()} == images
    one, other = (
        load_sloth_file(d / "gt/multipie-like/001.json")[0]["annotations"][1] for d in (rendered, tmp_path / "other")
    )
    assert f"P{number}x" in other and f"P{number + 1}x" not in other
    shared = min(number, 80)
    assert [one[f"P{k}x"] for k in range(1, shared + 1)] == [other[f"P{k}x"] for k in range(1, shared + 1)]


def test_the_default_subjects_include_every_kpi_subject():
    assert {f"{i:03d}" for i in MULTIPIE_KPI_IDS} <= set(default_subjects(60))
    assert len(set(default_subjects(60))) == 60
    with pytest.raises(ValueError, match="must be 23 to 999, not 22"):
        default_subjects(22)


def test_progress_counts_photographs(tmp_path):
    calls = []
    small(tmp_path / "rendered", images_per_subject=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_keypoints": 10}, "68, 80, 104 keypoints, not 10"),
        ({"subjects": ["79"]}, "three digits, not '79'"),
        ({"subjects": []}, "at least one subject"),
        ({"images_per_subject": 0}, "1 to 2717, not 0"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        small(tmp_path / "rendered", **changes)
