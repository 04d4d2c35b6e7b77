"""Who is told what a training does, and what a person sees of it while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model.checkpoint import EpochResult

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf


@dataclass(frozen=True)
class Plan:
    """What a training is going to do.

    Attributes:
        epochs: of the whole training.
        epochs_done: by earlier runs.
        steps: of an epoch.
        faces: of a step.
        log_every_s: seconds between lines of log.
    """

    epochs: int
    epochs_done: int
    steps: int
    faces: int
    log_every_s: float


class Watcher:
    """Is told what a training does, and does nothing about it; the base of those that do."""

    def begin(self, plan: Plan) -> None:
        """The training starts, or goes on."""

    def step(self, number: int, terms: Mapping[str, float], learning_rate: float) -> None:
        """Step `number` of the training, from 1, is done; `terms` are the loss and what it is made of."""

    def trained_on(self, batch: Mapping[str, tf.Tensor]) -> None:
        """The last batch of an epoch, as `model.pipeline.training_batches` makes them."""

    def validated_on(self, image_BHWC: np.ndarray, points_BN2: tf.Tensor, keypoints_BN2: tf.Tensor) -> None:
        """The first batch of a validation; true and predicted points in pixels of the images."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is done and validated; its files are about to be written."""

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Watchers(Watcher):
    """Several as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers
        self._stack = ExitStack()

    def begin(self, plan: Plan) -> None:
        for watcher in self._watchers:
            watcher.begin(plan)

    def step(self, number: int, terms: Mapping[str, float], learning_rate: float) -> None:
        for watcher in self._watchers:
            watcher.step(number, terms, learning_rate)

    def trained_on(self, batch: Mapping[str, tf.Tensor]) -> None:
        for watcher in self._watchers:
            watcher.trained_on(batch)

    def validated_on(self, image_BHWC: np.ndarray, points_BN2: tf.Tensor, keypoints_BN2: tf.Tensor) -> None:
        for watcher in self._watchers:
            watcher.validated_on(image_BHWC, points_BN2, keypoints_BN2)

    def epoch(self, result: EpochResult) -> None:
        for watcher in self._watchers:
            watcher.epoch(result)

    def __enter__(self) -> Watchers:
        for watcher in self._watchers:
            self._stack.enter_context(watcher)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class AtBegin(Watcher):
    """Does something once nothing refuses the training any more, and before it writes anything."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do

    def begin(self, plan: Plan) -> None:
        self._do()


class TerminalProgress(Watcher):
    """A bar with epoch, loss, validation error and time left.

    Where the output is no terminal, a line per epoch and one every `log_every_n_secs` seconds of the spec.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console()
        self._clock = clock
        self._taken = 0
        self._loss, self._error = "", ""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def begin(self, plan: Plan) -> None:
        self._plan, self._taken = plan, plan.epochs_done * plan.steps
        self._started = self._logged = (self._clock(), self._taken)
        self._task = self._bar.add_task(
            self._title(), total=plan.epochs * plan.steps, completed=self._taken, numbers="compiling"
        )

    def step(self, number: int, terms: Mapping[str, float], learning_rate: float) -> None:
        self._taken = number
        self._loss = f"loss {terms['loss']:.3f}"
        self._bar.update(
            self._task, completed=number, description=self._title(), numbers=f"{self._loss} {self._error}"
        )
        if not self.console.is_terminal and self._clock() >= self._logged[0] + self._plan.log_every_s:
            self._log(terms["loss"], learning_rate)

    def epoch(self, result: EpochResult) -> None:
        error = result.validation_error_px
        self._error = "" if error is None else f"validation {error:.2f} px"
        if not self.console.is_terminal:
            star = " best" if result.best else ""
            self.console.print(
                f"epoch {result.epoch}/{self._plan.epochs} loss {result.loss:.4f} {self._error} "
                f"lr {result.learning_rate:.2e} {result.seconds:.0f} s{star}",
                highlight=False,
            )

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _log(self, loss: float, learning_rate: float) -> None:
        """The rate is that since the last line, the time left comes from the whole run, validation included."""
        now, plan = self._clock(), self._plan
        total = plan.epochs * plan.steps
        rate = (self._taken - self._logged[1]) * plan.faces / (now - self._logged[0])
        left = (total - self._taken) * (now - self._started[0]) / (self._taken - self._started[1])
        epoch = (self._taken - 1) // plan.steps + 1
        self.console.print(
            f"epoch {epoch}/{plan.epochs} step {self._taken}/{total} loss {loss:.4f} lr {learning_rate:.2e} "
            f"{rate:.0f} faces/s {timedelta(seconds=round(left))} left",
            highlight=False,
        )
        self._logged = (now, self._taken)

    def _title(self) -> str:
        return f"epoch {min(self._taken // self._plan.steps + 1, self._plan.epochs)}/{self._plan.epochs}"
