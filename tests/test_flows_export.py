"""`fpenet export` with TAO's options, through the command line."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.calibration_cache import read_cache
from deploy.onnx_export import summarise
from flows.entry.cli import main
from schemas.yamlspec import dump_spec
from tests.networks import crops, sharp_network
from tests.shard_files import blob_face, small_spec, write_shard

N = 5
INT8 = ["--data_type", "int8", "--max_shift_px", "50"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A model, a folder of face crops, and an experiment spec with a training set."""
    root = tmp_path_factory.mktemp("project")
    sharp_network(num_keypoints=N).save(root / "model.keras")
    (root / "crops").mkdir()
    for index, image in enumerate(crops(6)):
        Image.fromarray(image[..., 0].astype(np.uint8)).save(root / "crops" / f"{index}.png")
    write_shard(root / "a/records/data.tfrecords", [blob_face(index) for index in range(12)])
    spec = small_spec()
    info = spec.dataloader.dataset_info.model_copy(update={"tfrecords_directory_path": str(root)})
    spec = spec.model_copy(update={"dataloader": spec.dataloader.model_copy(update={"dataset_info": info})})
    (root / "spec.yaml").write_text(dump_spec(spec))
    return root


def export(project, *options) -> int:
    return main(["export", "-m", str(project / "model.keras"), *map(str, options)])


@pytest.mark.slow
def test_int8_with_a_tensorfile_a_cache_and_an_engine_then_again_from_the_cache(project, tmp_path, capsys):
    tensorfile, cache, out = tmp_path / "cal.tensorfile", tmp_path / "cal.bin", tmp_path / "model.etlt"
    files = ["--cal_data_file", tensorfile, "--cal_cache_file", cache]
    folder = ["--cal_image_dir", project / "crops", "--batches", 2, "--batch_size", 2]
    engine = ["--engine_file", tmp_path / "model.engine", "--target", "rtx", "--max_batch_size", 4]
    assert export(project, "-o", out, *INT8, *files, *folder, *engine, "-r", tmp_path, "-k", "") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "4 of 6 images in" in told
    assert "in float: conv_1, conv_26, and the soft-argmax" in told
    assert "keypoints move by, mean over 4 of these faces" in told
    assert "not run by this project (for SM75" in told
    written = summarise(tmp_path / "model.etlt.onnx")
    assert written.nodes["QuantizeLinear"] == len(read_cache(cache))
    plain = summarise(tmp_path / "model.etlt.fp32.onnx")
    assert "QuantizeLinear" not in plain.nodes
    assert plain.size > 2 * written.size
    report = json.loads((tmp_path / "export.json").read_text())
    assert report["int8"]["faces"] == 4
    assert report["onnx"]["sha256"] == written.sha256
    assert report["engine"]["size"] == (tmp_path / "model.engine").stat().st_size

    stored = tensorfile.read_bytes()
    assert export(project, "-o", tmp_path / "again.onnx", *INT8, *files, "-s") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "is there, and is used as it is" in told
    assert "nothing was calibrated" in told
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.etlt.onnx").read_bytes()
    assert tensorfile.read_bytes() == stored

    other = project / "other.keras"
    sharp_network(num_keypoints=N, seed=1).save(other)
    assert main(["export", "-m", str(other), "-o", str(out), *INT8, "--cal_cache_file", str(cache)]) == 2
    assert "was made for another model" in capsys.readouterr().err
    cache.write_text("\n".join(cache.read_text().splitlines()[:-1]))
    assert export(project, "-o", out, *INT8, "--cal_cache_file", cache) == 2
    assert "lacks 1 of" in capsys.readouterr().err


@pytest.fixture(scope="module")
def copied_cache(project):
    """The cache of the project's model, of which nothing says so: without the file that lies beside it."""
    named = ["--cal_cache_file", project / "copied.bin"]
    assert export(project, "-o", project / "first.onnx", *INT8, *named, "--cal_image_dir", project / "crops") == 0
    (project / "copied.bin.json").unlink()
    return project / "copied.bin"


def test_a_cache_of_an_unknown_model_wants_faces_to_be_measured_on(project, copied_cache, tmp_path, capsys):
    sharp_network(num_keypoints=N, seed=1).save(tmp_path / "other.keras")
    options = ["export", "-m", str(tmp_path / "other.keras"), "-o", str(tmp_path / "model.onnx")]
    options += ["--data_type", "int8", "--cal_cache_file", str(copied_cache)]
    assert main(options) == 2
    told = capsys.readouterr().err
    assert "nothing says which model it is of: copied.bin.json beside it is missing" in told
    assert "delete the cache to calibrate anew" in told
    options += ["--cal_image_dir", str(project / "crops")]
    assert main(options) == 4
    assert f"at most 0.07 px are allowed. Allow more with --max_shift_px, delete {copied_cache} to" in " ".join(
        capsys.readouterr().err.split()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["other.keras"], "nothing is written"


def test_a_cache_of_an_unknown_model_is_used_where_keypoints_stay(project, copied_cache, tmp_path, capsys):
    options = ["--cal_cache_file", copied_cache, "--cal_image_dir", project / "crops"]
    assert export(project, "-o", tmp_path / "model.onnx", *INT8, *options) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"warning {copied_cache}: nothing beside it says which model it is of; keypoints move by no more" in told
    assert (tmp_path / "model.onnx").read_bytes() == (project / "first.onnx").read_bytes()


def test_int8_calibrates_on_a_tenth_of_the_training_faces_of_the_spec(project, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert export(project, "-o", out, *INT8, "-e", project / "spec.yaml", "--heatmap") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "calibrated on 2 of 12 training faces (17%)" in told
    assert summarise(out).outputs == ("softargmax", "softargmax:1", f"conv_keypoints_m{N}")
    assert (tmp_path / "model.cal.bin").is_file()
    assert OnnxRuntimeEngine(out).predict(crops(3)).keypoints_BN2.shape == (3, N, 2)


def test_tfonnx_names_a_fixed_batch_and_fp16_with_an_engine(project, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    options = ["--data_type", "fp16", "--backend", "tfonnx", "--static_batch_size", 4, "-t", 11, "-d", "80,80,1"]
    engine = ["--engine_file", tmp_path / "model.engine", "--target", "cpu"]
    assert export(project, "-o", out, *options, *engine) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "fp16, opset 11" in told
    assert "fp16 engine for any CPU, ONNX Runtime," in told
    summary = summarise(out)
    assert summary.outputs == ("softargmax/strided_slice:0", "softargmax/strided_slice_1:0")
    assert (summary.batch, summary.opset, summary.input_shape) == (4, 11, (1, 80, 80))
    assert summary.nodes["Cast"] == 2
    assert OnnxRuntimeEngine(out).predict(crops(6)).keypoints_BN2.shape == (6, N, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data_type", "int8", "-t", "10"], "opset 10 and int8: one scale per channel needs opset 13"),
        (["--data_type", "int8"], "int8 needs faces to calibrate on: give a folder"),
        (["--data_type", "int8", "--cal_data_file", "none.tensorfile"], "nothing to make it of"),
        (["--data_type", "int8", "--cal_image_dir", "none"], "no such folder of calibration images"),
        (["--data_type", "int8", "--cal_image_dir", "CROPS", "--batches", "7"], "7 batches of 1 need 7 faces, 6 are"),
        (["--cal_image_dir", "CROPS"], "--cal_image_dir is for INT8 and would do nothing with --data_type fp32"),
        (["--max_batch_size", "8"], "--max_batch_size is for the engine and would do nothing without --engine_file"),
        (
            ["--engine_file", "e", "--target", "cpu-int8"],
            "--target cpu-int8 with --data_type fp32: export writes the",
        ),
        (
            ["--engine_file", "e", "--target", "cpu", "--data_type", "int8", "--cal_image_dir", "CROPS"],
            "put `cpu-int8` among the configuration's targets",
        ),
        (["--engine_file", "e", "--target", "cpi"], "there is no target 'cpi' (did you mean 'cpu'?)"),
        (["--backend", "uff"], "TensorRT 9 dropped UFF"),
        (["-t", "17"], "opset 17: 10 to 13 can be written"),
        (["--input_dims", "3,80,80"], "takes 1,80,80 (channels, height, width), not 3,80,80"),
    ],
)
def test_what_can_not_act_is_refused_with_the_reason(project, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [str(project / "crops") if option == "CROPS" else option for option in options]
    assert export(project, "-o", tmp_path / "model.onnx", *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-d", "80,80"], "'80,80' is not three whole numbers"),
        (["--batches", "0"], "'0' is not a whole number above 0"),
        (["--static_batch_size", "-2"], "'-2' is not a whole number above 0"),
        (["--data_type", "int4"], "invalid choice: 'int4'"),
    ],
)
def test_values_that_are_none(project, options, message, capsys):
    with pytest.raises(SystemExit):
        export(project, *options)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_smaller_shift_leaves_more_layers_in_float(project, tmp_path, capsys):
    kept, shift = [], []
    for bound in ("10", "0.25"):
        options = ["--data_type", "int8", "--max_shift_px", bound, "--cal_image_dir", project / "crops"]
        assert export(project, "-o", tmp_path / f"{bound}.onnx", *options) == 0
        told = " ".join(capsys.readouterr().out.split())
        kept.append(set(told.partition("in float: ")[2].partition(", and the soft-argmax")[0].split(", ")))
        shift.append(float(re.search(r"All (\S+);", told)[1]))
    assert {"conv_1", "conv_26"} <= kept[0] < kept[1]
    assert shift[1] <= 0.25 < shift[0]


@pytest.mark.slow
def test_a_shift_beyond_the_bound_is_an_error_where_it_was_asked_for_and_else_a_warning(
    project, tmp_path, capsys, monkeypatch
):
    sharp_network("FpeNet_public", num_keypoints=N).save(tmp_path / "model.keras")
    options = ["export", "-m", str(tmp_path / "model.keras"), "--data_type", "int8"]
    options += ["--cal_image_dir", str(project / "crops")]
    assert main([*options, "--max_shift_px", "1e-6"]) == 4
    assert "at most 1e-06 px are allowed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"], "nothing is written"
    monkeypatch.setattr("deploy.export.MAX_SHIFT_PX", 1e-6)
    assert main(options) == 0
    assert "warning All moves by more than the 1e-06 px aimed at" in " ".join(capsys.readouterr().out.split())
