import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.evaluation import evaluate
from model.evaluation_files import write_reference_files
from model.evaluation_report import evaluation_report
from model.region_error import Unit
from schemas.errors import InputError, ModelFileError
from schemas.geometry import SquareCrop
from schemas.records import Flag
from tests.evaluation_sets import made_up_evaluation, made_up_faces, oracle, split

GOLDEN = json.loads((Path(__file__).parent / "golden" / "eval_80.json").read_text())


def golden_batch():
    inputs = GOLDEN["inputs"]
    crops = [SquareCrop(x, y, w) for x, y, w, _ in inputs["bbox_xywh"]]
    faces = made_up_faces(6, 80)
    batch = replace(
        faces,
        points_BN2=np.stack([crop.to_frame(np.array(gt)) for crop, gt in zip(crops, inputs["gt"], strict=True)]),
        flags_BN=np.where(np.array(inputs["visible"]) > 0, Flag.VISIBLE, Flag.OCCLUDED).astype(np.int8),
        boxes_B4=np.array(inputs["bbox_xywh"], np.float32),
        names=tuple(entry["image_path"] for entry in GOLDEN["all_data_json"]),
    )
    return batch, lambda images: (np.array(inputs["pred"]), np.array(inputs["conf"]))


def test_the_three_files_are_the_references(tmp_path):
    batch, predict = golden_batch()
    evaluation = evaluate(predict, [batch])
    write_reference_files(evaluation, tmp_path)
    entries = json.loads((tmp_path / "kpi_testing_all_data.json").read_text())
    for entry, expected in zip(entries, GOLDEN["all_data_json"], strict=True):
        assert list(entry) == list(expected)
        assert entry["face_box"] == expected["face_box"] and entry["image_path"] == expected["image_path"]
        np.testing.assert_allclose(entry["gt_keypoints"], expected["gt_keypoints"], atol=1e-5)
        for key in ("pred_keypoints", "gt_occlusions", "pred_conf"):
            assert entry[key] == pytest.approx(expected[key]) if key == "pred_conf" else entry[key] == expected[key]
    for name, golden in (("point", "csv_per_point"), ("region", "csv_per_region")):
        found = (tmp_path / f"kpi_testing_error_per_{name}.csv").read_bytes().decode()
        assert_same_table(found, GOLDEN[golden])


def assert_same_table(found, expected):
    """The same text, but for the last digits of errors."""
    for mine, theirs in zip(found.split("\r\n"), expected.split("\r\n"), strict=True):
        for a, b in zip(mine.split(","), theirs.split(","), strict=True):
            assert a == b or ("." in b and float(a) == pytest.approx(float(b), rel=1e-9))


def test_the_files_layout_is_the_references(tmp_path):
    write_reference_files(made_up_evaluation(num_keypoints=80), tmp_path)
    text = (tmp_path / "kpi_testing_all_data.json").read_text()
    assert text.startswith('[\n    {\n        "image_path": "images/000.png",\n        "face_box": [\n')
    assert text == json.dumps(json.loads(text), indent=4)


def test_memory_does_not_grow_with_the_list_of_faces(tmp_path):
    """400 faces take about 40 MB as one text and its objects."""
    evaluation = made_up_evaluation(400)
    tracemalloc.start()
    try:
        write_reference_files(evaluation, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2 * (tmp_path / "kpi_testing_all_data.json").stat().st_size
    finally:
        tracemalloc.stop()


def test_every_face_counts_once_whatever_the_batches():
    batch = made_up_faces(11, 68)
    predict = oracle(batch)
    one, many = evaluate(predict, [batch]), evaluate(predict, split(batch, 4, 4, 3))
    assert len(one) == len(many) == 11
    assert many.names == batch.names
    assert evaluation_report(one) == evaluation_report(many)
    assert [face.name for face in one.worst] == [face.name for face in many.worst]


def test_only_points_declared_visible_count_as_visible():
    batch = made_up_faces(8, 80)
    report = evaluation_report(evaluate(oracle(batch), [batch]))
    assert report["points"] == {
        "unknown": int((batch.flags_BN == -1).sum()),
        "visible": int((batch.flags_BN == 0).sum()),
        "occluded": int((batch.flags_BN == 1).sum()),
    }
    assert report["regions"]["All"]["samples"] == {"all": 8 * 80, "visible": report["points"]["visible"]}


@pytest.mark.parametrize("num_keypoints", [3, 68, 80, 104])
def test_files_for_any_number_of_keypoints(tmp_path, num_keypoints):
    evaluation = made_up_evaluation(num_keypoints=num_keypoints)
    report = write_reference_files(evaluation, tmp_path)
    lines = (tmp_path / "kpi_testing_error_per_point.csv").read_bytes().decode().split("\r\n")
    assert len(lines) == num_keypoints + 2 and lines[-1] == ""
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["faces"] == 10 and report["subjects"] == 5
    cell = report["regions"]["All"]["crop_px"]["all"]
    assert cell["low"] < cell["error"] < cell["high"]
    assert cell["error"] == pytest.approx(evaluation.error())


def test_a_point_never_visible_is_empty_in_the_table(tmp_path):
    evaluation = made_up_evaluation(num_keypoints=4)
    errors = evaluation.errors
    flags = errors.flags_BK.copy()
    flags[:, 2] = Flag.OCCLUDED
    hidden = replace(errors, flags_BK=flags)
    write_reference_files(replace(evaluation, errors=hidden), tmp_path)
    lines = (tmp_path / "kpi_testing_error_per_point.csv").read_bytes().decode().split("\r\n")
    point, everything, visible_only, number = lines[3].split(",")
    assert (point, visible_only, number) == ("2", "", "0") and float(everything) > 0


def test_extremes_are_the_best_and_the_worst_and_never_the_same_face():
    batch = made_up_faces(9, 68)
    evaluation = evaluate(oracle(batch), [batch], examples=3)
    order = np.argsort(evaluation.errors.crop_px_BK.mean(axis=1))
    assert [face.name for face in evaluation.best] == [batch.names[i] for i in order[:3]]
    assert [face.name for face in evaluation.worst] == [batch.names[i] for i in order[:-4:-1]]
    few = evaluate(oracle(batch), split(batch, 3), examples=6)
    assert len(few.best) == 2 and len(few.worst) == 1
    none = evaluate(oracle(batch), split(batch, 4, 5), examples=0)
    assert not none.best and not none.worst


def test_an_example_is_the_input_in_whole_grey_values():
    """What is between two values goes to the nearer one, what is beyond all to the last."""
    batch = made_up_faces(1, 4)
    predict = oracle(batch)
    batch.images_BHWC[0, 1, :3, 0] = (90.6, 255.7, -0.6)
    (face,) = evaluate(predict, [batch]).best
    assert face.image_HWC.dtype == np.uint8
    assert face.image_HWC[1, :4, 0].tolist() == [91, 255, 0, 90]


def test_unreachable_points_lie_beyond_the_outermost_pixel_centres():
    batch = made_up_faces(1, 4)
    corner = np.array([[-0.4, 5], [0.0, 79.0], [79.2, 1], [40, 40]])
    batch = replace(
        batch,
        boxes_B4=np.array([[0, 0, 80, 80]], np.float32),
        points_BN2=corner[None].astype(np.float32),
    )
    evaluation = evaluate(oracle(batch), [batch])
    assert evaluation.unreachable_share == 0.5


def test_errors_are_in_the_unit_asked_for():
    evaluation = made_up_evaluation()
    source, crop = (evaluation.error(unit) for unit in (Unit.SOURCE, Unit.CROP))
    assert source / crop == pytest.approx(200 / 80, rel=0.05)


def test_labels_that_count_from_elsewhere_show_in_their_set():
    """Sixty faces of two sets, the labels of one a pixel to the right and below."""
    batch = made_up_faces(60, 68)
    predict = oracle(batch, error_px=0.5)
    shifted_B = np.arange(60) % 2
    points_BN2 = batch.points_BN2 + shifted_B[:, None, None].astype(np.float32)
    sets = tuple("shifted" if shifted else "plain" for shifted in shifted_B)
    report = evaluation_report(evaluate(predict, [replace(batch, points_BN2=points_BN2, sets=sets)]))
    for name, expected in (("plain", 0.0), ("shifted", 1.0)):
        row = report["offsets"][name]
        assert row["faces"] == 30
        for side in ("right", "below"):
            assert row[side]["px"] == pytest.approx(expected, abs=0.2)
            assert row[side]["low"] < row[side]["px"] < row[side]["high"]


def test_nothing_to_evaluate_is_an_input_error():
    with pytest.raises(InputError, match="holds no face"):
        evaluate(lambda images: images, [])


def test_a_model_that_does_not_fit_is_named():
    batch = made_up_faces(2, 68)
    with pytest.raises(ModelFileError, match="predicts 80 keypoints, the set has 68"):
        evaluate(oracle(made_up_faces(2, 80)), [batch])
    with pytest.raises(ModelFileError, match=r"not a number for images/000\.png"):
        evaluate(lambda images: (np.full((2, 68, 2), np.nan), np.zeros((2, 68))), [batch])
    unsure = np.array([[0.5] * 68, [*[0.5] * 67, np.nan]])
    with pytest.raises(ModelFileError, match=r"not a number for images/001\.png"):
        evaluate(lambda images: (np.zeros((2, 68, 2)), unsure), [batch])


def test_slices_are_measured_like_the_whole():
    evaluation = made_up_evaluation(12, 68, subjects=[f"{'one' if i % 3 else 'two'}/{i % 4}" for i in range(12)])
    slices = {part["name"]: part for part in evaluation_report(evaluation)["slices"]["dataset"]}
    assert {name: part["faces"] for name, part in slices.items()} == {"one": 8, "two": 4}
    expected = evaluation.errors.crop_px_BK[::3].mean()
    cell = slices["two"]["regions"]["All"]["crop_px"]["all"]
    assert cell["error"] == pytest.approx(expected)
    assert cell["low"] < expected < cell["high"]


def test_the_report_has_curves_yaw_and_confidence_of_a_face(tmp_path):
    report = evaluation_report(made_up_evaluation(40, 80))
    assert set(report["curves"]) == {"crop_px", "inter_ocular_percent"}
    assert set(report["confidence"]) == set(report["regions"])
    assert sum(part["faces"] for part in report["slices"]["yaw"][:-1]) == 40
    assert report["by_subject"]["made-up/003"]["faces"] == 2


def test_points_of_unknown_flag_count_as_not_occluded_in_the_reference_table_alone(tmp_path):
    evaluation = made_up_evaluation(num_keypoints=4)
    unknown = np.full((10, 4), Flag.UNKNOWN)
    evaluation = replace(evaluation, flags_FN=unknown, errors=replace(evaluation.errors, flags_BK=unknown))
    report = write_reference_files(evaluation, tmp_path)
    rows = (tmp_path / "kpi_testing_error_per_region.csv").read_bytes().decode().split("\r\n")
    _, everything, not_occluded = rows[1].split(",")
    assert everything == not_occluded
    assert report["regions"]["All"]["crop_px"]["visible"]["error"] is None
