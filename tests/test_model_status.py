import json
from datetime import datetime

import pytest

from model.checkpoint import EpochResult
from model.progress import Plan
from model.status import StatusFile
from schemas.errors import TrainingError


def run(path, *, epochs_done: int, results: list[EpochResult]) -> None:
    with StatusFile(path, now=lambda: datetime(2026, 3, 5, 7, 8, 9)) as status:
        status.begin(Plan(epochs=4, epochs_done=epochs_done, steps=10, faces=8, log_every_s=60))
        for result in results:
            status.epoch(result)


def result(epoch: int, *, seconds: float, error: float | None = 2.5) -> EpochResult:
    loss = None if error is None else 0.75
    return EpochResult(epoch, 10 * epoch, 1.5, {}, loss, error, 1e-3, seconds, True)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_is_json_with_taos_keys(tmp_path):
    run(tmp_path / "status.json", epochs_done=0, results=[result(1, seconds=60), result(2, seconds=30.5)])
    started, _, second, finished = lines(tmp_path / "status.json")
    assert started == {
        "date": "3/5/2026",
        "time": "7:8:9",
        "status": "STARTED",
        "verbosity": "INFO",
        "message": "Starting training.",
    }
    assert second == started | {
        "status": "RUNNING",
        "message": "Training loop in progress.",
        "epoch": 2,
        "max_epoch": 4,
        "time_per_epoch": "0:00:30.500000",
        "eta": "0:01:30.500000",
        "graphical": {"loss": 1.5, "learning_rate": 1e-3},
        "kpi": {"evaluation_cost ": 0.75, "validation_error_px": 2.5},
    }
    assert finished["status"] == "SUCCESS"


def test_a_resumed_training_goes_on_below(tmp_path):
    run(tmp_path / "status.json", epochs_done=0, results=[result(1, seconds=1)])
    run(tmp_path / "status.json", epochs_done=1, results=[result(2, seconds=1, error=None)])
    told = lines(tmp_path / "status.json")
    assert [line["status"] for line in told] == ["STARTED", "RUNNING", "SUCCESS"] * 2
    assert told[3]["message"] == "Starting training after epoch 1." and told[4]["kpi"] == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [(TrainingError("the loss is nan"), "the loss is nan"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_a_failed_training_says_why(error, message, tmp_path):
    with pytest.raises(type(error)), StatusFile(tmp_path / "status.json"):
        raise error
    (line,) = lines(tmp_path / "status.json")
    assert (line["status"], line["verbosity"], line["message"]) == ("FAILURE", "ERROR", message)
