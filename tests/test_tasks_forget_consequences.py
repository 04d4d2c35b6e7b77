"""Which engines are to be withdrawn, and from which devices."""

import pytest

from tasks.fleet.promotion import roll_back_target
from tasks.forget.consequences import affected_engines
from tests.delivered_fleets import WHO, Fleet


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    """Version 3 was taken back; version 4 waits."""
    fleet = Fleet(tmp_path)
    fleet.local("t4-a", "canary")
    fleet.local("t4-b", "main")
    for name in ("key1", "key2", "key3"):
        fleet.release(name)
    roll_back_target(fleet.targets, "t4", fleet.devices, **WHO)
    fleet.stage("key4")
    return fleet


def test_engines_on_devices_are_listed_whether_they_run_or_are_kept(fleet):
    found = {engine.build_key: engine for engine in affected_engines({"s": {"train": 3}}, fleet.targets)}
    assert {key: (engine.stages, engine.devices) for key, engine in found.items()} == {
        "key1": ((), ("t4-a", "t4-b")),
        "key2": (("production",), ("t4-a", "t4-b")),
        "key3": ((), ("t4-a", "t4-b")),
        "key4": (("staging",), ()),
    }
    assert str(found["key2"]) == "t4 production: engine key2 of fpenet version 2, to be taken off t4-a, t4-b"
    assert str(found["key3"]) == "t4 at no stage: engine key3 of fpenet version 3, to be taken off t4-a, t4-b"
    assert all(engine.learnt for engine in found.values())


def test_engines_of_other_snapshots_are_not(fleet):
    assert affected_engines({"other": {"train": 3}}, fleet.targets) == []
    assert not any(engine.learnt for engine in affected_engines({"s": {"kpi": 3}}, fleet.targets))
