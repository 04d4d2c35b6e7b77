"""The journal for an event loop: one thread owns it, and arrivals that come during a commit share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tasks.gateway.journal import Arrival, Journal

T = TypeVar("T")


class JournalThread:
    """Group commit: an fsync takes milliseconds, and however many arrive meanwhile need but one more.

    Args:
        on_kept: called in the event loop after each commit with what it took, in seconds.
    """

    def __init__(self, journal: Journal, *, on_kept: Callable[[float], None] = lambda seconds: None) -> None:
        self.journal = journal
        self.kept = asyncio.Event()
        """Set whenever something was kept; whoever waits for that clears it."""
        self.last_write_s: float | None = None
        """When the journal was last written, in the time of the event loop; None if it could not be."""
        self._on_kept = on_kept
        self._thread = ThreadPoolExecutor(1, "journal")
        self._waiting: list[tuple[Arrival, asyncio.Future[int]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def append(self, arrival: Arrival) -> int:
        """Keep an arrival; its number, once it is on disk.

        Raises:
            DeliveryError: `repeated`.
            StorageError: it is not kept.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, future))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Run a method of the journal in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*arguments, **named))

    async def probe(self, now: float) -> None:
        """Write to the journal, as an arrival would. Raises `StorageError` if that can't be done."""
        await self.call(self.journal.probe, now)
        self.last_write_s = asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Finish what is under way, and close the journal."""
        if self._committing is not None:
            await self._committing
        await self.call(self.journal.close)
        self._thread.shutdown()

    async def _commit(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, []
                await self._keep(taken)
        finally:
            self._committing = None

    async def _keep(self, taken: Sequence[tuple[Arrival, asyncio.Future[int]]]) -> None:
        """Whatever goes wrong, each sender hears of it: one that waits for ever would hold its connection."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        append = self.call(self.journal.append, [arrival for arrival, _ in taken])
        (results,) = await asyncio.gather(append, return_exceptions=True)
        if isinstance(results, BaseException):
            results, self.last_write_s = [results] * len(taken), None
        else:
            self.last_write_s = loop.time()
            self._on_kept(self.last_write_s - started)
        for (_, future), result in zip(taken, results, strict=True):
            _settle(future, result)
        self.kept.set()


def _settle(future: asyncio.Future[int], result: int | BaseException) -> None:
    if future.done():  # its sender has gone
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
