"""The command line as a TAO user meets it: help, errors, and the five commands one after the other."""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from flows.entry.cli import build_parser, main
from flows.turn import work_on_project
from model.faces.dataset import render_dataset
from schemas.config import WorkflowConfig
from schemas.errors import SpecError
from tests.retrain_project import SUBJECTS, experiment, write_project
from tests.servers import free_port

HEAVY = {"tensorflow", "keras", "mlflow", "prefect", "label_studio_sdk", "numpy", "pydantic", "onnx", "rich"}
COMMANDS = [
    "dataset_convert",
    "train",
    "evaluate",
    "inference",
    "export",
    "run",
    "status",
    "promote",
    "rollback",
    "deliver",
    "forget",
    "prune",
    "doctor",
    "label-studio",
    "annotations",
    "gateway",
    "bundle",
    "review",
    "lineage",
]


def test_help_is_there_at_once():
    """`fpenet --help` must not import what takes seconds to import."""
    code = "import sys; from flows.entry.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY.intersection(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage: fpenet" in capsys.readouterr().out


def test_the_overview_names_every_command():
    text = build_parser().format_help()
    assert all(command in text for command in COMMANDS)


def test_a_wrong_spec_is_one_message_and_exit_code_2(tmp_path, capsys):
    spec = tmp_path / "spec.yaml"
    spec.write_text("dataloader: {}\nnum_epochs: 3\n")
    assert main(["train", "-e", str(spec), "-r", str(tmp_path)]) == 2
    assert "num_epochs: unknown key (did you mean 'num_epoch'?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataloader", "conversion", "problem"),
    [
        ({"bbox_enlarge_ratio": 1.2}, {}, "bbox_enlarge_ratio: is 1.2, but 1.0 in the configuration"),
        ({"image_info": {"image": {"channel": 3}}}, {}, "channel: is 3, but the configuration keeps gray crops"),
        ({"image_info": {"image": {"channel": 3}}}, {"color": "rgb"}, None),
    ],
)
def test_a_spec_that_wants_other_crops_than_are_converted_is_refused(tmp_path, dataloader, conversion, problem):
    from flows.candidate import load_experiment

    faces = {"kind": "sloth", "name": "faces", "root": str(tmp_path)}
    spec = {"num_keypoints": 80, "dataloader": dataloader}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    settings = WorkflowConfig.model_validate(
        {"sources": [faces], "conversion": conversion, "experiment_spec": str(tmp_path / "spec.yaml")}
    )
    with pytest.raises(SpecError, match=problem) if problem else nullcontext():
        load_experiment(settings)


@pytest.mark.parametrize("kind", ["retrain", "look"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ["cpu", "rtz"]}, r"there is no target 'rtz' \(did you mean 'rtx'\?\)"),
        ({"promotion_rules": "none/rules.yaml"}, "none/rules.yaml: can't be read"),
        ({"devices": "none/devices.yaml"}, "none/devices.yaml: can't be read"),
    ],
)
def test_what_only_the_last_steps_need_is_read_before_the_first(kind, changes, message, tmp_path):
    config = write_project(tmp_path, faces=tmp_path / "none", **changes)
    with pytest.raises(SpecError, match=message):
        work_on_project(str(config), kind)
    assert not (tmp_path / "workspace").exists()


def test_a_workspace_that_can_t_be_made(tmp_path, capsys, monkeypatch):
    for variable in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "file").write_text("in the way")
    config = write_project(tmp_path, faces=tmp_path / "none", workspace=str(tmp_path / "file"))
    assert main(["run", "retrain", "--config", str(config)]) == 5
    assert f"{tmp_path}/file/prefect: can't be made" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["127.0.0.1:1", "a..b"])
def test_a_prefect_server_that_is_down_is_one_message(tmp_path, capsys, monkeypatch, place):
    monkeypatch.setenv("PREFECT_API_URL", f"http://ada:secret@{place}/api")
    config = write_project(tmp_path, faces=tmp_path / "none")
    assert main(["run", "retrain", "--config", str(config)]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"fpenet: error: Prefect at http://{place}/api does not answer: start it (prefect server")
    assert told.endswith("or unset PREFECT_API_URL")


def test_a_workspace_that_is_not_there_or_empty(tmp_path, capsys):
    assert main(["status", "--workspace", str(tmp_path / "none")]) == 2
    assert "no such workspace" in capsys.readouterr().err
    assert main(["status", "--workspace", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no engine; name the configuration with --config\n"


def test_doctor_tells_what_can_be_built_and_reached(capsys, monkeypatch):
    place = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://team:secret@{place}")
    monkeypatch.setenv("PREFECT_API_URL", "http://team:secret@127.0.0.1:many/api")
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://labels..test")
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "tensorflow" in told
    assert "rtx" in told
    assert f"MLFLOW_TRACKING_URI: http://{place} can't be reached: " in told
    assert "PREFECT_API_URL: http://127.0.0.1:many/api is no address" in told
    assert "LABEL_STUDIO_URL: http://labels..test is no address" in told
    assert "secret" not in told


@pytest.fixture(scope="module")
def tao_project(tmp_path_factory) -> Path:
    """A project as TAO's documentation lays it out: ground truth by set, a dataset spec, an experiment spec."""
    root = tmp_path_factory.mktemp("tao")
    render_dataset(root / "faces", subjects=SUBJECTS, images_per_subject=3, num_keypoints=80, seed=5)
    sets = ["multipie-like", "multipie-like-kpi"]
    dataset = {
        "sets": sets,
        "gt_path": "gt",
        "gt_root_path": f"{root}/faces",
        "image_root_path": f"{root}/faces",
        "save_path": "tfrecords",
        "save_root_path": str(root),
        "tfrecord_folder": "FpeTfRecords",
        "tfrecord_name": "data.tfrecords",
        "num_keypoints": 80,
        "bbox_enlarge_ratio": 1.0,
    }
    spec = experiment()
    spec["checkpoint_dir"] = str(root / "results")
    spec["dataloader"] |= {
        "dataset_info": {
            "root_path": f"{root}/faces/",
            "tfrecords_directory_path": f"{root}/tfrecords",
            "tfrecord_folder_name": "FpeTfRecords",
            "tfrecord_file_name": "data.tfrecords",
            "tfrecords_set_id_train": sets[0],
            "tfrecords_set_id_val": sets[0],
        },
        "kpiset_info": {"tfrecords_set_id_kpi": sets[1]},
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(dataset))
    (root / "experiment.yaml").write_text(yaml.safe_dump(spec))
    return root


def test_tao_s_commands_one_after_the_other(tao_project, capsys):
    root, spec = tao_project, str(tao_project / "experiment.yaml")
    assert main(["dataset_convert", "-e", str(root / "dataset.yaml"), "-r", str(root / "report")]) == 0

    key = ["-k", "nvidia_tlt"]
    assert main(["train", "-e", spec, *key]) == 2, "TAO's records do not say whose face it is"
    assert "--allow-unknown-subjects" in capsys.readouterr().err
    assert main(["train", "-e", spec, *key, "--allow-unknown-subjects"]) == 0
    assert "named for training and for validation" in capsys.readouterr().out

    assert main(["evaluate", "-m", str(root / "results"), *key]) == 0
    assert (root / "results/kpi_testing_error_per_region.csv").is_file()
    told = capsys.readouterr().out
    assert "Pupil" in told
    assert f"spec: {root / 'results/experiment_spec.yaml'}" in "".join(told.splitlines())

    model = str(root / "results/model.keras.sealed")
    assert main(["export", "-m", model, "-o", str(root / "model.etlt"), "-t", "13", *key]) == 0
    onnx = root / "model.etlt.onnx.sealed"
    assert onnx.is_file()

    entries = json.loads(next((root / "faces/gt/multipie-like-kpi").glob("*.json")).read_text())
    (root / "faces.json").write_text(json.dumps(entries))
    for number, path in enumerate((model, str(onnx))):
        out = root / f"out{number}"
        places = ["-i", str(root / "faces.json"), "-o", str(out), "-r", str(root / "faces")]
        assert main(["inference", "-e", spec, "-m", path, *places, *key]) == 0
        lines = (out / "result.txt").read_text().splitlines()
        assert [len(line.split()) for line in lines] == [161] * len(entries)
        places[3] = str(root / "nothing")
        assert main(["inference", "-e", spec, "-m", path, *places[:4], *key]) == 2, "without -r"
        told = " ".join(capsys.readouterr().err.split())
        assert f"none of {len(entries)} images could be used; the first: {entries[0]['filename']}: " in told
        assert "no such file; check -r" in told
    assert (root / "out0/result.txt").read_text().split()[0] == (root / "out1/result.txt").read_text().split()[0]


def test_evaluate_takes_the_spec_that_its_path_says(tmp_path, capsys, monkeypatch):
    """A spec without KPI sets is told by its file, before any model is read."""
    (tmp_path / "results").mkdir()
    for name in ("experiment_spec.yaml", "other.yaml", "results/experiment_spec.yaml", "results/inside.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(experiment()))
    (tmp_path / "results/other.yaml").write_text("a copy")
    monkeypatch.chdir(tmp_path)
    for given, taken in (
        (["-e", "other.yaml"], "other.yaml"),
        (["-e", "inside.yaml"], "results/inside.yaml"),
        ([], "results/experiment_spec.yaml"),
    ):
        assert main(["evaluate", "-m", "results", *given]) == 2
        assert f"error: {taken}: dataloader.kpiset_info is missing" in capsys.readouterr().err
    assert main(["evaluate", "-m", "nope"]) == 2
    assert "nope: no such model or results folder" in capsys.readouterr().err


def test_a_kpi_subject_in_a_training_set_is_refused(tmp_path, capsys):
    render_dataset(tmp_path / "faces", subjects=["079", "001"], images_per_subject=2, num_keypoints=80, seed=1)
    gt = tmp_path / "faces/gt"
    dataset = {
        "sets": ["multipie-like-kpi"],
        "gt_path": str(gt),
        "image_root_path": f"{tmp_path}/faces",
        "save_path": str(tmp_path / "tfrecords"),
        "tfrecord_folder": "f",
        "tfrecord_name": "d",
        "subject": {"dataset": "multipie", "pattern": r"images/(?P<subject>\d+)_"},
    }
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(dataset))
    assert main(["dataset_convert", "-e", str(tmp_path / "dataset.yaml")]) == 0
    spec = experiment()
    spec["dataloader"]["dataset_info"] = {
        "root_path": f"{tmp_path}/faces/",
        "tfrecords_directory_path": str(tmp_path / "tfrecords"),
        "tfrecord_folder_name": "f",
        "tfrecord_file_name": "d",
        "tfrecords_set_id_train": "multipie-like-kpi",
        "tfrecords_set_id_val": "",
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    capsys.readouterr()
    assert main(["train", "-e", str(tmp_path / "spec.yaml"), "-r", str(tmp_path / "results")]) == 2
    assert "KPI subject multipie/079 must not be trained on" in capsys.readouterr().err


def test_a_path_is_printed_as_it_is(tmp_path, capsys):
    """Brackets are no markup, and a line is not broken where nobody looks at a terminal."""
    render_dataset(tmp_path / "faces", subjects=SUBJECTS[:2], images_per_subject=1, num_keypoints=80, seed=3)
    (gt,) = (tmp_path / "faces" / "gt").glob("*")
    folder = tmp_path / "old [red] [/done]" / ("long" * 20)
    spec = {
        "sets": [gt.name],
        "gt_path": str(gt.parent),
        "image_root_path": str(tmp_path / "faces"),
        "save_path": str(folder),
        "tfrecord_folder": "records",
        "tfrecord_name": "data",
        "num_keypoints": 80,
        "bbox_enlarge_ratio": 1.0,
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert main(["dataset_convert", "-e", str(tmp_path / "spec.yaml")]) == 0
    assert f"{folder}/{gt.name}/records/data" in capsys.readouterr().out
