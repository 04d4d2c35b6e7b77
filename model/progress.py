"""What a person sees while a training runs."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model.checkpoint import EpochResult


class QuietProgress:
    """Shows nothing; the base of what shows something."""

    def begin(self, *, epochs: int, epochs_done: int, steps: int) -> None:
        """A training of `epochs` epochs of `steps` steps starts, or goes on."""

    def step(self, loss: float) -> None:
        """A step is done."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is done and validated."""

    def __enter__(self) -> QuietProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class TerminalProgress(QuietProgress):
    """A bar with epoch, loss, validation error and time left; where the output is no terminal, a line per epoch."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._epochs = self._steps = self._taken = 0
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

    def begin(self, *, epochs: int, epochs_done: int, steps: int) -> None:
        self._epochs, self._steps, self._taken = epochs, steps, epochs_done * steps
        self._task = self._bar.add_task(
            self._title(), total=epochs * steps, completed=epochs_done * steps, numbers="compiling"
        )

    def step(self, loss: float) -> None:
        self._taken += 1
        self._loss = f"loss {loss:.3f}"
        self._bar.update(self._task, advance=1, description=self._title(), numbers=f"{self._loss} {self._error}")

    def epoch(self, result: EpochResult) -> None:
        error = result.validation_error_px
        self._error = "" if error is None else f"validation {error:.2f} px"
        if not self.console.is_terminal:
            star = " best" if result.best else ""
            self.console.print(
                f"epoch {result.epoch}/{self._epochs} loss {result.loss:.4f} {self._error} "
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

    def _title(self) -> str:
        return f"epoch {min(self._taken // self._steps + 1, self._epochs)}/{self._epochs}"
