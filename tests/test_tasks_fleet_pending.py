import io
from dataclasses import replace

import pytest
from rich.console import Console

from deploy.devices import Device, LocalReach
from schemas.errors import StorageError
from tasks.fleet.page import print_rollout, render, write_rollout
from tasks.fleet.pending import begin, has_work, only_waited_for, open_rollout, rollout_id
from tasks.fleet.results import DeviceRow, TargetRow, load_result, save_result
from tasks.review.approval import Accepted
from tests.html_pages import Page, assert_self_contained

TARGETS = ["cpu", "jetson-nano"]
SEVEN = Accepted("fpenet", "7", "a" * 64, "anna", "better eyes", None, "2026-01-02T10:00:00+00:00")
EIGHT = replace(SEVEN, version="8", report="b" * 64, at="2026-01-03T10:00:00+00:00")


def row(target, state, **devices):
    found = tuple(DeviceRow(name.replace("_", "-"), "canary", s, f"why {s}") for name, s in devices.items())
    return TargetRow(
        target, target.upper(), "trtexec", state, "", "2026-01-02T10:05:30+00:00", engine="e" * 20, devices=found
    )


def test_without_an_accepted_version_there_is_nothing_to_do(tmp_path):
    assert open_rollout(None, TARGETS, tmp_path) is None


def test_an_accepted_version_is_begun_once_and_open_until_every_target_was_gone_through(tmp_path):
    begun = open_rollout(SEVEN, TARGETS, tmp_path)
    assert (begun.version, begun.open_targets) == ("fpenet/7", ("cpu", "jetson-nano"))
    half = replace(begun, rows=(row("cpu", "promoted", here="active"),))
    assert has_work(SEVEN, TARGETS, tmp_path)
    save_result(half, tmp_path)
    killed = open_rollout(SEVEN, TARGETS, tmp_path)
    assert (killed.id, killed.open_targets) == (begun.id, ("jetson-nano",))
    save_result(replace(half, rows=(*half.rows, row("jetson-nano", "failed", nano="failed"))), tmp_path)
    assert not has_work(SEVEN, TARGETS, tmp_path)
    assert has_work(EIGHT, TARGETS, tmp_path) and load_result(rollout_id(EIGHT), tmp_path) is None, "it begins none"
    assert open_rollout(SEVEN, TARGETS, tmp_path) is None


@pytest.mark.parametrize(
    ("state", "devices", "waits_for"),
    [
        ("offline", {"nano_1": "offline", "nano_2": "offline"}, ("nano-1", "nano-2")),
        ("canary", {"nano_1": "active", "nano_2": "offline"}, ("nano-2",)),
        ("promoted", {"nano_1": "active", "nano_2": "offline"}, ("nano-2",)),
        ("promoted", {"nano_1": "gated", "nano_2": "offline"}, ("nano-2",)),
        ("canary", {"nano_1": "gated", "nano_2": "offline"}, ()),
        ("gated", {"nano_1": "gated", "nano_2": "offline"}, ()),
        ("failed", {"nano_1": "failed"}, ()),
        ("refused", {"nano_1": "refused"}, ()),
        ("skipped", {}, ()),
    ],
)
def test_only_devices_that_are_away_are_waited_for_and_only_where_nothing_else_is_wrong(
    state, devices, waits_for, tmp_path
):
    found = row("jetson-nano", state, **devices)
    assert found.waits_for == waits_for
    save_result(replace(begin(SEVEN, ["jetson-nano"], tmp_path), rows=(found,)), tmp_path)
    assert (open_rollout(SEVEN, ["jetson-nano"], tmp_path) is not None) == bool(waits_for)


def some_fleet(*names, target="jetson-nano"):
    reach = LocalReach(kind="local", directory="devices")
    return [Device(name=name, target=target, ring="canary", reach=reach) for name in names]


def test_what_only_waits_for_devices_that_are_still_the_same_is_told_from_other_work(tmp_path):
    away = row("jetson-nano", "offline", nano_1="offline", nano_2="offline")
    begun = replace(begin(SEVEN, TARGETS, tmp_path), rows=(row("cpu", "promoted", here="active"), away))
    fleet = [*some_fleet("nano-1", "nano-2"), *some_fleet("here", target="cpu")]
    assert [device.name for device in only_waited_for(begun, fleet)] == ["nano-1", "nano-2"]
    half = replace(begun, rows=(begun.rows[0], row("jetson-nano", "promoted", nano_1="active", nano_2="offline")))
    assert [device.name for device in only_waited_for(half, fleet)] == ["nano-2"]
    for other_work in (
        only_waited_for(replace(begun, rows=(away,)), fleet),
        only_waited_for(replace(begun, rows=(begun.rows[0], replace(away, again=True))), fleet),
        only_waited_for(begun, [*fleet, *some_fleet("nano-3")]),
        only_waited_for(begun, fleet[1:]),
    ):
        assert other_work == []


def test_a_newer_version_replaces_one_that_is_under_way(tmp_path):
    first = open_rollout(SEVEN, TARGETS, tmp_path)
    second = open_rollout(EIGHT, TARGETS, tmp_path)
    assert second.version == "fpenet/8"
    assert load_result(first.id, tmp_path).stopped.startswith("replaced by fpenet/8 at 20")
    assert not load_result(first.id, tmp_path).is_open
    assert open_rollout(EIGHT, TARGETS, tmp_path).id == second.id


def test_a_version_begun_by_hand_goes_on_until_a_newer_one_is_accepted(tmp_path):
    open_rollout(EIGHT, TARGETS, tmp_path)
    begin(SEVEN, TARGETS, tmp_path)
    assert open_rollout(EIGHT, TARGETS, tmp_path).version == "fpenet/7"
    nine = replace(EIGHT, version="9")
    assert open_rollout(nine, TARGETS, tmp_path).version == "fpenet/9"


def test_begun_anew_by_hand_everything_is_open_again(tmp_path):
    begun = begin(SEVEN, ["cpu"], tmp_path)
    save_result(replace(begun, rows=(row("cpu", "gated", here="gated"),)), tmp_path)
    assert open_rollout(SEVEN, ["cpu"], tmp_path) is None
    assert begin(SEVEN, ["cpu"], tmp_path).open_targets == ("cpu",)


def test_targets_that_the_configuration_gets_are_open_and_those_that_it_loses_are_dropped(tmp_path):
    begun = begin(SEVEN, ["cpu", "t4"], tmp_path)
    save_result(replace(begun, rows=(row("cpu", "promoted", here="active"), row("t4", "skipped"))), tmp_path)
    changed = open_rollout(SEVEN, ["cpu", "rtx"], tmp_path)
    assert (changed.open_targets, changed.states) == (("rtx",), {"cpu": "promoted"})


def test_the_same_approval_is_the_same_rollout_and_another_one_of_the_same_version_is_not():
    assert rollout_id(SEVEN) == rollout_id(replace(SEVEN, reason="other words"))
    assert rollout_id(SEVEN) != rollout_id(replace(SEVEN, report="c" * 64))
    assert "/" not in rollout_id(replace(SEVEN, name="team/fpenet"))


def test_a_damaged_record_says_what_to_do(tmp_path):
    begun = begin(SEVEN, TARGETS, tmp_path)
    (tmp_path / begun.id / "result.json").write_text("{}")
    with pytest.raises(StorageError, match="not a rollout's record; remove it"):
        open_rollout(SEVEN, TARGETS, tmp_path)


def test_page_and_terminal_show_every_target_device_and_reason(tmp_path):
    measured = DeviceRow("here", "canary", "active", "", 1e-5, 1e-4, {"All": 1e-5, "Eyes": 2e-5}, 1.2, 1.5, 833.0)
    rows = (
        replace(row("cpu", "promoted"), devices=(measured,), ladder=("int8: parity Eyes mean 0.3 px",)),
        replace(row("jetson-nano", "offline", nano_1="offline"), why="no device answers: <nano-1>"),
    )
    begun = replace(begin(SEVEN, [*TARGETS, "rtx"], tmp_path), began_at="2026-01-02T10:04:00.000+00:00")
    result = replace(begun, rows=rows)
    assert (result.accepted_to_last_s, result.began_to_last_s) == (330.0, 90.0)
    page = write_rollout(result, tmp_path)
    assert load_result(result.id, tmp_path) == result
    assert_self_contained(page.read_text(), pictures=0)
    text = Page(render(result)).text
    terminal = io.StringIO()
    print_rollout(result, Console(file=terminal, width=160))
    for expected in (
        "promoted",
        "offline",
        "no device answers: <nano-1>",
        "why offline",
        "int8: parity Eyes mean 0.3 px",
        "833",
        "5 min 30 s",
        "1 min 30 s",
    ):
        assert expected in text
        assert expected in terminal.getvalue()
    assert "not finished" in text and "anna" in text
    assert "<nano-1>" not in page.read_text()
