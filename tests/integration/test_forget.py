"""A person withdraws: no store of a finished run keeps a trace, and no pull brings one back."""

import base64
import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml

from schemas.config import Tracking
from schemas.layouts import layout
from schemas.sources import SubjectRule
from tasks.forget.artifacts import purge_artifacts
from tasks.forget.files import files_below
from tasks.forget.traces import Traces
from tasks.label_studio.folder_import import import_folder
from tasks.lease import present
from tasks.lineage.ask import ask
from tasks.tracking import register_candidate
from tasks.workspace import Workspace
from tests.candidates import make_candidate
from tests.mlflow_servers import mlflow_server
from tests.retrain_project import KPI, render_faces, run, write_project

pytestmark = pytest.mark.slow  # a training first; what each part forgets: tests/test_tasks_forget_*.py

TRAINED_ON, TESTED_ON = "multipie-like/003", KPI[0]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return render_faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, faces):
    config = write_project(tmp_path_factory.mktemp("finished"), faces=faces)
    code, output = run(config)
    assert code == 0, output
    return config


@pytest.fixture
def config(finished, tmp_path):
    """A copy of what the finished run left, with a configuration of its own."""
    shutil.copytree(finished.parent, tmp_path / "project")
    settings = yaml.safe_load(finished.read_text()) | {"workspace": str(tmp_path / "project/workspace")}
    path = tmp_path / "project/config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def workspace_of(config):
    return Path(yaml.safe_load(config.read_text())["workspace"])


def forget(config, subject, *options):
    return [
        *(sys.executable, "-m", "flows.entry.cli", "forget", "--config", str(config)),
        *("--subject", subject, "--reason", "asked to", *options),
    ]


def pixels_of(config, faces, subject):
    """Frames of the subject as files, its crops as they are embedded in shards, its faces as they were drawn."""
    workspace = workspace_of(config)
    frames = [path.read_bytes() for path in (faces / "images").glob(f"{subject.rpartition('/')[2]}_*")]
    crops, drawn = [], []
    for shard in (workspace / "shards").glob("*.tfrecords"):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            if feature["image/subject"].bytes_list.value[0] == subject.encode():
                crops.append(feature["image/encoded"].bytes_list.value[0])
    for manifest in (workspace / "evaluation").glob("*/manifest.json"):
        for shown in json.loads(manifest.read_text())["result"]["faces"].values():
            drawn += [
                (manifest.parent / "figures" / face["file"]).read_bytes()
                for face in shown
                if face["subject"] == subject
            ]
    return frames, crops, drawn


def holders(workspace, subject, pixels):
    """Files that hold the id or any of the pixels: as they are, or as a page embeds them."""
    needles = [subject.encode(), *pixels, *map(base64.b64encode, pixels)]
    found = {path for path in files_below(workspace) if any(needle in path.read_bytes() for needle in needles)}
    tables = {path for path in workspace.rglob("*.parquet") if subject in str(pq.read_table(path).to_pylist())}
    return {str(path.relative_to(workspace)) for path in found | tables}


def test_no_store_keeps_a_trace_and_no_pull_brings_one_back(config, faces):
    workspace, subjects = workspace_of(config), (TRAINED_ON, TESTED_ON)
    pixels = {}
    for subject in subjects:
        frames, crops, drawn = pixels_of(config, faces, subject)
        assert len(frames) == len(crops) == 4 and bool(drawn) == (subject in KPI)
        pixels[subject] = frames + crops + drawn
        before = {path.split("/")[0] for path in holders(workspace, subject, pixels[subject])}
        assert {"raw", "shards", "snapshots", "conversions", "lineage"} <= before
        assert ({"evaluation", "reports", "mlflow-artifacts"} <= before) == (subject in KPI)

        done = subprocess.run(forget(config, subject), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert holders(workspace, subject, pixels[subject]) == set()
        wanted = "evaluate anew" if subject in KPI else "train again without the subject"
        assert f"{wanted}: fpenet version 1 (challenger)" in done.stdout
        assert f"{'check again' if subject in KPI else 'withdraw'}: cpu staging" in done.stdout
        answer = ask(subject, Workspace(workspace))
        assert answer.forgotten and answer.name.startswith("redacted/")
        assert [len(version.engines) for one in answer.appearances for version in one.versions] == [1]

    settings = yaml.safe_load(config.read_text())
    settings["split"]["kpi_subjects"] = [name for name in KPI if name not in subjects]
    config.write_text(yaml.safe_dump(settings))
    code, output = run(config)
    assert code == 0, output
    assert all(holders(workspace, subject, pixels[subject]) == set() for subject in subjects)
    (pulled,) = (workspace / "raw").glob("*/pull.json")
    assert json.loads(pulled.read_text())["records"] == 32


@pytest.mark.parametrize("at", [5, 12])
def test_a_killed_forgetting_goes_on_where_it_was(config, faces, at):
    workspace = workspace_of(config)
    frames, crops, drawn = pixels_of(config, faces, TESTED_ON)
    killer = f"""
import os, signal, sys
calls, real = 0, os.replace
def rename(*names, **options):
    global calls
    calls += 1
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*names, **options)
os.replace = rename
from flows.entry.cli import main
sys.exit(main(sys.argv[1:]))
"""
    command = forget(config, TESTED_ON)
    killed = subprocess.run([sys.executable, "-c", killer, *command[3:]], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert holders(workspace, TESTED_ON, frames + crops + drawn)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert holders(workspace, TESTED_ON, frames + crops + drawn) == set()


def test_a_preview_changes_nothing(config):
    workspace = workspace_of(config)
    before = {path: path.read_bytes() for path in files_below(workspace)}
    done = subprocess.run(forget(config, TRAINED_ON, "--dry-run"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 train faces" in done.stdout and "Nothing was changed" in done.stdout
    assert {path: path.read_bytes() for path in files_below(workspace)} == before


@pytest.mark.parametrize(
    ("subject", "options", "message"),
    [
        ("003", (), "is no subject; one is written <dataset>/<id>"),
        (TRAINED_ON, ("--also", "none"), "none: no such folder"),
    ],
)
def test_what_can_not_be_meant(config, subject, options, message):
    done = subprocess.run(forget(config, subject, *options), capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (workspace_of(config) / "tombstones.json").exists()


@pytest.fixture
def labelled(label_studio, label_studio_token, connection, faces, tmp_path):
    """A configuration whose source is a Label Studio project; a face of the subject has left and right exchanged."""
    folder = shutil.copytree(faces, tmp_path / "team")
    mirror_labels(folder, f"{TRAINED_ON.rpartition('/')[2]}_")
    done = import_folder(
        label_studio.url,
        label_studio.token,
        title=f"forget {tmp_path.name}",
        folder=folder,
        num_keypoints=80,
        subject=SubjectRule(dataset="multipie-like", pattern=r"images/(?P<subject>\d+)_"),
    )
    source = {"kind": "label_studio", "name": "team", "url": label_studio.url, "project": done.project}
    source |= {"token_env": label_studio_token, "subject": {"field": "subject"}}
    yield write_project(tmp_path, faces=faces, sources=[source])
    connection.sdk.projects.delete(id=done.project)


def mirror_labels(folder, start):
    """Exchange left and right in one face whose image's name starts so."""
    for path in sorted((folder / "gt").rglob("*.json")):
        entries = json.loads(path.read_text())
        for entry in entries:
            if Path(entry["filename"]).name.startswith(start):
                points = next(part for part in entry["annotations"] if "P1x" in part)
                swapped = {f"P{i + 1}": f"P{j + 1}" for i, j in enumerate(layout(80).flip)}
                values = {f"{old}{axis}": points[f"{new}{axis}"] for old, new in swapped.items() for axis in "xy"}
                points.update(values)
                path.write_text(json.dumps(entries))
                return


def test_what_was_pulled_judged_and_written_out_is_forgotten_too(labelled, faces, tmp_path):
    workspace, folder = workspace_of(labelled), tmp_path / "written"
    cli = [sys.executable, "-m", "flows.entry.cli"]
    judge = [*cli, "run", "quality", "--config", str(labelled)]
    write = [*cli, "annotations", "convert", "--config", str(labelled), "--source", "team", "--folder", str(folder)]
    for command in (judge, write):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    frames, _, _ = pixels_of(labelled, faces, TRAINED_ON)
    (listed,) = workspace.glob("quality/*/quality.json")
    shown = [picture for picture in json.loads(listed.read_text())["pictures"] if picture["subject"] == TRAINED_ON]
    drawn = [(listed.parent / "pictures" / Path(picture["picture"]).name).read_bytes() for picture in shown]
    assert drawn
    with closing(sqlite3.connect(workspace / "face-signatures.sqlite")) as database:
        known = dict(database.execute("SELECT image, thumbnail FROM signatures").fetchall())
    thumbnails = [known[hashlib.sha256(frame).digest()] for frame in frames]
    pixels = [*frames, *drawn, *thumbnails]
    before = {path.split("/")[0] for path in holders(workspace, TRAINED_ON, pixels)}
    assert {"raw", "quality", "face-signatures.sqlite"} <= before
    assert len(holders(folder, TRAINED_ON, pixels)) >= 5

    done = subprocess.run(forget(labelled, TRAINED_ON, "--also", str(folder)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert holders(workspace, TRAINED_ON, pixels) == holders(folder, TRAINED_ON, pixels) == set()
    for command in (judge, write):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert holders(workspace, TRAINED_ON, pixels) == holders(folder, TRAINED_ON, pixels) == set()
    assert json.loads((workspace / "raw/team/pull.json").read_text())["details"]["forgotten"] == 4


def test_nothing_is_purged_while_a_run_is_at_work(config):
    workspace = workspace_of(config)
    before = {path: path.read_bytes() for path in files_below(workspace) if path.name != "presence"}
    with present(workspace / "lease"):
        done = subprocess.run(forget(config, TRAINED_ON), capture_output=True, text=True)
    assert done.returncode == 2
    assert "a run is at work in" in done.stderr
    assert {path: path.read_bytes() for path in files_below(workspace) if path.name != "presence"} == before


def test_artifacts_on_a_tracking_server_are_purged(tmp_path):
    from mlflow import MlflowClient

    with mlflow_server(tmp_path) as url:
        folder = tmp_path / "candidate"
        folder.mkdir()
        candidate = make_candidate(folder)
        tracking, workspace = Tracking(uri=url), Workspace(tmp_path / "workspace")
        version = register_candidate(candidate, tracking, workspace)
        subject = next(iter(candidate.report["by_subject"]))
        traces = Traces(subject, "redacted/0", snapshots={candidate.snapshot_id: {"kpi": 1}})
        changed = purge_artifacts(traces, tracking, workspace)
        assert changed == [f"{version.run_id}/evaluation/report.json"]
        fetched = MlflowClient(url, url).download_artifacts(version.run_id, "evaluation/report.json", str(tmp_path))
        assert json.loads(Path(fetched).read_text())["by_subject"]["redacted/0"] is None
        assert purge_artifacts(traces, tracking, workspace) == []
