import io
import json
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from tasks.model_card import model_card
from tasks.pages import duration, number, percent, plain, size
from tasks.report import print_summary, render, write_report
from tasks.summary import GateResult, rejections
from tests.html_pages import Page, assert_self_contained
from tests.run_summaries import VIOLATIONS, made_up_summary


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return made_up_summary(tmp_path_factory.mktemp("run"))


def test_the_page_asks_for_nothing_else(summary):
    assert_self_contained(render(summary), pictures=12)


def test_the_page_shows_every_part_of_the_run(summary):
    page = Page(render(summary))
    parts = {"gates", "input", "rejected", "learning", "regions", "slices", "curves", "confidence", "faces"}
    parts |= {"engines", "steps"}
    assert parts <= page.ids
    for expected in (
        summary.model_version,
        summary.snapshot_id,
        summary.code_version,
        "keypoint-outside-frame",
        "move the keypoint onto the image or mark it",
        "and 2 more in violations.parquet",
        "built, not run:",
        "Built on the device, after review",
        "no trtexec here",
        "no GPU",
        "tensorrt-rtx 1.7.1",
        "4 min 21 s",
        "reused",
        "resumed",
        *summary.evaluation["regions"],
        *(face.name for face in summary.worst),
    ):
        assert expected in page.text


def test_text_from_data_is_never_markup(summary):
    html = render(summary)
    assert "&lt;b&gt;.png" in html and "<b>.png" not in html


def test_a_failed_gate_is_seen_at_the_top(summary):
    failed = replace(summary, gates=(*summary.gates, GateResult("KPI error", 9.0, 2.0, "crop px")))
    assert summary.passed and not failed.passed
    assert "gate failed" in Page(render(failed)).text
    assert "gate failed" not in Page(render(summary)).text


def test_a_run_without_rejections_validation_or_engines_has_a_page_too(summary):
    bare = replace(
        summary,
        rejections=(),
        engines=(),
        later=(),
        gates=(),
        history=tuple(row | {"validation_error_px": None} for row in summary.history),
    )
    text = Page(render(bare)).text
    assert "every annotation follows every rule" in text
    assert "Validation error" not in text


def test_the_error_of_visible_points_says_how_many_they_are(summary):
    def told(visible, occluded, unknown):
        points = {"visible": visible, "occluded": occluded, "unknown": unknown}
        return Page(render(replace(summary, evaluation=summary.evaluation | {"points": points}))).text

    assert "1,200 points; 34,000 have no flag" in told(1200, 300, 34000)
    assert "no annotator said what is visible" in told(0, 0, 34000)
    assert "have no flag" not in told(1200, 300, 0)


def test_any_number_of_points_has_a_page(tmp_path):
    assert "Eyes" not in Page(render(made_up_summary(tmp_path, num_keypoints=5))).text


def test_page_card_and_data_are_written_and_the_data_is_the_summary(summary, tmp_path):
    page = write_report(summary, tmp_path)
    assert page.read_text() == render(summary)
    assert Page(page.read_text()).links == ["model-card.md"]
    assert (tmp_path / "model-card.md").read_text() == model_card(summary)
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(asdict(summary)))


def test_the_terminal_shows_regions_engines_and_gates(summary):
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=140))
    text = out.getvalue()
    not_run = "rtx: built, not run here: no GPU"
    later = "jetson-nano: built on the device, after review: here, trtexec: no trtexec here"
    for expected in ("Eyes", "crop px", "AUC", "ROC area", not_run, later, "passed", "1 of 3 steps reused"):
        assert expected in text


def test_the_page_shows_every_row_of_the_verdict(summary):
    page = Page(render(summary))
    assert "verdict" in page.ids
    for expected in (
        "failed: needs an override",
        "Challenger against champion, version 2",
        summary.verdict.summary,
        "-0.19 to -0.04",
        "≤ 0.2",
        "shown only",
        "✗ failed",
        "✗ inconclusive",
        "night",
    ):
        assert expected in page.text


def test_the_terminal_shows_regions_and_the_slices_that_did_not_pass(summary):
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=100))
    text = out.getvalue()
    for expected in ("Against the champion, version 2", "Ears", "yaw over 60°", "set night", summary.verdict.summary):
        assert expected in text
    assert "yaw 0° to 15°" not in text


@pytest.mark.parametrize(
    ("changes", "chip"),
    [
        ({"state": "passed", "blocks": False}, "✓ no worse than version 2"),
        ({"state": "passed", "blocks": False, "champion": None}, "✓ within the absolute bounds"),
        ({"state": "is the champion", "blocks": False, "rows": ()}, "is the champion"),
        (
            {"state": "not comparable", "rows": (), "reasons": ("<68> keypoints",)},
            "✗ not comparable: needs an override",
        ),
    ],
)
def test_every_verdict_has_a_chip_and_says_why(summary, changes, chip):
    changed = replace(summary, verdict=replace(summary.verdict, **changes))
    page, out = Page(render(changed)), io.StringIO()
    assert chip in page.text
    print_summary(changed, Console(file=out, width=100))
    for reason in changed.verdict.reasons:
        assert reason in page.text and reason in out.getvalue()


def test_rejections_are_grouped_and_the_most_frequent_comes_first():
    first, second = rejections(VIOLATIONS)
    assert (first.code, first.count, first.records, len(first.examples)) == ("keypoint-outside-frame", 7, 7, 5)
    assert (second.code, second.count) == ("image-missing", 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_sizes_and_numbers_are_short():
    assert (size(812_345), size(3_449_000)) == ("812 kB", "3.4 MB")
    assert (percent(0.5), percent(0.0031234), percent(0.0)) == ("50 %", "0.312 %", "0 %")
    assert (number(None), number(0.0), number(1.2345), number(2.34e-5)) == ("–", "0.00", "1.23", "2.34e-05")


def test_plain_text_holds_no_mark_of_markdown():
    assert plain("a_b|`c` <d>\n# [e]\\") == r"a\_b\|\`c\` \<d\> \# \[e\]\\"
