"""`prefect.yaml` on a real Prefect server: deployed, woken by schedule, event and hand, run by a worker."""

import json
import time
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
import yaml

from deploy.drift_client import DriftRecorder
from tasks.drift.watch import DeviceDrift
from tasks.drift_steps import drift_event
from tasks.gateway.hints import Hint
from tasks.gateway.outgoing import ANNOTATIONS_CHANGED, Entry, prefect_event
from tests.prefect_servers import (
    POOL,
    ask,
    await_found,
    prefect,
    prefect_server,
    prefect_worker,
    send,
    stop_schedules,
)
from tests.retrain_project import approve, render_faces, write_project

pytestmark = pytest.mark.slow  # a server, a worker, and flows that they start

OTHER_PROJECT = 99
QUIET_S = 3600
DEVICE = "dock-7"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
OPEN = ("SCHEDULED", "PENDING", "RUNNING")
"""Prefect's types of states."""
DRIFT_FLOW = {"prefect.resource.id": "prefect.flow.of-drift", "prefect.resource.role": "flow"}
"""As `emit_event` adds the flow that it is called in."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    reach = {"kind": "local", "directory": str(folder / DEVICE)}
    devices = folder / "fleet.yaml"
    devices.write_text(yaml.safe_dump({"devices": {DEVICE: {"target": "cpu", "ring": "canary", "reach": reach}}}))
    return write_project(
        folder,
        faces=render_faces(folder / "faces"),
        epochs=1,
        sync={"min_changed_faces": 1, "quiet_s": QUIET_S},
        devices=str(devices),
        drift={"min_faces": 1},
    )


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, project):
    """The environment of a client of a server that has the deployments of `prefect.yaml`, and a worker."""
    folder = tmp_path_factory.mktemp("prefect")
    with prefect_server(folder) as environment:
        prefect(environment, "work-pool", "create", "--type", "process", POOL)
        for _ in range(2):  # the second time, nothing doubles
            prefect(environment, "--no-prompt", "deploy", "--all")
        stop_schedules(environment)
        for deployment in ask(environment, "deployments"):
            if "config" not in deployment["parameters"]:
                continue
            send(environment, "PATCH", f"deployments/{deployment['id']}", {"parameters": {"config": str(project)}})
        with prefect_worker(environment, folder / "worker.log"):
            yield environment


def runs_of(environment, name, *states):
    """Runs of a deployment in one of these states."""
    criteria = {"deployments": {"name": {"any_": [name]}}, "flow_runs": {"state": {"type": {"any_": list(states)}}}}
    return ask(environment, "flow_runs", **criteria)


def automations_on(environment, event):
    return [found for found in ask(environment, "automations") if found["trigger"]["expect"] == [event]]


def told_by(environment, run):
    (artifact,) = ask(environment, "artifacts", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    return artifact["data"]


def shorten(environment, automation, *, within_s):
    kept = ("name", "description", "enabled", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")
    body = {name: automation[name] for name in kept}
    body["trigger"]["within"] = within_s
    send(environment, "PUT", f"automations/{automation['id']}", body)


def test_what_is_deployed(deployed):
    deployments = {deployment["name"]: deployment for deployment in ask(deployed, "deployments")}
    crons = {name: [s["schedule"]["cron"] for s in d["schedules"]] for name, d in deployments.items()}
    assert crons == {
        "nightly": ["0 2 * * *"],
        "drift": ["0 3 * * *"],
        "suggest": ["0 4 * * *"],
        "labels": ["0 5 * * *"],
        "annotations": ["*/30 * * * *"],
        "review": ["*/15 * * * *"],
        "rollout": ["7-59/15 * * * *"],
        "example": [],
    }
    assert len(ask(deployed, "automations")) == 6
    triggers = [automation["trigger"] for automation in automations_on(deployed, ANNOTATIONS_CHANGED)]
    assert sorted(trigger["posture"] for trigger in triggers) == ["Proactive", "Reactive"]
    for trigger in triggers:
        assert trigger["for_each"] == ["prefect.resource.id"]


def test_the_nightly_deployment_runs_on_a_worker(deployed, project):
    prefect(deployed, "deployment", "run", "retrain/nightly", "--watch")
    (run,) = runs_of(deployed, "nightly", "COMPLETED")
    assert list((project.parent / "workspace/reports").glob("*/index.html"))
    criteria = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    names = {task["name"].split("-")[0] for task in ask(deployed, "task_runs", **criteria)}
    assert {"pull", "validate", "snapshot", "convert", "train", "evaluate", "export", "register", "build"} <= names


def test_events_of_the_gateway_wake_a_sync_with_the_project_s_number(deployed):
    """A burst, seen by the automation that counts; its end, by the one that waits, for as long as Prefect allows."""
    found = automations_on(deployed, ANNOTATIONS_CHANGED)
    automations = {automation["trigger"]["posture"]: automation for automation in found}
    shorten(deployed, automations["Proactive"], within_s=10)
    hint = Hint("label-studio", str(OTHER_PROJECT), "ANNOTATION_UPDATED", {"task_ids": [1], "annotation_ids": [2]})
    events = [
        prefect_event([Entry(number, time.time(), hint)], event_id=uuid.uuid4(), now=time.time())
        for number in range(automations["Reactive"]["trigger"]["threshold"])
    ]
    send(deployed, "POST", "events", events)

    def both():
        ended = runs_of(deployed, "annotations", *ENDED)
        return ended if len(ended) == 2 else []

    runs = await_found(both)
    assert [(run["state_type"], run["parameters"]["project_id"]) for run in runs] == [
        ("COMPLETED", OTHER_PROJECT)
    ] * 2
    assert {run["created_by"]["display_value"] for run in runs} == {a["name"] for a in automations.values()}
    told = [told_by(deployed, run) for run in runs]
    assert any(f"no source of this configuration is Label Studio project {OTHER_PROJECT}" in text for text in told)


def runs_by(environment, automation, *states):
    """Runs of `suggest` that this automation started, as `runs_of`."""
    found = runs_of(environment, "suggest", *states)
    return [run for run in found if run["created_by"]["display_value"] == automation["name"]]


def wake_once(environment, automation, events):
    """Send events; the run of `suggest` that this automation starts for all of them, and no other."""
    assert not runs_by(environment, automation, *ENDED, *OPEN), "nothing has happened yet"
    send(environment, "POST", "events", events)
    (run,) = await_found(lambda: runs_by(environment, automation, *ENDED))
    assert len(runs_by(environment, automation, *ENDED, *OPEN)) == 1
    return run


def test_new_names_of_a_model_wake_one_suggest(deployed):
    events = []
    for number, alias in enumerate(("challenger", "champion")):
        hint = Hint("mlflow", "fpenet-demo", "model_version_alias.created", {"version": "3", "alias": alias})
        events.append(prefect_event([Entry(number, time.time(), hint)], event_id=uuid.uuid4(), now=time.time()))
    (automation,) = automations_on(deployed, events[0]["event"])
    run = wake_once(deployed, automation, events)
    assert "none is of the kind label_studio" in run["state"]["message"], "faces come from a folder here"


def test_an_approval_is_rolled_out_by_a_run_of_its_own(deployed, project):
    """Of the deployment that `review` is told of: another project may have one by the name that it usually has."""
    (usual,) = [found for found in ask(deployed, "deployments") if found["name"] == "rollout"]
    kept = ("flow_id", "entrypoint", "path", "pull_steps", "work_pool_name", "parameters", "parameter_openapi_schema")
    send(deployed, "POST", "deployments/", {"name": "of-faces"} | {name: usual[name] for name in kept})
    approve(project)
    prefect(deployed, "deployment", "run", "review/review", "-p", "rollout_deployment=rollout/of-faces", "--watch")
    (run,) = await_found(lambda: runs_of(deployed, "of-faces", *ENDED))
    assert (run["state_type"], run["parameters"]) == ("COMPLETED", {"config": str(project)})
    current = project.parent / DEVICE / "cpu/current.json"
    assert json.loads(current.read_text())["model_version"] == "1"


def test_devices_that_see_something_else_wake_one_suggest(deployed):
    (automation,) = automations_on(deployed, "fpenet.drift.detected")
    sent = {"occurred": datetime.now(UTC).isoformat(), "related": [DRIFT_FLOW]}
    found = [DeviceDrift(f"shelf-{number}", "drift", "fpenet/1", faces=400, hours=10) for number in range(10)]
    wake_once(deployed, automation, [drift_event(one) | sent | {"id": str(uuid.uuid4())} for one in found])


def test_a_device_that_sees_something_else_wakes_suggest(deployed, project):
    """Its counts alone tell: it was given the profile of what its model was tested on, and no image leaves it."""
    place = project.parent / DEVICE / "cpu/drift"
    (automation,) = automations_on(deployed, "fpenet.drift.detected")
    shorten(deployed, automation, within_s=10)
    before = len(runs_by(deployed, automation, *ENDED))
    prefect(deployed, "deployment", "run", "drift/drift", "--watch")
    write_odd_records(place)
    prefect(deployed, "deployment", "run", "drift/drift", "--watch")
    of_device = {"event": {"name": ["fpenet.drift.detected"]}, "resource": {"id": [f"fpenet.device.{DEVICE}"]}}
    (event,) = await_found(lambda: ask(deployed, "events", filter=of_device)["events"])  # the server keeps it later
    assert event["payload"]["signals"]
    assert DRIFT_FLOW["prefect.resource.role"] in {found["prefect.resource.role"] for found in event["related"]}
    await_found(lambda: runs_by(deployed, automation, *ENDED)[before:])


def write_odd_records(place):
    """What a device counts in ten hours in which every face is noise to its model."""
    rng, hours = np.random.default_rng(0), 10
    now = [time.time() - hours * 3600]
    recorder = DriftRecorder(str(place / "profile.npz"), str(place / "records"), clock=lambda: now[0])
    for _ in range(hours):
        noise_BN2 = rng.uniform(0, 80, (40, 80, 2)).astype(np.float32)
        recorder.record(noise_BN2, np.full((40, 80), 1e-4, np.float32))
        now[0] += 3600
    recorder.close()


def test_what_is_not_quiet_yet_is_looked_at_again_by_a_run_that_waits_for_its_time(deployed, project):
    """After the nightly run a team hands over another file; the deployment's own run schedules the next look."""
    prefect(deployed, "deployment", "run", "sync/annotations", "--watch")
    gt = next((project.parent / "faces/gt").rglob("*.json"))
    entries = json.loads(gt.read_text())
    points = next(a for a in entries[0]["annotations"] if a["class"] == "FiducialPoints")
    points["P3x"] = float(points["P3x"]) + 2
    gt.write_text(json.dumps(entries))
    prefect(deployed, "deployment", "run", "sync/annotations", "--watch")
    told = [told_by(deployed, run) for run in runs_of(deployed, "annotations", "COMPLETED")]
    assert sorted(text.split("**")[1] for text in told) == ["not quiet yet", "unchanged", "unchanged", "unchanged"]
    (text,) = [text for text in told if "not quiet yet" in text]
    assert "| faces | 0 | 0 | 1 |" in text
    (waiting,) = runs_of(deployed, "annotations", "SCHEDULED")
    assert waiting["parameters"] == {"config": str(project), "project_id": None}
    wait_s = (datetime.fromisoformat(waiting["expected_start_time"]) - datetime.now(UTC)).total_seconds()
    assert QUIET_S - 600 < wait_s <= QUIET_S + 5
    assert waiting["name"] in text
