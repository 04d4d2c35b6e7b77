import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from deploy import engine_directory, stages
from deploy.engine import Provenance, build_engine, build_key, check_engine, read_engine, write_manifest
from deploy.onnx_export import export_onnx, write_onnx
from deploy.parity import graph_predictions, keras_predictions
from deploy.targets import ParityBound, find_target
from schemas.errors import EngineBuildError, GateError, ModelFileError, StorageError
from schemas.storage import read_json, sha256_file, temporary_name
from tests.killed import killed_at_fsync
from tests.networks import crops, sharp_network
from tests.small_graphs import pictures, too_large_for_half

CPU, RTX = find_target("cpu"), find_target("rtx")
AHEAD_OF_TIME = "is built ahead of time and bundled, not run by this project (for SM75, SM80, SM86, SM89, SM120)"


@pytest.fixture(scope="module")
def network():
    return sharp_network()


@pytest.fixture(scope="module")
def onnx(network, tmp_path_factory) -> Path:
    return export_onnx(network, tmp_path_factory.mktemp("onnx") / "model.onnx").path


def test_from_onnx_to_staging_on_a_target_that_runs_here(network, onnx, tmp_path):
    images = crops(6)
    built = build_engine(onnx, CPU, tmp_path / "engines")
    check = check_engine(built, keras_predictions(network, images), images)
    assert (check.state, str(check)) == ("passed", "passed")
    assert check.parity.faces == 6
    assert check.parity.max_px["All"] < 1e-3
    assert check.latency.batch == 1
    manifest = write_manifest(built, check, Provenance("fpenet", "7", "snap"))
    assert read_json(built.directory / "manifest.json") == manifest
    assert manifest["provenance"] == {"model_name": "fpenet", "model_version": "7", "snapshot_id": "snap"}
    assert (manifest["precision"], manifest["target"]["name"]) == ("fp32", "cpu")
    assert manifest["engine_sha256"] == sha256_file(built.file)
    assert manifest["versions"].keys() == {"onnxruntime"}
    assert manifest["packages"].keys() >= {"keras", "onnx", "tf2onnx"}
    assert manifest["check"]["parity"]["mean_px"].keys() >= {"All", "Eyes", "Mouth"}
    pointer = stages.stage(tmp_path / "targets", "cpu", built.directory, by="flow", why="retrain")
    assert (tmp_path / "targets" / "cpu" / pointer.engine.engine).resolve() == built.file


def test_a_target_that_does_not_run_here_says_so_and_its_graph_is_checked(network, onnx, tmp_path):
    images = crops(6)
    built = build_engine(onnx, RTX, tmp_path / "engines")
    check = check_engine(built, keras_predictions(network, images), images)
    assert str(check) == f"not run here: {AHEAD_OF_TIME}"
    assert check.parity is None
    assert check.latency is None
    assert 0 < check.graph.mean_px["All"] < 0.05
    manifest = write_manifest(built, check, Provenance("fpenet", "", "snap"))
    assert manifest["check"]["state"] == "not run here"
    pointer = stages.stage(tmp_path / "targets", "rtx", built.directory, by="flow", why="retrain")
    assert pointer.engine.check == f"not run here: {AHEAD_OF_TIME}"


def test_a_gate_names_the_target(network, onnx, tmp_path):
    images = crops(2)
    expected = keras_predictions(network, images)
    bound = ParityBound(mean_px=1e-6, max_px=1e-6)
    strict = RTX.model_copy(update={"gates": RTX.gates.model_copy(update={"parity": bound})})
    half = build_engine(onnx, strict, tmp_path)
    with pytest.raises(GateError, match=r"the fp16 graph of target 'rtx' does not reach its gates: parity All mean"):
        check_engine(half, expected, images)
    wrong = expected._replace(keypoints_BN2=expected.keypoints_BN2 + np.float32(1))
    with pytest.raises(GateError, match="the fp32 graph of target 'cpu' does not reach its gates"):
        check_engine(build_engine(onnx, CPU, tmp_path), wrong, images)


def test_what_is_too_large_for_fp16_is_seen_where_the_engine_can_t_run(tmp_path):
    """A CPU computes a graph in FP16 in float32, where it fits."""
    model, images = too_large_for_half(), pictures(2)
    built = build_engine(write_onnx(model, tmp_path / "model.onnx").path, RTX, tmp_path)
    with pytest.raises(GateError, match=r"the fp16 graph of target 'rtx' does not reach its gates: parity All"):
        check_engine(built, graph_predictions(model, images), images)


def test_one_at_a_time_builds_an_engine(onnx, tmp_path, monkeypatch):
    def fill(directory, *arguments):
        with pytest.raises(Timeout):
            FileLock(directory.with_name(f".{directory.name}.lock"), timeout=0).acquire()
        engine_directory.fill(directory, *arguments)
        built.append(directory)

    built = []
    monkeypatch.setattr("deploy.engine.fill", fill)
    assert build_engine(onnx, CPU, tmp_path).directory == built[0]


def test_an_engine_is_built_once(onnx, tmp_path):
    first = build_engine(onnx, RTX, tmp_path)
    changed = first.file.stat().st_mtime_ns
    again = build_engine(onnx, RTX, tmp_path)
    assert (first.reused, again.reused) == (False, True)
    assert again.file.stat().st_mtime_ns == changed
    assert again.sha256 == first.sha256 == sha256_file(first.file)


def test_a_place_where_no_engine_can_be_kept_is_named(onnx, tmp_path):
    (tmp_path / "engines").write_text("no folder")
    with pytest.raises(StorageError, match="engines: can't be made"):
        build_engine(onnx, CPU, tmp_path / "engines")


@pytest.mark.parametrize("file", ["engine.onnx", "model.onnx", "build.json"])
def test_a_damaged_engine_is_built_anew(file, onnx, tmp_path):
    built = build_engine(onnx, CPU, tmp_path)
    if file == "build.json":
        (built.directory / file).unlink()
    else:
        (built.directory / file).write_bytes((built.directory / file).read_bytes()[:-1])
    with pytest.raises(StorageError, match="no whole engine"):
        read_engine(built.directory, CPU)
    again = build_engine(onnx, CPU, tmp_path)
    assert not again.reused
    assert again.sha256 == built.sha256


def test_what_a_killed_build_left_goes_and_nothing_else(onnx, tmp_path):
    directory = build_engine(onnx, CPU, tmp_path).directory
    (directory / "build.json").unlink()
    left = directory / f"{temporary_name('model.onnx')}.onnx"
    left.write_bytes(b"half")
    (directory / ".of a tool.tmp").mkdir()
    build_engine(onnx, CPU, tmp_path)
    assert not left.exists() and (directory / ".of a tool.tmp").is_dir()


def test_an_engine_keeps_the_settings_that_it_was_built_for_and_takes_the_gates_of_today(onnx, tmp_path):
    """What runs it must not feed more faces at once than it was built for because the catalogue was changed since."""
    fewer = CPU.batch.model_copy(update={"maximum": CPU.batch.maximum // 2})
    other = {"batch": fewer, "precision": "fp16", "title": "as it was called", "gates": RTX.gates}
    built = build_engine(onnx, CPU.model_copy(update=other), tmp_path)
    assert read_engine(built.directory).target == CPU.model_copy(update={"batch": fewer, "precision": "fp16"})


def test_the_key_changes_with_all_that_goes_in():
    versions = {"onnxruntime": "1.0"}
    keys = {
        build_key("a", CPU, versions),
        build_key("b", CPU, versions),
        build_key("a", RTX, versions),
        build_key("a", CPU, {"onnxruntime": "1.1"}),
        build_key("a", CPU, versions, calibration_sha256="c"),
        build_key("a", CPU.model_copy(update={"precision": "fp16"}), versions),
    }
    assert len(keys) == 6
    assert build_key("a", CPU.model_copy(update={"title": "other"}), versions) in keys


def test_the_key_changes_with_the_code_that_makes_the_graph_or_asks_the_builder(monkeypatch):
    """And not with the catalogue that this code reads: a gate makes no other engine."""
    versions = {}

    def version(module, *, data):
        assert not data
        return versions.setdefault(module, "as it was")

    monkeypatch.setattr("deploy.engine.code_version", version)
    keys = {build_key("a", RTX, {})}
    for module in sorted(versions):
        versions[module] = "mended"
        keys.add(build_key("a", RTX, {}))
    assert set(versions) == {"deploy.precision", "deploy.builders.tensorrt_rtx"}
    assert len(keys) == 3


def test_a_manifest_of_a_check_that_passed_is_kept_by_one_that_was_not_run(network, onnx, tmp_path):
    """The same network registered again, while its engine is in production."""
    images = crops(2)
    built = build_engine(onnx, CPU, tmp_path)
    check = check_engine(built, keras_predictions(network, images), images)
    not_run = replace(check, state="not run here", reason="its devices run it")
    assert write_manifest(built, not_run, Provenance("fpenet", "2", "snap"))["provenance"]["model_version"] == "2"
    passed = write_manifest(built, check, Provenance("fpenet", "3", "snap"))
    assert write_manifest(built, not_run, Provenance("fpenet", "4", "snap")) == passed
    assert read_json(built.directory / "manifest.json") == passed
    again = write_manifest(built, check, Provenance("fpenet", "4", "snap"))
    assert again["provenance"]["model_version"] == "4"
    other = replace(built, sha256="0" * 64)  # built anew, so nothing is known of it
    assert write_manifest(other, not_run, Provenance("fpenet", "4", "snap"))["check"]["state"] == "not run here"


def test_the_script_beside_an_engine_makes_it_again(onnx, tmp_path):
    built = build_engine(onnx, RTX, tmp_path)
    built.file.unlink()
    script = built.directory / "reproduce.sh"
    subprocess.run(["sh", script], check=True, env={"PYTHON": sys.executable}, cwd="/", capture_output=True)
    assert built.file.stat().st_size == pytest.approx(built.size, rel=0.01)


def test_an_opset_above_the_targets_ceiling_is_refused(onnx, tmp_path):
    old = CPU.model_copy(update={"opset_ceiling": 12})
    with pytest.raises(ModelFileError, match="opset 13 is above 12, the newest that target 'cpu' reads"):
        build_engine(onnx, old, tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_builder_that_is_not_here_says_why(onnx, tmp_path, monkeypatch):
    """The wheels hidden from the metadata, as on a machine without the extra."""
    monkeypatch.setattr("deploy.builders.tensorrt_rtx.PACKAGES", ("tensorrt_rtx_of_another_world",))
    with pytest.raises(EngineBuildError, match=r"'rtx': tensorrt-rtx does not build here: not installed; .*'rtx'"):
        build_engine(onnx, RTX, tmp_path)


_BUILD = """
import sys
from pathlib import Path
from deploy.engine import build_engine
from deploy.targets import find_target
build_engine(Path(sys.argv[1]), find_target("rtx"), Path(sys.argv[2]))
"""


def test_a_killed_build_leaves_nothing_that_the_next_one_trusts(onnx, tmp_path):
    """Files are synced in this order, each with its directory: model, engine, log, script, record."""
    for at in (3, 9):
        engines = tmp_path / str(at)
        assert killed_at_fsync(at, _BUILD, onnx, engines)
        assert not list(engines.glob("*/build.json"))
        built = build_engine(onnx, RTX, engines)
        assert not built.reused
        assert not list(built.directory.glob(".*"))
        assert build_engine(onnx, RTX, engines).reused
