"""Looking for the face of an image without a face box."""

import numpy as np

from model.face_search import find_face
from schemas.geometry import CROP_SIZE


def four_marks(images_BHWC):
    """A 'network' whose keypoints are the corners of what is bright; surest when that fills its input."""
    points, sure = [], []
    for image in images_BHWC:
        rows, columns = np.nonzero(image[..., 0] > 100)
        if not len(rows):
            rows = columns = np.array([0, CROP_SIZE - 1])
        corners = [(x, y) for x in (columns.min(), columns.max()) for y in (rows.min(), rows.max())]
        points.append(corners)
        sure.append([(np.ptp(columns) + np.ptp(rows)) / (2 * CROP_SIZE)] * 4)
    return np.array(points, np.float32), np.array(sure)


def test_a_face_beside_the_middle_is_found():
    frame = np.zeros((200, 260), np.uint8)
    frame[70:130, 120:180] = 200
    box = find_face(four_marks, frame, input_size=CROP_SIZE, enlarge_ratio=1.15)
    np.testing.assert_allclose(box, (120, 70, 60, 60), atol=4)


def test_an_empty_frame_still_gives_a_box_with_an_area():
    box = find_face(four_marks, np.zeros((30, 20), np.uint8), input_size=CROP_SIZE, enlarge_ratio=1.0)
    assert box.width > 0
    assert box.width == box.height
