"""The configurations of `examples/`: each loads as it stands, and a team's goes with the files that it names."""

from pathlib import Path

import pytest

from deploy.devices import load_devices
from deploy.targets import load_targets
from flows.candidate import load_experiment
from schemas.config import load_config
from schemas.layouts import layout
from schemas.promotion_rules import load_rules
from tasks.subjects import subject_finder

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """A folder with `examples/`, and what the configurations ask of the environment."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    for name in ("LABEL_STUDIO_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, f"https://{name.lower().replace('_', '-')}.example")
    monkeypatch.setenv("FACES", "faces")


@pytest.mark.parametrize("name", ["demo", "real-faces", "team"])
def test_a_configuration_loads_with_its_spec_rules_and_targets(name):
    spec = (EXAMPLES / "real-faces-spec.yaml").read_text()
    Path("faces-spec.yaml").write_text(spec.replace("num_keypoints: 68", "num_keypoints: 80"))  # as README.md says
    config = load_config(f"examples/{name}.yaml")
    assert load_experiment(config).num_keypoints == config.num_keypoints
    assert set(load_rules(Path(config.promotion_rules)).allowance_crop_px.regions) >= set(
        layout(config.num_keypoints).regions
    )
    assert set(config.targets) <= set(load_targets())


def test_a_team_builds_for_all_its_devices_and_keeps_its_versions_on_a_server():
    config = load_config("examples/team.yaml")
    devices = load_devices(EXAMPLES / config.devices)
    assert {device.target for device in devices.values()} == set(config.targets)
    assert config.tracking.uri == "https://mlflow-tracking-uri.example"


@pytest.mark.parametrize(
    ("image", "subject"),
    [
        ("p17_0001.png", "faces/p17"),
        ("team_a/p17_0001.png", "faces/p17"),
        ("s3://bucket/face_crops/2024/p03_1_b.png", "faces/p03"),
        ("face_crops/p03.png", None),
    ],
)
def test_the_subject_of_a_teams_image_is_in_its_name_and_not_in_its_folders(image, subject):
    (source,) = load_config("examples/team.yaml").sources
    assert subject_finder(source.subject)(image, {}) == subject
