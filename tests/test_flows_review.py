"""`fpenet review`: who waits for what; and the webhook's set-up where it can't be made."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect.exceptions import ObjectNotFound

import flows.review as flow
from flows.entry.cli import main
from schemas.config import Tracking, load_config
from schemas.errors import SourceEmptyError
from schemas.storage import write_json
from tasks.fleet import steps
from tasks.fleet.pending import begin
from tasks.fleet.results import DeviceRow, TargetRow, save_result
from tasks.gateway.settings import MLFLOW_SECRET_ENV
from tasks.mlflow_client import mlflow_client
from tasks.review.aliases import move
from tasks.review.approval import Accepted
from tasks.run import Run
from tasks.workspace import Workspace
from tests.servers import free_port


@pytest.fixture
def config(tmp_path):
    """Writes a configuration; its path."""

    def write(**tracking):
        settings = {
            "workspace": str(tmp_path / "workspace"),
            "sources": [{"kind": "rendered", "name": "faces"}],
            "experiment_spec": "spec.yaml",
            "tracking": tracking,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(settings))
        return str(path)

    return write


def test_what_waits_and_which_alias_was_moved(config, tmp_path, capsys):
    with mlflow_client(Tracking(), Workspace(tmp_path / "workspace")) as client:
        client.create_registered_model("fpenet")
        for _ in range(2):
            client.create_model_version("fpenet", "s3://nowhere/model")
        move(client, "fpenet", "challenger", "2")
        client.set_registered_model_alias("fpenet", "champion", "1")
        client.set_model_version_tag("fpenet", "2", "review", "[approved]")
        client.set_model_version_tag("fpenet", "2", "gate", "failed")
    assert main(["review", "--config", config()]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "2 failed" in told and "review is '[approved]': set it to approved or rejected" in told
    assert "alias champion of fpenet was moved by hand: it points to version 1, flows set it to none" in told


@pytest.mark.parametrize(
    ("options", "tracking", "secret", "said"),
    [
        ([], {}, "", "--gateway https://gateway.example.org"),
        (["--gateway", "https://gateway"], {}, "", "tracking.uri names no MLflow server"),
        (["--gateway", "https://gateway"], {"uri": "http://127.0.0.1:9"}, "", f"{MLFLOW_SECRET_ENV} is not set"),
        (["--gateway", "gateway:8310"], {"uri": "http://127.0.0.1:9"}, "s" * 32, "'gateway:8310' is no address"),
        (["--gateway", "ftp://team:pw@gateway"], {"uri": "http://127.0.0.1:9"}, "s" * 32, "'ftp://gateway' is no"),
        (["--gateway", "http://[gateway"], {"uri": "http://127.0.0.1:9"}, "s" * 32, "'http://[gateway' is no"),
    ],
)
def test_a_webhook_that_can_t_be_made(config, capsys, monkeypatch, options, tracking, secret, said):
    monkeypatch.setenv(MLFLOW_SECRET_ENV, secret)
    assert main(["review", "init", "--config", config(**tracking), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_rollout_that_is_deployed_is_a_run_of_its_own(monkeypatch):
    asked = []

    def run_deployment(name, **settings):
        if not deployed:
            raise ObjectNotFound(LookupError())
        asked.append((name, settings))
        return SimpleNamespace(name="calm-otter")

    monkeypatch.setattr(steps, "run_deployment", run_deployment)
    monkeypatch.setattr(flow, "rollout", lambda config: f"inline {config}")
    deployed, name = True, "rollout/of-faces"
    assert flow.to_devices("demo.yaml", name) == "inline demo.yaml", "started by hand"
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "of review")
    assert flow.to_devices("demo.yaml", name) == f"run calm-otter of {name}"
    assert asked == [(name, {"parameters": {"config": "demo.yaml"}, "timeout": 0, "as_subflow": False})]
    deployed = False
    assert flow.to_devices("demo.yaml", name) == "inline demo.yaml"


def test_the_rollout_that_a_deployed_review_starts_is_deployed_too():
    """Also where somebody renames what `prefect.yaml` deploys."""
    deployed = yaml.safe_load((Path(__file__).parents[1] / "prefect.yaml").read_text())["deployments"]
    names = {f"{found['entrypoint'].rpartition(':')[2]}/{found['name']}": found for found in deployed}
    assert names["review/review"]["parameters"]["rollout_deployment"] in names
    assert steps.DEPLOYMENT in names


def test_a_rollout_that_waits_for_devices_is_left_to_the_schedule_where_there_is_one(config, tmp_path, monkeypatch):
    settings = load_config(config())
    run, targets = Run(settings), list(settings.targets)
    seven = Accepted("fpenet", "7", "a" * 64, "anna", "better eyes", None, "2026-01-02T10:00:00+00:00")
    assert flow.go_on(run, "demo.yaml", "rollout/of-faces") == ""
    write_json(run.workspace.accepted, asdict(seven))
    monkeypatch.setattr(flow, "to_devices", lambda config, deployment: f"started {config}")
    for deployed in (False, True):
        monkeypatch.setattr(flow, "is_deployed", lambda name, deployed=deployed: deployed)
        assert flow.go_on(run, "demo.yaml", "rollout/of-faces") == "started demo.yaml", "it has not begun"
    away = tuple(
        TargetRow(name, name, "onnxruntime", "offline", "", seven.at, devices=(DeviceRow("d", "canary", "offline"),))
        for name in targets
    )
    save_result(replace(begin(seven, targets, run.workspace.rollouts), rows=away), run.workspace.rollouts)
    assert flow.go_on(run, "demo.yaml", "rollout/of-faces") == "left to the schedule of rollout/of-faces"
    monkeypatch.setattr(flow, "is_deployed", lambda name: False)
    assert flow.go_on(run, "demo.yaml", "rollout/of-faces") == "started demo.yaml"


def test_a_workspace_without_the_faces_fails_no_review(monkeypatch):
    def rollout(config):
        raise SourceEmptyError("no whole TFRecords")

    monkeypatch.setattr(flow, "rollout", rollout)
    assert flow.to_devices("demo.yaml", steps.DEPLOYMENT) == "not here: no whole TFRecords"


def test_a_server_that_is_away_is_told_with_what_it_needs(config, capsys, monkeypatch):
    monkeypatch.setenv(MLFLOW_SECRET_ENV, "s" * 32)
    path = config(uri=f"http://127.0.0.1:{free_port()}")
    assert main(["review", "init", "--config", path, "--gateway", "https://gateway.example.org"]) == 6
    told = capsys.readouterr().err
    assert "can't be reached" in told and "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY" in told
