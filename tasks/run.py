"""One run of a flow: its configuration and workspace, what its steps did, and what a person sees meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas.config import WorkflowConfig
from tasks.progress import StepProgress
from tasks.summary import StepSummary
from tasks.workspace import Workspace


@dataclass
class Step:
    """A step that goes on; its task says here how it ended. `detail` is one line for people."""

    state: Literal["ran", "reused", "resumed"] = "ran"
    detail: str = ""

    def found(self, reused: bool) -> None:
        self.state = "reused" if reused else "ran"


class Run:
    """Shared by the tasks of one flow run; the tasks fill `steps` in order.

    Not a dataclass, so that Prefect does not search it for futures.
    """

    def __init__(self, config: WorkflowConfig) -> None:
        self.config = config
        self.workspace = Workspace(Path(config.workspace))
        self.console = Console(stderr=True, highlight=False)
        self.started = datetime.now(UTC)
        self.id = self.started.strftime("%Y%m%dT%H%M%S.%fZ")
        self.steps: list[StepSummary] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step, keep what it did, and tell it."""
        step, started = Step(), time.perf_counter()
        yield step
        summary = StepSummary(name, time.perf_counter() - started, step.state, step.detail)
        self.steps.append(summary)
        colour = "cyan" if step.state == "reused" else "green"
        self.console.print(
            f"[{colour}]{step.state:<7}[/] {name:<18} {summary.seconds:7.1f} s  {escape(step.detail)}", soft_wrap=True
        )

    @contextmanager
    def counting(self, name: str) -> Iterator[StepProgress]:
        """A progress bar for a step that counts; nothing where the output is no terminal."""
        columns = (TextColumn("        {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(name, total=None)
            yield lambda what, done, of: bar.update(task, description=f"{name} {what}", completed=done, total=of)
