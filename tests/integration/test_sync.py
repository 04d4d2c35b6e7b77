"""Following a real Label Studio: what counts as a change, and what `sync` makes of it."""

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from schemas.config import load_config
from schemas.raw import read_raw
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import SubjectRule
from tasks.changes import Kind, changes_since
from tasks.images import ImageIndex
from tasks.label_studio.folder_import import import_folder
from tasks.lease import Lease
from tasks.mlflow_client import mlflow_client
from tasks.pull import pull
from tasks.quiet import look_at, quiet_for_s, server_time
from tasks.review.tags import REPORT_HASH
from tasks.snapshot import load_snapshot, take_snapshot
from tasks.validate import validate
from tasks.workspace import Workspace
from tests.retrain_project import render_faces, run, write_project

N, IMAGES = 5, 6
FRAME = (60, 48)
SKEW = timedelta(days=3)


def write_folder(root):
    rng = np.random.default_rng(11)
    entries = []
    for i in range(IMAGES):
        name = f"images/{i:03d}.png"
        points_N2 = np.round(rng.uniform(8, 40, (N, 2)), 2).astype(np.float32)
        entries.append(image_entry(name, [face_to_sloth(points_N2, np.zeros(N, np.int8))]))
        (root / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), rng.integers(0, 255, (FRAME[1], FRAME[0], 3), np.uint8))
    (root / "gt").mkdir()
    (root / "gt/all.json").write_text(json.dumps(entries))
    return root


@pytest.fixture
def project(label_studio, connection, tmp_path, request):
    """A project of its own on the server, gone with the test."""
    done = import_folder(
        label_studio.url,
        label_studio.token,
        title=f"sync {request.node.name}"[:50],
        folder=write_folder(tmp_path / "team"),
        num_keypoints=N,
        subject=SubjectRule(dataset="team", pattern=r"(?P<subject>\d+)\.png"),
    )
    yield done.project
    connection.sdk.projects.delete(id=done.project)


@pytest.fixture
def configure(label_studio, label_studio_token, project, tmp_path):
    def configure(**sync):
        config = {
            "workspace": str(tmp_path / "workspace"),
            "num_keypoints": N,
            "sources": [
                {
                    "kind": "label_studio",
                    "name": "server",
                    "url": label_studio.url,
                    "project": project,
                    "token_env": label_studio_token,
                    "subject": {"field": "subject"},
                }
            ],
            "split": {"kpi_subjects": ["team/000"], "validation_share": 0.2},
            "experiment_spec": "not-needed.yaml",
            "sync": sync,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return configure


@pytest.fixture
def settings(configure):
    return load_config(configure())


def workspace_of(settings):
    return Workspace(Path(settings.workspace))


def pulled(settings):
    return pull(settings.sources[0], workspace_of(settings), num_keypoints=N)


def faces_now(settings):
    workspace = workspace_of(settings)
    return validate(
        read_raw(pulled(settings).raw),
        num_keypoints=N,
        rules=settings.validation,
        index=ImageIndex(workspace.image_index),
        violations_path=workspace.violations,
    )


def snapshot_now(settings):
    snapshots = workspace_of(settings).snapshots
    output = take_snapshot(
        faces_now(settings), policy=settings.split, num_keypoints=N, snapshots=snapshots, provenance={}
    )
    return load_snapshot(output.directory)


def annotations(connection, project):
    tasks = sorted(connection.sdk.tasks.list(project=project, fields="all"), key=lambda task: task.id)
    return [task.annotations[0] for task in tasks]


def move_a_keypoint(connection, annotation, percent):
    result = copy.deepcopy(annotation["result"])
    entry = next(entry for entry in result if entry["type"] == "keypointlabels")
    entry["value"]["x"] += percent
    connection.sdk.annotations.update(id=annotation["id"], result=result)


def test_only_content_is_a_change(connection, project, settings):
    snapshot = snapshot_now(settings)
    assert len(changes_since(snapshot, faces_now(settings).faces)) == 0

    first, second, third, *_ = annotations(connection, project)
    connection.sdk.annotations.update(id=first["id"], result=list(reversed(first["result"])))
    assert len(changes_since(snapshot, faces_now(settings).faces)) == 0

    move_a_keypoint(connection, first, 5)
    (edited,) = changes_since(snapshot, faces_now(settings).faces).faces
    assert (edited.kind, edited.moved, edited.flags) == (Kind.CHANGED, 1, 0)
    assert edited.furthest_px == pytest.approx(0.05 * FRAME[0], abs=1e-4)
    assert edited.source_key.endswith(f"/annotation/{first['id']}")

    connection.sdk.annotations.delete(id=second["id"])
    connection.sdk.tasks.delete(id=third["task"])
    kinds = [face.kind for face in changes_since(snapshot, faces_now(settings).faces).faces]
    assert sorted(kinds) == [Kind.CHANGED, Kind.REMOVED, Kind.REMOVED]


def test_it_is_the_server_s_clock_that_tells_how_long_ago_it_was(connection, project, settings):
    source = settings.sources[0]
    (annotation, *_) = annotations(connection, project)
    move_a_keypoint(connection, annotation, 1)
    ours = datetime.now(UTC) + SKEW
    sighting = look_at(pulled(settings), None, ours)
    edited = quiet_for_s(sighting, now=ours, server_now=server_time(source))
    assert 0 <= edited < 300
    connection.sdk.tasks.delete(id=annotations(connection, project)[-1]["task"])
    later = ours + timedelta(hours=1)
    assert quiet_for_s(look_at(pulled(settings), sighting, later), now=later, server_now=server_time(source)) == 0


@pytest.mark.slow
def test_sync_by_hand(connection, project, configure, tmp_path):
    config = configure(min_changed_faces=1, quiet_s=3600)
    settings = load_config(config)
    with mlflow_client(settings.tracking, workspace_of(settings)) as client:  # a network is not needed here
        client.create_registered_model("fpenet")
        tags = {"snapshot_id": snapshot_now(settings).id, REPORT_HASH: "a" * 64}
        client.create_model_version("fpenet", str(tmp_path), tags=tags)
    code, told = run(config, "sync")
    assert (code, f"unchanged: the {IMAGES} faces are those of fpenet version 1" in told) == (0, True), told

    move_a_keypoint(connection, annotations(connection, project)[0], 5)
    code, told = run(config, "sync")
    assert (code, "not quiet yet: 1 face differs" in told) == (0, True), told
    assert "but server changed " in told and "run it again after " in told


@pytest.mark.slow
def test_what_missed_its_bound_is_not_trained_again_by_every_look(tmp_path):
    config = write_project(
        tmp_path, faces=render_faces(tmp_path / "faces"), epochs=1, gates={"onnx_parity_px": 1e-12}
    )
    code, told = run(config, "sync")
    assert (code, "retrain: there is no model" in told) == (4, True), told
    code, told = run(config, "sync")
    assert (code, "failed before: " in told, "`fpenet run retrain` tries again" in told) == (0, True, True), told
    assert run(config, "retrain")[0] == 4


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["retrain", "quality"])
def test_while_another_run_is_at_it(configure, flow):
    """By hand while the nightly run works: said at once, and left for that run to do."""
    config = configure()
    lease = Lease(workspace_of(load_config(config)).lease)
    with lease.attempt("retrain nightly") as held:
        assert held
        code, told = run(config, flow)
    assert (code, "left to retrain nightly on " in told) == (0, True), told
    assert [request.kind for request in lease.requests().values()] == [flow]
