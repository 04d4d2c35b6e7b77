"""From a tag that a reviewer sets in MLflow's server to the champion, through MLflow's signed webhook."""

import sqlite3
from contextlib import closing

import pytest
import yaml
from cryptography.fernet import Fernet
from mlflow import MlflowClient

from flows.entry.cli import main
from schemas.config import ReviewSettings, Tracking
from tasks.gateway.journal import FILE
from tasks.gateway.settings import MLFLOW_SECRET_ENV
from tasks.review.aliases import move
from tasks.review.approval import accepted_version
from tasks.review.inbox import settle
from tasks.review.webhooks import EVENTS, ensure_webhook
from tasks.workspace import Workspace
from tests.gateways import MLFLOW_SECRET, registry_event, running_gateway
from tests.mlflow_servers import mlflow_server
from tests.prefect_servers import await_found

REPORT = "a" * 64
APPROVAL = {"review.by": "Ann", "review.reason": "better", "review.report": REPORT, "review": "approved"}


def journal_of(gateway):
    with closing(sqlite3.connect(gateway.journal / FILE)) as journal:
        return journal.execute("SELECT action, detail FROM entries ORDER BY id").fetchall()


def configuration(folder, tracking):
    settings = {
        "workspace": str(folder / "workspace"),
        "sources": [{"kind": "rendered", "name": "faces"}],
        "experiment_spec": "spec.yaml",
        "tracking": {"uri": tracking},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "config.yaml")


@pytest.mark.slow
def test_an_approval_reaches_the_gateway_signed_and_moves_the_champion(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(MLFLOW_SECRET_ENV, MLFLOW_SECRET)
    variables = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
    }
    workspace = Workspace(tmp_path / "workspace")
    (tmp_path / "mlflow").mkdir()
    with running_gateway(tmp_path) as gateway, mlflow_server(tmp_path / "mlflow", variables) as url:
        tracking, client = Tracking(uri=url), MlflowClient(url, url)
        made = ensure_webhook(tracking, workspace, gateway=gateway.url)
        again = ensure_webhook(tracking, workspace, gateway=f"{gateway.url}/")
        assert (made.created, made.answered, again.created, again.answered) == (True, True, False, True)
        (hook,) = client.list_webhooks()
        assert sorted(map(str, hook.events)) == sorted(EVENTS)

        guarded = gateway.url.replace("http://", "http://team:s3cret@")
        assert main(["review", "init", "--config", configuration(tmp_path, url), "--gateway", guarded]) == 0
        told = capsys.readouterr().out
        assert f"webhook brought up to date: {gateway.url}/webhooks/mlflow" in told and "s3cret" not in told
        (hook,) = client.list_webhooks()
        assert hook.url == f"{guarded}/webhooks/mlflow"

        run = client.create_run(client.create_experiment("fpenet"))
        client.create_registered_model("fpenet")
        client.create_model_version("fpenet", f"{run.info.artifact_uri}/model", run.info.run_id)
        tags = {"gate": "passed", "review.champion": "none", "review_sha256": REPORT}
        for key, value in (tags | APPROVAL).items():
            client.set_model_version_tag("fpenet", "1", key, value)
        move(client, "fpenet", "challenger", "1")

        def told_of_all():
            told = {detail for action, detail in journal_of(gateway) if action == "model_version_tag.set"}
            return [detail for detail in told if b'"review"' in detail]

        assert await_found(told_of_all)
        (accepted,) = settle(tracking, workspace, ReviewSettings()).accepted
        assert accepted_version(workspace) == accepted
        assert {a: str(v) for a, v in client.get_registered_model("fpenet").aliases.items()} == {"champion": "1"}
        assert client.get_model_version("fpenet", "1").tags["review.state"] == "champion: in use"

        event = registry_event("model_version_tag", "set", key="review", value="approved")
        assert gateway.mlflow(event, delivery="once").status_code == 202
        assert gateway.mlflow(event, delivery="once").status_code == 409, "a replay"
        assert settle(tracking, workspace, ReviewSettings()).accepted == (), "nor would it accept anything twice"
