import json
from dataclasses import replace

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.config import QualitySettings
from schemas.errors import ImageError, StorageError
from schemas.records import Violation
from tasks.quality.agreement import report_agreement
from tasks.quality.compare import compare
from tasks.quality.findings import DuplicatePair, Duplicates, LabelErrors, Suspect
from tasks.quality.page import SHOWN_ROWS, draw_pictures, render, write_quality_page
from tasks.quality.pictures import SIDE, draw_dispute, draw_suspect
from tasks.quality.send_back import SentBack
from tasks.quality.summary import QualitySummary
from tasks.summary import StepSummary, rejections
from tasks.validate import Counts
from tests.annotator_views import some_face, some_views
from tests.html_pages import Page, assert_self_contained
from tests.raw_records import write_image

N = 68
POINTS = some_views(faces=1, num_keypoints=N)[0].points_AK2[0]
NASTY = "<b>odd</b>.png"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Two annotations of each of four faces; the second of the last is far off."""
    image = write_image(tmp_path_factory.mktemp("images") / "a.png", seed=1, width=160, height=160)
    used, others = [], []
    for task in range(4):
        fields = {"image": str(image), "image_name": NASTY, "subject": f"d/{task}"}
        record, noise = f"team:task/{task}", np.random.default_rng(task).normal(0, 0.5, (N, 2))
        used.append(some_face(record, 1, "7", POINTS, **fields))
        others.append(some_face(record, 2, "8", POINTS + noise + 25 * (task == 3), **fields))
    return used, others


@pytest.fixture(scope="module")
def found(faces):
    used, others = faces
    agreement = report_agreement(compare(used, others, {}), QualitySettings(), ())
    key = used[0].source_key
    suspects = tuple(
        Suspect(key, NASTY, "d/0", "point-off", f"P{i + 1}", 9.0 - i / 100, f"{i} px off", "place it again")
        for i in range(SHOWN_ROWS + 3)
    )
    pairs = (DuplicatePair(key, used[1].source_key, 3, True, "train-kpi"),)
    return QualitySummary(
        run_id="20261122T000000Z",
        started_at="2026-11-22T00:00:00+00:00",
        seconds=4.0,
        num_keypoints=N,
        code_version="0.1.0",
        sources=("team",),
        counts=Counts(4, 4, 0, 4, 0),
        rejections=rejections(
            [Violation("rotated-image", "team:task/9", NASTY, None, "by 90", "upright", "turn it")]
        ),
        settings=QualitySettings().model_dump(),
        agreement=agreement,
        label_errors=LabelErrors(suspects, ("flags were not looked at",)),
        duplicates=Duplicates(pairs),
        steps=(StepSummary("agreement", 0.4, "ran", "4 faces"),),
    )


@pytest.fixture(scope="module")
def drawn(faces, found):
    return draw_pictures(
        found.agreement.disputes, found.label_errors.suspects, found.duplicates.pairs, [*faces[0], *faces[1]]
    )


@pytest.fixture(scope="module")
def summary(found, drawn):
    return replace(found, pictures=drawn.pictures)


@pytest.fixture(scope="module")
def folder(summary, drawn, tmp_path_factory):
    """Where the page is written."""
    directory = tmp_path_factory.mktemp("quality")
    write_quality_page(summary, drawn.pngs, directory)
    return directory


def test_the_page_asks_for_nothing_else(summary, folder):
    assert_self_contained(render(summary, folder), pictures=4)


def test_the_page_shows_every_part(summary, folder):
    page = Page(render(summary, folder))
    assert {"agreement", "bias", "disputes", "suspects", "duplicates", "rejected", "steps"} <= page.ids
    for expected in (
        "1 task to look at again",
        "Eyebrows",
        "undefined",  # nobody marks anything occluded
        "7 and 8",
        "With two annotators a bias can't be laid at one's door",
        "team:task/3",
        "Arrows are drawn",
        "flags were not looked at",
        "point-off",
        "and 3 more in suspects.parquet",
        "train-kpi",
        "rotated-image",
        "max_flag_dispute",
    ):
        assert expected in page.text


def test_text_from_data_is_never_markup(summary, folder):
    html = render(summary, folder)
    assert "&lt;b&gt;odd" in html and "<b>odd" not in html


def test_links_open_the_very_task(summary, folder):
    key = summary.label_errors.suspects[0].source_key
    links = {key: "http://one.test/projects/1/data?task=0", "team:task/3": "http://one.test/projects/1/data?task=3"}
    tab = SentBack("team", "Quality", "http://one.test/projects/1/data?tab=9", (3,), 0)
    page = Page(render(replace(summary, links=links, sent_back=(tab,)), folder))
    assert {*links.values(), tab.url} <= set(page.links)
    assert page.open == []


def test_one_opinion_on_each_face_says_so_and_shows_the_rest(faces, summary, folder):
    alone = report_agreement(compare(faces[0], [], {}), QualitySettings(), ())
    page = Page(
        render(replace(summary, agreement=alone, label_errors=LabelErrors(), duplicates=Duplicates()), folder)
    )
    assert "one opinion on each face" in page.text
    assert "nothing can be said about agreement" in page.text
    assert "None was found." in page.text and "No two images are alike." in page.text
    assert "agreement" not in page.ids


def test_a_layout_without_eyes_is_shown_in_crop_pixels(faces, summary, folder):
    few = [[replace(face, points_N2=face.points_N2[:5], flags_N=face.flags_N[:5]) for face in part] for part in faces]
    agreement = report_agreement(compare(*few, {}), QualitySettings(), ())
    page = Page(render(replace(summary, agreement=agreement, num_keypoints=5), folder))
    assert "spread, crop pixels" in page.text and "inter-ocular" not in page.text.split("Bounds:")[0]


def test_what_is_written_can_be_read_by_programs(summary, folder):
    assert (folder / "index.html").read_text() == render(summary, folder)
    data = json.loads((folder / "quality.json").read_text())
    assert data["agreement"]["agreement"]["regions"]["Eyes"]["spread"]["source_px"]["value"] > 0
    assert data["agreement"]["disputes"][0]["record"] == "team:task/3"
    suspects = pq.read_table(folder / "suspects.parquet").to_pylist()
    assert len(suspects) == SHOWN_ROWS + 3 and suspects[0]["score"] == 9.0
    (pair,) = pq.read_table(folder / "duplicates.parquet").to_pylist()
    assert (pair["distance"], pair["subjects_known"], pair["crosses"]) == (3, True, "train-kpi")


def test_nothing_found_is_written_too(summary, tmp_path):
    nothing = replace(summary, label_errors=LabelErrors(), duplicates=Duplicates(), pictures=())
    write_quality_page(nothing, {}, tmp_path)
    assert pq.read_table(tmp_path / "suspects.parquet").num_rows == 0


def test_pictures_show_the_points_where_they_are(faces):
    face = faces[0][0]
    plain, ringed = (cv2.imdecode(np.frombuffer(draw_suspect(face, key), np.uint8), 1) for key in (None, "P9"))
    assert plain.shape == (SIDE, SIDE, 3)
    rows, columns = np.nonzero((plain != ringed).any(axis=2))
    low, high = face.points_N2.min(axis=0), face.points_N2.max(axis=0)
    expected = (face.points_N2[8] - (low + high) / 2) * SIDE / 1.25 / np.ceil(high - low).max() + SIDE / 2
    assert ((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2) == pytest.approx(expected, abs=3)


def test_a_dispute_shows_each_annotator(faces):
    same = cv2.imdecode(np.frombuffer(draw_dispute([faces[0][0]] * 2), np.uint8), 1)
    apart = cv2.imdecode(np.frombuffer(draw_dispute([part[3] for part in faces]), np.uint8), 1)
    white = [int((picture == 255).all(axis=2).sum()) for picture in (same, apart)]
    assert white[0] < 50 < white[1]  # the lines between them


def test_an_image_that_is_gone(faces, tmp_path):
    gone = replace(faces[0][0], image=str(tmp_path / "gone.png"))
    with pytest.raises(ImageError, match="can't be read"):
        draw_suspect(gone, None)


def test_a_face_whose_image_is_gone_is_not_drawn(faces, found, tmp_path):
    gone = [replace(face, image=str(tmp_path / "gone.png")) for face in faces[0][:1]]
    drawn = draw_pictures(
        found.agreement.disputes,
        found.label_errors.suspects,
        found.duplicates.pairs,
        [*gone, *faces[0][1:], *faces[1]],
    )
    assert drawn.skipped == 1
    assert [picture.key for picture in drawn.pictures] == ["team:task/3", found.duplicates.pairs[0].second]
    assert list(drawn.pngs) == ["pictures/01.png", "pictures/02.png"]


def test_no_picture_is_there_that_the_list_does_not_name(summary, drawn, tmp_path):
    (tmp_path / "pictures").write_text("in the way")
    with pytest.raises(StorageError, match="pictures: can't be made"):
        write_quality_page(summary, drawn.pngs, tmp_path)
    assert json.loads((tmp_path / "quality.json").read_text())["pictures"]


def test_who_is_forgotten_is_found_by_the_pictures(summary, folder):
    named = json.loads((folder / "quality.json").read_text())["pictures"]
    assert sorted(folder / one["picture"] for one in named) == sorted((folder / "pictures").iterdir())
    subjects = {picture.key: picture.subject for picture in summary.pictures}
    (pair,) = summary.duplicates.pairs
    assert subjects == {"team:task/3": "d/3", pair.first: "d/0", pair.second: "d/1"}
