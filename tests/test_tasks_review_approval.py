"""When a decision in a version's tags holds, and what is said when it does not."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from schemas.errors import ReviewError
from tasks.review.approval import Accepted, Standing, accepted_version, decide, fingerprint, override_of, stamp
from tasks.workspace import Workspace

REPORT, OTHER = "a" * 64, "b" * 64
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WAITING = {"review_sha256": REPORT, "review.champion": "3", "gate": "passed"}
APPROVAL = {"review": "approved", "review.by": "Ann", "review.reason": "eyes are better", "review.report": REPORT}


def decided(tags, *, champion="3", now=NOW):
    return decide(tags, version="4", champion=champion, now=now, valid_days=14)


def test_an_approval_of_the_report_against_the_champion_holds():
    decision = decided(WAITING | APPROVAL)
    assert decision.standing is Standing.APPROVED
    assert str(decision) == "approved: by Ann: eyes are better"
    assert decision.until == NOW + timedelta(days=14)


@pytest.mark.parametrize("written", ["Approved", " approved ", "APPROVED"])
def test_how_it_is_written_does_not_matter(written):
    assert decided(WAITING | APPROVAL | {"review": written}).standing is Standing.APPROVED


def test_the_beginning_of_the_hash_names_the_report():
    assert decided(WAITING | APPROVAL | {"review.report": REPORT[:12]}).standing is Standing.APPROVED
    assert decided(WAITING | APPROVAL | {"review.report": REPORT[:11]}).standing is Standing.REFUSED
    its_end = {"review_sha256": OTHER[:32] + REPORT[:32], "review.report": REPORT[:32]}
    assert decided(WAITING | APPROVAL | its_end).standing is Standing.REFUSED


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"review.by": " "}, "set review.by"),
        ({"review.by": "", "review.reason": "", "review.report": ""}, "set review.by, review.reason, review.report"),
        ({"review.report": OTHER}, rf"names another report \(bbbbbbbbbbbb\); .* then set {REPORT}"),
        ({"review.champion": "2"}, "compares it with champion 2, and that is 3 now"),
        (
            {"gate": "failed", "gate.summary": "failed: Eyes"},
            "the gate says failed: Eyes; .* review.override",
        ),
        ({"gate": "inconclusive"}, "the gate says inconclusive; .* review.override"),
        ({"gate": "not comparable", "review.override": "  "}, "the gate says not comparable"),
        ({"review": "yes"}, "review is 'yes': set it to approved or rejected"),
    ],
)
def test_why_an_approval_does_not_hold(tags, said):
    decision = decided(WAITING | APPROVAL | tags)
    assert decision.standing is Standing.REFUSED
    assert re.search(said, decision.words)


def test_all_reasons_are_told_at_once():
    words = decided(WAITING | APPROVAL | {"review.by": "", "review.report": OTHER, "gate": "failed"}).words
    assert all(part in words for part in ("set review.by", "another report", "gate says failed"))


def test_without_a_report_or_a_gate_there_is_nothing_to_approve():
    words = decided(APPROVAL).words
    assert "there is no report" in words and "gate says nothing" in words
    judged = decided(APPROVAL | {"gate": "passed"})
    assert judged.standing is Standing.REFUSED and "it is being made, unless" in judged.words


def test_a_failed_gate_is_overridden_with_a_reason_that_is_kept():
    tags = WAITING | APPROVAL | {"gate": "failed", "review.override": "profile faces don't occur on the device"}
    assert decided(tags).standing is Standing.APPROVED
    assert override_of(tags) == "profile faces don't occur on the device"
    assert override_of(tags | {"gate": "passed"}) is None


def test_it_lapses_some_days_after_it_was_first_seen_and_any_new_word_renews_it():
    tags = WAITING | APPROVAL
    tags["review.noted"] = stamp(NOW, tags)
    assert decided(tags, now=NOW + timedelta(days=13, hours=23)).standing is Standing.APPROVED
    late = decided(tags, now=NOW + timedelta(days=14))
    assert late.standing is Standing.REFUSED
    assert "lapsed on 2026-12-06 12:00 UTC" in late.words and "write review.reason anew" in late.words
    renewed = tags | {"review.reason": "still better"}
    assert decided(renewed, now=NOW + timedelta(days=30)).standing is Standing.APPROVED


def test_the_first_champion_is_approved_against_nobody():
    tags = WAITING | APPROVAL | {"review.champion": "none"}
    assert decided(tags, champion=None).standing is Standing.APPROVED
    assert decided(tags, champion="1").standing is Standing.REFUSED


def test_a_report_against_a_champion_that_is_gone_is_none_against_nobody():
    decision = decided(WAITING | APPROVAL, champion=None)
    assert decision.standing is Standing.REFUSED
    assert "compares it with champion 3, and that is none now" in decision.words


def test_tags_half_set_are_told():
    assert "review.by is set, but not review" in decided(WAITING | {"review.by": "Ann"}).words
    rejection = decided(WAITING | {"review": "rejected", "review.by": "Ann"})
    assert (rejection.standing, rejection.words) == (
        Standing.REFUSED,
        "the rejection does not count yet: set review.reason",
    )


def test_a_rejection_needs_a_name_and_a_reason_and_nothing_else():
    decision = decided({"review": "rejected", "review.by": "Ann", "review.reason": "chin jumps"}, champion=None)
    assert str(decision) == "rejected: by Ann: chin jumps"


def test_what_waits_says_what_to_set():
    words = decided(WAITING).words
    assert f"review.report = {REPORT}" in words and "review.override" not in words
    assert "review.override (gate: failed)" in decided(WAITING | {"gate": "failed"}).words
    assert "fpenet run retrain" in decided({}).words
    assert "champion 3, and that is 5 now" in decided(WAITING, champion="5").words


def test_an_approval_is_used_once():
    tags = WAITING | APPROVAL
    tags["review.used"] = stamp(NOW, tags)
    replaced = decided(tags)
    assert replaced.standing is Standing.REPLACED and "version 3 is the champion since" in replaced.words
    assert decided(tags | {"review.reason": "back to it"}).standing is Standing.APPROVED


def test_the_champion_is_not_rejected_away():
    decision = decide(WAITING | {"review": "rejected"}, version="3", champion="3", now=NOW, valid_days=14)
    assert decision.standing is Standing.CHAMPION and "takes nothing back" in decision.words


def test_stamps_that_people_change_count_as_none():
    tags = WAITING | APPROVAL | {"review.noted": f"yesterday {fingerprint(APPROVAL)}"}
    assert decided(tags).until == NOW + timedelta(days=14)
    without_zone = f"2026-01-01T00:00:00 {fingerprint(APPROVAL)}"
    assert decided(tags | {"review.noted": without_zone}).until == NOW + timedelta(days=14)


def test_the_accepted_version_of_a_workspace(tmp_path):
    workspace = Workspace(tmp_path)
    assert accepted_version(workspace) is None
    workspace.accepted.parent.mkdir()
    workspace.accepted.write_text(
        '{"name": "fpenet", "version": "4", "report": "aa", "by": "Ann", "reason": "r", "override": null, "at": "t"}'
    )
    assert accepted_version(workspace) == Accepted("fpenet", "4", "aa", "Ann", "r", None, "t")
    workspace.accepted.write_text("{}")
    with pytest.raises(ReviewError, match=r"accepted\.json: damaged"):
        accepted_version(workspace)
