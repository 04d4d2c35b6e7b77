"""A labelling project set up on the real server, and what bad input comes out of one."""

import json
import math
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from flows.entry.cli import main
from schemas.config import ValidationRules
from schemas.errors import ProjectNotFoundError, SourceRefusedError, SpecError
from schemas.label_studio import image_name
from schemas.label_studio_config import labelling_config
from schemas.label_studio_drift import config_drift
from schemas.label_studio_task import build_task
from schemas.raw import read_raw
from schemas.records import Flag
from schemas.sources import LabelStudioSource, SubjectRule
from tasks.gateway.settings import LABEL_STUDIO_SECRET_ENV
from tasks.images import ImageIndex
from tasks.label_studio.image_storage import image_storage
from tasks.label_studio.instructions import labelling_instructions
from tasks.label_studio.outcome import State
from tasks.label_studio.project import set_up
from tasks.label_studio.webhook import ACTIONS
from tasks.pull import pull
from tasks.validate import validate
from tasks.workspace import Workspace

N = 5
FRAME = (60, 48)
SECRET = "5ecret-of-the-gateway"
HOOK = "http://127.0.0.1:9/webhooks/label-studio"


@pytest.fixture
def title(connection):
    """A title of its own; the project goes with the test."""
    chosen = f"init {uuid.uuid4().hex[:8]}"
    yield chosen
    for project in connection.projects():
        if project.title.startswith(chosen):
            connection.sdk.projects.delete(id=project.id)


def states(done):
    return {part.part: str(part.state) for part in done.outcomes}


def webhooks(connection, project):
    return connection.files.get("/api/webhooks/", params={"project": project}).json()


def write_images(folder, number):
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (FRAME[1], FRAME[0], 3), np.uint8))


@pytest.mark.parametrize("num_keypoints", [68, 80, 104, 3])
def test_run_twice_nothing_doubles(connection, title, num_keypoints):
    settings = {"title": title, "num_keypoints": num_keypoints, "webhook_url": HOOK, "secret": SECRET}
    made, found = set_up(connection, **settings), set_up(connection, **settings)
    assert set(states(made).values()) == {"made"} and set(states(found).values()) == {"found"}
    assert (found.project, found.url, found.drift) == (made.project, made.url, [])
    assert [project.title for project in connection.projects()].count(title) == 1

    project = connection.sdk.projects.get(id=made.project)
    assert config_drift(project.label_config, num_keypoints) == []
    assert len(project.parsed_label_config["kp"]["labels"]) == num_keypoints
    assert project.expert_instruction == labelling_instructions(num_keypoints) and project.show_instruction
    (hook,) = webhooks(connection, made.project)
    assert (hook["url"], hook["headers"]) == (HOOK, {"X-FPENet-Secret": SECRET})
    assert hook["actions"] == sorted(ACTIONS) and hook["send_payload"] and not hook["send_for_all_actions"]


def test_a_webhook_that_people_changed_is_put_right(connection, title):
    settings = {"title": title, "num_keypoints": N, "webhook_url": HOOK, "secret": SECRET}
    project = set_up(connection, **settings).project
    (hook,) = webhooks(connection, project)
    connection.sdk.webhooks.update(id=hook["id"], url=HOOK, is_active=False, actions=["TASKS_CREATED"])
    again = set_up(connection, **(settings | {"secret": "another"}))
    part = again.outcomes[-1]
    assert part.state is State.CHANGED
    assert part.drift == ("its headers had changed", "its actions had changed", "its is active had changed")
    (hook,) = webhooks(connection, project)
    assert (hook["headers"], hook["is_active"], hook["actions"]) == (
        {"X-FPENet-Secret": "another"},
        True,
        sorted(ACTIONS),
    )


def test_a_password_of_the_gateway_is_sent_and_not_shown(connection, title):
    url = "http://team:s3cret@127.0.0.1:9/webhooks/label-studio"
    settings = {"title": title, "num_keypoints": N, "webhook_url": url, "secret": SECRET}
    made, found = set_up(connection, **settings), set_up(connection, **settings)
    assert made.outcomes[-1].detail == f"tells {HOOK} of {len(ACTIONS)} kinds of events"
    assert (found.outcomes[-1].state, found.outcomes[-1].detail) == (State.FOUND, f"to {HOOK}")
    (hook,) = webhooks(connection, made.project)
    assert hook["url"] == url


def edit_config(connection, project, change):
    root = ElementTree.fromstring(connection.sdk.projects.get(id=project).label_config)
    change(root)
    connection.sdk.projects.update(id=project, label_config=ElementTree.tostring(root, encoding="unicode"))


def test_drift_is_reported_and_repaired_when_asked(connection, title):
    project = set_up(connection, title=title, num_keypoints=N).project

    def change(root):
        next(node for node in root.iter("Label") if node.get("value") == "P3").set("value", "tip")
        next(root.iter("Choices")).set("perRegion", "false")

    edit_config(connection, project, change)
    connection.sdk.projects.update(id=project, expert_instruction="as you like", show_instruction=False)
    reported = set_up(connection, title=title, num_keypoints=N)
    expected = [
        "Choices 'occ' has perRegion='false' instead of 'true'",
        "label P3 is called 'tip'",
        f"the instructions are not those for {N} keypoints",
        "the instructions are not shown before labelling",
    ]
    assert reported.drift == expected
    assert set_up(connection, title=title, num_keypoints=N).drift == expected  # nothing was touched
    repaired = set_up(connection, title=title, num_keypoints=N, repair=True)
    assert states(repaired) == {"project": "found", "labelling config": "changed", "instructions": "changed"}
    assert set(states(set_up(connection, title=title, num_keypoints=N)).values()) == {"found"}


def annotated(connection, project, *results, **fields):
    """Tasks with one annotation each, stored through the API as a script of somebody's would."""
    tasks = connection.sdk.projects.import_tasks(
        id=project, request=[{"data": {"image": f"{i}.png"}} for i in range(len(results))], return_task_ids=True
    ).task_ids
    for task, result in zip(tasks, results, strict=True):
        connection.sdk.annotations.create(id=task, result=result, **fields)
    return tasks


def regions(number=N, occluded=()):
    """Regions of a face of `number` points on a frame of the test's size."""
    points_N2 = np.stack([8 + 3.1 * np.arange(number), 6 + 2.3 * (np.arange(number) % 9)], 1).astype(np.float32)
    flags_N = np.array([Flag.OCCLUDED if i + 1 in occluded else Flag.VISIBLE for i in range(number)], np.int8)
    return build_task({"image": "x"}, points_N2, flags_N, frame_size=FRAME)["annotations"][0]["result"]


def test_a_repair_that_would_orphan_annotations_is_refused(connection, title):
    project = set_up(connection, title=title, num_keypoints=N).project
    renamed = labelling_config(N).replace('"kp"', '"points"')
    connection.sdk.projects.update(id=project, label_config=renamed)
    annotated(connection, project, [entry | {"from_name": "points"} for entry in regions()])
    with pytest.raises(SpecError, match=r"can't be repaired, because annotations use (?s:.*)from_name=points"):
        set_up(connection, title=title, num_keypoints=N, repair=True)
    drift = set_up(connection, title=title, num_keypoints=N).drift
    assert "KeyPointLabels 'kp' is called 'points'; regions that are stored keep the old name" in drift


def test_labels_left_over_from_a_larger_face(connection, title):
    project = set_up(connection, title=title, num_keypoints=80).project
    annotated(connection, project, regions(80))
    reported = set_up(connection, title=title, num_keypoints=68)
    assert "label P69 to P80 is beyond P68: such points are counted, and not used" in reported.drift
    repaired = set_up(connection, title=title, num_keypoints=68, repair=True)
    assert repaired.outcomes[1].detail == "68 keypoints; points of 12 labels that went stay in their annotations"


def test_a_project_that_was_made_by_hand_is_completed(connection, title):
    connection.sdk.projects.create(title=title)
    done = set_up(connection, title=title, num_keypoints=N)
    assert states(done) == {"project": "found", "labelling config": "made", "instructions": "made"}


def test_two_projects_of_one_title(connection, title):
    for _ in range(2):
        connection.sdk.projects.create(title=title)
    with pytest.raises(ProjectNotFoundError, match="several projects are called"):
        set_up(connection, title=title, num_keypoints=N)


def test_images_of_a_folder_become_tasks_once(label_studio, connection, title, tmp_path, label_studio_token):
    if label_studio.files is None:
        pytest.skip("the server that was named serves no folder of this machine")
    folder = label_studio.files / uuid.uuid4().hex
    write_images(folder, 3)
    (folder / "readme.txt").write_text("no image")
    settings = {"title": title, "num_keypoints": N, "storage": image_storage(str(folder))}
    made = set_up(connection, **settings)
    assert made.outcomes[-1].detail == f"{folder}: 3 images made tasks"
    write_images(folder, 4)
    found = set_up(connection, **settings)
    assert (found.outcomes[-1].state, found.outcomes[-1].detail) == (State.FOUND, f"{folder}: 1 images made tasks")
    tasks = list(connection.sdk.tasks.list(project=made.project))
    assert len(tasks) == 4

    connection.sdk.annotations.create(id=tasks[0].id, result=regions())
    pulled = pull(server_source(label_studio, title, label_studio_token), Workspace(tmp_path), num_keypoints=N)
    assert pulled.details["images"]["missing"] == {}
    assert sum(record.image is not None for record in read_raw(pulled.raw)) == 1


@pytest.mark.parametrize("place", ["/nowhere/at/all", "."])
def test_a_folder_that_the_server_can_not_use(connection, label_studio, title, place):
    path = str(label_studio.files) if place == "." and label_studio.files else "/nowhere/at/all"
    with pytest.raises(SpecError, match=r"--storage: Label Studio can't use .*(does not exist|cannot be the same)"):
        set_up(connection, title=title, num_keypoints=N, storage=image_storage(path))


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as listing a bucket and reading its one image take."""

    image = cv2.imencode(".png", np.zeros((FRAME[1], FRAME[0], 3), np.uint8))[1].tobytes()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlsplit(self.path)
        if "X-Amz-Signature" in parts.query and "Authorization" in self.headers:
            self._answer(400, b"Only one auth mechanism allowed")
        elif parts.path == "/faces/set/a.png":
            self._answer(200, self.image)
        else:
            self._answer(200, self._listing())

    def _listing(self):
        keys = "".join(f"<Contents><Key>set/{name}</Key><Size>9</Size></Contents>" for name in ("a.png", "b.txt"))
        return (
            '<?xml version="1.0"?><ListBucketResult><Name>faces</Name><KeyCount>2</KeyCount>'
            f"<IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"
        ).encode()

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def bucket():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_images_of_a_bucket(connection, title, bucket):
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "k3y-of-the-bucket", "AWS_ENDPOINT_URL": bucket}
    storage = image_storage("s3://faces/set/", keys)
    settings = {"title": title, "num_keypoints": N, "storage": storage}
    made, found = set_up(connection, **settings), set_up(connection, **settings)
    assert [done.outcomes[-1].state for done in (made, found)] == [State.MADE, State.FOUND]
    assert made.outcomes[-1].detail == "s3://faces/set/: 1 images made tasks"
    (task,) = connection.sdk.tasks.list(project=made.project)
    assert image_name(task.data) == "set/a.png"
    assert "k3y-of-the-bucket" not in repr([storage, made])


@pytest.mark.parametrize("presign", [True, False])
def test_images_of_a_bucket_are_pulled(
    label_studio, connection, title, bucket, tmp_path, label_studio_token, presign
):
    """Label Studio sends whoever asks to the bucket, or hands the image on itself."""
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "k3y-of-the-bucket", "AWS_ENDPOINT_URL": bucket}
    made = set_up(connection, title=title, num_keypoints=N, storage=image_storage("s3://faces/set/", keys))
    (there,) = connection.files.get("/api/storages/s3", params={"project": made.project}).json()
    changed = connection.files.patch(f"/api/storages/s3/{there['id']}", json={"presign": presign})
    assert changed.json()["presign"] is presign
    (task,) = connection.sdk.tasks.list(project=made.project)
    connection.sdk.annotations.create(id=task.id, result=regions())
    pulled = pull(server_source(label_studio, title, label_studio_token), Workspace(tmp_path), num_keypoints=N)
    assert pulled.details["images"] == {"wanted": 1, "downloaded": 1, "missing": {}}
    (record,) = read_raw(pulled.raw)
    assert Path(record.image).read_bytes() == _Bucket.image


@pytest.mark.parametrize("location", ["images", "ftp://x/y", "s3://"])
def test_a_place_that_is_no_storage(location):
    with pytest.raises(SpecError, match="--storage: "):
        image_storage(location, {})


def test_a_server_that_is_protected_against_private_addresses(label_studio, connection, title):
    if label_studio.files is None:
        pytest.skip("the server that was named may have other settings")
    with pytest.raises(SourceRefusedError, match=r"does not send events to http://10\.1\.2\.3/.*(?s:SUBNETS)"):
        set_up(connection, title=title, num_keypoints=N, webhook_url="http://team:pw@10.1.2.3/", secret=SECRET)
    with pytest.raises(SpecError, match=r"--webhook-url: Label Studio finds no host for http://nowhere\.invalid/;"):
        set_up(connection, title=title, num_keypoints=N, webhook_url="http://team:pw@nowhere.invalid/", secret=SECRET)


def test_the_command(label_studio, connection, title, monkeypatch, capsys):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)
    monkeypatch.setenv(LABEL_STUDIO_SECRET_ENV, SECRET)
    command = ["label-studio", "init", "--url", label_studio.url, "--title", title, "--keypoints"]
    assert main([*command, "68", "--webhook-url", HOOK]) == 0
    first = capsys.readouterr()
    assert re.findall(r"^(\w+) ", first.out, re.M) == ["made"] * 4
    assert main([*command, "80"]) == 2
    second = capsys.readouterr()
    assert "- label P69 to P80 of KeyPointLabels 'kp' is missing" in second.out and "--repair" in second.err
    assert main([*command, "80", "--repair"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main([*command, "0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err
    monkeypatch.delenv(LABEL_STUDIO_SECRET_ENV)
    assert main([*command, "80", "--webhook-url", HOOK]) == 2
    last = capsys.readouterr()
    assert f"environment variable {LABEL_STUDIO_SECRET_ENV} is not set" in last.err
    shown = "".join([*first, *second, *last])
    assert SECRET not in shown and label_studio.token not in shown


def server_source(label_studio, project, token_env):
    return LabelStudioSource(
        kind="label_studio",
        name="server",
        url=label_studio.url,
        project=project,
        token_env=token_env,
        subject=SubjectRule(field="subject"),
    )


def moved(result, label, **value):
    return [
        entry | {"value": entry["value"] | value} if entry["id"] == label and entry["from_name"] == "kp" else entry
        for entry in result
    ]


def second_face(result):
    return [*result, *({**entry, "id": f"2 {entry['id']}"} for entry in result)]


def boxes(result, number):
    box = {"x": 10.0, "y": 10.0, "width": 50.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["FaceBbox"]}
    places = [f"box {i}" for i in range(number)]
    common = {key: result[0][key] for key in ("to_name", "original_width", "original_height", "image_rotation")}
    return [
        *result,
        *(common | {"id": i, "type": "rectanglelabels", "from_name": "bbox", "value": box} for i in places),
    ]


BAD = {
    "sound": (regions(occluded=(2,)), []),
    "left over": (regions(N + 2), ["keypoints-beyond-layout"]),
    "outside": (moved(regions(), "P2", x=140.0), ["keypoint-outside-frame"]),
    "no number": (moved(regions(), "P2", x=None), ["schema"]),
    "doubled": (moved(regions(), "P2", keypointlabels=["P1"]), ["duplicate-label", "wrong-keypoint-count"]),
    "rotated": ([entry | {"image_rotation": 90} for entry in regions()], ["rotated-image"]),
    "two boxes": (boxes(regions(), 2), ["several-face-boxes"]),
    "two faces": (second_face(regions()), ["duplicate-label"] * N),
    "unknown label": (moved(regions(), "P2", keypointlabels=["nose"]), ["unknown-label", "wrong-keypoint-count"]),
    "occluded box": (
        [*boxes(regions(), 1), {"id": "box 0", "type": "choices", "from_name": "occ", "to_name": "image",
                                "value": {"choices": ["occluded"]}}],
        ["occluded-without-keypoint"],
    ),
}  # fmt: skip


def test_the_server_stores_what_is_wrong_and_validation_names_it(
    label_studio, connection, title, tmp_path, label_studio_token
):
    project = set_up(connection, title=title, num_keypoints=N).project
    write_images(tmp_path / "images", len(BAD) + 2)
    pictures = sorted((tmp_path / "images").glob("*.png"))
    sent = connection.files.post(
        f"/api/projects/{project}/import",
        files={picture.name: (picture.name, picture.read_bytes()) for picture in pictures},
    )
    sent.raise_for_status()
    tasks = sorted(task.id for task in connection.sdk.tasks.list(project=project))
    expected = {}
    for task, (name, (result, codes)) in zip(tasks, BAD.items(), strict=False):
        stored = connection.sdk.annotations.create(id=task, result=result)
        expected[f"server:task/{task}/annotation/{stored.id}"] = (name, codes)
    skipped = connection.sdk.annotations.create(id=tasks[-1], result=[], was_cancelled=True)
    expected[f"server:task/{tasks[-1]}/annotation/{skipped.id}"] = ("skipped", ["annotation-cancelled"])
    expected[f"server:task/{tasks[-2]}"] = ("nobody's", ["not-annotated"])

    workspace = Workspace(tmp_path / "workspace")
    raw = pull(server_source(label_studio, project, label_studio_token), workspace, num_keypoints=N).raw
    outcome = validate(
        read_raw(raw),
        num_keypoints=N,
        rules=ValidationRules(max_rejected_share=1.0, require_subject=False),
        index=ImageIndex(workspace.image_index),
    )
    found = {key: [] for key in expected}
    for violation in outcome.violations:
        found[violation.record].append(violation.code)
    assert found == {key: codes for key, (_, codes) in expected.items()}
    used = {expected[face.source_key][0] for face in outcome.faces}
    assert used == {"sound", "left over"}
    assert (outcome.counts.rejected, outcome.counts.skipped) == (len(BAD) - 2, 2)


def test_the_server_takes_no_nan(connection, title):
    """So a NaN can come out of a file only, where the reader names it."""
    project = set_up(connection, title=title, num_keypoints=N).project
    body = json.dumps([{"data": {"image": "x.png"}, "annotations": [{"result": moved(regions(), "P1", x=math.nan)}]}])
    reply = connection.files.post(
        f"/api/projects/{project}/import", content=body, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 400 and "NaN" in reply.text
