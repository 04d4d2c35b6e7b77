"""A pull fetches what changed, and the store is what the server holds, whatever was done there."""

import itertools
import logging
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from schemas.config import ValidationRules, WorkflowConfig
from schemas.errors import (
    ProjectNotFoundError,
    SourceEmptyError,
    SourceRefusedError,
    SourceUnreachableError,
    StorageError,
)
from schemas.label_studio_config import labelling_config
from schemas.raw import read_raw
from schemas.sources import SubjectRule
from tasks.images import ImageIndex
from tasks.label_studio import client, follow
from tasks.label_studio import pull as label_studio_pull
from tasks.lease import Request
from tasks.pull import pull
from tasks.run import Run
from tasks.sync_steps import concerned
from tasks.tombstones import Tombstones
from tasks.validate import validate
from tasks.workspace import Workspace
from tests.integration.labelled_projects import LabelledProject, N, assert_equal_to_server, source_of
from tests.servers import HOST, free_port

OPERATIONS = (
    "add", "add annotated", "annotate", "annotate", "correct", "correct", "remove annotation", "skip",
    "ground truth", "edit task", "remove task", "remove tasks at once", "remove their annotations at once", "predict",
    "draft", "pull", "pull", "interrupted pull", "full pull",
)  # fmt: skip
NUMBERS = itertools.count()


class InterruptedPullError(Exception):
    pass


@pytest.fixture
def title(request):
    return f"{re.sub(r'[^a-z]+', ' ', request.node.name)[:40].strip()} {next(NUMBERS)}"


@pytest.fixture
def project(connection, title, tmp_path):
    project = LabelledProject(connection, title, tmp_path / "images")
    yield project
    if any(identity == project.id for identity, _ in connection._titles()):
        project.delete()


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def fetch(label_studio, label_studio_token, project, workspace):
    """Pulls the project as it is now; settings go to the source."""

    def fetch(*, into=workspace, progress=lambda *told: None, **settings):
        source = source_of(project, label_studio.url, label_studio_token, **settings)
        return pull(source, into, num_keypoints=N, progress=progress)

    return fetch


def took(result):
    return result.details["tasks"]


def annotations_of(project, task):
    return sorted(annotation["id"] for annotation in project.content()[task]["annotations"])


@pytest.mark.parametrize(("at_most", "in_one_request"), [(1000, 120), (1000, 5), (6, 5)])
def test_only_what_changed_is_fetched(project, fetch, monkeypatch, at_most, in_one_request):
    """However the versions that are known already are named to the server."""
    monkeypatch.setattr(follow, "_AT_MOST", at_most)
    monkeypatch.setattr(follow, "MAX_KNOWN", in_one_request)
    tasks = project.add(12)
    first = fetch()
    assert took(first) == {"full": "first pull", "fetched": 12, "new": 12, "changed": 0, "deleted": 0}
    assert took(fetch()) == {"full": None, "fetched": 0, "new": 0, "changed": 0, "deleted": 0}
    project.correct(annotations_of(project, tasks[4])[0], shift=4)
    project.edit(tasks[7], subject="team/other")
    project.add(2, first=12)
    second = fetch()
    assert took(second) == {"full": None, "fetched": 4, "new": 2, "changed": 2, "deleted": 0}
    assert second.content_hash != first.content_hash
    assert_equal_to_server(second.raw, project)
    assert "14 records from label_studio: 2 new, 2 changed, 0 deleted" in str(second)


def test_half_a_pull_is_not_what_the_last_one_left(
    label_studio, label_studio_token, project, title, fetch, workspace, monkeypatch
):
    """Its records lack their images: a look that an event of another project wakes has to pull this one again."""
    (task,) = project.add(1)
    source = source_of(project, label_studio.url, label_studio_token).model_dump() | {"project": title}
    config = {"workspace": str(workspace.root), "sources": [source], "experiment_spec": "spec.yaml"}
    run, woken = Run(WorkflowConfig.model_validate(config)), [Request("look", "sync", project_id=project.id + 1)]
    fetch()
    with monkeypatch.context() as refused, pytest.raises(SourceRefusedError):
        refused.setenv(label_studio_token, "0" * 40)
        fetch()
    assert not concerned(run, woken), "nothing was changed here"
    monkeypatch.setattr(client, "PATIENCE_S", ())
    project.edit(task, image=f"http://{HOST}:{free_port()}/a.png")
    with pytest.raises(SourceUnreachableError, match=r"a\.png can't be fetched"):
        fetch()
    assert concerned(run, woken)
    project.edit(task, image=str(project.image))
    fetch()
    assert not concerned(run, woken)


@pytest.mark.slow
def test_what_is_deleted_is_found_among_many(project, fetch):
    """Which of them is gone is found by counting, not by listing them all."""
    tasks = project.add(160, annotated=False)
    project.annotate(tasks[0])
    fetch(page_size=80)
    project.remove(tasks[90])
    after = fetch()
    assert took(after)["deleted"] == 1
    assert took(after)["fetched"] <= 50
    assert_equal_to_server(after.raw, project)
    project.act("delete_tasks", tasks[1:])
    assert took(fetch())["deleted"] == 158
    assert_equal_to_server(after.raw, project)


def test_subjects_are_those_of_the_field_with_the_image(project, fetch, workspace):
    """Also once the field has changed in the configuration."""
    (task,) = project.add(1)
    photo = project.image.rename(project.image.with_name("079_x.png"))
    project.edit(task, image=str(photo.with_name("001_x.png")), photo=str(photo))
    rule = SubjectRule(dataset="team", pattern=r"(?P<subject>\d{3})_")
    (before,) = read_raw(fetch(subject=rule).raw)
    assert (before.subject, before.image) == ("team/001", None)
    raw = fetch(subject=rule, image_field="photo").raw
    assert [record.subject for record in read_raw(raw)] == ["team/079"]
    index = ImageIndex(workspace.image_index)
    (face,) = validate(read_raw(raw), num_keypoints=N, rules=ValidationRules(), index=index).faces
    assert (face.subject, face.image_name, face.image) == ("team/079", "079_x.png", str(photo))


def test_skips_annotators_drafts_and_predictions(project, fetch):
    one, other = project.add(2)
    before = fetch()
    project.draft(one)
    drafted = fetch()
    assert drafted.content_hash == before.content_hash
    project.predict(one)
    project.skip(other)
    second = project.annotate(other, shift=2, ground_truth=True)
    after = fetch()
    assert_equal_to_server(after.raw, project)
    read = {record.payload["id"]: record.payload for record in read_raw(after.raw)}
    assert not {"drafts", "predictions"} & set(read[one])
    assert len(read[one]["annotations"]) == 1
    flags = [(a["was_cancelled"], a["ground_truth"]) for a in read[other]["annotations"]]
    assert flags == [(False, False), (True, False), (False, True)]
    project.mark(second, ground_truth=False)
    assert took(fetch())["changed"] == 1
    assert_equal_to_server(after.raw, project)


def test_the_same_content_is_the_same_however_it_came(project, fetch, tmp_path):
    tasks = project.add(5)
    fetch()
    project.skip(tasks[1])
    project.remove(tasks[3])
    project.add(1, first=9)
    parts = fetch()
    whole = fetch(into=Workspace(tmp_path / "other"), page_size=100)
    assert took(whole)["full"] == "first pull"
    assert parts.content_hash == whole.content_hash
    assert list(read_raw(parts.raw)) == list(read_raw(whole.raw))


def stop_after(pages):
    """Progress that breaks a pull off."""
    told = itertools.count(1)

    def progress(what, done, of):
        if what == "tasks" and next(told) > pages:
            raise InterruptedPullError

    return progress


@pytest.mark.parametrize("pages", [0, 2])
def test_an_interrupted_pull_goes_on_where_it_was(project, fetch, pages, monkeypatch):
    monkeypatch.setattr(follow, "_FEW", 1)
    tasks = project.add(12)
    with pytest.raises(InterruptedPullError):
        fetch(progress=stop_after(pages))
    project.remove(tasks[0])
    project.correct(annotations_of(project, tasks[1])[0], shift=3)
    resumed = fetch()
    assert took(resumed)["full"] == "resumed"
    assert took(resumed)["fetched"] < 12
    assert_equal_to_server(resumed.raw, project)


KILLED = """
import os, signal, sys
from pathlib import Path
from schemas.sources import LabelStudioSource, SubjectRule
from tasks.pull import pull
from tasks.workspace import Workspace

url, project, token_env, root, page = sys.argv[1:]
calls = 0

def progress(what, done, of):
    global calls
    calls += 1
    if calls == int(page):
        os.kill(os.getpid(), signal.SIGKILL)

source = LabelStudioSource(kind="label_studio", name="server", url=url, project=int(project), token_env=token_env,
                           subject=SubjectRule(field="subject"), page_size=3)
pull(source, Workspace(Path(root)), num_keypoints=3, progress=progress)
"""


def test_a_killed_pull_leaves_whole_pages(project, fetch, label_studio, label_studio_token, workspace):
    project.add(12)
    arguments = [label_studio.url, project.id, label_studio_token, workspace.root, 3]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert len(list(read_raw(workspace.raw("server") / "raw.sqlite"))) == 9
    resumed = fetch()
    assert took(resumed) == {"full": "resumed", "fetched": 3, "new": 3, "changed": 0, "deleted": 0}
    assert_equal_to_server(resumed.raw, project)


def test_the_whole_is_gone_through_again_when_it_is_due(project, fetch):
    project.add(4)
    fetch()
    assert took(fetch())["full"] is None
    assert took(fetch(reconcile_hours=0)) == {"full": "due", "fetched": 4, "new": 0, "changed": 0, "deleted": 0}


def test_forgotten_subjects_do_not_come_back(project, fetch, workspace):
    tasks = project.add(8)
    marked = Tombstones.of(workspace.root).with_grave("team/1", by="test", why="asked")
    first = fetch()
    assert (first.records, first.details["forgotten"]) == (6, 2)
    assert {record.subject for record in read_raw(first.raw)} == {"team/0", "team/2", "team/3"}
    assert b"team/1" not in first.raw.read_bytes()
    assert took(fetch())["fetched"] == 0

    marked.with_grave("team/2", by="test", why="asked")
    second = fetch()
    assert (second.records, second.details["forgotten"]) == (4, 4)
    kept = b"".join(path.read_bytes() for path in workspace.raw("server").rglob("*") if path.is_file())
    assert b"team/2" not in kept
    project.edit(tasks[3], subject="team/1")
    assert (fetch().records, fetch().details["forgotten"]) == (3, 5)


def test_another_subject_rule_fetches_nothing(project, fetch):
    project.add(3)
    before = fetch()
    after = fetch(subject=SubjectRule(dataset="d", pattern=r"(?P<subject>frame)\.png"))
    assert took(after)["fetched"] == 0
    assert {record.subject for record in read_raw(after.raw)} == {"d/frame"}
    assert fetch().content_hash == before.content_hash


def test_another_title_and_a_drifted_config_are_seen(project, fetch):
    project.add(2)
    before = fetch()
    assert before.details["label_config_drift"] == []
    project.change(title="renamed", label_config=labelling_config(N).replace("P3", "P4"))
    after = fetch()
    assert took(after)["fetched"] == 0
    assert (after.sets, after.details["project"]["title"]) == ({"renamed": 2}, "renamed")
    assert after.content_hash != before.content_hash
    assert any("P3" in sentence for sentence in after.details["label_config_drift"])
    assert "the labelling config has drifted: " in str(after)


def test_a_project_that_goes_meanwhile(project, fetch):
    project.add(30)
    deleted = []

    def progress(what, done, of):
        if not deleted:
            project.delete()
            deleted.append(project.id)

    with pytest.raises(ProjectNotFoundError, match=f"project {project.id} was deleted during the pull"):
        fetch(page_size=1, progress=progress)


def test_a_project_that_was_emptied(project, fetch):
    tasks = project.add(3)
    first = fetch()
    project.remove(*tasks)
    with pytest.raises(SourceEmptyError, match="has 0 tasks"):
        fetch()
    assert list(read_raw(first.raw)) == []
    project.add(2)
    assert fetch().records == 2


def test_a_store_of_another_project_is_replaced(
    project, fetch, connection, label_studio, label_studio_token, tmp_path
):
    project.add(3)
    other = LabelledProject(connection, "other", tmp_path / "more")
    other.add(2)
    fetch()
    source = source_of(other, label_studio.url, label_studio_token)
    replaced = pull(source, Workspace(tmp_path / "workspace"), num_keypoints=N)
    assert took(replaced)["full"] == "another server or project than before"
    assert_equal_to_server(replaced.raw, other)
    other.delete()


def test_one_pull_of_a_source_at_a_time(project, fetch, monkeypatch):
    project.add(1)
    monkeypatch.setattr(label_studio_pull, "_WAIT_S", 0)

    refused = []

    def pull_again(what, done, of):
        with pytest.raises(StorageError, match="another pull of this source has been running") as error:
            fetch()
        refused.append(error)

    fetch(progress=pull_again)
    assert refused


class Labellers:
    """What people do to a project, drawn at random; every operation that did something is counted."""

    def __init__(self, project: LabelledProject) -> None:
        self.project, self.done = project, Counter()
        (kept,) = project.add(1, annotated=False)
        project.annotate(kept)  # a project without any annotation is an error
        self.tasks: dict[int, list[int]] = {}
        self._add(4, 0, annotated=True)

    def do(self, kind: str, number: int) -> None:
        tasks = sorted(self.tasks)
        task = tasks[number % len(tasks)] if tasks else None
        if self._act(kind, number, task):
            self.done[kind] += 1

    def _act(self, kind: str, number: int, task: int | None) -> bool:
        if kind in ("add", "add annotated"):
            self._add(1 + number % 3, number, annotated=kind == "add annotated")
            return True
        if task is None:
            return False
        if kind in ("correct", "remove annotation", "ground truth"):
            return self._change_annotation(kind, number)
        self._change_task(kind, number, task)
        return True

    def _add(self, count: int, number: int, *, annotated: bool) -> None:
        added = self.project.add(count, annotated=annotated, first=number)
        content = self.project.content() if annotated else {}
        self.tasks |= {task: [a["id"] for a in content[task]["annotations"]] if annotated else [] for task in added}

    def _change_task(self, kind: str, number: int, task: int) -> None:
        project = self.project
        match kind:
            case "annotate":
                self.tasks[task].append(project.annotate(task, number))
            case "skip":
                project.skip(task)
            case "edit task":
                project.edit(task, subject=f"team/{number % 7}", note=number)
            case "remove task":
                project.remove(task)
                del self.tasks[task]
            case "remove tasks at once":
                gone = sorted(self.tasks)[: 1 + number % 2]
                project.act("delete_tasks", gone)
                self.tasks = {task: held for task, held in self.tasks.items() if task not in gone}
            case "remove their annotations at once":
                emptied = sorted(self.tasks)[-2:]
                project.act("delete_tasks_annotations", emptied)
                self.tasks |= {task: [] for task in emptied}
            case "predict":
                project.predict(task)
            case "draft":
                project.draft(task)

    def _change_annotation(self, kind: str, number: int) -> bool:
        held = [(task, annotation) for task, annotations in sorted(self.tasks.items()) for annotation in annotations]
        if not held:
            return False
        task, annotation = held[number % len(held)]
        match kind:
            case "correct":
                self.project.correct(annotation, number)
            case "ground truth":
                self.project.mark(annotation, ground_truth=bool(number % 2))
            case "remove annotation":
                self.project.remove_annotation(annotation)
                self.tasks[task].remove(annotation)
        return True


COUNTED: Counter[str] = Counter()


@settings(
    max_examples=3,
    derandomize=True,
    phases=[Phase.generate],  # each example costs many requests: what fails is not made smaller
    suppress_health_check=list(HealthCheck),
    deadline=None,
)
@given(kinds=st.permutations(OPERATIONS * 2), random=st.randoms(use_true_random=False))
def test_the_store_is_what_the_server_holds(
    kinds, random, connection, label_studio, label_studio_token, tmp_path_factory
):
    """No webhook tells the pull of anything here: every one of them is lost."""
    folder = tmp_path_factory.mktemp("work")
    labellers = Labellers(LabelledProject(connection, f"random work {next(NUMBERS)}", folder / "images"))
    source = source_of(labellers.project, label_studio.url, label_studio_token)
    workspace = Workspace(folder / "workspace")

    def pull_now(progress=lambda *told: None, **settings):
        return pull(source.model_copy(update=settings), workspace, num_keypoints=N, progress=progress)

    for kind in [*kinds, "pull"]:
        number = random.randrange(1000)
        if kind == "interrupted pull":
            try:
                pull_now(stop_after(number % 2), reconcile_hours=0.0 if number % 3 else 24.0)
            except InterruptedPullError:
                labellers.done[kind] += 1
        elif kind in ("pull", "full pull"):
            result = pull_now(reconcile_hours=0.0 if kind == "full pull" else 24.0)
            assert_equal_to_server(result.raw, labellers.project)
            labellers.done[kind] += 1
        else:
            labellers.do(kind, number)
    anew = pull(source, Workspace(folder / "anew"), num_keypoints=N)
    assert anew.content_hash == result.content_hash
    labellers.project.delete()
    for kind, count in labellers.done.items():
        event(f"{kind}: {count}")
    COUNTED.update(labellers.done)


def test_the_random_work_was_of_every_kind(record_property):
    """Shown with `--log-cli-level=INFO`."""
    if not COUNTED:
        pytest.skip("counts what the test before it did")
    counts = {kind: COUNTED[kind] for kind in sorted(set(OPERATIONS))}
    record_property("operations", counts)
    logging.getLogger(__name__).info("operations: %s", ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    assert all(counts.values()), counts
