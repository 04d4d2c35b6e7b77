"""The journal: kept once, found after a crash, sent in the same groups again, small for ever."""

import shutil
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import DeliveryError, InputError, StorageError
from tasks.gateway.hints import Hint
from tasks.gateway.journal import FILE, Arrival, Journal, read_status
from tasks.gateway.settings import DELIVERY_MEMORY_S

WAL = f"{FILE}-wal"


def arrival(number=1, *, project="7", received=1000.0, source="label-studio", delivery=None):
    detail = {"task_ids": [number], "annotation_ids": []} if source == "label-studio" else {"version": str(number)}
    return Arrival(Hint(source, project, "ANNOTATION_UPDATED", detail), received, delivery)


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "journal")
    yield opened
    opened.close()


def numbers(groups):
    return [[entry.number for entry in group] for group in groups]


def test_what_is_kept_is_what_came(journal):
    assert journal.append([arrival(5), arrival(6, project="8")]) == [1, 2]
    (first,), (second,) = journal.outgoing()
    assert (first.hint, first.received) == (arrival(5).hint, 1000.0)
    assert second.hint.subject == "8"
    assert (journal.pending, journal.oldest_pending()) == (2, 1000.0)


def test_a_commit_is_on_disk_when_it_returns(journal):
    """SQLite fsyncs the log at each commit in this mode only; 2 is FULL."""
    ask = journal._connection.execute
    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ask("PRAGMA synchronous").fetchone() == (2,)


def test_a_delivery_is_kept_once(journal, tmp_path):
    first, again, other = journal.append([arrival(delivery="a"), arrival(delivery="a"), arrival(delivery="b")])
    assert (first, other) == (1, 2)
    assert isinstance(again, DeliveryError) and again.reason == "repeated"
    journal.close()
    reopened = Journal(tmp_path / "journal")
    (again,) = reopened.append([arrival(delivery="a")])
    assert isinstance(again, DeliveryError)
    reopened.prune(now=1000.0 + DELIVERY_MEMORY_S + 1, retention_s=1)
    assert isinstance(reopened.append([arrival(delivery="a")])[0], int)
    reopened.close()


def test_a_group_once_made_is_sent_again_as_it_was(journal, tmp_path):
    """Whatever came meanwhile, and over a restart: Prefect knows the second attempt by its id."""
    journal.append([arrival(1), arrival(2)])
    before = journal.outgoing()
    ids = [journal.event_id(group) for group in before]
    journal.append([arrival(3)])
    journal.close()
    reopened = Journal(tmp_path / "journal")
    again = reopened.outgoing()
    assert numbers(again) == numbers(before) == [[1, 2]]
    assert [reopened.event_id(group) for group in again] == ids
    reopened.end(again, at=2000.0, outcome="forwarded")
    assert numbers(reopened.outgoing()) == [[3]]
    reopened.close()


def test_the_oldest_go_first(journal):
    journal.append([arrival(number, project=str(number)) for number in range(5)])
    assert numbers(journal.outgoing(most=2)) == [[1], [2]]
    assert numbers(journal.outgoing(most=2)) == [[1], [2]], "they have not ended"


def test_another_journal_makes_other_events(journal, tmp_path):
    other = Journal(tmp_path / "other")
    for each in (journal, other):
        each.append([arrival()])
    assert journal.event_id(journal.outgoing()[0]) != other.event_id(other.outgoing()[0])
    other.close()


def test_two_gateways_can_t_share_a_journal(journal, tmp_path):
    with pytest.raises(InputError, match="another gateway"):
        Journal(tmp_path / "journal")


def test_what_has_ended_goes_after_its_time_and_what_waits_stays(journal):
    journal.append([arrival()] * 2500 + [arrival(project="8")])
    (old, new) = journal.outgoing(most=2501)
    journal.end([old[:2400]], at=2000.0, outcome="forwarded")
    journal.end([old[2400:]], at=9000.0, outcome="refused")
    gone = iter(lambda: journal.prune(now=10_000.0, retention_s=5000.0), 0)
    assert list(gone) == [1000, 1000, 400]
    status = read_status(journal.path.parent)
    assert (status.pending, status.forwarded, status.refused) == (1, 0, 100)
    assert numbers([new]) == numbers(journal.outgoing())
    assert journal.append([arrival()]) == [2502], "a number is never used again"


def test_while_prefect_is_away_for_long_the_last_of_each_project_stays(tmp_path):
    journal = Journal(tmp_path, most_pending=100)
    on_its_way = journal.append([arrival(1, project="9")])
    assert numbers(journal.outgoing()) == [on_its_way]
    journal.append([arrival(1, source="mlflow")])
    journal.append([arrival(number, project=str(number % 2)) for number in range(98)])
    journal.thin()
    assert journal.pending == 100, "it is not too many yet"
    journal.append([arrival(99, project="1")])
    journal.thin()
    assert journal.pending == 4
    first, *rest = journal.outgoing()
    assert numbers([first]) == [on_its_way] and not rest
    journal.end([first], at=2000.0, outcome="forwarded")
    left = {(e.hint.source, e.hint.subject, e.number): e.hint.detail for (e,) in journal.outgoing()}
    whole_project = {"task_ids": [], "annotation_ids": []}
    assert left == {
        ("mlflow", "7", 2): {"version": "1"},
        ("label-studio", "0", 99): whole_project,
        ("label-studio", "1", 101): whole_project,
    }
    journal.close()


def test_what_can_t_be_thinned_out_is_not_gone_through_each_time(tmp_path):
    journal = Journal(tmp_path, most_pending=10)
    journal.append([arrival(number, source="mlflow") for number in range(11)])
    journal.thin()
    journal.append([arrival(number) for number in range(11)])
    journal.thin()
    assert journal.pending == 22, "not twice of what was left"
    journal.append([arrival(11)])
    journal.thin()
    assert journal.pending == 12
    journal.end(journal.outgoing(), at=2000.0, outcome="forwarded")
    journal.append([arrival(number) for number in range(11)])
    journal.thin()
    assert journal.pending == 1, "the next time begins anew"
    journal.close()


def test_what_is_kept_stays_kept_where_it_can_t_be_thinned_out(tmp_path):
    journal = Journal(tmp_path, most_pending=1)
    journal._connection.execute("CREATE TRIGGER no BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert journal.append([arrival(1), arrival(2)]) == [1, 2]
    with pytest.raises(StorageError, match="can't be thinned out"):
        journal.thin()
    assert journal.pending == read_status(tmp_path).pending == 2
    journal.close()


def test_a_full_disk_keeps_nothing_and_says_so(journal):
    journal._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match=r"can't be written: .*full; free space"):
        journal.append([arrival(number) for number in range(1000)])
    assert (journal.pending, read_status(journal.path.parent).pending) == (0, 0)
    journal._connection.execute("PRAGMA max_page_count = 100000")
    assert journal.append([arrival()]) == [1]


def test_a_damaged_journal_is_named(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database, and long enough to be looked at" * 100)
    for _ in range(2):  # the first does not keep the lock
        with pytest.raises(StorageError, match=r"journal.sqlite: can't be opened: .*move it"):
            Journal(tmp_path)
    with pytest.raises(StorageError, match="can't be read"):
        read_status(tmp_path)


def test_a_journal_of_another_version(journal, tmp_path):
    journal.close()
    with sqlite3.connect(journal.path) as connection:
        connection.execute("UPDATE about SET value = '2' WHERE key = 'version'")
    connection.close()
    with pytest.raises(StorageError, match="version 2"):
        Journal(tmp_path / "journal")


def test_the_status_while_it_is_written_and_after(journal):
    journal.append([arrival(received=500.0), arrival(received=600.0)])
    assert read_status(journal.path.parent).oldest_pending == 500.0
    journal.end(journal.outgoing(), at=700.0, outcome="forwarded")
    journal.close()
    status = read_status(journal.path.parent)
    assert (status.pending, status.oldest_pending, status.forwarded) == (0, None, 2)
    assert (status.last_received, status.last_forwarded) == (600.0, 700.0)


def test_no_journal_to_tell_of(tmp_path):
    with pytest.raises(InputError, match="no journal there"):
        read_status(tmp_path)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A journal as a crash leaves it: the log not yet taken over, its size after each of ten commits."""
    folder = tmp_path_factory.mktemp("crashed")
    journal = Journal(folder / "journal")
    journal._connection.execute("PRAGMA wal_autocheckpoint = 0")
    sizes = []
    for number in range(10):
        journal.append([arrival(number, project=str(number))])
        sizes.append((journal.path.parent / WAL).stat().st_size)
    (folder / "copy").mkdir()
    for name in (FILE, WAL):
        shutil.copy(journal.path.parent / name, folder / "copy")
    journal.close()
    return folder / "copy", sizes


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 1), rubbish=st.binary(max_size=64))
def test_a_torn_end_costs_what_was_not_acknowledged_and_nothing_else(crashed, tmp_path, share, rubbish):
    """Cut the log anywhere, and put rubbish behind: every commit that lies before the cut is there, in order."""
    folder, sizes = crashed
    target = tmp_path / "torn"
    shutil.copytree(folder, target, dirs_exist_ok=True)
    cut = int(share * sizes[-1])
    (target / WAL).write_bytes((folder / WAL).read_bytes()[:cut] + rubbish)
    (target / f"{FILE}-shm").unlink(missing_ok=True)
    journal = Journal(target)
    kept = [entry.number for group in journal.outgoing() for entry in group]
    journal.close()
    whole = sum(size <= cut for size in sizes)
    assert kept == list(range(1, whole + 1))
