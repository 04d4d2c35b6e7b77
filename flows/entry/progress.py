"""Progress bars of commands that count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from tasks.progress import StepProgress


@contextmanager
def counting(console: Console) -> Iterator[StepProgress]:
    """A bar for each thing that is counted; nothing where the output is no terminal."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        counters: dict[str, int] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in counters:
                counters[what] = bar.add_task(what)
            bar.update(counters[what], completed=done, total=of)

        yield progress
