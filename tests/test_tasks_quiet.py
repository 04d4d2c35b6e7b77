"""How long a source has been quiet, with clocks that disagree."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.pull import PullResult
from tasks.quiet import look_at, look_at_all, quiet_for_s

OURS = datetime(2030, 5, 1, 12, tzinfo=UTC)
EDITED, EDITED_AGAIN = "2030-05-01T09:00:00.250000Z", "2030-05-01T09:30:00.250000Z"


def pulled(content, watermark=EDITED, source="ls"):
    details = {} if watermark is None else {"watermark": watermark}
    return PullResult(source, "label_studio", Path("raw.jsonl"), 1, {}, content, details)


def later(seconds):
    return OURS + timedelta(seconds=seconds)


@given(st.timedeltas(timedelta(days=-400), timedelta(days=400)), st.floats(0, 1e5))
def test_an_edit_s_age_is_told_by_the_server_s_clock_however_wrong_ours_is(skew, age_s):
    sighting = look_at(pulled("a"), None, OURS + skew)
    server_now = datetime.fromisoformat(EDITED) + timedelta(seconds=age_s)
    found = quiet_for_s(sighting, now=OURS + skew, server_now=server_now)
    assert found == pytest.approx(age_s, abs=1e-5)
    again = look_at(pulled("b", EDITED_AGAIN), sighting, OURS + skew)
    server_now += timedelta(minutes=30)
    assert quiet_for_s(again, now=OURS + skew, server_now=server_now) == pytest.approx(age_s, abs=1e-5)


def test_what_has_no_stamp_is_new_since_a_pull_saw_it_first():
    """A task that was deleted: the newest stamp is an old one."""
    first = look_at(pulled("a"), None, OURS)
    gone = look_at(pulled("b"), first, later(1000))
    server_now = datetime.fromisoformat(EDITED) + timedelta(hours=3)
    assert quiet_for_s(gone, now=later(1000), server_now=server_now) == 0
    still = look_at(pulled("b"), gone, later(1400))
    assert quiet_for_s(still, now=later(1400), server_now=server_now) == 400


def test_a_stamp_from_the_server_s_future_is_not_believed():
    server_now = datetime.fromisoformat(EDITED) - timedelta(days=1)
    first = look_at(pulled("a"), None, OURS)
    assert quiet_for_s(first, now=OURS, server_now=server_now) == 0
    assert quiet_for_s(look_at(pulled("a"), first, later(700)), now=later(700), server_now=server_now) == 700
    changed = look_at(pulled("b", EDITED_AGAIN), first, later(60))
    assert quiet_for_s(changed, now=later(700), server_now=server_now) == 640


def test_a_file_that_was_exchanged():
    first = look_at(pulled("a", None), None, OURS)
    assert quiet_for_s(first, now=OURS, server_now=None) == math.inf
    other = look_at(pulled("b", None), first, later(5))
    assert quiet_for_s(other, now=later(65), server_now=None) == 60


def test_our_clock_that_was_set_back_makes_the_wait_begin_anew_not_endless():
    first = look_at(pulled("a", None), None, OURS)
    other = look_at(pulled("b", None), first, later(5))
    assert quiet_for_s(other, now=later(-3600), server_now=None) == 0
    again = look_at(pulled("b", None), other, later(-3600))
    assert quiet_for_s(again, now=later(-3000), server_now=None) == 600


def test_what_was_seen_is_kept(tmp_path):
    seen = tmp_path / "seen.json"
    look_at_all([pulled("a"), pulled("x", None, "files")], seen, now=OURS)
    found = look_at_all([pulled("a"), pulled("y", None, "files")], seen, now=later(10))
    assert quiet_for_s(found["files"], now=later(25), server_now=None) == 15
    assert look_at_all([pulled("a"), pulled("y", None, "files")], seen, now=later(30)) == found
