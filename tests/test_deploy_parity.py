import numpy as np
import pytest

from deploy.builders.base import Predictions
from deploy.parity import compare, keras_predictions, measure_latency, require_parity
from deploy.targets import ParityBound
from schemas.errors import GateError, ModelFileError
from schemas.layouts import layout
from tests.networks import crops, sharp_network

BOUND = ParityBound(mean_px=0.05, max_px=0.5)


def predictions(faces: int = 4, num_keypoints: int = 80) -> Predictions:
    random = np.random.default_rng(0)
    points = random.uniform(0, 79, (faces, num_keypoints, 2)).astype(np.float32)
    return Predictions(points, random.uniform(0, 1, (faces, num_keypoints)).astype(np.float32))


def moved(expected: Predictions, face: int | slice, points: list[int], by: tuple[float, float]) -> Predictions:
    keypoints = expected.keypoints_BN2.copy()
    keypoints[face, points] += by
    return expected._replace(keypoints_BN2=keypoints)


def test_a_moved_point_shows_in_its_regions_only():
    expected = predictions()
    parity = compare(expected, moved(expected, 2, [50], (0.3, -0.4)))
    assert parity.faces == 4
    for region, points in layout(80).regions.items():
        has_it = 50 in points
        assert parity.max_px[region] == pytest.approx(0.5 if has_it else 0, abs=1e-5)
        assert parity.mean_px[region] == pytest.approx(0.5 / (4 * len(points)) if has_it else 0, abs=1e-5)
    assert parity.max_confidence == 0


def test_five_of_a_hundred_keypoints_of_all_faces_are_beyond_p95():
    expected, by_px = predictions(), np.linspace(0, 1, 4 * 80, dtype=np.float32).reshape(4, 80)
    found = expected._replace(keypoints_BN2=expected.keypoints_BN2 + np.stack([by_px, 0 * by_px], axis=-1))
    assert compare(expected, found).p95_px["All"] == pytest.approx(0.95, abs=1e-4)


def test_confidences_are_compared_too():
    expected = predictions()
    found = expected._replace(confidence_BN=expected.confidence_BN + np.eye(4, 80, dtype=np.float32) * 0.25)
    parity = compare(expected, found)
    spread = np.abs(expected.confidence_BN - np.median(expected.confidence_BN)).mean()
    assert parity.max_confidence == pytest.approx(0.25)
    assert parity.mean_confidence == pytest.approx(0.25 * 4 / 320 / spread)


@pytest.mark.parametrize("scale", [1.0, 0.04])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, np.nan])
def test_confidences_that_say_nothing_are_beyond_any_bound_however_small_the_network_s_are(scale, value):
    expected = predictions()
    expected = expected._replace(confidence_BN=expected.confidence_BN * np.float32(scale))
    found = expected._replace(confidence_BN=np.full_like(expected.confidence_BN, value * scale))
    with pytest.raises(
        GateError, match=r"x is too far from Keras on 4 faces: confidence \S+ spreads \(at most 0\.99\)"
    ):
        require_parity(compare(expected, found), BOUND, "the engine of x", confidence=0.99)


def test_confidences_that_are_all_alike_have_no_spread_to_be_measured_by():
    expected = predictions()._replace(confidence_BN=np.ones((4, 80), np.float32))
    rounded = expected._replace(confidence_BN=np.nextafter(expected.confidence_BN, 0))
    require_parity(compare(expected, rounded), BOUND, "the engine of x", confidence=0.1)
    with pytest.raises(GateError, match="confidence 1e\\+06 spreads"):
        require_parity(
            compare(expected, rounded._replace(confidence_BN=0 * rounded.confidence_BN)), BOUND, "x", confidence=0.1
        )


def test_within_the_bound_passes_and_beyond_names_region_and_numbers():
    expected = predictions()
    require_parity(compare(expected, moved(expected, 0, [50], (0.0, 0.4))), BOUND, "the engine of x", confidence=0.5)
    with pytest.raises(GateError) as error:
        require_parity(
            compare(expected, moved(expected, 0, [50], (0.0, 0.7))), BOUND, "the engine of x", confidence=0.5
        )
    message = str(error.value)
    assert "the engine of x is too far from Keras on 4 faces" in message
    assert "Mouth mean 0.00875 px (at most 0.05), largest 0.7 px (at most 0.5)" in message
    assert "Eyes" not in message
    chins = moved(expected, slice(None), list(range(17)), (0.1, 0.0))
    with pytest.raises(GateError, match=r"Chin mean 0\.1 px"):
        require_parity(compare(expected, chins), BOUND, "the engine of x", confidence=0.5)


def test_not_a_number_is_beyond_any_bound():
    expected = predictions()
    with pytest.raises(GateError, match="Nose mean inf px"):
        require_parity(
            compare(expected, moved(expected, 1, [30], (np.nan, 0.0))), BOUND, "the engine of x", confidence=0.5
        )


def test_a_confidence_that_is_not_a_number_is_as_far_off_as_one_can_be():
    expected = predictions()
    found = expected._replace(confidence_BN=np.where(np.eye(4, 80), np.nan, expected.confidence_BN))
    parity = compare(expected, found)
    assert (parity.max_confidence, parity.mean_confidence) == (1.0, np.inf)


@pytest.mark.parametrize("found", [predictions(faces=3), predictions(num_keypoints=68)])
def test_predictions_of_other_faces_are_refused(found):
    with pytest.raises(ModelFileError, match="predictions of the same faces"):
        compare(predictions(), found)


def test_no_faces_are_no_parity():
    with pytest.raises(ModelFileError, match="predictions of the same faces"):
        compare(predictions(faces=0), predictions(faces=0))


def test_keras_in_pieces_is_keras():
    network, images = sharp_network(), crops(70)
    found = keras_predictions(network, images)
    assert found.keypoints_BN2.shape == (70, 80, 2)
    expected = network(images[60:], training=False)
    np.testing.assert_allclose(found.keypoints_BN2[60:], expected[0], atol=1e-3)
    np.testing.assert_allclose(found.confidence_BN[60:], expected[1], atol=1e-4)


class Counting:
    """An engine that notes the batches it is given."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        self.batches.append(images_BSSC)
        return predictions(len(images_BSSC))


@pytest.mark.parametrize("batch", [1, 8])
def test_latency_warms_up_and_keeps_its_batch(batch):
    engine = Counting()
    latency = measure_latency(engine, crops(3), batch=batch, warm_up=2, runs=10)
    assert len(engine.batches) == 12
    for images in engine.batches:
        np.testing.assert_array_equal(images, crops(3)[[face % 3 for face in range(batch)]])
    assert (latency.batch, latency.runs) == (batch, 10)
    assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
    assert latency.faces_per_second == pytest.approx(1000 * batch / latency.p50_ms)


def test_slow_first_calls_are_not_counted(monkeypatch):
    """By a clock that only the calls turn."""
    engine, seconds = Counting(), [9.0, 9.0] + [0.001] * 10
    monkeypatch.setattr("deploy.parity.time.perf_counter", lambda: sum(seconds[: len(engine.batches)]))
    latency = measure_latency(engine, crops(1), batch=1, warm_up=2, runs=10)
    assert latency.p99_ms == pytest.approx(1.0)
