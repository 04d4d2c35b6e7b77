from itertools import combinations

import cv2
import numpy as np
import pytest

from model.faces.sitting import Sitting
from model.near_duplicates import (
    FLAT,
    cell_correlation,
    face_view,
    hashes_of,
    similar_pairs,
    thumbnail,
    whole_distance,
)
from tests.raw_records import some_points

BITS, CORRELATION = 10, 0.93


@pytest.fixture(scope="module")
def shots():
    """Six photographs of each of four people: (gray, points)."""
    taken = []
    for subject in ("001", "002", "003", "004"):
        sitting = Sitting(subject, 0)
        for capture in sitting.captures(6):
            shot = sitting.photograph(capture, channels=1)
            taken.append((shot.image, shot.points_N2[:68]))
    return taken


def signed(pictures):
    views = [face_view(gray, points) for gray, points in pictures]
    return np.stack([hashes_of(view) for view in views]), np.stack([thumbnail(view) for view in views])


def pairs_between(first, second):
    hashes, thumbnails = signed([*first, *second])
    groups = np.repeat([0, 1], [len(first), len(second)])
    return set(similar_pairs(hashes, thumbnails, groups, bits=BITS, correlation=CORRELATION))


def jpeg(gray, points):
    _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 50])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), points


def halved(gray, points):
    return cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), (points + 0.5) / 2 - 0.5


def doubled(gray, points):
    return cv2.resize(gray, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), (points + 0.5) * 2 - 0.5


def brighter(gray, points):
    return np.clip(gray * 0.8 + 30, 0, 255).astype(np.uint8), points


def cropped(gray, points):
    return np.ascontiguousarray(gray[4:-3, 3:-2]), points - (3, 4)


def turned(gray, points):
    matrix = cv2.getRotationMatrix2D((96, 96), 10, 1.0)
    return cv2.warpAffine(gray, matrix, gray.shape[::-1], borderMode=cv2.BORDER_REPLICATE), points @ matrix[
        :, :2
    ].T + matrix[:, 2]


def covered(gray, points):
    hidden = gray.copy()
    x, y = points[48:68].mean(axis=0).astype(int)
    hidden[y - 12 : y + 30, x - 25 : x + 25] = 128
    return hidden, points


def clicked_again(gray, points):
    return gray, points + np.random.default_rng(1).normal(0, 0.7, points.shape)


@pytest.mark.parametrize(
    "change", [jpeg, halved, doubled, brighter, cropped, turned, covered, clicked_again], ids=lambda f: f.__name__
)
def test_a_picture_is_found_again(shots, change):
    copies = [change(gray, points) for gray, points in shots]
    found = pairs_between(shots, copies)
    count = len(shots)
    own = {(row, count + row) for row in range(count)}
    assert len(own & found) >= 0.9 * count
    of_subject = [row // 6 for row in range(count)]
    assert all(of_subject[first] == of_subject[second - count] for first, second in found)


def test_people_are_told_apart(shots):
    hashes, thumbnails = signed(shots)
    groups = np.arange(len(shots)) // 6
    assert not list(similar_pairs(hashes, thumbnails, groups, bits=BITS, correlation=CORRELATION))


def test_a_group_is_not_compared_with_itself(shots):
    hashes, thumbnails = signed([shots[0], shots[0]])
    assert not list(similar_pairs(hashes, thumbnails, np.array([3, 3]), bits=BITS, correlation=CORRELATION))
    assert list(similar_pairs(hashes, thumbnails, np.array([3, 4]), bits=BITS, correlation=CORRELATION)) == [(0, 1)]


def test_blocks_leave_no_pair_out():
    """More faces than a block holds, against a plain double loop; every hash of a face is the same number."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 2**63, 2600, dtype=np.uint64)
    copies = rng.permutation(2600)[:40].reshape(20, 2)
    numbers[copies[:, 1]] = numbers[copies[:, 0]] ^ np.uint64(0b1011)
    hashes = np.repeat(numbers[:, None], 6, axis=1)
    same = np.broadcast_to(rng.integers(0, 256, (32, 32), np.uint8), (2600, 32, 32))
    found = list(similar_pairs(hashes, same, np.arange(2600), bits=3, correlation=CORRELATION))
    assert sorted(found) == sorted((min(pair), max(pair)) for pair in copies.tolist())
    assert not list(similar_pairs(hashes, same, np.arange(2600), bits=2, correlation=CORRELATION))


def test_copies_of_one_picture_are_paired_however_many(shots):
    """More pairs in one block than are correlated at a time."""
    hashes, thumbnails = (np.repeat(values, 100, axis=0) for values in signed(shots[:1]))
    found = list(similar_pairs(hashes, thumbnails, np.arange(100), bits=BITS, correlation=CORRELATION))
    assert found == list(combinations(range(100), 2))


def test_flat_pictures_are_like_nothing():
    flat = [(np.full((60, 60), level, np.uint8), some_points(1)) for level in (40, 200)]
    hashes, thumbnails = signed(flat)
    assert not hashes.any()
    assert cell_correlation(thumbnails[:1], thumbnails[1:])[0] < 0.1
    noisy = np.random.default_rng(0).normal(100, FLAT / 2, (64, 64)).astype(np.uint8)
    assert not hashes_of(noisy).any()


def test_bits_are_counted_on_the_whole_face():
    first, second = np.array([0b111, 1, 2, 3, 4, 5], np.uint64), np.array([0b001, 9, 9, 9, 9, 9], np.uint64)
    assert whole_distance(first, second) == 2


def test_a_face_at_the_edge_of_its_frame_has_a_view(shots):
    gray, points = shots[0]
    x, y = points.mean(axis=0).astype(int)
    view = face_view(np.ascontiguousarray(gray[:y, :x]), points)
    assert view.shape == (64, 64) and view.dtype == np.uint8
    np.testing.assert_array_less(np.abs(view[8:28, 8:28].astype(int) - face_view(gray, points)[8:28, 8:28]), 3)


def test_what_is_finer_than_a_view_s_pixels_leaves_no_trace():
    fine = (np.indices((500, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert face_view(fine, some_points(1) * 9.3).std() < FLAT
