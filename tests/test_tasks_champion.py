"""Which model is in use, and its file, against MLflow itself."""

from dataclasses import replace

import pytest

from schemas.config import Tracking
from schemas.errors import TrackingError
from tasks.champion import CurrentModel, challenger_model, current_model, fetch_keras_model, newest_model
from tasks.mlflow_client import mlflow_client
from tasks.review.aliases import drop, move
from tasks.review.tags import REPORT_HASH
from tasks.tracking import register_candidate
from tasks.workspace import Workspace
from tests.candidates import make_candidate

TRACKING = Tracking()


@pytest.fixture(scope="module")
def candidate(tmp_path_factory):
    return make_candidate(tmp_path_factory.mktemp("candidate"))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def test_before_the_first_candidate_there_is_none(workspace):
    assert current_model(TRACKING, workspace) is None
    assert newest_model(TRACKING, workspace) is None
    assert challenger_model(TRACKING, workspace) is None


def test_the_champion_else_the_newest(candidate, workspace):
    versions = [
        register_candidate(replace(candidate, key=f"{i:016d}", snapshot_id=f"{i}" * 64), TRACKING, workspace)
        for i in range(11)  # as text, version 9 would be newer than version 11
    ]
    newest = CurrentModel("fpenet", "11", None, "10" * 64, versions[10].run_id)
    assert current_model(TRACKING, workspace) == newest
    with mlflow_client(TRACKING, workspace) as client:
        client.set_registered_model_alias("fpenet", "champion", "1")
        assert current_model(TRACKING, workspace) == newest, "an alias moved by hand is not followed"
        move(client, "fpenet", "champion", "2")
    assert current_model(TRACKING, workspace) == CurrentModel("fpenet", "2", "champion", "1" * 64, versions[1].run_id)
    assert newest_model(TRACKING, workspace) == newest


def test_the_challenger_is_the_one_that_a_flow_made_it(candidate, workspace):
    versions = [
        register_candidate(replace(candidate, key=f"{i:016d}", snapshot_id=f"{i}" * 64), TRACKING, workspace)
        for i in range(2)
    ]
    challenger = CurrentModel("fpenet", "1", "challenger", "0" * 64, versions[0].run_id)
    with mlflow_client(TRACKING, workspace) as client:
        move(client, "fpenet", "challenger", "1")
        client.set_registered_model_alias("fpenet", "challenger", "2")
        assert challenger_model(TRACKING, workspace) == challenger
        client.set_model_version_tag("fpenet", "1", REPORT_HASH, "a" * 64)
        assert challenger_model(TRACKING, workspace) == replace(challenger, reported=True)
        drop(client, "fpenet", "challenger")
    assert challenger_model(TRACKING, workspace) is None


def test_its_network_is_fetched_once_and_again_if_what_is_kept_was_damaged(candidate, workspace):
    import keras
    import numpy as np

    import model.network  # noqa: F401 - registers the layers that the file names

    register_candidate(candidate, TRACKING, workspace)
    current = current_model(TRACKING, workspace)
    path = fetch_keras_model(current, TRACKING, workspace)
    images_BHWC = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 1)).astype(np.float32)
    for ours, theirs in zip(
        *(keras.models.load_model(file)(images_BHWC) for file in (candidate.keras_model, path)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    whole, written = path.read_bytes(), path.stat().st_mtime_ns
    assert fetch_keras_model(current, TRACKING, workspace).stat().st_mtime_ns == written
    path.write_bytes(whole[:-100])
    assert fetch_keras_model(current, TRACKING, workspace).read_bytes() == whole


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_file_that_the_registry_lost_or_damaged_is_told(candidate, workspace, damage):
    register_candidate(candidate, TRACKING, workspace)
    (kept,) = workspace.artifacts.rglob("model.keras")
    whole = kept.read_bytes()
    if damage == "gone":
        kept.unlink()
    else:
        kept.write_bytes(whole[:-100])
    current = current_model(TRACKING, workspace)
    with pytest.raises(TrackingError, match="fpenet version 1"):
        fetch_keras_model(current, TRACKING, workspace)
    kept.write_bytes(whole)
    assert fetch_keras_model(current, TRACKING, workspace).read_bytes() == whole
