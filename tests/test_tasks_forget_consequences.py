"""Which engines are to be withdrawn, and from which devices."""

import pytest

from deploy.bundle.archive import write_bundle
from schemas.config import Tracking
from schemas.storage import canonical_json
from tasks.fleet.promotion import roll_back_target
from tasks.forget.consequences import affected_bundles, affected_engines, affected_models, learnt_from
from tasks.mlflow_client import mlflow_client
from tasks.workspace import Workspace
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


@pytest.mark.parametrize(("split", "learnt"), [("train", True), ("validation", True), ("kpi", False)])
def test_a_model_has_learnt_from_whom_it_was_trained_or_chosen_by(split, learnt):
    assert learnt_from({split: 1}) is learnt


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


def test_versions_are_listed_of_every_registered_model(tmp_path):
    """The configuration may have named another one when they were trained."""
    tracking, workspace = Tracking(registered_model="faces"), Workspace(tmp_path)
    with mlflow_client(tracking, workspace) as client:
        for name, snapshot in (("faces", "other"), ("faces", "s"), ("before", "s")):
            if not client.search_registered_models(f"name='{name}'"):
                client.create_registered_model(name)
            client.create_model_version(name, "file:///nowhere", tags={"snapshot_id": snapshot})
    found = affected_models({"s": {"train": 3}}, tracking, workspace)
    assert [str(model) for model in found] == ["before version 1", "faces version 2"]


def test_bundles_of_such_engines_are_listed_and_those_that_nobody_can_read(tmp_path):
    for name, snapshot in (("t4.tar.gz", "s"), ("orin", "s"), ("cpu.tar.gz", "other")):
        origin = {"model_name": "fpenet", "model_version": "3", "snapshot_id": snapshot}
        manifest = canonical_json({"build_key": f"key-of-{name[:2]}", "provenance": origin})
        write_bundle(tmp_path / name, "fpenet", {"engine/manifest.json": manifest, "README.md": b""})
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "t4.tar.gz").read_bytes()[:40])
    write_bundle(tmp_path / "notes", "notes", {"README.md": b"no bundle"})
    (tmp_path / "list.txt").write_text("no bundle")
    found = affected_bundles({"s": {"train": 3}}, tmp_path)
    sent = "of fpenet version 3; remove it, here and where it was sent"
    assert [str(bundle) for bundle in found] == [
        f"bundle {tmp_path}/cut.tar.gz: can't be read; see what it holds, or remove it",
        f"bundle {tmp_path}/orin: engine key-of-or {sent}",
        f"bundle {tmp_path}/t4.tar.gz: engine key-of-t4 {sent}",
    ]
    assert [bundle.learnt for bundle in affected_bundles({"s": {"kpi": 3}}, tmp_path)] == [True, False, False]
    assert affected_bundles({}, tmp_path) == affected_bundles({"s": {"train": 3}}, tmp_path / "none") == []


MANIFEST = b'{"build_key": "key", "provenance": {"snapshot_id": "s", "model_name": "fpenet", "model_version": "3"}}'
DAMAGED = {
    "cut off": MANIFEST[:30],
    "empty": b"",
    "not text": b"\xff" + MANIFEST,
    "not an object": b"[]",
    "without provenance": b'{"build_key": "key"}',
    "without a build key": MANIFEST.replace(b"build_key", b"key"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_bundle_whose_engine_manifest_was_damaged_is_one_that_nobody_can_read(tmp_path, content):
    write_bundle(tmp_path / "t4", "fpenet", {"engine/manifest.json": content})
    (found,) = affected_bundles({"s": {"kpi": 3}}, tmp_path)
    assert (found.build_key, found.learnt) == ("", True)
    assert str(found) == f"bundle {tmp_path}/t4: can't be read; see what it holds, or remove it"
