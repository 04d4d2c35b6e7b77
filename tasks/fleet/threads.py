"""One thing asked of several devices at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(work: Callable[[Item], Result], items: Iterable[Item], *, most: int | None = None) -> list[Result]:
    """Results in the order of the items, each worked on in a thread of its own, with the context of this one.

    In the context are Prefect's settings and the run: what opens a device's work pool needs them.

    Args:
        most: threads at a time; None takes as many as there are items.
    """
    waiting = list(items)
    contexts = [copy_context() for _ in waiting]
    with ThreadPoolExecutor(most or max(1, len(waiting))) as pool:
        return list(pool.map(lambda context, item: context.run(work, item), contexts, waiting))
