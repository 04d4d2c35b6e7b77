"""Annotations through a real Label Studio: in as a team would have them, out as faces."""

import copy
import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin
from uuid import uuid4

import cv2
import numpy as np
import pytest

from flows.entry.cli import main
from schemas import label_studio as label_studio_format
from schemas import sloth
from schemas.config import ValidationRules
from schemas.errors import (
    ProjectNotFoundError,
    SourceEmptyError,
    SourceError,
    SourceRefusedError,
    SourceUnreachableError,
    SpecError,
)
from schemas.geometry import tight_square
from schemas.label_studio_config import labelling_config
from schemas.label_studio_task import build_task
from schemas.raw import read_raw
from schemas.records import Flag
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import LabelStudioSource, SlothSource, SubjectRule
from tasks.images import ImageIndex
from tasks.label_studio.client import connected
from tasks.label_studio.folder_import import import_folder
from tasks.pull import pull
from tasks.validate import validate
from tasks.workspace import Workspace
from tests.integration.personal_tokens import personal_token, revoke
from tests.landmark_files import made_faces, write_images, write_pts
from tests.servers import free_port, proxied

N = 5
FRAME = (60, 48)


def write_folder(root, *, images=6, flagged=True, num_keypoints=N):
    """A folder as a team hands it over: float points, some occluded, two sets, a table of subjects."""
    rng = np.random.default_rng(7)
    entries = []
    for i in range(images):
        name = f"images/{i // 2:03d}_{i}.png"
        points_N2 = np.round(rng.uniform(8, 40, (num_keypoints, 2)), 2).astype(np.float32)
        flags_N = (
            (rng.random(num_keypoints) < 0.4).astype(np.int8)
            if flagged
            else np.full(num_keypoints, Flag.UNKNOWN, np.int8)
        )
        box = tight_square(points_N2)
        entries.append(image_entry(name, [face_to_sloth(points_N2, flags_N, tight_box=box)], camera="05_1"))
        (root / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), rng.integers(0, 255, (FRAME[1], FRAME[0], 3), np.uint8))
    (root / "gt").mkdir()
    (root / "gt/train.json").write_text(json.dumps(entries[:-1]))
    (root / "gt/kpi.json").write_text(json.dumps(entries[-1:]))
    with (root / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([("file", "subject_id"), *((entry["filename"], entry["filename"][7:10]) for entry in entries)])
    return root


def subject_rule(root):
    return SubjectRule(dataset="team", csv=str(root / "manifest.csv"))


@pytest.fixture
def title(request):
    """Of a project that no earlier run has left on a server that stays up."""
    return f"{re.sub(r'[^a-zA-Z0-9_]+', ' ', request.node.name)[:36].strip()} {uuid4().hex[:6]}"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def source(label_studio, label_studio_token):
    def build(project, **settings):
        settings = {"subject": SubjectRule(field="subject"), "page_size": 4} | settings
        return LabelStudioSource(
            kind="label_studio",
            name="server",
            url=label_studio.url,
            project=project,
            token_env=label_studio_token,
            **settings,
        )

    return build


def load(label_studio, root, title, **settings):
    settings = {"title": title, "num_keypoints": N, "subject": subject_rule(root)} | settings
    return import_folder(label_studio.url, label_studio.token, folder=root, **settings)


def by_name(records, reader):
    faces = {}
    for record in records:
        (face,), problems = reader(record.payload, num_keypoints=N, flags_known=record.flags_known)
        assert problems == []
        faces[face.image_name] = (face, record)
    return faces


def checked(raw, workspace):
    return validate(
        read_raw(raw),
        num_keypoints=N,
        rules=ValidationRules(max_rejected_share=1.0),
        index=ImageIndex(workspace.image_index),
        violations_path=workspace.root / "violations.parquet",
    )


@pytest.mark.parametrize("flagged", [True, False])
def test_what_goes_in_comes_out(label_studio, source, workspace, tmp_path, title, flagged):
    root = write_folder(tmp_path / "team", flagged=flagged)
    done = load(label_studio, root, title)
    assert (done.imported, done.present, done.left_out) == (6, 0, [])

    pulled = pull(source(title), workspace, num_keypoints=N)
    direct = SlothSource(kind="sloth", name="direct", root=str(root), subject=subject_rule(root))
    expected = by_name(read_raw(pull(direct, workspace, num_keypoints=N).raw), sloth.read)
    found = by_name(read_raw(pulled.raw), label_studio_format.read)
    assert sorted(found) == sorted(expected)
    for name, (face, record) in found.items():
        original, entry = expected[name]
        # Percent and back is a double's rounding, some 1e-14 px here: the same float32.
        np.testing.assert_array_equal(face.points_N2, original.points_N2)
        assert face.flags_N.tolist() == original.flags_N.tolist()
        assert face.tight_box == pytest.approx(original.tight_box, rel=0, abs=1e-9)
        assert (face.frame_size, face.camera, face.ground_truth) == (FRAME, "05_1", False)
        assert record.subject == entry.subject
        assert (tmp_path / "team" / name).read_bytes() == Path(record.image).read_bytes()
    assert pulled.details["server"] == {"url": label_studio.url, "version": "1.23.2"}
    assert pulled.details["images"] == {"wanted": 6, "downloaded": 6, "missing": {}}


@pytest.mark.parametrize("origin", [0.0, 0.5])
def test_folder_and_server_make_the_same_faces(label_studio, source, workspace, tmp_path, title, origin):
    """So a snapshot has the same id, wherever the annotations came from."""
    root = write_folder(tmp_path / "team")
    load(label_studio, root, title, origin=origin)
    direct = SlothSource(kind="sloth", name="direct", root=str(root), subject=subject_rule(root), origin=origin)
    hashes = []
    for one in (direct, source(title)):
        raw = pull(one, workspace, num_keypoints=N).raw
        found = checked(raw, workspace)
        hashes.append(sorted(face.content_hash() for face in found.faces))
    assert len(hashes[0]) == 6
    assert hashes[0] == hashes[1]


def test_a_server_below_a_path(label_studio, source, workspace, tmp_path, title):
    """It stores uploads as `/studio/data/upload/...`, which is where a browser finds them."""
    root = write_folder(tmp_path / "team")
    with proxied(label_studio.url, root="/studio") as url, connected(url, label_studio.token) as browser:
        load(replace(label_studio, url=url), root, title)
        below = pull(source(title).model_copy(update={"url": url}), workspace, num_keypoints=N)
        shown = [record.payload["data"]["image"] for record in read_raw(below.raw)]
        assert [browser.files.get(urljoin(url, path)).status_code for path in shown] == [200] * 6
    assert below.details["images"] == {"wanted": 6, "downloaded": 6, "missing": {}}
    beside = pull(source(title), Workspace(tmp_path / "beside"), num_keypoints=N)
    assert beside.details["images"] == below.details["images"]


def test_the_payload_is_kept_as_received(label_studio, source, workspace, tmp_path, title, connection):
    load(label_studio, write_folder(tmp_path / "team", images=2), title)
    pulled = pull(source(title), workspace, num_keypoints=N)
    assert sum(len(record.payload["annotations"]) for record in read_raw(pulled.raw)) >= 2
    for record in read_raw(pulled.raw):
        reply = connection.files.get(f"/api/tasks/{record.payload['id']}/").json()
        for annotation, stored in zip(record.payload["annotations"], reply["annotations"], strict=True):
            same = [name for name in annotation if name not in ("completed_by", "updated_by")]
            assert {name: annotation[name] for name in same} == {name: stored[name] for name in same}
        assert record.payload["data"] == reply["data"]


def test_a_second_import_doubles_nothing(label_studio, connection, tmp_path, title):
    root = write_folder(tmp_path / "team")
    first = load(label_studio, root, title)
    again = load(label_studio, root, title)
    assert (again.project, again.imported, again.present) == (first.project, 0, 6)
    assert len(connection.sdk.files.list(id=first.project, all_=True)) == 6

    (root / "gt/kpi.json").write_text(json.dumps(json.loads((root / "gt/kpi.json").read_text()) * 2))
    more = load(label_studio, root, title)
    assert (more.imported, more.present) == (1, 6)
    assert len(connection.sdk.files.list(id=first.project, all_=True)) == 6


def test_a_second_pull_changes_and_fetches_nothing(label_studio, source, workspace, tmp_path, title):
    load(label_studio, write_folder(tmp_path / "team"), title)
    first = pull(source(title), workspace, num_keypoints=N)
    before = first.raw.read_bytes()
    cut_short = Path(next(read_raw(first.raw)).image)
    cut_short.write_bytes(cut_short.read_bytes()[:10])
    again = pull(source(title), workspace, num_keypoints=N)
    assert again.raw.read_bytes() == before
    assert again.details["watermark"] == first.details["watermark"]
    assert again.details["images"]["downloaded"] == 1


def test_entries_that_can_t_become_tasks_are_named(label_studio, connection, tmp_path, title):
    root = write_folder(tmp_path / "team", images=6)
    entries = json.loads((root / "gt/train.json").read_text())
    (root / entries[0]["filename"]).unlink()
    (root / entries[1]["filename"]).write_bytes((root / entries[1]["filename"]).read_bytes()[:200])
    chunk = entries[2]["annotations"][-1]
    misspelt = {key: value for key, value in chunk.items() if "occ" not in key} | {"P2ocluded": True}
    incomplete = {key: value for key, value in chunk.items() if not key.startswith("P3")}
    entries[2]["annotations"] = [misspelt, chunk]
    entries[3]["annotations"] = [incomplete]
    (root / "gt/train.json").write_text(json.dumps([*entries, {"filename": 3}]))
    done = load(label_studio, root, title)
    assert done.imported == 3
    assert sorted((v.code, v.record) for v in done.left_out) == [
        ("image-missing", "gt/train.json#0"),
        ("image-truncated", "gt/train.json#1"),
        ("schema", "gt/train.json#5"),
        ("schema", "gt/train.json#5"),
        ("unknown-key", "gt/train.json#2/face1"),
        ("wrong-keypoint-count", "gt/train.json#3"),
    ]
    stored = {task.data["key"] for task in connection.sdk.tasks.list(project=done.project)}
    assert f"team/{entries[2]['filename']}#2" in stored, "the face beside keeps its key when the other is corrected"


def test_an_entry_that_is_corrected_is_imported_and_the_next_of_its_name_not_doubled(
    label_studio, connection, tmp_path, title
):
    root = write_folder(tmp_path / "team", images=4)
    first, *others = json.loads((root / "gt/train.json").read_text())
    others = [entry | {"filename": first["filename"]} for entry in others]
    chunk = first["annotations"][-1]
    two_faces = first | {"annotations": [chunk, chunk]}
    broken = [{"filename": first["filename"]}, two_faces | {"annotations": [chunk | {"P1x": "left"}, chunk]}]
    name = f"team/{first['filename']}"
    keys = [name, *(f"{name}#{time}" for time in range(2, 6))]
    for entries, expected in ([*broken, *others], keys[3:]), ([first, two_faces, *others], keys):
        (root / "gt/train.json").write_text(json.dumps(entries))
        done = load(label_studio, root, title)
        stored = sorted(task.data["key"] for task in connection.sdk.tasks.list(project=done.project))
        assert stored == [*expected, "team/images/001_3.png"]
    assert (done.imported, done.present) == (3, 3)


@pytest.mark.parametrize("name", ["my faces", "."])
def test_a_folder_may_have_any_name(label_studio, connection, tmp_path, title, monkeypatch, name):
    root = write_folder(tmp_path / "my faces", images=1)
    monkeypatch.chdir(root if name == "." else tmp_path)
    rule = SubjectRule(field="subject")
    done = load(label_studio, Path(name), title, subject=rule)
    (task,) = connection.sdk.tasks.list(project=done.project)
    assert task.data["key"] == "my faces/images/000_0.png"


def test_a_project_for_other_keypoints_is_not_filled(label_studio, tmp_path, title):
    load(label_studio, write_folder(tmp_path / "team", images=2), title)
    other = write_folder(tmp_path / "other", images=2, num_keypoints=6)
    with pytest.raises(SpecError, match="labelling config has no label P6"):
        load(label_studio, other, title, num_keypoints=6)


def junk_tasks(image):
    """What the server stores without a word: a task for each way to be wrong."""
    points_N2 = np.array([[10, 10], [20, 10], [15, 20], [10, 30], [20, 30]], np.float32)
    good = build_task({"image": image, "subject": "team/001"}, points_N2, np.zeros(N, np.int8), frame_size=FRAME)

    def task(change):
        changed = copy.deepcopy(good)
        change(changed["annotations"][0]["result"])
        return changed

    return {
        "keypoint-outside-frame": task(lambda r: r[1]["value"].update(x=140)),
        "duplicate-label": task(lambda r: r.append(copy.deepcopy(r[0]) | {"id": "again"})),
        "unknown-label": task(
            lambda r: r.append(copy.deepcopy(r[0]) | {"id": "a", "value": r[0]["value"] | {"keypointlabels": ["Q1"]}})
        ),
        "wrong-keypoint-count": task(lambda r: r.pop()),
        "rotated-image": task(lambda r: r[0].update(image_rotation=90)),
        "schema": task(lambda r: r[0]["value"].update(x="left")),
    }


def test_junk_that_the_server_stores_is_rejected_with_its_reason(
    label_studio, connection, source, workspace, tmp_path, title
):
    root = write_folder(tmp_path / "team", images=2)
    done = load(label_studio, root, title)
    stored = connection.sdk.tasks.list(project=done.project)
    junk = junk_tasks(next(iter(stored)).data["image"])
    connection.sdk.projects.import_tasks(id=done.project, request=list(junk.values()))
    raw = pull(source(title), workspace, num_keypoints=N).raw
    found = checked(raw, workspace)
    assert found.counts.accepted == 2
    assert found.counts.rejected == len(junk)
    codes = {violation.code for violation in found.violations}
    assert set(junk) <= codes


def test_annotators_skips_and_drafts(label_studio, connection, source, workspace, tmp_path, title):
    root = write_folder(tmp_path / "team", images=2)
    done = load(label_studio, root, title)
    task = next(iter(connection.sdk.tasks.list(project=done.project)))
    result = task.annotations[0]["result"]
    connection.sdk.annotations.create(id=task.id, result=result, ground_truth=True)
    connection.sdk.annotations.create(id=task.id, result=[], was_cancelled=True)
    connection.files.post(f"/api/tasks/{task.id}/drafts", json={"result": []}).raise_for_status()
    (record, _) = read_raw(pull(source(title), workspace, num_keypoints=N).raw)
    faces, problems = label_studio_format.read(record.payload, num_keypoints=N, flags_known=True)
    assert [face.ground_truth for face in faces] == [False, True]
    assert [problem.code for problem in problems] == ["annotation-cancelled"]


def test_an_image_that_the_server_lost(label_studio, connection, source, workspace, tmp_path, title):
    done = load(label_studio, write_folder(tmp_path / "team", images=2), title)
    gone = next(iter(connection.sdk.files.list(id=done.project, all_=True)))
    connection.sdk.files.delete(id=gone.id)
    result = pull(source(title), workspace, num_keypoints=N)
    assert result.details["images"]["missing"] == {f"/data/{gone.file}": "HTTP 500"}  # the server's word for it
    assert [record.image is None for record in read_raw(result.raw)].count(True) == 1


def test_a_personal_access_token(label_studio, source, workspace, tmp_path, title, monkeypatch, label_studio_token):
    token = personal_token(label_studio.url, label_studio.user, label_studio.token)
    root = write_folder(tmp_path / "team", images=2)
    done = import_folder(
        label_studio.url, token, title=title, folder=root, num_keypoints=N, subject=subject_rule(root)
    )
    monkeypatch.setenv(label_studio_token, token)
    result = pull(source(done.project), workspace, num_keypoints=N)
    revoke(label_studio.url, token, label_studio.token)  # a server gives a user one at a time
    assert result.details["images"]["downloaded"] == 2
    kept = b"".join(path.read_bytes() for path in workspace.root.rglob("*") if path.is_file())
    assert token.encode() not in kept


def test_a_wrong_token(source, workspace, monkeypatch, label_studio_token):
    monkeypatch.setenv(label_studio_token, "f" * 40)
    with pytest.raises(SourceRefusedError, match=r"refuses the token \(HTTP 401\)") as refused:
        pull(source(1), workspace, num_keypoints=N)
    assert "f" * 40 not in str(refused.value)


@pytest.mark.parametrize("value", ["", "two words"])
def test_no_token(source, workspace, monkeypatch, label_studio_token, value):
    monkeypatch.setenv(label_studio_token, value)
    with pytest.raises(SourceRefusedError, match=rf"the environment variable {label_studio_token} "):
        pull(source(1), workspace, num_keypoints=N)


def test_a_project_that_is_gone(label_studio, connection, source, workspace, tmp_path, title):
    there = load(label_studio, write_folder(tmp_path / "team", images=2), title)
    with pytest.raises(ProjectNotFoundError, match=r"no project 'other'; there are: .*\d+ '"):
        pull(source("other"), workspace, num_keypoints=N)
    connection.sdk.projects.delete(id=there.project)
    with pytest.raises(ProjectNotFoundError, match=f"no project {there.project}"):
        pull(source(there.project), workspace, num_keypoints=N)


def test_two_projects_of_one_title(connection, source, workspace, title):
    for _ in range(2):
        connection.sdk.projects.create(title=title, label_config=labelling_config(N))
    with pytest.raises(ProjectNotFoundError, match="several projects are called"):
        pull(source(title), workspace, num_keypoints=N)


def test_a_project_without_annotations(connection, source, workspace, title):
    project = connection.sdk.projects.create(title=title, label_config=labelling_config(N))
    with pytest.raises(SourceEmptyError, match=r"has 0 tasks, and no submitted annotation"):
        pull(source(title), workspace, num_keypoints=N)
    connection.sdk.projects.import_tasks(id=project.id, request=[{"data": {"image": "a.png"}}])
    with pytest.raises(SourceEmptyError, match=r"has 1 tasks, and no submitted annotation"):
        pull(source(title), workspace, num_keypoints=N)


def test_a_server_that_is_down(label_studio_token, workspace):
    url = f"http://127.0.0.1:{free_port()}"
    settings = {"url": url.replace("//", "//team:secret@"), "project": 1, "token_env": label_studio_token}
    source = LabelStudioSource(kind="label_studio", name="server", **settings)
    with pytest.raises(SourceUnreachableError, match=rf"Label Studio at {url} can't be reached .*check the URL"):
        pull(source, workspace, num_keypoints=N)


def test_something_that_is_no_label_studio(label_studio, label_studio_token, workspace):
    url = f"{label_studio.url}/static"
    source = LabelStudioSource(kind="label_studio", name="server", url=url, project=1, token_env=label_studio_token)
    with pytest.raises(SourceUnreachableError, match="answers, but is no Label Studio"):
        pull(source, workspace, num_keypoints=N)


def test_a_request_that_the_server_does_not_accept(connection):
    with pytest.raises(SourceError, match="does not accept the request"), connection.errors():
        connection.sdk.projects.create(title="x", label_config="<View>")


def test_the_token_shows_nowhere(label_studio):
    with connected(label_studio.url, label_studio.token) as connection:
        assert label_studio.token not in repr(connection)


def test_the_labelling_config_is_valid_to_the_server(connection, title):
    for num_keypoints in (68, 80, 104):
        project = connection.sdk.projects.create(
            title=f"{title} {num_keypoints}", label_config=labelling_config(num_keypoints)
        )
        controls = project.parsed_label_config
        assert len(controls["kp"]["labels"]) == num_keypoints
        assert controls["occ"]["type"] == "Choices"
        assert controls["bbox"]["labels"] == ["FaceBbox"]


def test_pts_to_label_studio_to_sloth_and_back(
    label_studio, connection, workspace, tmp_path, title, monkeypatch, capsys
):
    """The whole circle by commands: .pts -> folder -> project -> folder -> another project -> the same records."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)
    made = made_faces(5, N)
    write_pts(write_images(tmp_path / "300w", made), made)
    rule = {"dataset": "w300", "pattern": r"^(?P<subject>\d+)"}
    source = {"kind": "pts", "name": "w300", "root": str(tmp_path / "300w"), "subject": rule}
    config = {"workspace": str(workspace.root), "num_keypoints": N, "sources": [source], "experiment_spec": "none"}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    folders, titles = [tmp_path / name for name in ("first", "second")], [f"{title} {i}" for i in (1, 2)]

    def fpenet(*words):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err

    def import_as(title, folder):
        there = ["--url", label_studio.url, "--title", title, "--folder", folder, "--num-keypoints", N]
        fpenet("label-studio", "import", *there, "--subject-field", "subject")
        return connection.project(title).id

    def records_of(source):
        return sorted(checked(pull(source, workspace, num_keypoints=N).raw, workspace).faces, key=image_of)

    def image_of(face):
        return face.image_name.rsplit("/", 1)[-1]

    fpenet("annotations", "convert", "--config", tmp_path / "config.yaml", "--source", "w300", "--folder", folders[0])
    first = import_as(titles[0], folders[0])
    reviewed = next(iter(connection.sdk.tasks.list(project=first)))
    unflagged = [region for region in reviewed.annotations[0]["result"] if region["type"] != "choices"]
    connection.sdk.annotations.create(id=reviewed.id, result=unflagged, ground_truth=True)
    project = ["--url", label_studio.url, "--project", first, "--num-keypoints", N, "--workspace", workspace.root]
    fpenet("label-studio", "export", *project, "--folder", folders[1])
    second = import_as(titles[1], folders[1])

    server = {"kind": "label_studio", "url": label_studio.url, "subject": SubjectRule(field="subject")}
    before = records_of(LabelStudioSource(name="before", project=first, token_env="LABEL_STUDIO_API_KEY", **server))
    after = records_of(LabelStudioSource(name="after", project=second, token_env="LABEL_STUDIO_API_KEY", **server))
    assert len(before) == len(made)
    assert [face.content_hash() for face in after] == [face.content_hash() for face in before]
    assert [face.image_name for face in after] == [face.image_name for face in before]
    for face, drawn in zip(before, made, strict=True):
        np.testing.assert_array_equal(face.points_N2, drawn.points_N2)
        used = np.zeros(N) if face.image_name == reviewed.data["name"] else drawn.occluded_N  # the reviewed one
        np.testing.assert_array_equal(face.flags_N, used)
    for identity in (first, second):
        connection.sdk.projects.delete(id=identity)
