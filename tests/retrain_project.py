"""A project small enough to run the whole flow in a test: faces in a folder, a narrow network, a few steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from model.faces.dataset import render_dataset
from schemas.config import load_config
from tasks.mlflow_client import mlflow_client
from tasks.review.tags import BY, DECISION, GATE, OVERRIDE, REASON, REPORT, REPORT_HASH, REVIEW
from tasks.workspace import Workspace

KPI = ["multipie-like/079", "multipie-like/080"]
SUBJECTS = ["079", "080", *(f"{i:03d}" for i in range(1, 9))]
DEADLINE_S = 240
POLL_S = 0.05


def experiment(*, epochs: int = 2, num_keypoints: int = 80) -> dict[str, Any]:
    return {
        "num_epoch": epochs,
        "num_keypoints": num_keypoints,
        "dataloader": {"batch_size": 8, "num_keypoints": num_keypoints},
        "loss": {"loss_type": "wing_loss"},
        "model": {"model_parameters": {"type": "FpeNet_public", "width": 4}},
    }


def write_project(folder: Path, *, faces: Path, epochs: int = 2, **changes: Any) -> Path:
    """Write a configuration and its spec into `folder`; return the configuration's path."""
    spec = folder / "spec.yaml"
    spec.write_text(yaml.safe_dump(experiment(epochs=epochs)))
    config = {
        "workspace": str(folder / "workspace"),
        "sources": [
            {
                "kind": "sloth",
                "name": "faces",
                "root": str(faces),
                "subject": {"dataset": "multipie-like", "pattern": r"images/(?P<subject>\d+)_"},
            }
        ],
        "split": {"kpi_subjects": KPI, "validation_share": 0.2},
        "experiment_spec": str(spec),
        "targets": ["cpu"],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def render_faces(folder: Path) -> Path:
    render_dataset(folder, subjects=SUBJECTS, images_per_subject=4, num_keypoints=80, seed=3)
    return folder


def start(config: Path, flow: str = "retrain", *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "flows.entry.cli", "run", flow, "--config", str(config), *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
        start_new_session=True,
    )


def run(config: Path, flow: str = "retrain", *options: str) -> tuple[int, str]:
    """Run the flow to its end; exit code and what it said."""
    with start(config, flow, *options) as process:
        output, _ = process.communicate(timeout=2 * DEADLINE_S)
    return process.returncode, output


def kill_when(config: Path, reached: Callable[[], bool], flow: str = "retrain") -> None:
    """Run the flow and kill it, and all it started, as soon as `reached` holds."""
    with start(config, flow) as process:
        for _ in range(int(DEADLINE_S / POLL_S)):
            if reached():
                break
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"ended before it was to be killed:\n{process.communicate()[0]}")
        else:
            raise AssertionError("never came to where it was to be killed")
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def approve(config: Path) -> None:
    """Decide on version 1 as a reviewer does in the registry, against a failed gate where it did."""
    settings = load_config(config)
    with mlflow_client(settings.tracking, Workspace(Path(settings.workspace))) as client:
        name = settings.tracking.registered_model
        tags = client.get_model_version(name, "1").tags
        decision = {BY: "Ann", REASON: "first", REPORT: tags[REPORT_HASH], REVIEW: "approved"}
        if tags[GATE] != "passed":
            decision[OVERRIDE] = "two epochs on rendered faces"
        assert decision.keys() <= set(DECISION)
        for key, value in decision.items():
            client.set_model_version_tag(name, "1", key, value)


def _environment() -> Mapping[str, str]:
    """Without a Prefect server of this machine's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
