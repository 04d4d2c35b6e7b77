"""The lease of a project, between real processes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import GateError, SourceUnreachableError, SplitError, StorageError, TrackingError
from tasks.lease import Lease, Request, present, take_turn

LOOK, RETRAIN = Request("look", "sync", project_id=7), Request("retrain", "retrain")
QUALITY = Request("quality", "labels")

WORKER = """
import sys
from contextlib import contextmanager
from pathlib import Path
from tasks.lease import Lease, Request, take_turn

class SlowToLetGo(Lease):
    @contextmanager
    def attempt(self, by):
        with super().attempt(by) as held:
            yield held
            if held:
                print("about to let go", flush=True)
                sys.stdin.readline()

def work(requests):
    print("working on", *(request.by for request in requests), flush=True)
    sys.stdin.readline()

left_to = take_turn(SlowToLetGo(Path(sys.argv[1])), Request("look", sys.argv[2]), work)
print("left to", left_to, flush=True)
"""

BURST = """
import sys
from pathlib import Path
from tasks.lease import Lease, Request, take_turn

for number in range(int(sys.argv[3])):
    def work(requests):
        with open(sys.argv[4], "a") as log:
            log.writelines(f"{request.by}\\n" for request in requests)
    take_turn(Lease(Path(sys.argv[1])), Request("look", f"{sys.argv[2]}-{number}"), work)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "lease"


class Worker:
    """A process that takes its turn; it works, and later stops just before it lets go, until it is told to go on."""

    def __init__(self, folder: Path, name: str) -> None:
        command = [sys.executable, "-c", WORKER, str(folder), name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def said(self) -> str:
        return self.process.stdout.readline().strip()

    def goes_on(self) -> str:
        """Tell it to go on; what it says next."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.said()


@pytest.fixture
def start(folder):
    workers = []

    def start(name):
        workers.append(Worker(folder, name))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def test_who_comes_while_another_works_is_told_and_what_it_asked_for_is_done_when_that_ends(start, folder):
    first = start("nightly")
    assert first.said() == "working on nightly"
    second = start("sync")
    assert second.said().startswith("left to nightly on ")
    assert f"process {first.process.pid}, since " in str(Lease(folder).holder())
    assert first.goes_on() == "about to let go"
    assert first.goes_on() == "working on sync"
    assert first.goes_on() == "about to let go"
    assert first.goes_on() == "left to None"
    assert Lease(folder).requests() == {}
    assert Lease(folder).holder() is None


def test_a_holder_that_is_killed_lets_go_and_what_it_was_at_is_done_by_the_next(start, folder):
    first = start("nightly")
    assert first.said() == "working on nightly"
    assert start("sync").said().startswith("left to nightly")
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    third = start("by hand")
    assert third.said() == "working on nightly sync by hand"


def test_no_request_is_lost_and_none_is_done_twice_among_processes_that_come_and_go(folder, tmp_path):
    """Three processes ask at the same time, again and again, and never wait for each other: whoever is at it ends
    while others come. A request that fell into a gap between looking and letting go would be missing in the log."""
    log, turns = tmp_path / "log", 40
    command = [sys.executable, "-c", BURST, str(folder)]
    with ThreadPoolExecutor() as pool:
        done = pool.map(
            lambda name: subprocess.run([*command, name, str(turns), str(log)], check=True), ("a", "b", "c")
        )
        list(done)
    assert sorted(log.read_text().split()) == sorted(f"{name}-{i}" for name in "abc" for i in range(turns))
    assert Lease(folder).requests() == {}


def test_a_request_that_comes_between_the_last_look_and_letting_go_is_done(start, folder):
    """The very gap: the first has done its work and looked for more, but has the lock still, when the second asks."""
    first = start("nightly")
    assert first.said() == "working on nightly"
    assert first.goes_on() == "about to let go"
    assert start("sync").said().startswith("left to nightly on ")
    assert first.goes_on() == "working on sync"
    assert first.goes_on() == "about to let go"
    assert first.goes_on() == "left to None"
    assert Lease(folder).requests() == {}


@pytest.mark.parametrize("away", [SourceUnreachableError("down"), TrackingError("down")])
def test_where_a_server_was_away_the_requests_of_others_stay_and_the_own_does_not(folder, away):
    lease = Lease(folder)
    lease.leave(RETRAIN)

    def fail(requests):
        assert requests == [RETRAIN, LOOK]
        raise away

    with pytest.raises(type(away)):
        take_turn(lease, LOOK, fail)
    assert list(lease.requests().values()) == [RETRAIN]
    worked = []
    take_turn(lease, LOOK, worked.append)
    assert worked == [[RETRAIN, LOOK]]
    assert lease.requests() == {}


def test_what_would_fail_again_is_not_left_to_every_run_that_follows(folder):
    lease, worked = Lease(folder), []
    lease.leave(RETRAIN)

    def fail(requests):
        worked.append(requests)
        raise SplitError("no KPI subject is there")

    for _ in range(2):
        with pytest.raises(SplitError):
            take_turn(lease, LOOK, fail)
    assert worked == [[RETRAIN, LOOK], [LOOK]]
    assert lease.requests() == {}


def test_new_requests_are_worked_on_before_a_failure_is_raised_and_then_it_is_the_first(folder):
    lease, worked = Lease(folder), []
    failures = [GateError("too bad"), SplitError("no KPI subject is there")]

    def fail(requests):
        worked.append(requests)
        if len(worked) == 1:
            lease.leave(RETRAIN)
        raise failures[len(worked) - 1]

    with pytest.raises(GateError, match="too bad"):
        take_turn(lease, LOOK, fail)
    assert worked == [[LOOK], [RETRAIN]]
    assert lease.requests() == {}


def test_labels_are_looked_at_apart_and_what_fails_there_keeps_nobody_from_retraining(folder):
    lease, worked = Lease(folder), []
    for request in (RETRAIN, QUALITY):
        lease.leave(request)

    def work(requests):
        worked.append(requests)
        if requests == [QUALITY]:
            raise SourceUnreachableError("down")

    with pytest.raises(SourceUnreachableError):
        take_turn(lease, LOOK, work)
    assert worked == [[QUALITY], [RETRAIN, LOOK]]
    assert list(lease.requests().values()) == [QUALITY]


@pytest.mark.parametrize(
    "content", [b'{"kind": "retr', b"[]", b'{"kind": "a new one", "by": "sync"}', b'{"by": "sync"}']
)
def test_a_request_that_can_t_be_read_is_a_look_at_everything_and_done_with(folder, content):
    lease, worked = Lease(folder), []
    (folder / "requests" / lease.leave(RETRAIN)).write_bytes(content)
    take_turn(lease, LOOK, worked.extend)
    assert [(request.kind, request.project_id) for request in worked] == [("look", None), ("look", 7)]
    assert lease.requests() == {}


def test_a_request_of_a_newer_program_keeps_its_kind(folder):
    lease = Lease(folder)
    (folder / "requests" / lease.leave(LOOK)).write_text('{"kind": "retrain", "by": "nightly", "more": 1}')
    assert list(lease.requests().values()) == [Request("retrain", "nightly")]


def test_each_configuration_is_worked_by_apart_and_who_names_none_means_that_of_whoever_works(folder):
    lease, worked = Lease(folder), []
    by_hand, nightly = replace(RETRAIN, config="/faces.yaml"), replace(LOOK, config="/other.yaml")
    (folder / "requests" / lease.leave(RETRAIN)).write_text('{"kind": "retrain", "by": "an older program"}')
    for request in (nightly, by_hand):
        lease.leave(request)
    take_turn(lease, replace(LOOK, config="/faces.yaml"), worked.append)
    older = Request("retrain", "an older program", config="/faces.yaml")
    assert worked == [[older, by_hand, replace(LOOK, config="/faces.yaml")], [nightly]]
    assert lease.requests() == {}


def test_a_mistake_of_ours_lets_go_too_and_leaves_the_others_requests_to_the_next(folder):
    lease, worked = Lease(folder), []
    lease.leave(QUALITY)

    def wrong(requests):
        lease.leave(RETRAIN)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take_turn(lease, LOOK, wrong)
    assert take_turn(lease, LOOK, worked.append) is None
    assert worked == [[QUALITY], [RETRAIN, LOOK]]


def test_a_file_system_without_locks_is_refused(folder, monkeypatch):
    """A lock by the mere existence of a file would outlive a holder that is killed."""

    def without_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(StorageError, match="lock: can't be locked: Function not implemented; put the workspace on"):
        take_turn(Lease(folder), LOOK, pytest.fail)


@pytest.mark.timeout(20)
def test_runs_do_not_wait_for_each_other_to_be_present(folder):
    with present(folder), present(folder):
        pass


def test_a_name_of_the_holder_that_can_t_be_read_hinders_nobody(folder):
    lease = Lease(folder)
    with lease.attempt("nightly"):
        (folder / "holder.json").write_text('{"by": "nightly", "ho')
        assert lease.holder() is None
        assert take_turn(lease, LOOK, pytest.fail) == "another run"
