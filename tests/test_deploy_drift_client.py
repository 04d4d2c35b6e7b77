"""The recorder that runs on devices: what it counts, what it writes, and that nothing stops the device."""

import ast
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import deploy.drift_client
from deploy.drift_client import FLUSH_S, KEPT_FILES, SHAPE, WAITING_HOURS, DriftRecorder, Profile
from model.shape_model import complex_shapes
from schemas.layouts import layout
from schemas.storage import sha256_file
from tests.drift_profiles import NUM_KEYPOINTS, some_predictions, some_profile, some_shapes

HOUR_S = 3600.0
SOURCE = Path(deploy.drift_client.__file__)


class Clock:
    """2026-11-22T10:00 UTC, moved by hand."""

    def __init__(self):
        self.now = 1795341600.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "profile.npz"
    some_profile(path)
    return path


@pytest.fixture
def recorder(profile, tmp_path, clock):
    return DriftRecorder(str(profile), str(tmp_path / "records"), clock=clock)


def written(tmp_path):
    return {path.name[:13]: json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")}


def test_the_file_runs_alone_on_an_old_python():
    """JetPack 4 has Python 3.6: no later syntax, and nothing but the standard library and NumPy."""
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= {*sys.stdlib_module_names, "numpy"} - {"__future__"}


def test_distances_are_those_of_the_shape_model(profile):
    seen = some_predictions(50, seed=1, spread=2.0)
    values = Profile(str(profile)).values(*seen)
    expected = some_shapes().distance(complex_shapes(seen.keypoints_BN2))
    np.testing.assert_allclose(values[SHAPE], expected, rtol=1e-4)
    eyes = list(layout(NUM_KEYPOINTS).regions["Eyes"])
    np.testing.assert_allclose(values["confidence/Eyes"], seen.confidence_BN[:, eyes].mean(axis=1))


def test_a_profile_is_small_and_the_same_bytes_again(profile, tmp_path):
    some_profile(tmp_path / "again.npz")
    assert sha256_file(tmp_path / "again.npz") == sha256_file(profile)
    assert profile.stat().st_size < 200_000


def test_an_hour_holds_counts_and_nothing_else(recorder, tmp_path):
    recorder.record(*some_predictions(40))
    recorder.record(*some_predictions(2, seed=1))
    recorder.close()
    (hour,) = written(tmp_path).values()
    assert set(hour) == {"format", "profile", "model", "hour", "faces", "unusable", "counts"}
    assert (hour["hour"], hour["faces"], hour["model"]) == ("2026-11-22T10", 42, "fpenet/3")
    assert set(hour["counts"]) == set(recorder.profile.edges)
    for name, counts in hour["counts"].items():
        assert len(counts) == len(recorder.profile.edges[name]) + 1
        assert sum(counts) == 42


def test_what_is_no_number_is_unusable(recorder, tmp_path):
    keypoints, confidence = some_predictions(5)
    keypoints[1, 3, 0], confidence[2, 0] = np.nan, np.inf
    recorder.record(keypoints, confidence)
    recorder.close()
    (hour,) = written(tmp_path).values()
    assert (hour["faces"], hour["unusable"]) == (3, 2)


def test_no_faces_and_points_that_fall_together_are_counted_as_they_are(recorder):
    recorder.record(np.empty((0, NUM_KEYPOINTS, 2)), np.empty((0, NUM_KEYPOINTS)))
    recorder.record(np.ones((1, NUM_KEYPOINTS, 2)), np.ones((1, NUM_KEYPOINTS)))
    recorder.close()
    assert recorder.failure is None


def test_predictions_of_another_model_are_refused(recorder):
    with pytest.raises(ValueError, match="the profile is of fpenet/3 with 68 keypoints"):
        recorder.record(np.zeros((1, 80, 2)), np.zeros((1, 80)))


def test_it_writes_every_minute_and_at_the_hour(recorder, tmp_path, clock):
    recorder.record(*some_predictions(3))
    assert not (tmp_path / "records").exists()
    clock.now += 61
    recorder.record(*some_predictions(4))
    assert [hour["faces"] for hour in written(tmp_path).values()] == [7]
    clock.now += HOUR_S
    recorder.record(*some_predictions(5))
    recorder.close()
    assert {name: hour["faces"] for name, hour in written(tmp_path).items()} == {
        "2026-11-22T10": 7,
        "2026-11-22T11": 5,
    }


def test_a_new_process_goes_on_within_the_hour(profile, recorder, tmp_path, clock):
    recorder.record(*some_predictions(3))
    recorder.close()
    again = DriftRecorder(str(profile), str(tmp_path / "records"), clock=clock)
    again.record(*some_predictions(4))
    again.close()
    assert [hour["faces"] for hour in written(tmp_path).values()] == [7]


@pytest.mark.parametrize("damage", [b"", b'{"profile": "', b"[]", b'{"profile": 1, "counts": {"shape": [1]}}'])
def test_a_damaged_file_of_the_hour_is_begun_anew(profile, recorder, tmp_path, clock, damage):
    recorder.record(*some_predictions(3))
    recorder.close()
    (path,) = (tmp_path / "records").glob("*.json")
    path.write_bytes(damage)
    again = DriftRecorder(str(profile), str(tmp_path / "records"), clock=clock)
    again.record(*some_predictions(4))
    again.close()
    assert [hour["faces"] for hour in written(tmp_path).values()] == [4]


def test_another_model_counts_into_a_file_of_its_own(recorder, tmp_path, clock):
    recorder.record(*some_predictions(3))
    recorder.close()
    other = some_profile(tmp_path / "other.npz", model="fpenet/4")
    second = DriftRecorder(str(tmp_path / "other.npz"), str(tmp_path / "records"), clock=clock)
    second.record(*some_predictions(4))
    second.close()
    files = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    assert sorted((file["model"], file["faces"]) for file in files) == [("fpenet/3", 3), ("fpenet/4", 4)]
    assert other.digest != recorder.profile.digest


def of_model(tmp_path):
    files = [json.loads(path.read_text()) for path in sorted((tmp_path / "records").glob("*.json"))]
    return sorted((file["model"], file["hour"][-2:], file["faces"]) for file in files)


def test_a_profile_that_replaces_the_file_is_counted_by_without_a_new_process(profile, tmp_path, clock):
    source = tmp_path / "profile.npz"
    shutil.copyfile(profile, source)
    recorder = DriftRecorder(str(source), str(tmp_path / "records"), clock=clock)
    recorder.record(*some_predictions(3))
    some_profile(source, model="fpenet/4")
    recorder.record(*some_predictions(4))
    clock.now += FLUSH_S
    recorder.record(*some_predictions(5))
    clock.now += HOUR_S
    recorder.record(*some_predictions(6))
    recorder.close()
    assert of_model(tmp_path) == [("fpenet/3", "10", 7), ("fpenet/4", "10", 5), ("fpenet/4", "11", 6)]
    assert (recorder.profile.model, recorder.failure) == ("fpenet/4", None)


def test_what_the_disk_refused_keeps_the_profile_that_it_was_counted_by(profile, tmp_path, clock):
    source, folder = tmp_path / "profile.npz", tmp_path / "records"
    shutil.copyfile(profile, source)
    folder.write_text("a file in the way")
    recorder = DriftRecorder(str(source), str(folder), clock=clock)
    recorder.record(*some_predictions(3))
    some_profile(source, model="fpenet/4")
    clock.now += FLUSH_S
    recorder.record(*some_predictions(4))
    assert recorder.failure
    folder.unlink()
    recorder.close()
    assert of_model(tmp_path) == [("fpenet/3", "10", 3), ("fpenet/4", "10", 4)]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no profile", None])
def test_a_profile_that_can_t_be_read_stops_nothing(profile, tmp_path, clock, content):
    source = tmp_path / "profile.npz"
    shutil.copyfile(profile, source)
    recorder = DriftRecorder(str(source), str(tmp_path / "records"), clock=clock)
    source.unlink()
    if content is not None:
        source.write_bytes(content)
    clock.now += FLUSH_S
    recorder.record(*some_predictions(3))
    assert of_model(tmp_path) == [("fpenet/3", "10", 3)]
    assert str(source) in recorder.failure
    shutil.copyfile(profile, source)
    clock.now += FLUSH_S
    recorder.record(*some_predictions(3))
    assert recorder.failure is None


def test_a_profile_of_other_keypoints_refuses_nothing_that_was_taken_before(profile, tmp_path, clock):
    source = tmp_path / "profile.npz"
    shutil.copyfile(profile, source)
    recorder = DriftRecorder(str(source), str(tmp_path / "records"), clock=clock)
    with np.load(source) as stored:
        told = dict(stored)
    np.savez(source, **told | {"mean_N2": told["mean_N2"][:-1], "model": np.array("fpenet/4")})
    clock.now += FLUSH_S
    recorder.record(*some_predictions(3))
    assert recorder.failure == "fpenet/4 has 67 keypoints; start the recorder anew"


def test_a_disk_that_refuses_stops_nothing_and_loses_nothing_for_a_day(recorder, tmp_path, clock):
    folder = tmp_path / "records"
    folder.write_text("a file in the way")
    for _ in range(3 * WAITING_HOURS):
        recorder.record(*some_predictions(1))
        clock.now += HOUR_S
    recorder.flush()
    assert recorder.failure
    folder.unlink()
    recorder.flush()
    assert recorder.failure is None
    assert len(written(tmp_path)) == WAITING_HOURS


def test_a_device_that_nobody_asks_does_not_fill_up(recorder, tmp_path):
    (tmp_path / "records").mkdir()
    for number in range(KEPT_FILES + 5):
        (tmp_path / "records" / f"2025-01-{number:06d}.json").write_text("{}")
    recorder.record(*some_predictions(1))
    recorder.close()
    assert len(list((tmp_path / "records").glob("*.json"))) == KEPT_FILES
    assert "2026-11-22T10" in written(tmp_path)


def test_a_clock_that_is_set_back_while_the_disk_refuses_stops_nothing(recorder, tmp_path, clock):
    folder = tmp_path / "records"
    folder.write_text("a file in the way")
    for _ in range(WAITING_HOURS):
        recorder.record(*some_predictions(1))
        clock.now += HOUR_S
    clock.now -= 30 * 24 * HOUR_S
    recorder.record(*some_predictions(2))
    folder.unlink()
    recorder.close()
    hours = written(tmp_path)
    assert len(hours) == WAITING_HOURS
    assert hours[min(hours)]["faces"] == 2


def test_a_clock_that_was_set_back_does_not_stop_the_writing(recorder, tmp_path, clock):
    clock.now -= 5 * HOUR_S
    recorder.record(*some_predictions(1))
    assert [hour["hour"] for hour in written(tmp_path).values()] == ["2026-11-22T05"]
