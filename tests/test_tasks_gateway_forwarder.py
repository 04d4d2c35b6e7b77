"""From the journal to whoever takes events: nothing is marked before it was taken, and nothing blocks the rest."""

import asyncio
import re
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from schemas.errors import DeliveryError, ForwardError, StorageError
from tasks.gateway.forwarder import PRUNE_EVERY_S, Forwarder
from tasks.gateway.hints import Hint
from tasks.gateway.journal import Arrival, Journal, read_status
from tasks.gateway.journal_thread import JournalThread
from tasks.gateway.metrics import GatewayMetrics
from tasks.gateway.prefect_events import PrefectEvents
from tasks.gateway.settings import GatewaySettings
from tests.servers import HOST, serving

AT_ONCE = GatewaySettings(forward_every_s=0, longest_backoff_s=0)
AWAY = ForwardError("Prefect can't be reached")
BAD = ForwardError("Prefect answers 422", final=True)


@dataclass
class Taker:
    """Takes events as a Prefect would that answers what `answers` says, then takes all; ends the test at `enough`."""

    answers: list = field(default_factory=list)
    never: set = field(default_factory=set)
    enough: int = 1
    taken: list = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, events):
        if self.answers:
            raise self.answers.pop(0)
        if self.never & {event["payload"]["project_id"] for event in events}:
            raise BAD
        self.taken += events
        if len(self.taken) >= self.enough:
            self.done.set()

    async def check(self):
        return None


def hint(project):
    return Hint("label-studio", str(project), "TASKS_CREATED", {"task_ids": [1], "annotation_ids": []})


async def forward(folder, taker, projects, *, metrics=None):
    """Keep a hint of each project, and forward until `taker` has enough; projects of the events, in order."""
    metrics = metrics or GatewayMetrics()
    thread = JournalThread(Journal(folder))
    await asyncio.gather(*(thread.append(Arrival(hint(project), 1000.0)) for project in projects))
    running = asyncio.create_task(Forwarder(thread, taker, AT_ONCE, metrics).run())
    await taker.done.wait()
    while thread.journal.pending:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    await thread.close()
    return [event["payload"]["project_id"] for event in taker.taken]


def test_prefect_away_is_waited_for(tmp_path):
    metrics = GatewayMetrics()
    taker = Taker(answers=[AWAY] * 4, enough=2)
    assert asyncio.run(forward(tmp_path, taker, [1, 2], metrics=metrics)) == [1, 2]
    assert b"fpenet_gateway_forward_failures_total 4.0" in metrics.page(backlog=0, age_s=0)
    assert read_status(tmp_path).forwarded == 2


def test_an_unforeseen_error_is_told_and_does_not_end_it(tmp_path, caplog):
    assert asyncio.run(forward(tmp_path, Taker(answers=[ValueError()]), [1])) == [1]
    assert "ValueError; events wait in the journal" in caplog.text
    assert "Traceback" in caplog.text


class Between(BaseHTTPRequestHandler):
    """A proxy before Prefect with the status `server.token` for a CSRF token and `server.status` for all else."""

    def do_GET(self):
        known = {"/api/csrf-token": self.server.token, "/login": 200}
        status = known.get(self.path.split("?")[0], self.server.status)
        self.send_response(status)
        self.send_header("Content-Length", "6")
        if 300 <= status < 400:
            self.send_header("Location", "/login")
        self.end_headers()
        self.wfile.write(b"<html>")

    do_POST = do_GET

    def log_message(self, *arguments):
        """Not on the terminal."""


@pytest.fixture
def between():
    server = ThreadingHTTPServer((HOST, 0), Between)
    with (
        serving(server),
        temporary_settings({PREFECT_API_URL: f"http://{HOST}:{server.server_port}/api"}),
    ):
        yield server


@pytest.mark.parametrize("projects", [[], [1, 2]])
@pytest.mark.parametrize(
    ("token", "status", "told"),
    [
        (404, 200, r"(POST /events|GET /health) is answered 200, not as by Prefect"),
        (404, 302, r"is answered 200 after a redirect, not as by Prefect"),
        (200, 200, r"can't be understood \(JSONDecodeError\)|GET /health is answered 200, not"),
        (400, 400, r"Prefect answers 400"),
    ],
)
def test_what_stands_before_prefect_takes_no_event(tmp_path, between, projects, token, status, told):
    """A page for people, or the way to one: not even one that refuses is about the events."""
    between.token, between.status = token, status

    async def tried():
        thread = JournalThread(Journal(tmp_path))
        await asyncio.gather(*(thread.append(Arrival(hint(project), 1000.0)) for project in projects))
        async with PrefectEvents() as receiver:
            forwarder = Forwarder(thread, receiver, AT_ONCE, GatewayMetrics())
            untried = forwarder.problem
            running = asyncio.create_task(forwarder.run())
            while forwarder.problem == untried:
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])
        await thread.close()
        return forwarder.problem

    problem = asyncio.run(tried())
    status = read_status(tmp_path)
    assert (status.pending, status.forwarded, status.refused) == (len(projects), 0, 0)
    assert re.search(told, problem)


def test_the_same_event_until_it_is_taken(tmp_path):
    """The taker has the events, but its answer is lost: they come again under the same ids."""

    class Forgetful(Taker):
        async def send(self, events):
            self.taken += events
            if len(self.taken) == len(events):
                raise AWAY
            self.done.set()

    taker = Forgetful()
    asyncio.run(forward(tmp_path, taker, [1, 2]))
    first, again = taker.taken[:2], taker.taken[2:]
    assert [event["id"] for event in first] == [event["id"] for event in again]


def test_an_event_that_prefect_will_never_take_does_not_hold_up_the_others(tmp_path, caplog):
    assert asyncio.run(forward(tmp_path, Taker(never={2}, enough=2), [1, 2, 3])) == [1, 3]
    status = read_status(tmp_path)
    assert (status.pending, status.forwarded, status.refused) == (0, 2, 1)
    assert "entries [2] are given up" in caplog.text


def test_a_stop_in_the_middle_is_gone_on_from(tmp_path):
    class Cut(Taker):
        async def send(self, events):
            self.done.set()
            await asyncio.Event().wait()

    async def stopped():
        taker, thread = Cut(), JournalThread(Journal(tmp_path))
        await thread.append(Arrival(hint(1), 1000.0))
        running = asyncio.create_task(Forwarder(thread, taker, AT_ONCE, GatewayMetrics()).run())
        await taker.done.wait()
        running.cancel()
        await asyncio.wait([running])
        await thread.close()

    asyncio.run(stopped())
    assert read_status(tmp_path).pending == 1
    assert asyncio.run(forward(tmp_path, Taker(enough=2), [2])) == [1, 2]


def test_a_forwarder_that_is_never_idle_thins_out_and_prunes(tmp_path):
    """Prefect is away, entries wait, and the clock goes on: no pause in which there would be time for it."""
    clock = iter(range(0, 100 * PRUNE_EVERY_S, PRUNE_EVERY_S // 2))

    class Away(Taker):
        tried = 0

        async def send(self, events):
            self.tried += 1
            if self.tried == 10:
                self.done.set()
            raise AWAY

    async def busy():
        taker, thread = Away(), JournalThread(Journal(tmp_path, most_pending=3))
        await thread.append(Arrival(hint(0), 0.0))
        groups = await thread.call(thread.journal.outgoing)
        await thread.call(thread.journal.end, groups, at=0.0, outcome="forwarded")
        await asyncio.gather(*(thread.append(Arrival(hint(1), 0.0)) for _ in range(4)))
        settings = replace(AT_ONCE, retention_days=PRUNE_EVERY_S / 86400)
        forwarder = Forwarder(thread, taker, settings, GatewayMetrics(), clock=lambda: next(clock))
        running = asyncio.create_task(forwarder.run())
        await taker.done.wait()
        running.cancel()
        await asyncio.wait([running])
        await thread.close()

    asyncio.run(busy())
    status = read_status(tmp_path)
    assert (status.pending, status.forwarded) == (1, 0)


def test_arrivals_during_a_commit_share_the_next_one(tmp_path):
    commits = []

    async def keep():
        thread = JournalThread(Journal(tmp_path), on_kept=commits.append)
        numbers = await asyncio.gather(*(thread.append(Arrival(hint(1), 1000.0)) for _ in range(50)))
        await thread.close()
        return numbers

    assert asyncio.run(keep()) == list(range(1, 51))
    assert len(commits) == 1


def test_each_hears_of_its_own_fate(tmp_path):
    async def keep():
        thread = JournalThread(Journal(tmp_path))
        arrivals = [Arrival(hint(1), 1000.0, delivery) for delivery in ("a", "b", "a")]
        fates = await asyncio.gather(*map(thread.append, arrivals), return_exceptions=True)
        thread.journal._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(StorageError, match="can't be written"):
            await thread.append(Arrival(hint(1), 1000.0))
        await thread.close()
        return fates

    one, two, again = asyncio.run(keep())
    assert (one, two) == (1, 2)
    assert isinstance(again, DeliveryError)


def test_whatever_goes_wrong_each_hears_of_it_and_the_next_is_kept(tmp_path):
    class NoText:
        """Nothing that a journal can hold."""

    async def keep():
        thread = JournalThread(Journal(tmp_path))
        wrong = Arrival(Hint("label-studio", NoText(), "TASKS_CREATED", {"task_ids": NoText()}), 1000.0)
        async with asyncio.timeout(60):
            fates = await asyncio.gather(*map(thread.append, (wrong, wrong)), return_exceptions=True)
            kept = await thread.append(Arrival(hint(1), 1000.0))
            await thread.close()
        return fates, kept

    fates, kept = asyncio.run(keep())
    assert [type(fate) for fate in fates] == [TypeError] * 2
    assert kept == 1
