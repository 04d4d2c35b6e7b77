import os

import pytest

from schemas.config import ConversionSettings, Tracking
from schemas.errors import SourceEmptyError, TrackingError
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import sha256_file, write_json
from tasks.fleet.material import fetch_files, find_conversion
from tasks.mlflow_client import mlflow_client
from tasks.workspace import Workspace
from tests.retrain_project import experiment

SPEC = ExperimentSpec.model_validate(experiment())


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def conversion(workspace, key, *, snapshot, age, num_keypoints=SPEC.num_keypoints, **settings):
    """A conversion whose shards hold nothing but their names."""
    workspace.shards.mkdir(exist_ok=True)
    splits = {}
    for split in Split:
        shard = workspace.shards / f"{key}-{split}.tfrecords"
        shard.write_text(shard.name)
        entry = {"file": shard.name, "sha256": sha256_file(shard), "records": 1}
        splits[str(split)] = {"files": [entry], "records": 1}
    manifest = workspace.conversions / key / "manifest.json"
    made_by = ConversionSettings(**settings).model_dump(mode="json")
    result = {"snapshot": snapshot, "num_keypoints": num_keypoints, "settings": made_by, "splits": splits}
    write_json(manifest, {"key": key, "files": {}, "result": result})
    os.utime(manifest, (age, age))


def test_the_last_whole_conversion_of_the_snapshot_is_taken(workspace):
    conversion(workspace, "old", snapshot="s", age=1)
    conversion(workspace, "new", snapshot="s", age=2)
    conversion(workspace, "other", snapshot="t", age=3)
    conversion(workspace, "fewer", snapshot="s", age=4, num_keypoints=5)
    found = find_conversion("s", SPEC, workspace)
    assert (found.key, [path.name for path in found.files[Split.KPI]]) == ("new", ["new-kpi.tfrecords"])
    (workspace.shards / "new-train.tfrecords").write_text("somebody was forgotten")
    assert find_conversion("s", SPEC, workspace).key == "old"
    (workspace.shards / "old-kpi.tfrecords").unlink()
    with pytest.raises(SourceEmptyError, match="if someone in it has withdrawn since, run `retrain`"):
        find_conversion("s", SPEC, workspace)


def test_a_conversion_with_other_crops_than_the_version_was_trained_on_is_passed_over(workspace):
    in_colour = experiment()
    in_colour["dataloader"]["image_info"] = {"image": {"channel": 3}}
    conversion(workspace, "colour", snapshot="s", age=1, color="rgb")
    conversion(workspace, "gray", snapshot="s", age=2)
    conversion(workspace, "wider", snapshot="s", age=3, bbox_enlarge_ratio=1.2)
    assert find_conversion("s", SPEC, workspace).key == "gray"
    assert find_conversion("s", ExperimentSpec.model_validate(in_colour), workspace).key == "colour"
    conversion(workspace, "by name", snapshot="s", age=4, embed_crops=False)
    assert find_conversion("s", ExperimentSpec.model_validate(in_colour), workspace).key == "by name"


def test_graph_and_spec_are_fetched_once_and_lie_where_they_are_looked_for(workspace):
    with mlflow_client(Tracking(), workspace) as client:
        run = client.create_run(client.create_experiment("e", str(workspace.artifacts.as_uri())))
        client.log_text(run.info.run_id, "graph", "onnx/model.onnx")
        client.log_text(run.info.run_id, "spec", "experiment_spec.yaml")
        client.create_registered_model("fpenet")
        client.create_model_version("fpenet", "s3://nowhere", run.info.run_id, tags={"snapshot_id": "s"})
        client.create_model_version("fpenet", "s3://nowhere")
    folder, snapshot = fetch_files("fpenet", "1", Tracking(), workspace)
    assert (snapshot, (folder / "onnx/model.onnx").read_text()) == ("s", "graph")
    assert (folder / "experiment_spec.yaml").read_text() == "spec"
    with pytest.raises(TrackingError, match="version 2 was not registered by this project"):
        fetch_files("fpenet", "2", Tracking(), workspace)
