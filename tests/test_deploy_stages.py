import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deploy import stages
from schemas.errors import InputError, StorageError
from schemas.storage import read_json, sha256_file, write_json
from tests.killed import killed_at_fsync

WHO = {"by": "ada", "why": "reviewed"}


def engine(root: Path, name: str) -> Path:
    """A directory as `write_manifest` leaves it, of an engine whose bytes are its name."""
    directory = root / "engines" / name
    directory.mkdir(parents=True)
    (directory / "engine.onnx").write_text(name)
    write_json(
        directory / "manifest.json",
        {
            "build_key": name,
            "engine": "engine.onnx",
            "engine_sha256": sha256_file(directory / "engine.onnx"),
            "provenance": {"model_name": "fpenet", "model_version": name[-1], "snapshot_id": "s"},
            "check": {"state": "not run here", "reason": "needs a GPU (SM75)"},
        },
    )
    return directory


def put_in_production(root: Path, *names: str) -> None:
    for name in names:
        stages.stage(root / "targets", "cpu", engine(root, name), **WHO)
        stages.promote(root / "targets", "cpu", **WHO)


def production(root: Path) -> str:
    pointer = stages.status(root / "targets", "cpu").production
    return pointer.engine.build_key if pointer else ""


def check_history(root: Path) -> list[stages.Event]:
    """The log's events, once it is certain that they follow from one another and end where the pointers are."""
    events = stages.history(root / "targets", "cpu")
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    held = dict.fromkeys(stages.STAGES)
    for event in events:
        stage = {"stage": "staging", "canary": "canary", "end": "canary"}.get(event.action, "production")
        assert event.before == held[stage]
        if event.action in ("canary", "promote"):
            assert event.engine == held["staging" if event.action == "canary" or event.note else "canary"]
        held[stage] = None if event.action == "end" else event.engine
        if event.action == "rollback":
            held["canary"] = None
    now = stages.status(root / "targets", "cpu")
    assert held == dict.fromkeys(stages.STAGES) | {name: pointer.engine for name, pointer in now.held}
    return events


def test_stage_promote_rollback_tell_who_when_and_why(tmp_path):
    put_in_production(tmp_path, "key1", "key2")
    back = stages.rollback(tmp_path / "targets", "cpu", by="bob", why="worse on glasses")
    assert back.engine.build_key == "key1"
    assert back.event.before.build_key == "key2"
    assert (back.event.by, back.event.why) == ("bob", "worse on glasses")
    assert str(back.engine) == "fpenet version 1, engine key1 (not run here: needs a GPU (SM75))"
    events = check_history(tmp_path)
    assert [event.action for event in events] == ["stage", "promote", "stage", "promote", "rollback"]
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert stages.status(tmp_path / "targets", "cpu").staging.engine.build_key == "key2"


def test_what_can_not_be_done_is_said(tmp_path):
    targets = tmp_path / "targets"
    with pytest.raises(InputError, match="'cpu': nothing is staged"):
        stages.promote(targets, "cpu", **WHO)
    assert not targets.exists()
    assert stages.history(targets, "cpu") == []
    stages.stage(targets, "cpu", engine(tmp_path, "key1"), **WHO)
    with pytest.raises(InputError, match=r"no earlier production engine .* nothing is in production"):
        stages.rollback(targets, "cpu", **WHO)
    stages.promote(targets, "cpu", **WHO)
    with pytest.raises(InputError, match=r"no earlier production engine .* key1 .* is the first"):
        stages.rollback(targets, "cpu", **WHO)


def test_a_place_where_no_pointer_can_be_kept_is_named(tmp_path):
    (tmp_path / "targets").write_text("no folder")
    with pytest.raises(StorageError, match="targets/cpu: can't be made"):
        stages.stage(tmp_path / "targets", "cpu", engine(tmp_path, "e1"), **WHO)


def test_an_engine_that_was_changed_is_refused_everywhere(tmp_path):
    put_in_production(tmp_path, "key1", "key2")
    third = engine(tmp_path, "key3")
    stages.stage(tmp_path / "targets", "cpu", third, **WHO)
    (third / "engine.onnx").write_text("tampered")
    with pytest.raises(StorageError, match="not the file that was built"):
        stages.promote(tmp_path / "targets", "cpu", **WHO)
    with pytest.raises(StorageError, match="not the file that was built"):
        stages.stage(tmp_path / "targets", "cpu", third, **WHO)
    (tmp_path / "engines" / "key1" / "engine.onnx").unlink()
    with pytest.raises(StorageError, match="is gone"):
        stages.rollback(tmp_path / "targets", "cpu", **WHO)
    assert production(tmp_path) == "key2"
    assert len(check_history(tmp_path)) == 5


def test_a_manifest_changed_with_the_engine_does_not_help(tmp_path):
    directory = engine(tmp_path, "key1")
    stages.stage(tmp_path / "targets", "cpu", directory, **WHO)
    (directory / "engine.onnx").write_text("tampered")
    manifest = read_json(directory / "manifest.json")
    write_json(directory / "manifest.json", manifest | {"engine_sha256": sha256_file(directory / "engine.onnx")})
    with pytest.raises(StorageError, match="not the file that was built"):
        stages.promote(tmp_path / "targets", "cpu", **WHO)


def test_the_manifest_of_staging_is_kept_and_held(tmp_path):
    """The one beside the engine is written anew when the engine is checked again, which makes it no other engine."""
    targets, directory = tmp_path / "targets", engine(tmp_path, "key1")
    first = stages.stage(targets, "cpu", directory, **WHO)
    kept = stages.manifest_path(targets, "cpu", first.engine)
    before = kept.read_bytes()
    assert before == (directory / "manifest.json").read_bytes()
    write_json(directory / "manifest.json", {**read_json(directory / "manifest.json"), "ladder": ["again"]})
    assert stages.stage(targets, "cpu", directory, **WHO) == first
    assert kept.read_bytes() == before
    kept.write_text("{}")
    with pytest.raises(StorageError, match="is not the manifest that it was staged with; run the flow again"):
        stages.promote(targets, "cpu", **WHO)
    again = stages.stage(targets, "cpu", directory, **WHO)
    assert again.engine.is_same(first.engine)
    assert stages.promote(targets, "cpu", **WHO).engine == again.engine
    assert stages.promote(targets, "cpu", **WHO).earlier == []


def test_an_engine_without_a_check_is_not_staged(tmp_path):
    with pytest.raises(StorageError, match=r"no manifest\.json; an engine is checked before it is staged"):
        stages.stage(tmp_path / "targets", "cpu", tmp_path / "engines" / "none", **WHO)


def test_a_damaged_pointer_is_named(tmp_path):
    put_in_production(tmp_path, "key1")
    (tmp_path / "targets" / "cpu" / "production.json").write_text("{")
    with pytest.raises(StorageError, match=r"production\.json: not a pointer"):
        stages.status(tmp_path / "targets", "cpu")


def test_a_damaged_log_is_named_with_its_line(tmp_path):
    put_in_production(tmp_path, "key1")
    stages.promote(tmp_path / "targets", "cpu", **WHO, to="canary", has_canaries=True)
    stages.stage(tmp_path / "targets", "cpu", engine(tmp_path, "key2"), **WHO)
    log = tmp_path / "targets" / "cpu" / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    lines = len(log.read_bytes().splitlines())
    for read in (stages.history, stages.status):
        with pytest.raises(StorageError, match=rf"log\.jsonl:{lines}: not a change"):
            read(tmp_path / "targets", "cpu")


def test_production_is_reached_by_way_of_the_canary_devices(tmp_path):
    targets = tmp_path / "targets"
    stages.stage(targets, "cpu", engine(tmp_path, "key1"), **WHO)
    with pytest.raises(InputError, match=r"nothing is at canary; .* --target cpu --to canary --config FILE` first"):
        stages.promote(targets, "cpu", **WHO, has_canaries=True)
    with pytest.raises(InputError, match="has no canary devices"):
        stages.promote(targets, "cpu", **WHO, to="canary")
    stages.promote(targets, "cpu", **WHO, to="canary", has_canaries=True)
    assert production(tmp_path) == ""
    stages.stage(targets, "cpu", engine(tmp_path, "key2"), **WHO)
    stages.promote(targets, "cpu", **WHO, has_canaries=True)
    assert production(tmp_path) == "key1", "what was tried, not what was staged since"
    assert [(event.action, event.note) for event in check_history(tmp_path)] == [
        ("stage", ""),
        ("canary", ""),
        ("stage", ""),
        ("promote", ""),
    ]


def test_without_canary_devices_the_log_says_so(tmp_path):
    put_in_production(tmp_path, "key1")
    assert "no canary devices" in check_history(tmp_path)[-1].note


def test_canary_devices_want_what_changed_last(tmp_path):
    """A rollback takes the engine off the canary devices too."""
    targets = tmp_path / "targets"
    wanted = []
    for name in ("key1", "key2"):
        stages.stage(targets, "cpu", engine(tmp_path, name), **WHO)
        for to in ("canary", "production"):
            stages.promote(targets, "cpu", **WHO, to=to, has_canaries=True)
            now = stages.status(targets, "cpu")
            wanted.append([found and found[1].engine.build_key for found in map(now.wanted, ("canary", "main"))])
    assert wanted == [["key1", None], ["key1", "key1"], ["key2", "key1"], ["key2", "key2"]]
    assert now.canary.earlier == [], "nobody goes back to a canary"
    stages.rollback(targets, "cpu", **WHO)
    now = stages.status(targets, "cpu")
    assert {now.wanted(ring)[1].engine.build_key for ring in ("canary", "main")} == {"key1"}
    assert now.canary is None
    with pytest.raises(InputError, match="nothing is at canary"):
        stages.promote(targets, "cpu", **WHO, has_canaries=True)
    stages.promote(targets, "cpu", **WHO, to="canary", has_canaries=True)
    check_history(tmp_path)


def test_a_canary_that_was_rolled_back_does_not_come_back_with_the_next_promotion(tmp_path):
    targets = tmp_path / "targets"
    put_in_production(tmp_path, "key1")
    stages.promote(targets, "cpu", **WHO, to="canary", has_canaries=True)
    put_in_production(tmp_path, "key2")
    stages.rollback(targets, "cpu", **WHO)
    stages.promote(targets, "cpu", **WHO)
    assert stages.status(targets, "cpu").canary is None
    with pytest.raises(InputError, match="nothing is at canary"):
        stages.promote(targets, "cpu", **WHO, has_canaries=True)
    check_history(tmp_path)


def test_doing_it_twice_changes_nothing(tmp_path):
    put_in_production(tmp_path, "key1")
    again = stages.promote(tmp_path / "targets", "cpu", by="eve", why="again")
    assert again.event.by == "ada"
    stages.stage(tmp_path / "targets", "cpu", tmp_path / "engines" / "key1", **WHO)
    assert len(check_history(tmp_path)) == 2


def test_a_workspace_can_be_moved(tmp_path):
    put_in_production(tmp_path / "here", "key1", "key2")
    (tmp_path / "here").rename(tmp_path / "there")
    stages.rollback(tmp_path / "there" / "targets", "cpu", **WHO)
    assert production(tmp_path / "there") == "key1"


_CHANGE = """
import sys
from pathlib import Path
from deploy import stages
getattr(stages, sys.argv[2])(Path(sys.argv[1]), "cpu", by="ada", why="killed")
"""


@pytest.mark.parametrize(("change", "new"), [("promote", "key3"), ("rollback", "key1")])
def test_killed_at_any_moment_leaves_the_old_engine_or_the_new(change, new, tmp_path):
    """A change syncs pointer, directory, log, directory: after the second the new engine is there."""
    seen = []
    for at in (1, 2, 3, 4, 5):
        root = tmp_path / str(at)
        put_in_production(root, "key1", "key2")
        stages.stage(root / "targets", "cpu", engine(root, "key3"), **WHO)
        assert killed_at_fsync(at, _CHANGE, root / "targets", change) == (at < 5)
        seen.append(production(root))
        check_history(root)
        if seen[-1] != new:
            getattr(stages, change)(root / "targets", "cpu", **WHO)
        assert production(root) == new
        assert [event.action for event in check_history(root)][-1] == change
    assert seen == ["key2", new, new, new, new]


_CONTEND = """
import sys
from pathlib import Path
from deploy import stages
from schemas.errors import InputError
root, mine = Path(sys.argv[1]), sys.argv[2]
for turn in range(6):
    stages.stage(root / "targets", "cpu", root / "engines" / mine, by=mine, why=str(turn))
    stages.promote(root / "targets", "cpu", by=mine, why=str(turn))
    if turn % 2:
        try:
            stages.rollback(root / "targets", "cpu", by=mine, why=str(turn))
        except InputError:
            pass
"""


def test_changes_by_several_processes_do_not_interleave(tmp_path):
    names = ["key1", "key2", "key3"]
    for name in names:
        engine(tmp_path, name)
    running = [
        subprocess.Popen([sys.executable, "-c", _CONTEND, tmp_path, name], stderr=subprocess.PIPE) for name in names
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert {event.by for event in check_history(tmp_path)} == set(names)


def test_only_the_engine_that_is_meant_is_promoted(tmp_path):
    targets = tmp_path / "targets"
    first, second = (stages.stage(targets, "cpu", engine(tmp_path, name), **WHO).engine for name in ("key1", "key2"))
    before = stages.history(targets, "cpu")
    with pytest.raises(InputError, match=r"engine key2 .* came between; another engine was to go to production"):
        stages.promote(targets, "cpu", **WHO, expected=first.engine_sha256)
    assert stages.history(targets, "cpu") == before
    assert stages.promote(targets, "cpu", **WHO, expected=second.engine_sha256).engine.build_key == "key2"


def test_an_engine_under_another_check_or_version_is_nothing_to_go_back_to(tmp_path):
    targets = tmp_path / "targets"
    put_in_production(tmp_path, "key1")
    manifest = tmp_path / "engines" / "key1" / "manifest.json"
    checked = read_json(manifest) | {"check": {"state": "passed", "reason": ""}}
    write_json(manifest, checked)
    assert stages.stage(targets, "cpu", manifest.parent, **WHO).engine.check == "passed"
    assert stages.promote(targets, "cpu", **WHO).event.number == 2, "it is in production already"
    write_json(manifest, checked | {"provenance": checked["provenance"] | {"model_version": "7"}})
    stages.stage(targets, "cpu", manifest.parent, **WHO)
    renamed = stages.promote(targets, "cpu", **WHO)
    assert (renamed.engine.model_version, renamed.earlier) == ("7", [])
    with pytest.raises(InputError, match=r"version 7, engine key1 .* is the first"):
        stages.rollback(targets, "cpu", **WHO)


@pytest.mark.parametrize(("before", "note"), [((), "run nothing any more"), (("key1", "key2"), "go back to .* key2")])
def test_rollback_ends_a_bad_canary_alone(before, note, tmp_path):
    put_in_production(tmp_path, *before)
    targets = tmp_path / "targets"
    stages.stage(targets, "cpu", engine(tmp_path, "key3"), **WHO)
    stages.promote(targets, "cpu", **WHO, to="canary", has_canaries=True)
    event = stages.rollback(targets, "cpu", **WHO).event
    assert (event.action, event.engine.build_key) == ("end", "key3")
    assert stages.status(targets, "cpu").ended.event == event
    assert re.search(note, event.note)
    assert production(tmp_path) == (before[-1] if before else "")
    with pytest.raises(InputError, match="nothing is at canary"):
        stages.promote(targets, "cpu", **WHO, has_canaries=True)
    if before:
        assert stages.status(targets, "cpu").wanted("canary")[1].engine.build_key == "key2"
        assert stages.rollback(targets, "cpu", **WHO).engine.build_key == "key1", "the next one changes production"
        assert stages.status(targets, "cpu").ended is None, "what its devices are to run is told by production now"


class Stages(RuleBasedStateMachine):
    """Any sequence of changes against a list that says what ought to be."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        for index in range(3):
            engine(self.root, f"key{index}")
        self.staged = self.tried = ""
        self.produced: list[str] = []
        self.newer = False

    @property
    def trial(self) -> bool:
        return bool(self.tried) and self.newer and self.produced[-1:] != [self.tried]

    @rule(index=st.integers(0, 2))
    def stage(self, index: int) -> None:
        self.staged = f"key{index}"
        stages.stage(self.root / "targets", "cpu", self.root / "engines" / self.staged, **WHO)

    @precondition(lambda self: self.staged)
    @rule()
    def try_out(self) -> None:
        stages.promote(self.root / "targets", "cpu", **WHO, to="canary", has_canaries=True)
        self.newer = self.newer or self.tried != self.staged
        self.tried = self.staged

    @precondition(lambda self: self.staged)
    @rule(has_canaries=st.booleans())
    def promote(self, has_canaries: bool) -> None:
        chosen = self.tried if has_canaries else self.staged
        if not chosen:
            with pytest.raises(InputError):
                stages.promote(self.root / "targets", "cpu", **WHO, has_canaries=has_canaries)
            return
        stages.promote(self.root / "targets", "cpu", **WHO, has_canaries=has_canaries)
        if self.produced[-1:] != [chosen]:
            self.produced.append(chosen)
            self.newer = False

    @precondition(lambda self: self.trial)
    @rule()
    def end_canary(self) -> None:
        ended = stages.rollback(self.root / "targets", "cpu", **WHO)
        assert (ended.event.action, ended.event.before.build_key) == ("end", self.tried)
        assert stages.status(self.root / "targets", "cpu").ended == ended
        self.tried, self.newer = "", False

    @precondition(lambda self: len(self.produced) > 1 and not self.trial)
    @rule()
    def rollback(self) -> None:
        back = stages.rollback(self.root / "targets", "cpu", **WHO)
        assert back.event.before.build_key == self.produced.pop()
        self.tried, self.newer = "", False

    @precondition(lambda self: self.staged and len(self.produced) < 2 and not self.trial)
    @rule()
    def no_rollback(self) -> None:
        with pytest.raises(InputError):
            stages.rollback(self.root / "targets", "cpu", **WHO)

    @invariant()
    def production_is_the_last(self) -> None:
        assert production(self.root) == (self.produced[-1] if self.produced else "")

    @invariant()
    def log_is_consistent(self) -> None:
        check_history(self.root)

    def teardown(self) -> None:
        self.folder.cleanup()


TestStages = Stages.TestCase
TestStages.settings = settings(stateful_step_count=15)
