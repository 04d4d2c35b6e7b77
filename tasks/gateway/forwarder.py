"""From the journal to Prefect: at least once, in order, for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from schemas.errors import ForwardError, StorageError
from tasks.gateway.journal_thread import JournalThread
from tasks.gateway.metrics import GatewayMetrics
from tasks.gateway.outgoing import Entry, prefect_event
from tasks.gateway.settings import GatewaySettings

logger = logging.getLogger("fpenet.gateway")

CHECK_EVERY_S = 30
"""How often Prefect is asked whether it is up while there is nothing to send."""

PRUNE_EVERY_S = 300
"""How often the journal is pruned, busy or not."""

_FIRST_BACKOFF_S = 1
_DAY_S = 24 * 3600


class Receiver(Protocol):
    """Who takes events: `PrefectEvents`."""

    async def send(self, events: Sequence[dict[str, Any]]) -> None: ...

    async def check(self) -> None: ...


class Forwarder:
    """Sends what the journal holds, and marks it only when it was taken."""

    def __init__(
        self,
        journal: JournalThread,
        receiver: Receiver,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._receiver, self._settings, self._metrics = journal, receiver, settings, metrics
        self._clock = clock
        self._failures = 0
        self._pruned_at: float | None = None
        self.problem: str | None = "Prefect has not been asked yet"
        """Why the last attempt failed; None if it did not."""

    async def run(self) -> None:
        """Forward until cancelled."""
        while True:
            self._journal.kept.clear()
            try:
                await self._tidy()
                idle = not await self._forward_some()
                if idle:
                    await self._receiver.check()
                self._note_success()
                pause_s = self._settings.forward_every_s
            except (ForwardError, StorageError) as error:
                idle, pause_s = False, self._note_failure(error)
            except Exception as error:  # deliveries are answered all the while, so somebody has to go on
                logger.exception("unforeseen; tried again")
                idle, pause_s = False, self._note_failure(error)
            await asyncio.sleep(pause_s)
            if idle:
                await self._wait_for_work()

    async def _wait_for_work(self) -> None:
        try:
            async with asyncio.timeout(CHECK_EVERY_S):
                await self._journal.kept.wait()
        except TimeoutError:
            return

    async def _forward_some(self) -> bool:
        """Send the oldest events; False if there are none."""
        groups = await self._journal.call(self._journal.journal.outgoing)
        if groups:
            await self._send(groups)
        return bool(groups)

    async def _send(self, groups: Sequence[Sequence[Entry]]) -> None:
        """A refusal does not say which of the events it is about, so then each goes alone."""
        try:
            await self._receiver.send([self._event(group) for group in groups])
        except ForwardError as error:
            if not error.final:
                raise
            if len(groups) > 1:
                for group in groups:
                    await self._send([group])
                return
            logger.error("entries %s are given up: %s", [entry.number for entry in groups[0]], error)
            await self._end(groups, "refused")
        else:
            await self._end(groups, "forwarded")

    def _event(self, group: Sequence[Entry]) -> dict[str, Any]:
        return prefect_event(group, event_id=self._journal.journal.event_id(group), now=self._clock())

    async def _end(self, groups: Sequence[Sequence[Entry]], outcome: str) -> None:
        await self._journal.call(self._journal.journal.end, groups, at=self._clock(), outcome=outcome)
        self._metrics.ended(groups, outcome)

    async def _tidy(self) -> None:
        """Keep the journal small, while Prefect is away as well."""
        await self._journal.call(self._journal.journal.thin)
        now = self._clock()
        if self._pruned_at is not None and 0 <= now - self._pruned_at < PRUNE_EVERY_S:
            return
        retention_s = self._settings.retention_days * _DAY_S
        while await self._journal.call(self._journal.journal.prune, now=now, retention_s=retention_s):
            pass
        self._pruned_at = now

    def _note_success(self) -> None:
        if self._failures:
            logger.info("Prefect takes events again")
        self._failures, self.problem = 0, None

    def _note_failure(self, error: Exception) -> float:
        """Seconds to wait before the next attempt."""
        problem = str(error) or type(error).__name__
        if not self._failures:
            logger.warning("%s; events wait in the journal", problem)
        self._failures, self.problem = self._failures + 1, problem
        self._metrics.forward_failures.inc()
        return min(_FIRST_BACKOFF_S * 2 ** (self._failures - 1), self._settings.longest_backoff_s)
