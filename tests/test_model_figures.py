import cv2
import numpy as np
import pytest

from model.evaluation import ExampleFace
from model.evaluation_charts import evaluation_charts
from model.evaluation_report import evaluation_report
from model.figures import (
    PREDICTION,
    REGION_COLOURS,
    TRUTH,
    draw_comparison,
    draw_keypoints,
    encode_image,
    point_colours,
    write_figures,
)
from tests.evaluation_sets import made_up_evaluation
from tests.run_summaries import HISTORY


def face(true, predicted):
    true_N2, predicted_N2 = (np.array([points], np.float32) for points in (true, predicted))
    flags_N = np.zeros(1, np.int8)
    return ExampleFace("a.png", "s/1", np.full((80, 80, 1), 90, np.uint8), true_N2, predicted_N2, flags_N, 1.0)


def test_dots_are_where_the_points_are():
    canvas = draw_comparison(face((20, 30), (60, 30)), scale=4)
    assert canvas.shape == (320, 320, 3)
    for (x, y), colour in (((20, 30), TRUTH), ((60, 30), PREDICTION)):
        centre = tuple(int(v) for v in canvas[round((y + 0.5) * 4 - 0.5), round((x + 0.5) * 4 - 0.5)])
        assert centre == colour


def test_a_point_far_outside_does_no_harm():
    draw_comparison(face((20, 30), (-1e9, 1e9)))


@pytest.mark.parametrize("num_keypoints", [68, 80, 104])
def test_each_region_has_its_colour(num_keypoints):
    colours = point_colours(num_keypoints)
    assert len(colours) == num_keypoints
    assert (colours[0], colours[30], colours[60]) == tuple(REGION_COLOURS[r] for r in ("Chin", "Nose", "Mouth"))
    assert (len(set(colours)) == 7) == (num_keypoints >= 80)


def test_keypoints_are_drawn_into_the_image_in_their_colours():
    image = np.zeros((50, 50, 3), np.uint8)
    draw_keypoints(image, np.array([[10.0, 20.0]]), radius_px=3)
    assert tuple(int(v) for v in image[20, 10]) == point_colours(1)[0]


def test_an_encoded_image_reads_back():
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(encode_image(image), np.uint8), 1), image)
    with pytest.raises(ValueError, match=r"\.nonsense"):
        encode_image(image, ".nonsense")
    with pytest.raises(ValueError, match=r"shape \(9, 7, 3\) can't be written as \.pgm"):
        encode_image(image, ".pgm")


def test_figures_are_files_and_the_same_every_time(tmp_path):
    evaluation = made_up_evaluation(9, 68)
    report = evaluation_report(evaluation)
    faces = write_figures(evaluation, report, HISTORY, tmp_path / "a")
    write_figures(evaluation, report, HISTORY, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(
        [figure.file for kind in ("best", "worst") for figure in faces[kind]]
        + ["training_loss.svg", "validation_error.svg", *(f"{name}.svg" for name in evaluation_charts(report))]
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert faces["worst"][0].error_crop_px == max(evaluation.errors.crop_px_BK.mean(axis=1))
