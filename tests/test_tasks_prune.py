"""What goes from a workspace, and what stays, against MLflow itself."""

import hashlib
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from deploy.engine_directory import RECORD
from flows.entry.cli import main
from schemas.config import Tracking
from schemas.errors import InputError
from schemas.storage import write_bytes, write_json
from tasks.fleet.pending import begin
from tasks.lease import present
from tasks.mlflow_client import mlflow_client
from tasks.prune import DAY_S, Retention, find_leftovers, prune_workspace
from tasks.reuse import reuse_or_run
from tasks.review.aliases import CHALLENGER, CHAMPION, move
from tasks.review.approval import Accepted
from tasks.workspace import Workspace
from tests.lineage_histories import (
    digest,
    staged,
    workspace_in,
    write_device,
    write_engine,
    write_pointer,
    write_version,
)
from tests.retrain_project import write_project

TRACKING = Tracking()
VERSIONS = range(1, 10)
FIRST, CHAMPION_IS, BEFORE, CHALLENGER_IS, PRODUCTION, KEPT_BY_DEVICE, LAST_BUT_ONE, LAST = 1, 2, 3, 4, 5, 7, 8, 9
RETENTION = Retention(versions=2, days=30)


def onnx_of(number: int) -> bytes:
    return f"onnx {number}".encode()


def make_version(workspace, number: int) -> str:
    """A version and everything of it; the build key of its engine."""

    def make(parent: Path, key: str, name: str, content: bytes, **result) -> None:
        def write(directory: Path) -> dict:
            write_bytes(directory / name, content)
            return result

        reuse_or_run(parent, key, write)

    shards = {"files": [{"file": "shared.tfrecords"}, {"file": f"own{number}.tfrecords"}]}
    make(workspace.training, f"t{number}", "model.keras", b"weights")
    make(workspace.evaluation, f"e{number}", "report.json", b"{}")
    make(workspace.exports, f"x{number}", "model.onnx", onnx_of(number))
    make(workspace.models, f"onnx-fpenet-{number}-run", "model.onnx", onnx_of(number))
    make(workspace.conversions, f"c{number}", "told", b"", snapshot=f"s{number}", splits={"train": shards})
    for shard in ("shared", f"own{number}"):
        write_bytes(workspace.shards / f"{shard}.tfrecords", b"records")
        write_json(workspace.shards / f"{shard}.json", {})
    write_json(workspace.reports / f"r{number}/summary.json", {"model_version": f"fpenet/{number}"})
    write_bytes(workspace.reports / f"r{number}/index.html", b"page")
    write_bytes(workspace.quality / f"q{number}/index.html", b"page")
    record = write_version(workspace, "fpenet", number, f"s{number}", digest_of_onnx(number))
    key = write_engine(workspace, "cpu", record)
    write_json(workspace.engines / key / RECORD, {})
    return key


def digest_of_onnx(number: int) -> str:
    return hashlib.sha256(onnx_of(number)).hexdigest()


def age(root: Path, days: float) -> None:
    then = time.time() - days * DAY_S
    for path in [root, *root.rglob("*")]:
        os.utime(path, (then, then))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Nine old versions: the last two are new to people, all but the first are in use."""
    tmp_path = tmp_path_factory.mktemp("filled")
    workspace = workspace_in(tmp_path / "workspace")
    keys = {number: make_version(workspace, number) for number in VERSIONS}
    age(workspace.root, 90)
    os.utime(workspace.quality / "q9")
    os.utime(workspace.conversions / "c9", (time.time() - 80 * DAY_S,) * 2)
    with mlflow_client(TRACKING, workspace) as client:
        client.create_registered_model("fpenet")
        for _ in VERSIONS:
            client.create_model_version("fpenet", str(tmp_path))
        move(client, "fpenet", CHAMPION, str(CHAMPION_IS))
        move(client, "fpenet", CHALLENGER, str(CHALLENGER_IS))
    engine, *earlier = (staged(keys[number], str(number)) for number in (PRODUCTION, FIRST, BEFORE, 6))
    write_pointer(workspace, "cpu", "production", engine, *earlier, action="promote")
    write_device(workspace, "cpu", "dock", keys[KEPT_BY_DEVICE], version=str(KEPT_BY_DEVICE))
    return workspace


@pytest.fixture
def workspace(filled, tmp_path):
    """A copy, as old."""
    return Workspace(shutil.copytree(filled.root, tmp_path / "workspace"))


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if not path.name.startswith(".")}


def test_what_nobody_may_want_any_more_goes_and_nothing_else(workspace):
    before = {path: names(path) for path in workspace.root.iterdir() if path.is_dir()}
    engine = digest("cpu", digest_of_onnx(FIRST))[:20]
    expected = {
        workspace.training: {"t1"},
        workspace.evaluation: {f"e{number}" for number in VERSIONS},
        workspace.exports: {"x1"},
        workspace.models: {"onnx-fpenet-1-run"},
        workspace.conversions: {"c1"},
        workspace.shards: {"own1.tfrecords", "own1.json"},
        workspace.engines: {engine},
        workspace.reports: {"r1"},
        workspace.quality: {f"q{number}" for number in range(1, 9)},
    }
    found = find_leftovers(workspace, TRACKING, RETENTION)
    assert {path: names(path) for path in before} == before, "it only looks"
    told = {place: {left.path.name for left in found.leftovers if left.path.parent == place} for place in expected}
    assert told == expected and sum(map(len, expected.values())) == len(found.leftovers)
    assert found.kept == {
        ("fpenet", str(number)): why
        for number, why in {
            CHAMPION_IS: "champion",
            BEFORE: "on devices, or to go back to",
            CHALLENGER_IS: "challenger",
            PRODUCTION: "on devices, or to go back to",
            6: "on devices, or to go back to",
            KEPT_BY_DEVICE: "on devices, or to go back to",
            LAST_BUT_ONE: "new",
            LAST: "new",
        }.items()
    }

    assert prune_workspace(workspace, TRACKING, RETENTION) == found
    after = {path: there - expected.get(path, set()) for path, there in before.items()}
    assert {path: names(path) for path in before} == after
    assert find_leftovers(workspace, TRACKING, RETENTION).leftovers == []


@pytest.mark.parametrize("why", ["accepted", "rolled out last"])
def test_a_version_on_its_way_to_the_devices_stays(workspace, why):
    accepted = Accepted("fpenet", str(FIRST), "a" * 64, "Ann", "better", None, "2026-01-01T00:00:00+00:00")
    if why == "accepted":
        write_json(workspace.accepted, asdict(accepted))
    else:
        begin(accepted, ["cpu"], workspace.rollouts)
    found = find_leftovers(workspace, TRACKING, RETENTION)
    assert found.kept["fpenet", str(FIRST)] == why
    assert {left.kind for left in found.leftovers} == {"evaluations", "runs of quality"}


def test_the_last_conversion_and_the_last_page_stay_whatever_they_are_of(workspace):
    for place, name in ((workspace.conversions, "c1"), (workspace.reports, "r1")):
        age(shutil.copytree(place / name, place / "last"), 40)
    gone = {left.path.name for left in find_leftovers(workspace, TRACKING, RETENTION).leftovers}
    assert gone >= {"c1", "r1"} and gone.isdisjoint({"last", "own1.tfrecords", "own1.json"})


def test_sizes_are_those_of_the_files(workspace):
    found = find_leftovers(workspace, TRACKING, RETENTION)
    sizes = {left.path.name: left.size for left in found.leftovers}
    manifest = workspace.training / "t1/manifest.json"
    assert sizes["t1"] == len(b"weights") + manifest.stat().st_size
    assert sizes["own1.tfrecords"] == len(b"records")
    assert found.size == sum(sizes.values())


def test_what_is_young_stays(workspace):
    age(workspace.root, 29)
    assert find_leftovers(workspace, TRACKING, RETENTION).leftovers == []


def test_a_young_conversion_keeps_its_old_shards(workspace):
    os.utime(workspace.conversions / "c1")
    gone = {left.path.name for left in find_leftovers(workspace, TRACKING, RETENTION).leftovers}
    assert gone.isdisjoint({"c1", "own1.tfrecords", "own1.json"}) and "t1" in gone


def test_what_was_broken_off_goes_once_it_is_old(workspace):
    for name in (".t20.partial", ".t21.partial"):
        write_bytes(workspace.training / name / "checkpoint.npz", b"half")
        age(workspace.training / name, 90)
    os.utime(workspace.training / ".t21.partial/checkpoint.npz")
    write_bytes(workspace.training / ".t22.pruned/model.keras", b"a pruning was killed here")
    prune_workspace(workspace, TRACKING, RETENTION)
    hidden = {path.name for path in workspace.training.glob(".t2?.*")}
    assert hidden == {".t21.partial"}


def test_a_pruning_that_was_killed_is_no_hindrance(workspace):
    (workspace.training / "t1").rename(workspace.training / ".t1.pruned")
    make_version(workspace, FIRST)
    age(workspace.root, 90)
    prune_workspace(workspace, TRACKING, RETENTION)
    assert not list(workspace.training.glob("*t1*"))


def test_somebody_s_own_folder_is_left_alone(workspace):
    write_bytes(workspace.training / "notes/ideas.txt", b"mine")
    write_bytes(workspace.engines / "checks/1a2b/manifest.json", b"{}")
    age(workspace.root, 90)
    prune_workspace(workspace, TRACKING, RETENTION)
    assert (workspace.training / "notes/ideas.txt").is_file()
    assert (workspace.engines / "checks/1a2b/manifest.json").is_file()


def test_a_workspace_in_which_nothing_was_done(tmp_path):
    workspace = workspace_in(tmp_path / "new")
    assert prune_workspace(workspace, TRACKING, RETENTION).leftovers == []


def test_not_beside_a_run(workspace):
    for act in (find_leftovers, prune_workspace):
        with present(workspace.lease), pytest.raises(InputError, match="a run is at work"):
            act(workspace, TRACKING, RETENTION)
    assert (workspace.training / "t1").is_dir()


def test_as_a_command(workspace, tmp_path, capsys):
    config = str(write_project(tmp_path, faces=tmp_path))
    assert main(["prune", "--config", config, "--versions", "2", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "kept: fpenet/2 (champion)" in told and "would be freed. Nothing was removed." in told
    assert (workspace.training / "t1").is_dir()
    assert main(["prune", "--config", config, "--versions", "2"]) == 0
    assert "MiB freed." in capsys.readouterr().out
    assert not (workspace.training / "t1").exists()
