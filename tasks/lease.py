"""One run at a time works on a project, and whatever is asked for meanwhile is done when it ends.

Every way in (nightly, an event, by hand) comes through `take_turn`. A project is a workspace: however many Label
Studio projects feed it, they make one model.

**No request is lost.** A request is written down, durably, before anything else; then its author tries the lock. Who
has the lock lists the requests that are there, does them, removes them, lets the lock go, *and then lists again*;
as long as there is one that it has not worked on, it tries the lock again. So take any request, and the moment its
author tries the lock. Either the author gets it, and works. Or another run H has the lock at that moment. If H has
listed the request already, it is working on it now, with a pull that began after the request was written. If not, H
lists again after it let go, which is later, finds the request there, and either works on it or fails to get the lock
because of yet another run, for which the same holds. The chain ends with the last of them. Letting go first and
looking afterwards is what leaves no window.

**A run that dies lets go.** The lock is the operating system's (`flock`): it goes with the process, also by SIGKILL
or a power cut. Requests stay on disk until they are done; the next run that comes in works on them. So too after an
error that nobody foresaw (any but `FpenetError`): it ends the run at once, and the chain above with it.

**A request is tried once**, except where the world was away: a failure that would come again is told by the run that
it came in, and is not repeated by each that follows.

**On several machines** the workspace's file system must carry `flock` between them: NFS 4, CephFS and Lustre mounted
with `flock` do; NFS mounted with `nolock` or `local_lock=flock` keeps each machine's locks to itself, and no program
can notice. A file system without `flock` is refused.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import BinaryIO, Literal

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from schemas.errors import FpenetError, InputError, SourceUnreachableError, StorageError, TrackingError
from schemas.storage import make_folder, write_json

Kind = Literal["look", "retrain", "quality", "rollout"]

JOBS: tuple[frozenset[Kind], ...] = (frozenset({"quality"}), frozenset({"look", "retrain"}), frozenset({"rollout"}))
"""Kinds of requests that are done together, in the order in which they are: a look may end in what a `retrain` asks
for; labels are looked at apart, and first, since people wait for it. Rollouts have a lease of their own."""


@dataclass(frozen=True)
class Request:
    """What a run came for.

    Attributes:
        kind: `look` whether enough has changed, `retrain` whatever has, look at the `quality` of the labels, or
            `rollout` to the devices.
        by: who asks, for people: `sync (deployment)`.
        project_id: Label Studio project that changed; None looks at all sources.
        deployment: Prefect deployment that can look again later; None if it was started by hand.
        version: what to roll out, where somebody names it; None takes what was accepted last.
        config: absolute path of the configuration to work by; None takes that of whoever works.
    """

    kind: Kind
    by: str
    project_id: int | None = None
    deployment: str | None = None
    version: str | None = None
    config: str | None = None


@dataclass(frozen=True)
class Holder:
    """Who has the lease, since when (ISO 8601, UTC)."""

    by: str
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.by} on {self.host}, process {self.pid}, since {self.since[:19].replace('T', ' ')} UTC"


_REQUEST, _HOLDER = TypeAdapter(Request), TypeAdapter(Holder)


class Lease:
    """The lease of a project: a lock, who has it, and the requests that wait.

    Args:
        folder: `Workspace.lease`.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = folder / "lock"
        self._holder = folder / "holder.json"
        self._requests = folder / "requests"

    def leave(self, request: Request) -> str:
        """Write a request down, durably; return its name. Names sort by time.

        Raises:
            StorageError: the workspace can't be written.
        """
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        write_json(self._requests / name, asdict(request))
        return name

    def requests(self) -> dict[str, Request]:
        """The requests that wait, by name, the oldest first.

        One that can't be read (damaged, or of a kind that is not known here) asks for a look at everything, which
        finds what it was about, and is done with.
        """
        found = {}
        for path in sorted(self._requests.glob("[0-9]*.json")):
            try:
                found[path.name] = _REQUEST.validate_json(path.read_bytes())
            except FileNotFoundError:  # done by another run just now
                continue
            except ValidationError:
                found[path.name] = Request("look", f"{path.name}, which can't be read")
        return found

    def settle(self, names: Sequence[str]) -> None:
        """Remove requests that are done."""
        for name in names:
            (self._requests / name).unlink(missing_ok=True)

    def holder(self) -> Holder | None:
        """Who told last that it has the lease. For people: only the lock decides."""
        try:
            return _HOLDER.validate_json(self._holder.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    @contextmanager
    def attempt(self, by: str) -> Iterator[bool]:
        """Hold the lease inside if it is free now; yields whether it is held.

        Raises:
            StorageError: the workspace's file system has no locks, or can't be written.
        """
        make_folder(self._lock.parent)
        lock = FileLock(self._lock, timeout=0, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise StorageError(
                f"{self._lock}: can't be locked: {error.strerror}; put the workspace on a file system with flock "
                "(a local disk, NFS 4, CephFS)"
            ) from error
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(self._holder, asdict(Holder(by, socket.gethostname(), os.getpid(), since)))
            yield True
        finally:
            self._holder.unlink(missing_ok=True)
            lock.release()


def take_turn(lease: Lease, request: Request, work: Callable[[Sequence[Request]], None]) -> str | None:
    """Work on `request`, and on what others ask for meanwhile; or leave it to the run that is at it.

    Requests that the work fails on are done with, those of others too: it would fail again. Only where a server was
    away, those of others stay for the next run. A failure is raised when no new request is left, any other exception
    at once: then what others asked for waits for the next run.

    Args:
        work: gets the requests that it is to settle, at least one, all of one of the `JOBS` and of one
            configuration; called again while there are others.

    Returns:
        None if `request` was worked on, else who has the lease and will.

    Raises:
        FpenetError: the first that `work` raised.
        StorageError: see `Lease`.
    """
    own = lease.leave(request)
    tried: set[str] = set()
    failures: list[FpenetError] = []
    while not lease.requests().keys() <= tried:
        with lease.attempt(request.by) as held:
            if not held:
                break
            fresh = {
                name: replace(left, config=left.config or request.config)
                for name, left in lease.requests().items()
                if name not in tried
            }
            tried |= fresh.keys()
            try:
                failures += _work_on(lease, fresh, work)
            finally:
                lease.settle([own] if own in fresh else [])  # whatever comes of it, its author is told
    if failures:
        raise failures[0]
    return None if own in tried else str(lease.holder() or "another run")


def _work_on(
    lease: Lease, requests: dict[str, Request], work: Callable[[Sequence[Request]], None]
) -> Iterator[FpenetError]:
    """Do one job after the other and settle its requests; gives the failures that are ours."""
    configs = dict.fromkeys(request.config for request in requests.values())
    for job, config in product(JOBS, configs):
        together = {name: left for name, left in requests.items() if left.kind in job and left.config == config}
        if not together:
            continue
        try:
            work(list(together.values()))
        except (SourceUnreachableError, TrackingError) as error:
            yield error
            continue
        except FpenetError as error:
            yield error
        lease.settle(list(together))


@contextmanager
def present(folder: Path) -> Iterator[None]:
    """Work in the workspace whose `Workspace.lease` this is; waits while somebody wants to be `alone` in it.

    Any number of runs may be present: this is not the lease, it only keeps `fpenet forget` from purging what a run
    has in memory and writes afterwards, and `fpenet prune` from removing what it works on.
    """
    with _presence(folder) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep every run out of the workspace.

    Raises:
        InputError: one is at work.
    """
    with _presence(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"a run is at work in {folder.parent}; wait until it is done, and run this again"
            ) from None
        yield


@contextmanager
def _presence(folder: Path) -> Iterator[BinaryIO]:
    """The file that is locked; closing it, or dying, lets go."""
    make_folder(folder)
    with (folder / "presence").open("ab") as file:
        yield file
