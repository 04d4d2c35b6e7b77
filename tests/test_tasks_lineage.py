"""Lineage both ways: answers of the index against a walk over everything, for any history."""

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InputError, StorageError
from schemas.storage import read_json, write_json
from tasks.lineage.ask import FIRST, ask
from tasks.lineage.index import drop_index, index_path, open_index
from tasks.lineage.versions import VersionRecord
from tasks.tombstones import Tombstones
from tests.lineage_histories import (
    Row,
    count_places,
    digest,
    point_stage,
    workspace_in,
    write_device,
    write_engine,
    write_snapshot,
    write_version,
)

SUBJECTS = ("multipie/079", "multipie/080", "w300/1", None)
ANNOTATIONS = tuple(f"team:task/{number}/annotation/{number}" for number in range(12))

rows = st.builds(
    Row,
    annotation=st.sampled_from(ANNOTATIONS),
    subject=st.sampled_from(SUBJECTS),
    split=st.sampled_from(["train", "validation", "kpi"]),
    content=st.sampled_from(["c0", "c1"]),
    used=st.sampled_from([True, True, True, False]),
)
snapshots = st.dictionaries(
    st.sampled_from([digest("snapshot", number) for number in range(4)]),
    st.lists(rows, max_size=14, unique_by=lambda row: row.annotation),
)


@st.composite
def histories(draw):
    """Two states of a workspace's snapshots, the second of which follows the first, and what was built of them."""
    before, after = draw(snapshots), draw(snapshots)
    built = draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(after)), st.sampled_from("ab"), st.sampled_from(["cpu", "t4", None])),
            max_size=6,
        )
        if after
        else st.just([])
    )
    return before, after, built


def write_history(workspace, before, after, built):
    """Returns the versions and, for each, the keys of its engines."""
    for number, (name, held) in enumerate(sorted(before.items())):
        write_snapshot(workspace, name, held, taken_at=f"2026-01-0{number + 1}")
    with open_index(workspace):
        pass  # so that what follows is a change of an index
    for name in before:
        if after.get(name) != before[name]:
            shutil.rmtree(workspace.snapshots / name)
    for number, (name, held) in enumerate(sorted(after.items())):
        if before.get(name) != held:
            write_snapshot(workspace, name, held, taken_at=f"2026-02-0{number + 1}")
    versions = [write_version(workspace, "fpenet", i + 1, name, onnx) for i, (name, onnx, _) in enumerate(built)]
    engines = {
        write_engine(workspace, target, record): record.onnx_sha256
        for record, (_, _, target) in zip(versions, built, strict=True)
        if target
    }
    return versions, {
        record: sorted(key for key, onnx in engines.items() if onnx == record.onnx_sha256) for record in versions
    }


def answers(workspace):
    """What can be asked, with every answer."""
    keys = [path.name for path in workspace.engines.glob("*/")]
    asked = [*ANNOTATIONS, *(subject for subject in SUBJECTS if subject), *keys]
    asked += [f"fpenet/{number}" for number in range(1, 7)]
    found = {}
    for word in asked:
        try:
            found[word] = ask(word, workspace, every=True)
        except InputError:
            found[word] = None
    return found


def walked_forward(after, versions_engines, holds):
    """Snapshot -> places, versions and engines, by looking at every row."""
    return {
        name: (
            places,
            [str(record) for record in versions_engines if record.snapshot == name],
            [versions_engines[record] for record in versions_engines if record.snapshot == name],
        )
        for name, held in after.items()
        if (places := count_places([row for row in held if holds(row)]))
    }


def told_forward(answer):
    if answer is None:
        return {}
    return {
        one.snapshot: (
            dict(one.faces),
            [str(version.record) for version in one.versions],
            [sorted(engine.build_key for engine in version.engines) for version in one.versions],
        )
        for one in answer.appearances
    }


def walked_contents(held):
    found = {}
    for place in {row.place for row in held}:
        own = [row for row in held if row.place == place]
        subjects = {row.subject for row in own} - {None}
        found[place] = (len(own), tuple(sorted(subjects)), tuple(sorted(row.annotation for row in own)))
    return found


def told_contents(contents):
    for part in contents.parts.values():
        assert (part.subjects, sum(part.sources.values())) == (len(part.subject_names), part.faces)
    return {place: (part.faces, part.subject_names, part.annotations) for place, part in contents.parts.items()}


@settings(max_examples=25)
@given(histories())
def test_answers_are_those_of_a_walk_and_of_an_index_made_anew(history):
    before, after, built = history
    with tempfile.TemporaryDirectory() as folder:
        workspace = workspace_in(Path(folder))
        versions, engines = write_history(workspace, before, after, built)
        told = answers(workspace)
        for annotation in ANNOTATIONS:
            expected = walked_forward(after, engines, lambda row, name=annotation: row.annotation == name)
            assert told_forward(told[annotation]) == expected
        for subject in filter(None, SUBJECTS):
            expected = walked_forward(after, engines, lambda row, name=subject: row.subject == name)
            assert told_forward(told[subject]) == expected
        for record in versions:
            (contents,) = told[str(record)].snapshots
            assert told_contents(contents) == walked_contents(after[record.snapshot])
        for key in {key for keys in engines.values() for key in keys}:
            own = [record for record in versions if key in engines[record]]
            assert [version.record for version in told[key].versions] == own
            assert {contents.snapshot: told_contents(contents) for contents in told[key].snapshots} == {
                record.snapshot: walked_contents(after[record.snapshot]) for record in own
            }
        drop_index(workspace)
        assert answers(workspace) == told


@pytest.fixture
def workspace(tmp_path):
    """One snapshot, a version of it, two engines, one of them in production and on a device."""
    workspace = workspace_in(tmp_path / "workspace")
    held = [Row(f"team:task/{i}/annotation/{i}", f"multipie/{i // 2:03d}", "train") for i in range(30)]
    write_snapshot(workspace, digest("snapshot"), [*held, Row("files:gt/a.json#1", "w300/1", "kpi")], taken_at="2026")
    record = write_version(workspace, "fpenet", 3, digest("snapshot"), digest("onnx"))
    key = write_engine(workspace, "t4", record)
    write_engine(workspace, "cpu", record)
    point_stage(workspace, "t4", "staging", key)
    point_stage(workspace, "t4", "production", key)
    write_device(workspace, "t4", "dock-7", key)
    return workspace


def test_a_subject_is_followed_to_the_device(workspace):
    (appearance,) = ask("multipie/004", workspace).appearances
    assert appearance.faces == {"train": 2}
    (version,) = appearance.versions
    assert (str(version.record), version.record.training) == ("fpenet/3", "t3")
    places = {engine.target: (engine.stages, engine.devices) for engine in version.engines}
    assert places == {"cpu": ((), ()), "t4": (("staging", "production"), ("dock-7",))}


@pytest.mark.parametrize(
    ("number", "action", "stages"),
    [(3, "rollback", ("staging", "production")), (3, "promote", ("staging", "canary", "production")),
     (1, "rollback", ("staging", "canary", "production"))],
)  # fmt: skip
def test_a_canary_is_over_with_the_rollback_that_follows_it(workspace, number, action, stages):
    (key,) = (engine.build_key for engine in ask("3", workspace).versions[0].engines if engine.target == "t4")
    point_stage(workspace, "t4", "canary", key, number=2, action="canary")
    point_stage(workspace, "t4", "production", key, number=number, action=action)
    assert ask(key, workspace).engine.stages == stages


def test_a_canary_that_was_ended_is_over(workspace):
    (key,) = (engine.build_key for engine in ask("3", workspace).versions[0].engines if engine.target == "t4")
    point_stage(workspace, "t4", "canary", key, number=9, action="end")
    assert ask(key, workspace).engine.stages == ("staging", "production")


def test_a_device_that_went_on_keeps_the_engine_before(workspace):
    (before,) = (engine.build_key for engine in ask("3", workspace).versions[0].engines if engine.target == "t4")
    write_device(workspace, "t4", "dock-7", before, digest("a newer one")[:20])
    engine = ask(before, workspace).engine
    assert (engine.devices, engine.kept_on) == ((), ("dock-7",))


def test_a_device_that_runs_nothing_any_more_keeps_its_engine(workspace):
    path = workspace.targets / "t4/devices/dock-7.json"
    write_json(path, read_json(path) | {"current": None})
    (engine,) = (engine for engine in ask("3", workspace).versions[0].engines if engine.target == "t4")
    assert (engine.devices, engine.kept_on) == ((), ("dock-7",))


def test_an_engine_of_another_export_belongs_to_the_version_that_it_names(workspace):
    exported_again = VersionRecord("fpenet", "3", digest("snapshot"), onnx_sha256=digest("exported again"))
    key = write_engine(workspace, "rtx", exported_again)
    assert key in [engine.build_key for engine in ask("fpenet/3", workspace).versions[0].engines]


def test_an_engine_from_outside_the_registry_has_a_snapshot_and_no_version(workspace):
    unregistered = VersionRecord("fpenet", "", digest("snapshot"), onnx_sha256=digest("unregistered"))
    answer = ask(write_engine(workspace, "rtx", unregistered), workspace)
    assert answer.versions == ()
    assert [contents.snapshot for contents in answer.snapshots] == [digest("snapshot")]


def test_an_engine_that_is_being_made_is_none_yet(workspace):
    for folder in list(workspace.engines.iterdir()):
        shutil.copytree(folder, folder.with_name(f".{folder.name}.tmp"))
    assert len(ask("3", workspace).versions[0].engines) == 2


def test_snapshots_come_oldest_first_and_versions_by_number(workspace):
    names = sorted((digest(number) for number in range(3)), reverse=True)
    for day, name in enumerate(names, start=1):
        write_snapshot(workspace, name, [Row("files:b.json#1", "w300/9", "train")], taken_at=f"2026-02-0{day}")
    for number in (10, 9):
        write_version(workspace, "fpenet", number, names[0], digest(number))
    first, *others = ask("w300/9", workspace).appearances
    assert [one.snapshot for one in (first, *others)] == names
    assert [str(version.record) for version in first.versions] == ["fpenet/9", "fpenet/10"]


def test_an_engine_goes_by_key_start_digest_file_and_folder(workspace):
    (key,) = (path.name for path in workspace.engines.iterdir() if "t4" in (path / "manifest.json").read_text())
    copied = workspace.root / "copied.plan"
    copied.write_bytes(b"an engine")
    names = [key, key[:4], digest(key, "engine"), str(workspace.engines / key)]
    assert {ask(name, workspace).name for name in names} == {key}
    for name in (key[:3], str(copied)):
        with pytest.raises(InputError, match="nothing in"):
            ask(name, workspace)


@pytest.mark.parametrize(
    ("word", "annotation"),
    [
        ("team:task/1", "team:task/1/annotation/1"),  # and not one of task 10
        ("points:001_2.pts", "points:001_2.pts"),
        ("points:zürich", "points:zürich/über_3.pts"),
    ],
)
def test_an_annotation_goes_by_its_task_its_entry_and_its_folder(workspace, word, annotation):
    held = [Row("points:001_2.pts", "w300/2", "train"), Row("points:zürich/über_3.pts", "w300/3", "train")]
    write_snapshot(workspace, digest("points"), held, taken_at="2026-02")
    assert ask(word, workspace).name == annotation


def test_an_answer_names_the_first_and_counts_all(workspace):
    part = ask("3", workspace).snapshots[0].parts["train"]
    assert (part.faces, part.subjects, part.sources) == (30, 15, {"team": 30})
    assert part.subject_names == tuple(f"multipie/{number:03d}" for number in range(FIRST))
    assert len(part.annotations) == FIRST
    assert len(ask("3", workspace, every=True).snapshots[0].parts["train"].annotations) == 30


def test_a_version_from_before_records_is_known_by_its_engines(workspace):
    shutil.rmtree(workspace.versions)
    (version,) = ask("fpenet/3", workspace).versions
    assert (version.record.training, len(version.engines)) == ("", 2)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("multipie/04", r"did you mean 'multipie/0\d\d'"),
        ("fpenet/33", "did you mean 'fpenet/3'"),
        ("k" * 300, r"ask for an engine .* a version .* an annotation .* a subject"),
        ("team:task/99", r"ask for an engine .* a version .* an annotation .* a subject"),
        ("team:task/1/annotation/11", r"did you mean 'team:task/\d+/annotation/\d+'"),
    ],
)
def test_an_unknown_name_gets_help(workspace, word, message):
    with pytest.raises(InputError, match=message):
        ask(word, workspace)


def test_a_name_of_two_things_is_not_guessed(workspace):
    record = write_version(workspace, "other", 3, digest("snapshot"), digest("other"))
    with pytest.raises(InputError, match="'3' may mean version fpenet/3 or version other/3"):
        ask("3", workspace)
    assert ask(str(record), workspace).name == "other/3"


@pytest.mark.parametrize("damage", [b"no database at all, but long enough to be taken for one" * 40, b""])
def test_a_damaged_index_is_made_anew(workspace, damage):
    told = ask("multipie/004", workspace)
    index_path(workspace).write_bytes(damage)
    assert ask("multipie/004", workspace) == told


def test_an_index_with_an_overwritten_page_is_made_anew_at_the_latest_by_the_next_question(workspace):
    told = ask("multipie/004", workspace, every=True)
    whole, page = index_path(workspace).read_bytes(), 4096
    damaged = 0
    for start in range(0, len(whole), page):
        index_path(workspace).write_bytes(whole[:start] + bytes(page) + whole[start + page :])
        try:
            assert ask("multipie/004", workspace, every=True) == told
        except StorageError as error:
            damaged += 1
            assert "was damaged" in str(error) and not index_path(workspace).exists()
        assert ask("multipie/004", workspace, every=True) == told
    assert damaged


def test_an_index_of_another_version_is_made_anew(workspace):
    told = ask("multipie/004", workspace)
    with sqlite3.connect(index_path(workspace)) as database:
        database.execute("DROP TABLE source_counts")
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert ask("multipie/004", workspace) == told


def test_a_snapshot_is_read_once(workspace):
    with open_index(workspace) as index:
        assert index.read == 1
    with open_index(workspace) as index:
        assert index.read == 0


@pytest.mark.parametrize("name", ["faces.parquet", "superseded.parquet"])
def test_a_table_that_was_replaced_is_read_again(workspace, name):
    """Another file of the same time and size, or one of another time: numbers of deleted files are given again."""

    def replace():
        Path(shutil.copy2(table, table.with_suffix(".new"))).replace(table)

    def change():
        os.utime(table, ns=(0, table.stat().st_mtime_ns + 1))

    table = workspace.snapshots / digest("snapshot") / name
    for step in (replace, change):
        with open_index(workspace):
            step()
        with open_index(workspace) as index:
            assert index.read == 1


def test_a_snapshot_that_is_being_made_is_none_yet(workspace):
    shutil.copytree(workspace.snapshots / digest("snapshot"), workspace.snapshots / f".{digest('snapshot')}.tmp")
    with open_index(workspace) as index:
        assert list(index.snapshots()) == [digest("snapshot")]


def test_a_damaged_snapshot_is_named_and_spoils_nothing(workspace):
    told = ask("multipie/004", workspace)
    write_snapshot(workspace, digest("new"), [Row("a:1", "w300/2", "train")], taken_at="2026-02")
    table = workspace.snapshots / digest("new") / "faces.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"faces\.parquet: can't be read"):
        ask("multipie/004", workspace)
    table.write_bytes(whole)
    table.with_name("superseded.parquet").unlink()
    with pytest.raises(StorageError, match=r"superseded\.parquet: can't be read"):
        ask("multipie/004", workspace)
    shutil.rmtree(table.parent)
    assert ask("multipie/004", workspace) == told


def test_an_index_that_can_t_be_opened_is_told(workspace):
    index_path(workspace).mkdir(parents=True)
    with pytest.raises(StorageError, match=r"index\.sqlite: unable to open .* run the same command again"):
        ask("multipie/004", workspace)


def test_an_index_is_dropped_with_what_sqlite_has_left_beside_it(workspace):
    ask("multipie/004", workspace)
    index_path(workspace).with_name("index.sqlite-journal").write_bytes(b"multipie/004")
    drop_index(workspace)
    assert not list(workspace.lineage.glob("index*"))


def test_a_replaced_snapshot_leaves_no_trace_in_the_index(workspace):
    ask("multipie/004", workspace)
    assert b"multipie/004" in index_path(workspace).read_bytes()
    kept = [Row("files:gt/a.json#1", "w300/1", "kpi")]
    write_snapshot(workspace, digest("snapshot"), kept, taken_at="2026")
    assert ask("w300/1", workspace).appearances[0].faces == {"kpi": 1}
    assert b"multipie/004" not in index_path(workspace).read_bytes()


@pytest.mark.parametrize("kept", ["w300/j\u00f6rg", "w300/jo\u0308rg"])
def test_a_subject_is_found_however_its_letters_are_composed(workspace, kept):
    write_snapshot(workspace, digest("snapshot"), [Row("files:gt/a.json#1", kept, "kpi")], taken_at="2026")
    for asked in ("w300/j\u00f6rg", "w300/jo\u0308rg"):
        assert ask(asked, workspace).name == kept
    mark = Tombstones.of(workspace.root).with_grave(kept, by="tests", why="asked to").redacted(kept)
    write_snapshot(workspace, digest("snapshot"), [Row("files:gt/a.json#1", "w300/1", "kpi")], taken_at="2026")
    workspace.forgotten.mkdir()
    record = workspace.forgotten / f"{mark.removeprefix('redacted/')}.json"
    record.write_text(f'{{"snapshots": {{"{digest("snapshot")}": {{"kpi": 1}}}}}}')
    for asked in ("w300/j\u00f6rg", "w300/jo\u0308rg"):
        assert ask(asked, workspace).name == mark


def test_a_forgotten_subject_is_followed_by_its_mark(workspace):
    tombstones = Tombstones.of(workspace.root).with_grave("multipie/004", by="tests", why="asked to")
    mark = tombstones.redacted("multipie/004")
    kept = [Row("files:gt/a.json#1", "w300/1", "kpi")]
    write_snapshot(workspace, digest("snapshot"), kept, taken_at="2026")
    workspace.forgotten.mkdir()
    record = workspace.forgotten / f"{mark.removeprefix('redacted/')}.json"
    record.write_text(f'{{"snapshots": {{"{digest("snapshot")}": {{"train": 2}}}}}}')
    answer = ask("multipie/004", workspace)
    assert (answer.name, answer.forgotten) == (mark, True)
    assert answer == ask(mark, workspace)
    assert answer.appearances[0].faces == {"train": 2}
    assert [engine.devices for engine in answer.appearances[0].versions[0].engines] == [(), ("dock-7",)]
    assert ask("fpenet/3", workspace).snapshots[0].redacted == {mark: {"train": 2}}
