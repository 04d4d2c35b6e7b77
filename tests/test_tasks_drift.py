"""Devices that see what their model was tested on, devices that do not, and records that nobody can use."""

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from prefect.events.schemas.events import Event, ResourceSpecification
from prefect.settings import PREFECT_API_URL, temporary_settings

from deploy.delivery import CurrentEngine
from deploy.devices import Device, LocalReach
from deploy.drift_client import DriftRecorder
from deploy.shells.opening import open_shell
from flows.entry.cli import main
from schemas.config import DriftSettings, load_config
from schemas.errors import DeviceOfflineError, InputError, SourceEmptyError
from schemas.storage import sha256_file, write_bytes
from tasks import drift_steps
from tasks.drift.devices import References, judge, watch_device
from tasks.drift.records import files_of_folder, parse_record, read_records, window_start
from tasks.drift.reference import Reference
from tasks.drift_steps import ask_devices, drift_event, read_folder
from tasks.run import Run
from tasks.workspace import Workspace
from tests.drift_profiles import some_predictions, some_profile
from tests.retrain_project import write_project

NOW = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
SINCE = window_start(NOW, 24)
VERSION = "fpenet/3"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "profile.npz"
    profile = some_profile(path)
    counts = profile.counts(profile.values(*some_predictions(500, seed=8)))
    told = {name: found.tolist() for name, found in counts.items()}
    return Reference(VERSION, path, sha256_file(path), told, dict.fromkeys(told, 500.0), dict.fromkeys(told, 0.3))


@pytest.fixture
def references(reference, tmp_path):
    """The reference of one version; of version 4 the faces are gone."""
    config = load_config(write_project(tmp_path, faces=tmp_path))
    gone = SourceEmptyError("no whole TFRecords")
    return References(config, Workspace(tmp_path), {VERSION: reference, "fpenet/4": gone})


@pytest.fixture
def device(tmp_path):
    return Device(
        name="dock-7",
        target="cpu",
        ring="main",
        reach=LocalReach(kind="local", directory=str(tmp_path / "dock-7")),
    )


def record(profile, folder, *, faces=400, hours=10, **changes):
    """What a device writes in the hours before `NOW`; `changes` of its predictions."""
    now = [NOW.timestamp() - hours * 3600]
    recorder = DriftRecorder(str(profile), str(folder), clock=lambda: now[0])
    for hour in range(hours):
        recorder.record(*some_predictions(faces // hours, seed=100 + hour, **changes))
        now[0] += 3600
    recorder.close()


def run_engine(folder, version="3"):
    """The device runs an engine of this version."""
    current = CurrentEngine(
        build_key="b", engine="e", engine_sha256="0", precision="fp32", model_name="fpenet", model_version=version,
        snapshot_id="s",
    )  # fmt: skip
    write_bytes(folder / "cpu/current.json", current.content)


def watch(device, references):
    return watch_device(device, references, since=SINCE, now=NOW, open_shell=open_shell)


def test_a_device_gets_the_profile_of_its_model_and_what_it_counts_comes_back(device, references, tmp_path):
    folder = tmp_path / "dock-7"
    run_engine(folder)
    place = folder / "cpu/drift"
    write_bytes(place / ".profile.npz.1700000000-0a1b2c3d.tmp", b"of a connection that broke")
    (first,) = watch(device, references)
    assert (first.state, first.problems) == ("no records", ())
    assert {path.name for path in place.iterdir()} == {"profile.npz", "drift_client.py"}
    record(place / "profile.npz", place / "records")
    write_bytes(place / ".profile.npz.1700000000-0a1b2c3d.tmp", b"too young to go when the profile came")
    (steady,) = watch(device, references)
    assert not list(place.glob(".*"))
    assert (steady.state, steady.model, steady.faces, steady.hours) == ("steady", VERSION, 400, 10)


@pytest.mark.parametrize(
    ("changes", "signal", "direction"),
    [({"confidence": 0.7}, "confidence/All", -1), ({"spread": 2.0}, "shape", 1)],
)
def test_what_a_model_was_not_tested_on_is_drift(references, reference, tmp_path, changes, signal, direction):
    record(reference.profile, tmp_path / "records", **changes)
    (found,) = judge(read_records("dock-7", files_of_folder(tmp_path / "records"), since=SINCE, now=NOW), references)
    assert found.state == "drift"
    moved = {one.name: one.shift for one in found.moved}
    assert moved[signal].direction == direction
    assert f"{signal} is {'lower' if direction < 0 else 'higher'}: index" in found.why


def test_too_few_faces_say_nothing(references, reference, tmp_path):
    record(reference.profile, tmp_path / "records", faces=20, spread=2.0)
    (found,) = judge(read_records("dock-7", files_of_folder(tmp_path / "records"), since=SINCE, now=NOW), references)
    assert found.state == "too few faces"
    assert f"at least {DriftSettings().min_faces} are needed" in found.why


def test_what_is_older_than_the_window_is_left_out(device, references, reference, tmp_path):
    folder = tmp_path / "dock-7/cpu/drift/records"
    record(reference.profile, folder, hours=40, faces=40)
    run_engine(tmp_path / "dock-7")
    (found,) = watch(device, references)
    assert (found.hours, found.faces) == (23, 23)
    assert len(read_records("dock-7", files_of_folder(folder), since=SINCE, now=NOW).hours) == 23


def one_record(reference, tmp_path):
    record(reference.profile, tmp_path / "one", hours=1, faces=40)
    (path,) = (tmp_path / "one").glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told | {"format": 2}, "format: Input should be 1"),
        (lambda told: told | {"note": "x"}, "note: Extra inputs are not permitted"),
        (lambda told: told | {"faces": -1}, "faces: Input should be greater than or equal to 0"),
        (lambda told: told | {"hour": "2026-13-22T10"}, "cut off or no JSON"),
        (lambda told: told | {"faces": 39}, "counts another number of faces than the 39"),
        (lambda told: told | {"faces": 10**19, "counts": {"shape": [10**19]}}, "faces: Input should be less than"),
        (lambda told: told | {"model": "fpenet/x"}, "model: String should match"),
        (lambda told: told | {"hour": "2099-01-01T00"}, "its hour 2099-01-01T00 is still to come"),
        (lambda told: told | {"counts": {"x" * 2**16: [1]}}, "more than 65,536 bytes"),
        (lambda told: [told], "not a record of this project's drift client"),
    ],
)
def test_a_record_that_can_not_be_used_is_named_and_spoils_no_other(reference, tmp_path, change, message):
    told = one_record(reference, tmp_path)
    whole, changed = json.dumps(told).encode(), json.dumps(change(told)).encode()
    files = {"a.json": whole, "b.json": changed, "c.json": whole[: len(whole) // 2], "d.json": b"\xff\x00"}
    records = read_records("dock-7", files, since=SINCE, now=NOW)
    assert len(records.hours) == 1
    problem, *cut_off = records.problems
    assert problem.startswith("b.json: ") and message in problem
    assert all("cut off or no JSON" in line for line in cut_off) and len(cut_off) == 2


@pytest.mark.parametrize("opened", [60_000, 200_000])
def test_a_record_nested_without_end_is_a_problem_of_its_device(references, tmp_path, opened):
    (tmp_path / "deep.json").write_bytes(b"[" * opened)
    (found,) = judge(read_records("dock-7", files_of_folder(tmp_path), since=SINCE, now=NOW), references)
    assert found.state == "no records"
    assert found.problems[0].startswith("deep.json: ")


def test_the_largest_counts_are_compared(references, reference, tmp_path):
    told = one_record(reference, tmp_path)
    most = 2**40
    files = {
        f"{hour}.json": json.dumps(
            told
            | {
                "hour": f"2026-11-22T{hour:02}",
                "faces": most,
                "counts": {name: [most, *[0] * (len(counts) - 1)] for name, counts in told["counts"].items()},
            }
        ).encode()
        for hour in range(10)
    }
    (found,) = judge(read_records("dock-7", files, since=SINCE, now=NOW), references)
    assert (found.state, found.faces) == ("drift", 10 * most)


def test_few_hours_say_nothing(references, reference, tmp_path):
    record(reference.profile, tmp_path / "records", faces=400, hours=3, spread=2.0)
    (found,) = judge(read_records("dock-7", files_of_folder(tmp_path / "records"), since=SINCE, now=NOW), references)
    assert (found.state, found.why) == ("too few hours", "faces in 3 hours, at least 6 are needed")


@pytest.mark.parametrize(("people", "state"), [({}, "drift"), ({"dock-7": 1}, "steady"), ({"other": 1}, "drift")])
def test_what_one_driver_may_show_is_no_drift_of_a_device_with_one(references, reference, tmp_path, people, state):
    record(reference.profile, tmp_path / "records", confidence=0.78)
    settings = references.config.drift.model_copy(update={"people": people})
    told = replace(references, config=references.config.model_copy(update={"drift": settings}))
    (found,) = judge(read_records("dock-7", files_of_folder(tmp_path / "records"), since=SINCE, now=NOW), told)
    assert found.state == state
    assert ("write how many into the setting `drift.people`" in found.why) == (state == "drift")


def test_other_bins_and_other_profiles_are_not_compared(references, reference, tmp_path):
    told = one_record(reference, tmp_path)
    bins = told | {"counts": told["counts"] | {"shape": [40]}}
    profile = told | {"profile": "0" * 64}
    files = {f"{name}.json": json.dumps(value).encode() for name, value in {"b": bins, "p": profile}.items()}
    (found,) = judge(read_records("dock-7", files, since=SINCE, now=NOW), references)
    assert found.state == "no records"
    assert any("its signals or bins are not those of its profile" in line for line in found.problems)
    assert any("counted by another profile of fpenet/3" in line for line in found.problems)


def test_each_model_that_a_device_ran_is_judged_by_itself(references, reference, tmp_path):
    told = one_record(reference, tmp_path)
    files = {f"{n}.json": json.dumps(told | {"model": f"fpenet/{n}"}).encode() for n in (3, 4)}
    found = judge(read_records("dock-7", files, since=SINCE, now=NOW), references)
    assert [(one.model, one.state) for one in found] == [(VERSION, "too few faces"), ("fpenet/4", "no reference")]
    assert found[1].why == "no whole TFRecords"


def test_a_device_of_a_model_without_reference_is_told(device, references, tmp_path):
    run_engine(tmp_path / "dock-7", version="4")
    (found,) = watch(device, references)
    assert found.problems == ("no profile for the model that it runs: no whole TFRecords",)


def test_a_device_that_counts_under_another_model_s_name_is_told_until_it_counts_by_its_own(
    device, references, tmp_path
):
    place = tmp_path / "dock-7/cpu/drift"
    record(references.of(VERSION).profile, place / "records")
    run_engine(tmp_path / "dock-7", version="4")
    (found,) = watch(device, references)
    assert any(line.startswith("it runs fpenet/4, and counts by fpenet/3: ") for line in found.problems)
    some_profile(tmp_path / "4.npz", model="fpenet/4")
    record(tmp_path / "4.npz", place / "records", hours=1)
    assert not any("counts by" in line for one in watch(device, references) for line in one.problems)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_a_damaged_current_json_is_told(device, references, tmp_path, content):
    write_bytes(tmp_path / "dock-7/cpu/current.json", content)
    (found,) = watch(device, references)
    assert "its current.json can't be read" in found.problems[0]


def test_an_absent_device_is_offline(device, references):
    @contextmanager
    def nobody(device):
        raise DeviceOfflineError(f"device '{device.name}' does not answer")
        yield

    (found,) = watch_device(device, references, since=SINCE, now=NOW, open_shell=nobody)
    assert (found.state, found.why) == ("offline", "device 'dock-7' does not answer")


def test_devices_are_asked_with_the_settings_of_the_run(references, tmp_path, monkeypatch):
    def ask(device):
        seen.append(PREFECT_API_URL.value())
        return open_shell(device)

    seen = []
    monkeypatch.setattr(drift_steps, "open_device", ask)
    monkeypatch.chdir(tmp_path)
    with temporary_settings({PREFECT_API_URL: "http://prefect.test/api"}):
        (found,) = ask_devices.fn(Run(references.config))
    assert seen == ["http://prefect.test/api"]
    assert (found.device, found.state) == ("this-machine", "no records")


def test_records_that_somebody_brought_are_read_by_device(references, tmp_path, capsys):
    for device, content in (("dock-7", b"["), ("dock-8", b"{}")):
        write_bytes(tmp_path / "brought" / device / "2026-11-22T10.json", content)
    write_bytes(tmp_path / "brought/README", b"not a device")
    (tmp_path / "brought/dock-9/a folder.json").mkdir(parents=True)
    found = read_folder.fn(Run(references.config), str(tmp_path / "brought"))
    assert [(one.device, one.state, len(one.problems)) for one in found] == [
        ("dock-7", "no records", 1),
        ("dock-8", "no records", 1),
        ("dock-9", "no records", 0),
    ]
    assert "3 no records" in capsys.readouterr().err
    with pytest.raises(InputError, match="nowhere: no such folder; it holds a folder of records for each device"):
        read_folder.fn(Run(references.config), str(tmp_path / "nowhere"))


def test_records_are_an_option_of_drift_alone(tmp_path, capsys):
    config = str(write_project(tmp_path, faces=tmp_path))
    assert main(["run", "sync", "--config", config, "--records", str(tmp_path)]) == InputError.exit_code
    assert "the flow 'sync' takes none, only `drift` does" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "what the devices counted, brought by hand" in " ".join(capsys.readouterr().out.split())


def test_drift_is_an_event_with_the_numbers_that_wakes_suggest(references, reference, tmp_path):
    record(reference.profile, tmp_path / "records", confidence=0.7)
    (found,) = judge(read_records("dock-7", files_of_folder(tmp_path / "records"), since=SINCE, now=NOW), references)
    event = Event(occurred=NOW, **drift_event(found))
    assert event.payload["model"] == VERSION
    lows = {signal["name"]: signal["low"] for signal in event.payload["signals"]}
    assert lows["confidence/All"] > DriftSettings().min_index
    deployed = yaml.safe_load((Path(__file__).parents[1] / "prefect.yaml").read_text())["deployments"]
    suggest = next(found["triggers"] for found in deployed if found["name"] == "suggest")
    (trigger,) = (trigger for trigger in suggest if event.event in trigger["expect"])
    assert ResourceSpecification.model_validate(trigger["match"]).matches(event.resource)


def test_a_record_is_what_the_client_writes(reference, tmp_path):
    told = one_record(reference, tmp_path)
    parsed = parse_record(json.dumps(told).encode(), "x")
    assert parsed.model_dump(mode="json") == told
    assert np.sum(parsed.counts["shape"]) == parsed.faces
    assert Path(reference.profile).stat().st_size < 200_000
