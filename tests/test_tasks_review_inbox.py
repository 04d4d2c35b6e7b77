"""What flows make of decisions in the registry, and of aliases that somebody moved, against MLflow itself."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from filelock import FileLock, Timeout
from mlflow import MlflowClient

from schemas.config import ReviewSettings, Tracking
from schemas.errors import ReviewError
from tasks.champion import current_model
from tasks.mlflow_client import mlflow_client
from tasks.review import inbox as inbox_module
from tasks.review.aliases import move
from tasks.review.approval import Standing, accepted_version
from tasks.review.inbox import look, note_told, settle
from tasks.workspace import Workspace

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SETTINGS = ReviewSettings()
NAMES = (f"model-{number}" for number in count())


def report(version):
    return str(version) * 64


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One SQLite file for all tests: each has a registered model of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def tracking(store):
    return Tracking(uri=store, registered_model=next(NAMES))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def client(tracking, workspace):
    with mlflow_client(tracking, workspace) as client:
        client.create_registered_model(tracking.registered_model)
        yield client


@pytest.fixture
def registry(client, tracking):
    return Registry(client, tracking.registered_model)


class Registry:
    """A registered model, as flows and people write into it."""

    def __init__(self, client, name):
        self.client, self.name = client, name

    def judged(self, *, champion="none", gate="passed"):
        """A version with a report, which becomes the challenger; its number."""
        version = str(self.client.create_model_version(self.name, "s3://nowhere/model").version)
        self.tag(version, **{"review_sha256": report(version), "review.champion": champion, "gate": gate})
        move(self.client, self.name, "challenger", version)
        return version

    def approve(self, version, **changes):
        written = {
            "review": "approved",
            "review.by": "Ann",
            "review.reason": "better",
            "review.report": report(version),
        }
        self.tag(version, **written | {f"review.{key}": value for key, value in changes.items()})

    def tag(self, version, **tags):
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, version, key, value)

    def tags(self, version):
        return self.client.get_model_version(self.name, version).tags

    @property
    def aliases(self):
        held = self.client.get_registered_model(self.name).aliases
        return {alias: str(version) for alias, version in held.items()}


@pytest.fixture
def settled(tracking, workspace):
    return lambda now=NOW: settle(tracking, workspace, SETTINGS, now=now)


def standings(inbox):
    return {found.version: found.decision.standing for found in inbox.versions}


def test_an_approval_moves_the_champion_and_is_written_down(registry, settled, tracking, workspace):
    version = registry.judged()
    registry.approve(version, by=" Ann ")
    inbox = settled()
    assert registry.aliases == {"champion": version}, "no challenger any more"
    accepted = accepted_version(workspace)
    assert (accepted.version, accepted.by, accepted.report, accepted.override) == (
        version,
        "Ann",
        report(version),
        None,
    )
    assert inbox.accepted == (accepted,) and inbox.champion == accepted and not inbox.moved
    assert registry.tags(version)["review.state"] == "champion: in use"
    assert current_model(tracking, workspace).version == version
    written = dict(registry.tags(version))
    again = settled(NOW + timedelta(days=40))
    assert again.accepted == () and again.champion == accepted
    assert registry.tags(version) == written, "a run that finds nothing new writes nothing"


def test_looking_changes_nothing(registry, tracking, workspace):
    version = registry.judged()
    registry.approve(version)
    before = registry.tags(version)
    inbox = look(tracking, workspace, SETTINGS)
    assert standings(inbox) == {version: Standing.APPROVED}
    assert registry.tags(version) == before and accepted_version(workspace) is None


def test_a_refusal_is_answered_on_the_version(registry, settled):
    version = registry.judged(gate="failed")
    registry.approve(version, report=report(9))
    assert settled().accepted == ()
    state = registry.tags(version)["review.state"]
    assert state.startswith("refused: review.report names another report") and "review.override" in state
    assert registry.aliases == {"challenger": version}
    registry.approve(version, override="the failed slice is not ours")
    (accepted,) = settled().accepted
    assert accepted.override == "the failed slice is not ours"


def test_tags_half_set_wait_for_the_others(registry, settled):
    version = registry.judged()
    registry.tag(version, **{"review": "approved", "review.by": "Ann"})
    assert settled().accepted == ()
    assert "set review.reason, review.report" in registry.tags(version)["review.state"]
    registry.tag(version, **{"review.reason": "better", "review.report": report(version)})
    assert len(settled().accepted) == 1


def test_an_approval_lapses_counted_from_when_a_flow_first_saw_it(registry, settled):
    version = registry.judged(gate="inconclusive")
    registry.approve(version)
    settled()
    registry.tag(version, gate="passed")
    assert settled(NOW + timedelta(days=14)).accepted == ()
    assert "lapsed on 2026-12-06 12:00 UTC" in registry.tags(version)["review.state"]
    registry.approve(version, reason="still better")
    assert len(settled(NOW + timedelta(days=14)).accepted) == 1


def test_of_two_approvals_the_newest_version_wins_and_the_other_is_told(registry, settled):
    first, second = registry.judged(), registry.judged()
    for version in (first, second):
        registry.approve(version)
    assert [accepted.version for accepted in settled().accepted] == [second]
    assert "champion none, and that is 2 now" in registry.tags(first)["review.state"]


def test_approvals_in_a_row_are_followed_and_none_is_used_twice(registry, settled, workspace):
    first, second = registry.judged(), registry.judged(champion="1")
    for version in (first, second):
        registry.approve(version)
    assert [accepted.version for accepted in settled().accepted] == [first, second]
    assert standings(settled()) == {second: Standing.CHAMPION, first: Standing.REPLACED}
    registry.tag(first, **{"review.champion": second})  # a new report, against the champion
    assert settled().accepted == (), "the old approval is not for it"
    registry.approve(first, reason="the new one flickers")
    assert [accepted.version for accepted in settled().accepted] == [first]
    assert standings(settled()) == {second: Standing.REPLACED, first: Standing.CHAMPION}
    log = [json.loads(line) for line in (workspace.review / "log.jsonl").read_text().splitlines()]
    assert [row["version"] for row in log if row["what"] == "accepted"] == [first, second, first]


def test_a_rejection_is_kept_and_takes_the_challenger_s_name(registry, settled):
    version = registry.judged()
    registry.tag(version, **{"review": "rejected", "review.by": "Ann", "review.reason": "chin jumps"})
    assert standings(settled()) == {version: Standing.REJECTED}
    assert registry.tags(version)["review.state"] == "rejected: by Ann: chin jumps"
    assert registry.aliases == {}


def test_an_alias_moved_by_hand_is_found_and_not_followed(registry, settled, tracking, workspace):
    first = registry.judged()
    registry.approve(first)
    settled()
    second = registry.judged(champion=first)
    registry.client.set_registered_model_alias(registry.name, "champion", second)
    (moved,) = settled().moved
    assert (moved.alias, moved.recorded, moved.found) == ("champion", first, second)
    assert "not followed; put it back to 1, or approve version 2 by tags" in str(moved)
    assert current_model(tracking, workspace).version == first
    assert accepted_version(workspace).version == first
    assert registry.aliases["champion"] == second, "nor moved back"
    registry.approve(second)
    assert settled().moved == ()


def test_an_alias_removed_by_hand_is_found(registry, settled):
    version = registry.judged()
    registry.client.delete_registered_model_alias(registry.name, "challenger")
    (moved,) = settled().moved
    assert (moved.alias, moved.recorded, moved.found) == ("challenger", version, None)


def test_a_move_by_hand_is_told_once_and_another_anew(registry, settled, tracking, workspace):
    first, second = registry.judged(), registry.judged()
    set_alias = registry.client.set_registered_model_alias

    def told():
        inbox = settled()
        note_told(inbox, tracking, workspace)
        return [moved.told for moved in inbox.moved]

    set_alias(registry.name, "challenger", first)
    assert [told(), told(), told()] == [[False], [True], [True]]
    assert look(tracking, workspace, SETTINGS).moved, "still shown"
    registry.client.delete_registered_model_alias(registry.name, "challenger")
    assert [told(), told()] == [[False], [True]]
    set_alias(registry.name, "challenger", second)
    assert told() == []
    set_alias(registry.name, "challenger", first)
    assert told() == [False], "moved again"


def test_a_champion_that_was_deleted_counts_as_none(registry, settled, tracking, workspace):
    first = registry.judged()
    registry.approve(first)
    settled()
    second = registry.judged(champion=first)
    registry.client.delete_model_version(registry.name, first)
    inbox = settled()
    assert (inbox.champion, accepted_version(workspace)) == (None, None)
    (moved,) = inbox.moved
    assert "version 1" in str(moved) and "was deleted from the registry: there is no champion now" in str(moved)
    current = current_model(tracking, workspace)
    assert (current.version, current.alias) == (second, None)
    registry.tag(second, **{"review.champion": "none"})  # a new report, by the absolute bounds
    registry.approve(second)
    assert [accepted.version for accepted in settled().accepted] == [second]
    assert settled().moved == () and registry.aliases == {"champion": second}


def test_a_move_to_a_version_that_was_deleted_is_given_up(registry, settled):
    version = registry.judged()
    registry.client.set_registered_model_tag(registry.name, "fpenet.moving", "challenger")
    registry.client.delete_model_version(registry.name, version)
    assert settled().moved == ()


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("requests", [3, 7, 8, 9])
def test_a_run_that_dies_anywhere_is_finished_by_the_next(registry, settled, workspace, monkeypatch, requests):
    """After as many of the requests that change the registry: within the end of the challenger, and of the move."""
    version = registry.judged()
    registry.approve(version)
    left = iter(range(requests))
    with monkeypatch.context() as patch:
        for method in (
            "set_registered_model_tag",
            "delete_registered_model_tag",
            "set_registered_model_alias",
            "delete_registered_model_alias",
            "set_model_version_tag",
        ):
            patch.setattr(MlflowClient, method, _mortal(getattr(MlflowClient, method), left))
        with pytest.raises(Killed):
            settled()
    inbox = settled()
    assert inbox.moved == () and registry.aliases == {"champion": version}
    assert accepted_version(workspace).version == version
    assert "review.used" in registry.tags(version)
    assert "fpenet.moving" not in registry.client.get_registered_model(registry.name).tags


def _mortal(method, left):
    def called(*arguments):
        if next(left, None) is None:
            raise Killed
        return method(*arguments)

    return called


@pytest.mark.parametrize("tag", ["review_sha256", "review"])
def test_an_approval_that_is_taken_back_before_it_is_acted_on_moves_nothing(
    registry, settled, workspace, monkeypatch, tag
):
    """All versions are listed first: what is read one by one comes after that."""
    version = registry.judged()
    registry.approve(version)
    read = MlflowClient.get_model_version

    def taken_back(client, name, number):
        if tag in read(client, name, number).tags:
            client.delete_model_version_tag(name, number, tag)
        return read(client, name, number)

    monkeypatch.setattr(MlflowClient, "get_model_version", taken_back)
    inbox = settled()
    assert (inbox.accepted, standings(inbox)) == ((), {version: Standing.REFUSED})
    assert registry.aliases == {"challenger": version} and accepted_version(workspace) is None
    assert registry.tags(version)["review.state"].startswith("refused: ")


def test_two_runs_at_once_accept_once(registry, tracking, workspace, monkeypatch):
    """The second comes when the first has seen the approval, and has not moved the alias yet."""
    version = registry.judged()
    registry.approve(version)
    accept, second = inbox_module._accept, []

    def and_another_comes(*arguments):
        monkeypatch.setattr(inbox_module, "_accept", accept)
        with pytest.raises(Timeout), FileLock(workspace.review / "lock", timeout=0):
            pass
        second.append(pool.submit(settle, tracking, workspace, SETTINGS, now=NOW))
        return accept(*arguments)

    monkeypatch.setattr(inbox_module, "_accept", and_another_comes)
    with ThreadPoolExecutor(1) as pool:
        assert len(settle(tracking, workspace, SETTINGS, now=NOW).accepted) == 1
    assert second[0].result().accepted == ()


def test_a_fresh_workspace_on_the_same_registry_knows_the_champion(registry, settled, tracking, workspace, tmp_path):
    version = registry.judged()
    registry.approve(version)
    settled()
    other = Workspace(tmp_path / "other")
    assert settle(tracking, other, SETTINGS, now=NOW).accepted == ()
    assert accepted_version(other) == accepted_version(workspace)


@pytest.mark.parametrize("record", ["2", '{"version":"1"}', '{"version":"one"}'])
def test_a_record_that_somebody_changed_stops_everything(registry, settled, record):
    registry.judged()
    registry.client.set_registered_model_tag(registry.name, "fpenet.champion", record)
    with pytest.raises(ReviewError, match=r"fpenet\.champion of model-\d+ is no record of a flow"):
        settled()


def test_what_is_open(registry, settled):
    old, first, later = registry.judged(), registry.judged(), registry.judged(champion="2")
    registry.approve(first)
    inbox = settled()
    assert [found.version for found in inbox.open] == [later, first], f"nobody waits for version {old} any more"
    assert "review.state" not in registry.tags(old)
