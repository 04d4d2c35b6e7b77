"""What a network tells about unlabelled faces."""

import numpy as np
import pytest

from model.labelling_signals import FaceSignals, describer, predicting, read_signals
from schemas.layouts import layout

N = 68
SIZE = 48


def brightest(images_BHWC):
    """A 'network' that puts every keypoint on the centre of brightness, whichever way it looks."""
    weight = images_BHWC[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: images_BHWC.shape[1], : images_BHWC.shape[2]]
    total = weight.sum(axis=(1, 2))
    xy = np.stack([(weight * grid).sum(axis=(1, 2)) / total for grid in (columns, rows)], axis=-1)
    points = np.repeat(xy[:, None], N, axis=1)
    return points, np.ones(points.shape[:2]), total[:, None]


def stubborn(images_BHWC):
    """Keypoints in the upper left, whatever it sees."""
    points = np.full((len(images_BHWC), N, 2), 5.0)
    return points, np.ones(points.shape[:2]), np.zeros((len(images_BHWC), 1))


def spot(x, y):
    image = np.zeros((SIZE, SIZE, 1), np.float32)
    image[y - 1 : y + 2, x - 1 : x + 2] = 200.0
    return image


def test_a_network_that_follows_the_face_agrees_with_itself():
    images = np.stack([spot(20, 24), spot(30, 18)])
    found = read_signals(brightest, [images[:1], images[1:]])
    assert len(found) == 2
    np.testing.assert_allclose(found.points_FN2[:, 0], [[20, 24], [30, 18]])
    assert (found.disagreement_F < 0.2).all()  # resampling moves the centre a little
    assert len(found.of_faces(np.array([True, False]))) == 1


def test_a_network_that_ignores_the_face_contradicts_itself():
    found = read_signals(stubborn, [np.stack([spot(20, 24)])])
    # Moved back, the point is at 5, 42 (mirrored), and elsewhere for the four others: by hand for the mirror alone
    assert found.disagreement_F[0] > 10


def test_mirrored_keypoints_are_named_as_in_the_face_given():
    flip = list(layout(N).flip)

    def numbered(images_BHWC):
        # Point k at x = k / 2, which a mirror image has at 47 - x and under the mirrored name.
        mirrored = images_BHWC[:, 0, 0, 0] == 1
        x = np.tile(np.arange(N) / 2.0, (len(images_BHWC), 1))
        x = np.where(mirrored[:, None], (SIZE - 1 - x)[:, flip], x)
        return np.stack([x, np.full_like(x, (SIZE - 1) / 2)], axis=-1), np.ones(x.shape), x[:, :1]

    image = np.zeros((1, SIZE, SIZE, 1), np.float32)
    image[0, :, -1] = 1.0  # tells the mirror image, and not the turned ones, whose border is blurred
    with_mirror = read_signals(numbered, [image]).disagreement_F[0]

    def unnamed(images_BHWC):
        points, confidence, features = numbered(images_BHWC)
        mirrored = images_BHWC[:, 0, 0, 0] == 1
        return np.where(mirrored[:, None, None], points[:, flip], points), confidence, features

    assert with_mirror < read_signals(unnamed, [image]).disagreement_F[0]


@pytest.mark.parametrize("kind", ["ResidualUNet", "FpeNet_public"])
def test_the_look_into_a_network_changes_nothing_of_what_it_says(kind):
    from model.network import build_network
    from schemas.experiment import ModelParameters

    network = build_network(ModelParameters(type=kind, width=4), num_keypoints=5, image_size=SIZE)
    images = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 1)).astype(np.float32)
    points, confidence, features = describer(network)(images)
    expected = network(images, training=False)
    np.testing.assert_allclose(points, expected[0], atol=1e-4)
    np.testing.assert_allclose(confidence, expected[1], atol=1e-5)
    assert features.shape == (3, 16 if kind == "ResidualUNet" else 4)
    assert (features >= 0).all()
    assert len(predicting(describer(network))(images)) == 2


def test_faces_can_be_chosen_by_index():
    found = FaceSignals(np.zeros((3, 5, 2)), np.ones((3, 5)), np.arange(3.0), np.zeros((3, 2)))
    assert found.of_faces(np.array([2, 0])).disagreement_F.tolist() == [2.0, 0.0]
