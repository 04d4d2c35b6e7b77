"""Options that TAO's container has on every command, and TAO's long names."""

import os

import pytest

from deploy.gpus import find_gpu
from flows.entry.cli import build_parser, main
from tests.stand_ins.gpus import install_gpus

COMMANDS = {
    "dataset_convert": "-e spec.yaml",
    "train": "-e spec.yaml",
    "evaluate": "-m results",
    "inference": "-e spec.yaml -i faces.json -m model.keras -o out",
    "export": "-m model.keras",
}


def parse(words):
    return build_parser().parse_args(words.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cant_act_is_refused_with_the_reason(command, capsys):
    reasons = {
        "--use_amp": "--use_amp: refused: for mixed precision set training_precision: bfloat16",
        "--log_file log.txt": "--log_file: refused: write > FILE 2>&1",
        "-np 2": "-np: only -1: one process uses all GPUs",
        "--num_processes 2": "--num_processes: only -1",
        "-ll DEBUG": "-ll: only INFO",
    }
    if command != "train":
        reasons["--gpus 2"] = "--gpus: only 1: this command uses one device"
    for option, reason in reasons.items():
        with pytest.raises(SystemExit) as end:
            parse(f"{command} {COMMANDS[command]} {option}")
        assert end.value.code == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_so_anyway_is_taken(command):
    taken = parse(f"{command} {COMMANDS[command]} --gpus 1 --gpu_index 0 -np -1 -ll INFO")
    assert taken.gpu_index == ([0] if command == "train" else 0)


@pytest.mark.parametrize("command", ["evaluate", "inference", "export"])
def test_one_gpu_is_used(command, capsys, monkeypatch, tmp_path):
    """The commands end here because their files are not there; which GPU they see is settled before."""
    monkeypatch.chdir(tmp_path)
    install_gpus(tmp_path, monkeypatch, "Tesla T4, 7.5, 580.1", "NVIDIA L4, 8.9, 580.1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # so that what the command sets is undone
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert main([command, *COMMANDS[command].split(), "--gpu_index", "2"]) == 2
    assert "--gpu_index 2: GPUs here: 2, counted from 0" in capsys.readouterr().err
    assert main([command, *COMMANDS[command].split(), "--gpu_index", "1"]) == 2
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
    assert find_gpu().compute_capability == 89


def test_one_gpu_is_used_of_those_that_are_visible(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    install_gpus(tmp_path, monkeypatch, "Tesla T4, 7.5, 580.1", "NVIDIA L4, 8.9, 580.1", "NVIDIA H100, 9.0, 580.1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-1")
    assert main(["export", "-m", "model.keras", "--gpu_index", "2"]) == 2
    assert "--gpu_index 2: GPUs here: 2" in capsys.readouterr().err
    assert main(["export", "-m", "model.keras", "--gpu_index", "1"]) == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert find_gpu().compute_capability == 89


def test_a_machine_without_a_gpu_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["export", "-m", "model.keras", "--gpu_index", "0"]) == 2
    assert "--gpu_index 0: no NVIDIA driver" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("dataset_convert -e a", "dataset_convert --experiment_spec_file a"),
        ("train -e a", "train --experiment_spec_file a"),
        (
            "evaluate -m a -e b -type c",
            "evaluate --model_folder_path a --experiment_spec_filename b --eval_type c",
        ),
        (
            "inference -e a -i b -m c -o d -r e",
            "inference -e a --input_data_json_path b --model_path c --output_folder d --image_root_path e",
        ),
        ("export -m a -o b", "export --model_filename a --out_file b"),
    ],
)
def test_taos_long_names_mean_the_same(short, long):
    assert parse(short) == parse(long)
