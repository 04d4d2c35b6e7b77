"""The page that a reviewer decides with, and its hash in MLflow."""

import base64
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from model.paired import Outcome, Row
from schemas.config import ReviewSettings, Tracking
from schemas.geometry import SquareCrop
from schemas.promotion_rules import load_rules
from schemas.storage import sha256_of
from tasks.mlflow_client import mlflow_client
from tasks.paired_scores import ScoredFaces, write_faces
from tasks.review.faces import draw_faces, most_changed
from tasks.review.page import Review, headline, log_page, render, review_data
from tasks.tracking import RegisteredVersion
from tasks.verdict import State, Verdict
from tasks.workspace import Workspace
from tests.html_pages import Page
from tests.run_summaries import made_up_summary
from tests.shard_files import blob_face, small_spec, write_shard

FACES = [blob_face(index) for index in range(6)]
CARD = "# fpenet/2: model card\n"
CHANGES_PX = [0.3, -0.2, 0.1, 0.0, 0.5, -0.4]


def row(name, outcome, *, difference=0.01, dimension="region", champion=2.0):
    paired = champion is not None
    return Row(
        dimension=dimension,
        name=name,
        faces=6,
        subjects=3,
        champion_px=champion,
        challenger_px=2.0 + difference,
        difference_px=difference if paired else None,
        low_px=difference - 0.1,
        high_px=difference + 0.1,
        allowance_px=0.2,
        outcome=outcome,
    )


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_shard(tmp_path_factory.mktemp("shards") / "kpi.tfrecords", FACES)


@pytest.fixture(scope="module")
def scored():
    truth = np.stack([face.points_N2 for face in FACES])
    champion_px = np.full(len(FACES), 2.0, np.float32)
    return ScoredFaces(
        position_F=np.arange(len(FACES)),
        names=tuple(face.name for face in FACES),
        subjects=tuple(face.subject for face in FACES),
        sets=("blobs",) * len(FACES),
        boxes_F4=np.array([tuple(map(int, face.box)) for face in FACES], np.float32),
        true_FN2=truth,
        flags_FN=np.stack([face.flags_N for face in FACES]),
        challenger_FN2=truth + 1,
        challenger_px_F=champion_px + np.array(CHANGES_PX, np.float32),
        champion_FN2=truth - 1,
        champion_px_F=champion_px,
    )


@pytest.fixture(scope="module")
def verdict(tmp_path_factory, scored):
    rules = load_rules(None)
    folder = tmp_path_factory.mktemp("verdict")
    write_faces(scored, folder)
    return Verdict(
        key="0" * 20,
        state=State.FAILED,
        summary="failed",
        reasons=(),
        model="fpenet",
        version="2",
        champion="1",
        snapshot_id="5" * 64,
        faces=6,
        subjects=3,
        rows=(
            row("All", Outcome.PASSED),
            row("Eyes", Outcome.FAILED, difference=0.3),
            row("left > 30°", Outcome.INCONCLUSIVE, dimension="yaw"),
        ),
        rules=rules.model_dump(mode="json"),
        rules_sha256=rules.sha256,
        directory=folder,
        reused=False,
    )


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return made_up_summary(tmp_path_factory.mktemp("summary"))


@pytest.fixture(scope="module")
def review(verdict, summary, shard):
    data = review_data(summary, verdict, {"snapshot": "5" * 64})
    return Review(data, verdict, [shard], small_spec(), ReviewSettings(), CARD)


@pytest.fixture(scope="module")
def html(review):
    return render(review)


def without_faces(review, folder, **changes):
    """Another verdict, on a page that needs no pictures drawn."""
    return replace(review, verdict=replace(review.verdict, directory=folder, **changes))


def test_what_to_set_stands_on_the_page(review, html, tmp_path):
    page = Page(html).text
    assert "Failed: in Eyes it may be worse than the champion, version 1, by more than is allowed." in page
    for words in ("review.override", "review.report", review.data.report, "for 14 days", "Built on the device"):
        assert words in page
    passed = without_faces(review, tmp_path, state=State.PASSED)
    assert "review.override" not in Page(render(passed)).text


def test_it_asks_for_nothing_and_shows_both_models(html):
    page = Page(html)
    assert page.open == []
    assert len(page.addresses) == 2 * (3 + 2), "three faces got worse, two better, each seen by both"
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"@import|url\(|<script|https?://", html.replace("http://www.w3.org/2000/svg", ""))
    assert "+0.50 px" in html and html.index("+0.50 px") < html.index("+0.30 px") < html.index("-0.40 px")


def test_the_faces_are_those_of_the_shard_with_the_points_where_they_belong(scored, shard):
    worse, better = most_changed(scored, 2)
    assert (worse, better) == ([4, 0], [5, 1])
    (drawn,) = draw_faces(scored, worse[:1], [shard], small_spec())
    assert (drawn.name, drawn.subject) == (FACES[4].name, FACES[4].subject)
    picture = base64.b64decode(drawn.challenger_picture.split(",")[1])
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (240, 240, 3)
    crop = SquareCrop.of_box(FACES[4].box, 80)
    for x, y in (crop.to_crop(FACES[4].points_N2 + 1) + 0.5) * 3 - 0.5:
        blue, _, red = map(int, image[round(y), round(x)])
        assert red - blue > 60, "an orange dot"


def test_without_a_champion_the_largest_errors_are_shown(scored):
    alone = replace(scored, champion_FN2=None, champion_px_F=None)
    worse, better = most_changed(alone, 2)
    assert (worse, better) == ([4, 0], [])


@pytest.mark.parametrize(
    ("state", "champion", "said"),
    [
        (State.PASSED, "1", "Passed: nowhere worse"),
        (State.PASSED, None, "Passed: there is no champion yet"),
        (State.FAILED, None, "may be beyond the absolute bounds in Eyes"),
        (State.INCONCLUSIVE, "1", "yaw left > 30° hold too few subjects to compare it with the champion, version 1."),
        (State.NOT_COMPARABLE, "1", "Not comparable with the champion, version 1"),
    ],
)
def test_the_verdict_in_one_sentence(verdict, state, champion, said):
    assert said in headline(replace(verdict, state=state, champion=champion))


def test_slices_that_are_too_small_are_marked_and_named(review, tmp_path):
    rows = row("All", Outcome.PASSED), row("over 60°", Outcome.TOO_FEW, dimension="yaw")
    passed = without_faces(review, tmp_path, state=State.PASSED, rows=rows)
    assert headline(passed.verdict).endswith("Too few subjects to say anything of: yaw over 60°.")
    assert "too few, shown only" in Page(render(passed)).text


@pytest.mark.parametrize("rows", ["none", "without a champion"])
def test_a_page_without_a_comparison(review, tmp_path, rows):
    found = () if rows == "none" else (row("All", Outcome.PASSED, champion=None),)
    alone = without_faces(
        review, tmp_path, state=State.NOT_COMPARABLE, rows=found, champion=None, reasons=("68 points, not 80",)
    )
    page = Page(render(alone)).text
    assert "68 points, not 80" in page and "review.override" in page


def test_the_hash_is_of_what_the_decision_is_about(review):
    data = review.data
    assert replace(data, sources=(), parents={}).report == data.report
    assert replace(data, evaluation=dict(data.evaluation) | {"faces": 7}).report != data.report
    assert replace(data, verdict=dict(data.verdict) | {"state": "passed"}).report != data.report
    assert replace(data, engines=()).report != data.report
    slower, larger = (
        replace(data, engines=(replace(data.engines[0], **change), *data.engines[1:]))
        for change in ({"latency_ms": 99.0}, {"size_bytes": 1})
    )
    assert slower.report == data.report != larger.report


def test_it_is_logged_once_with_its_hash_and_what_the_reviewer_has_to_do(review, tmp_path):
    tracking, workspace = Tracking(), Workspace(tmp_path / "workspace")
    with mlflow_client(tracking, workspace) as client:
        run = client.create_run(client.create_experiment("fpenet", (tmp_path / "artifacts").as_uri())).info.run_id
        client.create_registered_model("fpenet")
        for _ in range(2):
            client.create_model_version("fpenet", "s3://nowhere/model", run)
        registered = RegisteredVersion("fpenet", "2", run, created=True)
        logged = log_page(review, registered, tracking, workspace)
        assert not logged.reused
        tags = client.get_model_version("fpenet", "2").tags
        assert tags["review_sha256"] == logged.report and tags["review.champion"] == "1"
        assert tags["review.state"].startswith("waiting: for a reviewer") and logged.report in tags["review.state"]
        folder = tmp_path / "artifacts" / run / "artifacts" / "review"
        assert (folder / "index.html").read_bytes() == logged.file.read_bytes()
        assert (folder / "model-card.md").read_text() == CARD
        told = json.loads((folder / "report.json").read_text())
        about = {name: told[name] for name in ("verdict", "evaluation")}
        about["engines"] = [engine | {"latency_ms": None} for engine in told["engines"]]
        assert sha256_of(about) == logged.report, "whoever has the report can see that it is the one approved"
        assert log_page(review, registered, tracking, workspace).reused
        again = log_page(replace(review, card=f"{CARD}anew"), registered, tracking, workspace)
        assert (again.reused, again.report) == (False, logged.report), "an approval of the report still holds"
        assert (folder / "model-card.md").read_text() == f"{CARD}anew"
        champion = replace(review, verdict=replace(review.verdict, state=State.IS_CHAMPION))
        assert log_page(champion, registered, tracking, workspace) is None
