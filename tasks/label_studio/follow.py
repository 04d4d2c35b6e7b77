"""Bringing a store of tasks to what a Label Studio server holds, at the price of what has changed.

A *sweep* goes through tasks by id and makes the store equal to what comes, deletions included. It is done for the
whole project at first and every so often, and for a few tasks where the sums tell that something was missed.
Otherwise only *changes* since the watermark are fetched. The watermark is a time that the server gave: the latest
change of any task when the last pull began to ask. This machine's clock is never asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.task_store import Change as Put
from schemas.task_store import Span, StoredTask, TaskStore
from tasks.label_studio.task_queries import (
    MAX_KNOWN,
    Change,
    Page,
    ServerState,
    TaskQueries,
    server_time,
)
from tasks.progress import StepProgress

OVERLAP = timedelta(seconds=60)
"""How far before the watermark changes are looked for again: a save that began earlier can be seen later. Versions
that are known are not fetched again. What takes the server longer, such as a large import, the sums tell."""

_AT_MOST = 1000
"""Known versions of the overlap that are looked behind. So many changes in a minute are no people's: an import, whose
late tasks the sums tell."""

_FEW = 50
"""Tasks that are rather fetched than counted: fetching them takes as long as two or three more questions."""

Read = Callable[[dict], StoredTask]
"""Makes a row of a task as received."""


@dataclass
class Followed:
    """What following took.

    Attributes:
        full: why the whole project was gone through, or None.
        fetched: tasks that were sent by the server.
        new, changed, deleted: rows of the store.
    """

    full: str | None = None
    fetched: int = 0
    new: int = 0
    changed: int = 0
    deleted: int = 0

    def add(self, put: Put, fetched: int, deleted: int = 0) -> None:
        self.fetched += fetched
        self.new += put.new
        self.changed += put.changed
        self.deleted += deleted


class Follower:
    """Makes `store` equal to the project that `queries` asks about.

    Args:
        origin: names server and project; a store of another one is swept.
        reconcile_after: age of the last whole sweep, by the server's clock, at which the next one is due.
    """

    def __init__(
        self,
        store: TaskStore,
        queries: TaskQueries,
        read: Read,
        *,
        origin: str,
        reconcile_after: timedelta,
        progress: StepProgress,
    ) -> None:
        self._store, self._queries, self._read, self._progress = store, queries, read, progress
        self._origin, self._reconcile_after = origin, reconcile_after
        self._done = Followed()

    def follow(self) -> Followed:
        """Fetch what the store lacks. Interrupted anywhere, it goes on where it was the next time."""
        state = self._queries.state()
        doubtful = self._store.newer_than(state.newest) if state.newest else []
        resumed = self._resumable()
        self._done.full = "resumed" if resumed else self._why_full(state, doubtful)
        if self._done.full is not None:
            self._sweep_all(state, resumed)
        if self._done.full is None or resumed:
            self._fetch_changes(self._store.note("watermark"))
            self._look_again(doubtful)
            self._note(watermark=state.newest)
        self._settle(Span())
        return self._done

    def _resumable(self) -> bool:
        """Whether a sweep of this very project was interrupted."""
        sweep = self._store.note("sweep")
        return bool(sweep) and self._store.note("origin") == self._origin

    def _why_full(self, state: ServerState, doubtful: Sequence[int]) -> str | None:
        swept_at = self._store.note("swept_at")
        if self._store.note("origin") != self._origin:
            return "first pull" if swept_at is None else "another server or project than before"
        if self._store.note("watermark") is None:
            return "there were no tasks before"
        age = state.now - datetime.fromisoformat(swept_at)
        if age >= self._reconcile_after:
            return "due"
        if age < -OVERLAP or (state.newest and server_time(state.now + OVERLAP) < state.newest):
            return "the server's clock was put back"
        return "the server holds older tasks than before" if len(doubtful) > _FEW else None

    def _sweep_all(self, state: ServerState, resumed: bool) -> None:
        """Go through all tasks. How far it got stands in the store, page by page.

        What has changed since it began is left to the changes after it.
        """
        if not resumed:
            begun = {"after": 0, "newest": state.newest, "now": state.now.isoformat()}
            self._note(origin=self._origin, sweep=begun, watermark=None)
        sweep = self._store.note("sweep")
        self._sweep(Span(sweep["after"]), reached=lambda after: self._store.notes(sweep={**sweep, "after": after}))
        self._note(sweep=None, watermark=sweep["newest"], swept_at=sweep["now"])

    def _sweep(self, span: Span, reached: Callable[[int], None] = lambda after: None) -> None:
        """Make a span of the store equal to the server's."""
        for page in self._watched(self._queries.pages(span)):
            rows = [self._read(task) for task in page.tasks]
            with self._store.transaction():
                deleted = self._store.keep_only((row.id for row in rows), page.span)
                self._done.add(self._store.put(rows), len(rows), deleted)
                if page.left:
                    reached(rows[-1].id)

    def _fetch_changes(self, watermark: str | None) -> None:
        for change in self._changes(watermark) if watermark else ():
            for page in self._watched(self._queries.pages(Span(), change)):
                with self._store.transaction():
                    self._done.add(self._store.put(map(self._read, page.tasks)), len(page.tasks))

    def _changes(self, watermark: str) -> Iterator[Change]:
        """What to ask for: the overlap in pieces with few known versions, the last one open to the present."""
        after = server_time(datetime.fromisoformat(watermark) - OVERLAP)
        known = self._store.versions(after)
        if len(known) > _AT_MOST:
            after, known = known[-_AT_MOST - 1], known[-_AT_MOST:]
        while len(known) > MAX_KNOWN:
            piece, known = known[:MAX_KNOWN], known[MAX_KNOWN:]
            yield Change(after, piece[-1], piece)
            after = piece[-1]
        yield Change(after, None, known)

    def _look_again(self, doubtful: Sequence[int]) -> None:
        """Tasks newer than anything on the server were deleted there, or the server was put back to a backup."""
        for identity in doubtful:
            self._sweep(Span(identity - 1, identity))

    def _settle(self, span: Span) -> None:
        """Find what was missed by counting: where the server's sums differ from the store's, by halves."""
        ours, theirs = self._store.totals(span), self._queries.totals(span)
        if ours == theirs:
            return
        if min(ours.tasks, theirs.tasks) <= _FEW:
            self._sweep(span)
            return
        middle = self._store.middle(span)
        self._settle(Span(span.after, middle))
        self._settle(Span(middle, span.until))

    def _watched(self, pages: Iterator[Page]) -> Iterator[Page]:
        """The pages; each is told once it has been worked on."""
        done = 0
        for page in pages:
            yield page
            done += len(page.tasks)
            if done:
                self._progress("tasks", done, done + page.left)

    def _note(self, **values: object) -> None:
        with self._store.transaction():
            self._store.notes(**values)
