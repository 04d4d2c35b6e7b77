"""Forgetting a subject of whom only caches may tell; whole lines: tests/integration/test_forget.py."""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.config import Tracking
from schemas.errors import StorageError
from schemas.raw import RawRecord, write_raw
from schemas.storage import sha256_file
from schemas.task_store import StoredTask, open_store
from schemas.urls import without_credentials
from tasks.forget.forget import QUALITY_LIST, forget_subject
from tasks.forget.search import find_traces
from tasks.label_studio.pull import IMAGES, STORE_FILE
from tasks.pull import RAW_FILE
from tasks.workspace import Workspace


def test_thumbnails_go_with_what_a_killed_run_left_of_them(tmp_path):
    for ending in ("", "-journal", "-wal"):
        (tmp_path / f"face-signatures.sqlite{ending}").write_bytes(b"thumbnails of faces")
    forget_subject("team/1", Workspace(tmp_path), Tracking(), by="test", why="asked to")
    assert not list(tmp_path.glob("face-signatures*"))


def test_pictures_of_people_that_nobody_knows_go(tmp_path):
    workspace = Workspace(tmp_path)
    thumbnail, unlisted, listed = (
        workspace.labelling / ".images/a.png",
        workspace.quality / "1/pictures/a.png",
        workspace.quality / "2/pictures/a.png",
    )
    for path in (thumbnail, unlisted, listed):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"pixels")
    (workspace.quality / "2" / QUALITY_LIST).write_text("[]")
    forget_subject("team/1", workspace, Tracking(), by="test", why="asked to")
    assert [path for path in (thumbnail, unlisted, listed) if path.exists()] == [listed]


def test_what_is_left_that_names_the_subject_is_told(tmp_path):
    (tmp_path / "notes.bin").write_bytes(b"faces of team/1")
    with pytest.raises(StorageError, match=r"1 files still tell of redacted/\w+: .*notes\.bin"):
        forget_subject("team/1", Workspace(tmp_path), Tracking(), by="test", why="asked to")


@pytest.mark.parametrize("content", [b'{"subject": "team/1", ', b'{"subject": "team/1"}\xff'])
def test_a_damaged_file_that_names_the_subject_is_told_by_name_and_left_as_it_is(tmp_path, content):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"report\.json: can't be searched .*remove it"):
        forget_subject("team/1", Workspace(tmp_path), Tracking(), by="test", why="asked to")
    assert (tmp_path / "report.json").read_bytes() == content


@pytest.mark.parametrize("table", ["faces.parquet", "violations.parquet"])
def test_a_damaged_table_of_a_snapshot_is_told_by_name(tmp_path, table):
    damaged = tmp_path / "snapshots" / "0" / table
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=rf"{table}: can't be searched"):
        find_traces(Workspace(tmp_path), [], subject="team/1", mark="x")


def test_names_are_those_of_the_field_with_the_image(tmp_path):
    workspace = Workspace(tmp_path)
    payload = {"data": {"image": "001_x.png", "photo": "079_x.png"}, "annotations": []}
    record = RawRecord("label_studio", "s", "p", "task/1", payload, None, True, "team/079", image_field="photo")
    (tmp_path / "raw/s").mkdir(parents=True)
    write_raw(workspace.raw("s") / RAW_FILE, [record])
    assert find_traces(workspace, [], subject="team/079", mark="m").names == {"079_x.png"}


def test_a_frame_goes_by_its_name_if_no_other_subject_s_frame_has_it(tmp_path):
    """Faces that another annotation of them has superseded are kept beside the table, and are found too."""
    rows = {
        "faces": [("jo\u0308rg", "a.png"), ("jo\u0308rg", "1.png"), ("2", "1.png")],
        "superseded": [("jo\u0308rg", "b.png")],
    }
    for table, faces in rows.items():
        columns = {
            "subject": [f"team/{subject}" for subject, _ in faces],
            "image_name": [name for _, name in faces],
            **{column: ["train"] * len(faces) for column in ("split", "image_sha256", "source_key", "content_hash")},
        }
        path = tmp_path / f"snapshots/1/{table}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
    found = find_traces(Workspace(tmp_path), [], subject="team/j\u00f6rg", mark="m")
    assert (found.names, found.snapshots) == ({"a.png", "b.png"}, {"1": {"train": 3}})


@pytest.mark.parametrize("folder", [".", "figures", "pictures"])
def test_pictures_are_found_where_what_names_them_was_moved(tmp_path, folder):
    picture = tmp_path / folder / "face.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(b"pixels")
    (tmp_path / "report.json").write_text(json.dumps([{"subject": "team/1", "picture": "face.png"}]))
    found = find_traces(Workspace(tmp_path), [tmp_path], subject="team/1", mark="m")
    assert found.figures == {sha256_file(picture)}


@pytest.mark.parametrize("asked", ["team/j\u00f6rg", "team/jo\u0308rg"])
@pytest.mark.parametrize("kept", ["team/j\u00f6rg", "team/jo\u0308rg"])
def test_a_subject_goes_however_its_letters_are_composed(tmp_path, asked, kept):
    workspace, raw = Workspace(tmp_path), Workspace(tmp_path).raw("s") / RAW_FILE
    raw.parent.mkdir(parents=True)
    picture, told = raw.parent / "a.png", tmp_path / "told.json"
    picture.write_bytes(b"pixels")
    told.write_text(json.dumps({"of": f"faces of {kept}.", kept: 1}, ensure_ascii=False))
    write_raw(raw, [RawRecord("sloth", "s", "p", "a.json#0", {"filename": "a.png"}, str(picture), True, kept)])
    done = forget_subject(asked, workspace, Tracking(), by="test", why="asked to")
    assert done.images == 1 and not picture.exists() and raw.read_bytes() == b""
    (written_down,) = workspace.forgotten.iterdir()
    assert "a.png" not in written_down.read_text() and "a.json" not in written_down.read_text()
    assert json.loads(told.read_text()) == {"of": f"faces of {done.mark}.", done.mark: None}


def task(identity, subject, image):
    payload = json.dumps({"id": identity, "data": {"image": image}, "annotations": []}).encode()
    return StoredTask(identity, "2026-11-22T08:00:00.000000Z", 1, True, True, subject, image, payload)


@pytest.mark.parametrize("workspace_of", [Workspace, lambda root: Workspace(root).for_exports])
def test_a_frame_goes_of_which_a_broken_pull_has_not_said_whose_it_is(tmp_path, workspace_of):
    """The store has no file of a task before all images have arrived."""
    workspace = workspace_of(tmp_path)
    images = workspace.raw("s") / IMAGES
    known, unknown = images / "0a/0a1b.png", images / "2c/2c3d.jpg"
    with open_store(workspace.raw("s") / STORE_FILE) as store, store.transaction():
        store.notes(source="s", set_id="p", flags_known=True, name_format=None, image_field="image")
        store.put(task(number, f"team/{number}", f"/data/upload/1/{number}.png") for number in (1, 2))
        store.set_files({"/data/upload/1/2.png": known})
    for path in (known, unknown):
        path.parent.mkdir(parents=True)
        path.write_bytes(path.name.encode())
    forget_subject("team/1", Workspace(tmp_path), Tracking(), by="test", why="asked to")
    assert [path for path in images.rglob("*") if path.is_file()] == [known]


LINKS = {
    "bucket": f"/tasks/7/resolve/?fileuri={base64.urlsafe_b64encode(b's3://faces/team/079_a.png').decode()}",
    "escaped": "https://team:s3cret@images.example.test/079%20a.png",
    "upload": "/data/upload/3/0a1b2c3d-079.png",
}


@pytest.mark.parametrize("link", LINKS)
def test_addresses_that_hold_a_name_in_another_form_go_too(tmp_path, link):
    workspace, address = Workspace(tmp_path), LINKS[link]
    raw = workspace.raw("s") / RAW_FILE
    told = [raw.with_name("pull.json"), raw.parent / IMAGES / "index.json", tmp_path / "snapshots/1/provenance.json"]
    payload = {"data": {"image": address, "name": "face.png"}}
    for path in told:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"missing": {address: "HTTP 404", without_credentials(address): 1, "n/a": 2}}))
    write_raw(raw, [RawRecord("label_studio", "s", "p", "task/1", payload, None, True, "team/079")])
    done = forget_subject("team/079", workspace, Tracking(), by="test", why="asked to")
    assert [json.loads(path.read_text()) for path in told] == [{"missing": {done.mark: None, "n/a": 2}}] * 3


def test_a_value_that_is_no_address_stays_what_it_is_elsewhere(tmp_path):
    workspace, told = Workspace(tmp_path), tmp_path / "notes.txt"
    raw = workspace.raw("s") / RAW_FILE
    raw.parent.mkdir(parents=True)
    told.write_text("camera: n/a\n")
    payload = {"data": {"image": "n/a"}}
    write_raw(raw, [RawRecord("label_studio", "s", "p", "task/1", payload, None, True, "team/079")])
    forget_subject("team/079", workspace, Tracking(), by="test", why="asked to")
    assert told.read_text() == "camera: n/a\n"
