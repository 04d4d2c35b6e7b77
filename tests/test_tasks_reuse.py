import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock, Timeout

from schemas.errors import StorageError
from schemas.source_code import code_version
from schemas.storage import temporary_name
from tasks.reuse import reuse_or_run, step_key
from tests.killed import killed_at_fsync


def make(text):
    def run(directory):
        (directory / "out.txt").write_text(text)
        return {"length": len(text)}

    return run


def must_not_run(directory):
    raise AssertionError(f"ran in {directory}")


def test_a_finished_output_is_reused(tmp_path):
    first = reuse_or_run(tmp_path, "key", make("hello"))
    again = reuse_or_run(tmp_path, "key", must_not_run)
    assert (first.reused, again.reused) == (False, True)
    assert again.result == {"length": 5}
    assert (again.directory / "out.txt").read_text() == "hello"


@pytest.mark.parametrize("damage", ["changed", "missing", "manifest"])
def test_a_damaged_output_is_made_again(tmp_path, damage):
    output = reuse_or_run(tmp_path, "key", make("hello")).directory / "out.txt"
    match damage:
        case "changed":
            output.write_text("other")
        case "missing":
            output.unlink()
        case _:
            output.with_name("manifest.json").write_bytes(b'{"key": ')
    again = reuse_or_run(tmp_path, "key", make("hello"))
    assert not again.reused
    assert output.read_text() == "hello"


def test_a_failed_step_leaves_no_output(tmp_path):
    def fail(directory):
        (directory / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        reuse_or_run(tmp_path, "key", fail)
    assert not (tmp_path / "key").exists()


def test_a_place_where_no_folder_can_be_made_is_named(tmp_path):
    (tmp_path / "steps").write_text("no folder")
    with pytest.raises(StorageError, match="steps: can't be made"):
        reuse_or_run(tmp_path / "steps", "key", must_not_run)


def test_a_killed_step_is_continued(tmp_path):
    """SIGKILL in the middle of a step: the next run finds what was finished and goes on."""
    script = textwrap.dedent(
        """
        import pathlib, sys, time
        from tasks.reuse import reuse_or_run
        def run(directory):
            (directory / "first.txt").write_text("done")
            print("half way", flush=True)
            sys.stdin.read()
            return {}
        reuse_or_run(pathlib.Path(sys.argv[1]), "key", run)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "half way\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "key").exists()

    def finish(directory):
        assert (directory / "first.txt").read_text() == "done"
        return {}

    assert not reuse_or_run(tmp_path, "key", finish).reused
    assert (tmp_path / "key" / "first.txt").exists()


def test_one_at_a_time_makes_an_output_and_who_comes_meanwhile_finds_it_done(tmp_path):
    later = []

    def run(directory):
        with pytest.raises(Timeout), FileLock(tmp_path / ".key.lock", timeout=0):
            pass
        later.append(pool.submit(reuse_or_run, tmp_path, "key", must_not_run))
        return {}

    with ThreadPoolExecutor(1) as pool:
        reuse_or_run(tmp_path, "key", run)
    assert later[0].result().reused


_MAKE_ANEW = """
import pathlib, sys
from schemas.storage import write_bytes
from schemas.storage import temporary_name
from tasks.reuse import reuse_or_run
def run(directory):
    write_bytes(directory / "out.txt", b"new")
    return {"length": 3}
reuse_or_run(pathlib.Path(sys.argv[1]), "key", run, is_current=lambda files: False)
"""


@pytest.mark.parametrize("at", [2, 4, 5])
def test_an_output_stands_until_its_replacement_is_complete(tmp_path, at):
    """Killed while the file, then while the manifest is written; the fifth time just after the exchange."""
    reuse_or_run(tmp_path, "key", make("hello"))
    assert killed_at_fsync(at, _MAKE_ANEW, tmp_path)
    assert (tmp_path / "key" / "out.txt").read_text() == ("new" if at == 5 else "hello")
    again = reuse_or_run(tmp_path, "key", must_not_run)
    assert again.reused and again.result == {"length": 3 if at == 5 else 5}
    assert not (tmp_path / ".key.replaced").exists()


def test_what_an_output_has_replaced_does_not_stay(tmp_path):
    reuse_or_run(tmp_path, "key", make("hello"))
    replacement = reuse_or_run(tmp_path, "key", make("new"), is_current=lambda files: False)
    assert (replacement.directory / "out.txt").read_text() == "new"
    assert not (tmp_path / ".key.replaced").exists()


def test_an_output_that_was_moved_aside_for_nothing_comes_back(tmp_path):
    reuse_or_run(tmp_path, "key", make("hello")).directory.rename(tmp_path / ".key.replaced")
    assert reuse_or_run(tmp_path, "key", must_not_run).reused
    assert not (tmp_path / ".key.replaced").exists()


def test_a_key_depends_on_inputs_and_name():
    key = step_key("convert", code="schemas.geometry", snapshot="a")
    assert key == step_key("convert", code="schemas.geometry", snapshot="a")
    assert key != step_key("convert", code="schemas.geometry", snapshot="b")
    assert key != step_key("train", code="schemas.geometry", snapshot="a")
    assert key != step_key("convert", code="schemas.layouts", snapshot="a")


def test_code_version_follows_imports(tmp_path, monkeypatch):
    """A change in a module that a step only imports, inside a function, changes the step's version."""
    for package in ("schemas", "tasks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "schemas" / "low.py").write_text("X = 1\n")
    (tmp_path / "schemas" / "rules.json").write_text("{}")
    (tmp_path / "tasks" / "step.py").write_text(
        "def run():\n    from schemas import low\n    return low, 'rules.json'"
    )
    monkeypatch.setattr("schemas.source_code.SOURCE_ROOT", tmp_path)

    def version():
        code_version.cache_clear()
        return code_version("tasks.step")

    first = version()
    assert version() == first
    (tmp_path / "schemas" / "low.py").write_text("X = 2\n")
    second = version()
    assert second != first
    without = code_version("tasks.step", data=False)
    (tmp_path / "tasks" / "rules.json").write_text("[]")
    assert (version() != second, code_version("tasks.step", data=False)) == (True, without)
    second = version()
    (tmp_path / "schemas" / "unrelated.py").write_text("Y = 1\n")
    assert version() == second
    code_version.cache_clear()


def test_code_version_follows_what_a_template_is_made_of(tmp_path, monkeypatch):
    pages = tmp_path / "tasks" / "review"
    pages.mkdir(parents=True)
    (pages / "page.py").write_text("TEMPLATE = 'review/page.html'")
    (pages / "page.html").write_text('{% extends "base.html" %}\n{% import "parts.html" as parts with context %}')
    (tmp_path / "tasks" / "parts.html").write_text("{%- include 'review/row.html' %}")
    parts = [tmp_path / "tasks" / "base.html", tmp_path / "tasks" / "parts.html", pages / "row.html"]
    monkeypatch.setattr("schemas.source_code.SOURCE_ROOT", tmp_path)
    versions = []
    for changed in (*parts, tmp_path / "tasks" / "other.html"):
        with changed.open("a") as file:
            file.write("changed")
        code_version.cache_clear()
        versions.append(code_version("tasks.review.page"))
    code_version.cache_clear()
    assert len(set(versions)) == 3 and versions[-1] == versions[-2]


def test_what_a_killed_run_left_half_written_is_not_part_of_the_output(tmp_path):
    partial = tmp_path / ".key.partial"
    partial.mkdir()
    (partial / f"{temporary_name('out.txt')}.txt").write_text("hal")
    (partial / "finished.txt").write_text("kept")
    (partial / "manifest.json").write_text("killed before the exchange")
    output = reuse_or_run(tmp_path, "key", make("hello"))
    names = {path.name for path in output.directory.iterdir()}
    assert names == {"finished.txt", "out.txt", "manifest.json"}
    assert reuse_or_run(tmp_path, "key", must_not_run).reused
