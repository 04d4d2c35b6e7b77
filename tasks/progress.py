"""How a step says how far it is."""

from __future__ import annotations

from collections.abc import Callable

StepProgress = Callable[[str, int, int], None]
"""Called with what is counted (`tasks`, `images`, `faces`), how many are done, and of how many."""


def silent(what: str, done: int, of: int) -> None:
    """Progress that nobody watches."""
