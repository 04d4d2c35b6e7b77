"""`status.json`: what TAO's scripts read to follow a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from model.checkpoint import EpochResult
from model.progress import Plan, Watcher
from schemas.storage import append_bytes

STATUS_FILE = "status.json"


class StatusFile(Watcher):
    """A line of JSON when the training starts, after every epoch, and at the end, with TAO's keys.

    Lines are only ever added: a resumed training goes on below what the first run told, and the run that was killed
    is the one without SUCCESS or FAILURE. `kpi` has TAO's `evaluation_cost `, whose space is TAO's, and beside it our
    `validation_error_px` (crop pixels); `learning_rate` is a number, where TAO writes that it did not log it.

    Args:
        now: local time, as in TAO.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = datetime.now) -> None:
        self._path, self._now = path, now
        self._seconds: list[float] = []

    def begin(self, plan: Plan) -> None:
        self._plan = plan
        done = f" after epoch {plan.epochs_done}" if plan.epochs_done else ""
        self._write("STARTED", f"Starting training{done}.")

    def epoch(self, result: EpochResult) -> None:
        self._seconds.append(result.seconds)
        left = (self._plan.epochs - result.epoch) * sum(self._seconds) / len(self._seconds)
        kpi = {"evaluation_cost ": result.validation_loss, "validation_error_px": result.validation_error_px}
        self._write(
            "RUNNING",
            "Training loop in progress.",
            epoch=result.epoch,
            max_epoch=self._plan.epochs,
            time_per_epoch=str(timedelta(seconds=round(result.seconds, 3))),
            eta=str(timedelta(seconds=round(left, 3))),
            graphical={"loss": result.loss, "learning_rate": result.learning_rate},
            kpi={name: value for name, value in kpi.items() if value is not None},
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write("SUCCESS", "Training finished.")
        else:
            self._write("FAILURE", str(error) or kind.__name__, verbosity="ERROR")

    def _write(self, status: str, message: str, *, verbosity: str = "INFO", **more: Any) -> None:
        now = self._now()
        line = {
            "date": f"{now.month}/{now.day}/{now.year}",
            "time": f"{now.hour}:{now.minute}:{now.second}",
            "status": status,
            "verbosity": verbosity,
            "message": message,
            **more,
        }
        append_bytes(self._path, json.dumps(line, allow_nan=False).encode() + b"\n")
