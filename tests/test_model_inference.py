import json
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import model.face_frames
from model.crop import crop_face
from model.face_frames import square_crop
from model.inference import InferenceSummary, run_inference
from schemas.errors import AnnotationFileError, ModelFileError, StorageError
from schemas.geometry import Box, SquareCrop

FRAME = (120, 90)


def entry(name, *boxes):
    chunks = [
        {
            "class": "FaceBbox",
            **{f"face_tight_bbox{side}": v for side, v in zip(("x", "y", "width", "height"), box, strict=True)},
        }
        for box in boxes
    ]
    return {"class": "image", "filename": name, "annotations": chunks}


def write_image(path, *, size=FRAME, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    image = np.random.default_rng(seed).integers(0, 255, (height // 6, width // 6, 3), np.uint8)
    image = cv2.resize(image, size)
    cv2.imwrite(str(path), image)
    return image


def corners(images_BHWC):
    """A predictor that sees the middle of the crop's first pixel, its last, and the middle of the crop."""
    size = images_BHWC.shape[1]
    points_32 = np.array([[0, 0], [size - 1, size - 1], [(size - 1) / 2] * 2], np.float32)
    confidence_B3 = np.repeat(images_BHWC.mean(axis=(1, 2, 3), keepdims=True)[:, 0, 0] / 255, 3, axis=1)
    return np.repeat(points_32[None], len(images_BHWC), axis=0), confidence_B3


@pytest.fixture
def infer(tmp_path):
    """Writes the entries, runs inference on them, returns summary, result and lines of text."""

    def run(entries, predict=corners, **options):
        (tmp_path / "faces.json").write_text(json.dumps(entries))
        out = tmp_path / "out"
        summary = run_inference(predict, tmp_path / "faces.json", out, root=tmp_path, **options)
        return summary, json.loads((out / "result.json").read_text()), (out / "result.txt").read_text().splitlines()

    return run


def test_keypoints_come_back_in_the_frame(infer, tmp_path):
    write_image(tmp_path / "a.png")
    summary, result, lines = infer([entry("a.png", (10, 20, 40, 30))])
    assert summary == InferenceSummary(entries=1, images=1, faces=1, skipped=0)
    (image,) = result["images"]
    assert (image["image"], image["width"], image["height"]) == ("a.png", *FRAME)
    (face,) = image["faces"]
    assert face["face_box"] == [10, 20, 40, 30]
    crop = SquareCrop(10, 15, 40)
    np.testing.assert_allclose(
        face["keypoints"], crop.to_frame(np.array([[0, 0], [79, 79], [39.5, 39.5]])), atol=1e-4
    )
    np.testing.assert_allclose(face["keypoints"][2], (29.5, 34.5))
    name, *values = lines[0].split(" ")
    assert name == "a.png"
    np.testing.assert_allclose([float(value) for value in values], np.ravel(face["keypoints"]), atol=1e-4)


def test_the_network_sees_gray_with_red_weighted_as_red(infer, tmp_path):
    image = np.zeros((90, 120, 3), np.uint8)
    image[...] = (10, 20, 200)  # blue, green, red
    cv2.imwrite(str(tmp_path / "a.png"), image)
    seen = []
    infer([entry("a.png", (10, 10, 60, 60))], lambda images: seen.append(images) or corners(images))
    assert seen[0].shape == (1, 80, 80, 1) and seen[0].dtype == np.float32
    np.testing.assert_allclose(seen[0], round(0.299 * 200 + 0.587 * 20 + 0.114 * 10), atol=1)


def test_a_network_of_colours_sees_red_first(infer, tmp_path):
    image = write_image(tmp_path / "a.png")
    seen = []
    infer([entry("a.png", (10, 10, 60, 60))], lambda images: seen.append(images) or corners(images), channels=3)
    np.testing.assert_array_equal(seen[0][0], crop_face(image[..., ::-1], SquareCrop(10, 10, 60)))


def test_every_face_of_an_image_has_its_result(infer, tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    boxes = [(0, 0, 30, 30), (50, 40, 30, 30), (80, 10, 20, 30)]
    summary, result, lines = infer([entry("a.png", *boxes), entry("b.png", boxes[1])], batch_size=2)
    assert (summary.images, summary.faces) == (2, 4)
    assert [len(image["faces"]) for image in result["images"]] == [3, 1]
    assert [line.split(" ")[0] for line in lines] == ["a.png"] * 3 + ["b.png"]
    confidence = [face["confidences"][0] for face in result["images"][0]["faces"]]
    assert len(set(confidence)) == 3
    assert result["images"][0]["faces"][1]["confidences"] == result["images"][1]["faces"][0]["confidences"]


LONG = f"{'a' * 300}.png"


def test_what_can_not_be_done_is_listed_with_its_reason(infer, tmp_path):
    write_image(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG truncated")
    (tmp_path / "empty.png").write_bytes(b"")
    box = (10, 10, 30, 30)
    entries = [
        entry("good.png", box, (500, 10, 30, 30), (10, 10, 0, 30)),
        entry("broken.png", box),
        entry("empty.png", box),
        entry("gone.png", box),
        entry(LONG, box),
        entry("good.png"),
        {"class": "image", "annotations": []},
    ]
    summary, result, lines = infer(entries)
    assert [(item["image"], item["code"]) for item in result["skipped"]] == [
        ("good.png", "degenerate-face-box"),
        ("good.png", "face-box-outside-frame"),
        ("broken.png", "image-unreadable"),
        ("empty.png", "image-unreadable"),
        ("gone.png", "image-missing"),
        (LONG, "image-missing"),
        ("good.png", "no-face-box"),
        ("entry 7", "schema"),
    ]
    assert all(item["reason"] for item in result["skipped"])
    assert summary == InferenceSummary(entries=7, images=1, faces=1, skipped=8)
    assert result["summary"] == {"entries": 7, "images": 1, "faces": 1, "skipped": 8}
    assert len(lines) == 1


def test_faces_are_drawn_into_copies_below_the_output(infer, tmp_path):
    original = write_image(tmp_path / "deep" / "a.png")
    box = (10, 10, 60, 60)
    outside = tmp_path / "deep" / ".." / "deep" / "a.png"
    infer([entry("deep/a.png", box), entry("deep/a.png", box), entry(str(outside), box)])
    drawn = sorted((tmp_path / "out" / "images").rglob("*.png"))
    assert [path.name for path in drawn].count("a.png") == 2 and "a-2.png" in [path.name for path in drawn]
    assert len(drawn) == 3
    picture = cv2.imread(str(drawn[0]))
    assert picture.shape == original.shape and (picture != original).any()
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "deep" / "a.png")), original)


def test_a_drawing_has_another_suffix_where_the_images_kind_of_file_has_no_colours(infer, tmp_path):
    write_image(tmp_path / "a.PPM")
    cv2.imwrite(str(tmp_path / "b.pgm"), cv2.imread(str(tmp_path / "a.PPM"), cv2.IMREAD_GRAYSCALE))
    summary, *_ = infer([entry("a.PPM", (10, 10, 60, 60)), entry("b.pgm", (10, 10, 60, 60))])
    assert summary.images == 2
    drawn = sorted((tmp_path / "out" / "images").iterdir())
    assert [path.name for path in drawn] == ["a.PPM", "b.pgm.png"]
    assert all(np.ptp(cv2.imread(str(path)), axis=2).any() for path in drawn), "keypoints have colours"


def test_memory_does_not_grow_with_the_number_of_images(infer, tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", size=(480, 360))
    monkeypatch.setattr(model.face_frames, "HELD_BYTES", 2_000_000)

    images, bytes_of_one = 40, 480 * 360 * 3
    tracemalloc.start()
    try:
        infer([entry("a.png", (100, 100, 100, 100))] * images)
        assert tracemalloc.get_traced_memory()[1] < images * bytes_of_one / 2
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_entries(infer, tmp_path):
    write_image(tmp_path / "a.png")
    keypoints = {f"P{number}{axis}": 1.0 for number in range(1, 81) for axis in "xy"}
    one = entry("a.png", (10, 10, 60, 60))
    one["annotations"].append({"class": "FiducialPoints", **keypoints})
    peaks = []
    for entries in (500, 2000):
        (tmp_path / "faces.json").write_text(json.dumps([one] * entries))
        tracemalloc.start()
        try:
            run_inference(corners, tmp_path / "faces.json", tmp_path / "out", root=tmp_path, draw=False)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_results_do_not_depend_on_batches(infer, tmp_path):
    names = [f"{i}.png" for i in range(5)]
    for seed, name in enumerate(names):
        write_image(tmp_path / name, seed=seed)
    entries = [entry(name, (5, 5, 50, 60), (40, 20, 50, 50)) for name in names]
    steps = []
    one = infer(entries, batch_size=1, progress=lambda done, of: steps.append((done, of)))
    assert one == infer(entries, batch_size=64)
    assert steps == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize(
    ("text", "problem"), [("[{]", r":1:\d+: not JSON"), ("{}", "not a list"), ("[]", "no image")]
)
def test_a_broken_file_is_named(tmp_path, text, problem):
    (tmp_path / "faces.json").write_text(text)
    with pytest.raises(AnnotationFileError, match=problem):
        run_inference(corners, tmp_path / "faces.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_no_half_result(infer, tmp_path):
    write_image(tmp_path / "a.png")

    def fail(images):
        raise RuntimeError("device lost")

    with pytest.raises(RuntimeError):
        infer([entry("a.png", (10, 10, 60, 60))], fail)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("output", [0, 1], ids=["keypoints", "confidences"])
def test_a_model_that_predicts_no_number_is_named(infer, tmp_path, output):
    def predict(images):
        outputs = list(corners(images))
        outputs[output] = outputs[output] * np.nan
        return outputs

    write_image(tmp_path / "a.png")
    with pytest.raises(ModelFileError, match=r"not a number for a\.png"):
        infer([entry("a.png", (10, 10, 60, 60))], predict)


def test_a_face_without_numbers_is_told_though_its_neighbour_has_some(infer, tmp_path):
    def predict(images):
        keypoints, confidences = corners(images)
        keypoints = np.array(keypoints)
        keypoints[0] = np.nan
        return keypoints, confidences

    write_image(tmp_path / "a.png")
    with pytest.raises(ModelFileError, match=r"not a number for a\.png"):
        infer([entry("a.png", (10, 10, 60, 60), (20, 20, 50, 50))], predict)


def test_without_drawing_the_results_are_the_same_and_no_image_is_written(infer, tmp_path):
    write_image(tmp_path / "a.png")
    entries = [entry("a.png", (10, 10, 60, 60))]
    assert infer(entries, draw=False) == infer(entries, draw=True)
    assert (tmp_path / "out/images/a.png").is_file()
    (tmp_path / "out/images/a.png").unlink()
    infer(entries, draw=False)
    assert not list((tmp_path / "out/images").iterdir())


def test_a_picture_that_can_not_be_written_ends_the_run_without_results(infer, tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "out/images/a.png").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"a\.png"):
        infer([entry("a.png", (10, 10, 60, 60))] * 3)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10.9, 20.9, 40, 30), (10, 15, 40)),
        ((10, 20, 30, 41), (4, 20, 41)),
        ((2, 2, 20, 60), (0, 2, 60)),
        ((100, 30, 40, 40), (100, 30, 20)),
        ((10, -20, 40, 40), (10, 0, 40)),
        ((200, 10, 20, 20), None),
        ((float("inf"), 10, 20, 20), None),
    ],
)
def test_boxes_become_squares_as_in_tao(box, expected):
    crop = square_crop(Box(*box), *FRAME, size=80)
    assert (crop and (crop.x0, crop.y0, crop.side)) == expected


@given(st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(1, 900)] * 2), st.integers(1, 400), st.integers(1, 400))
def test_a_square_never_leaves_the_frame(box, width, height):
    crop = square_crop(Box(*box), width, height, size=80)
    if crop is not None:
        assert Box(crop.x0, crop.y0, crop.side, crop.side).inside(width, height)


def test_a_crop_is_enlarged_as_for_training_past_the_frame():
    crop = square_crop(Box(2, 10, 80, 80), 100, 100, size=80, enlarge_ratio=1.15)
    assert crop == SquareCrop.of_box(Box(2, 10, 80, 80).enlarged(1.15))
    assert crop.x0 < 0
