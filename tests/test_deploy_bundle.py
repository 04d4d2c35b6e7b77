"""A bundle as a device team and a DeepStream user take it up."""

import configparser
import hashlib
import json
import os
import posixpath
import shlex
from dataclasses import asdict, replace
from datetime import datetime

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy import stages
from deploy.bundle.bundle import contents, make_bundle, verify_bundle
from deploy.bundle.calibration import activation_scales
from deploy.bundle.deepstream import ENGINE_CONFIG, labels
from deploy.bundle.readme import Accuracy, trtexec_line
from deploy.bundle.release import release_at
from deploy.bundle.signing import SIGNATURE, make_keys, read_public_key
from deploy.calibration_cache import read_cache, require_scales
from deploy.engine import Provenance, build_engine_on, write_manifest
from deploy.float16_graph import with_half_scales
from deploy.onnx_export import load_onnx
from deploy.onnx_graph import with_heatmap
from deploy.precision import reads_half_scales
from deploy.qdq import insert, scale_groups
from deploy.shells.local import LocalShell
from deploy.target_gates import gate_engine
from deploy.targets import find_target
from flows.entry.cli import main
from schemas.errors import GateError, InputError, ModelFileError, SpecError, StorageError
from schemas.storage import read_json, write_json
from tests.bundle_releases import (
    NANO,
    NOT_RUN,
    PARITY,
    PASSED,
    SNAPSHOT,
    STAND_IN_PLAN,
    TIMINGS,
    engine_directory,
    staged,
)
from tests.layered_graphs import layered_graph
from tests.small_graphs import CELLS, POINTS, pictures
from tests.stand_ins.devices import NANO as JETSON_NANO
from tests.stand_ins.devices import stand_in
from tests.triton_config import parse_config

GPU_TARGETS = ("rtx", "jetson-nano", "t4", "orin")
NETWORK_MODES = {"rtx": "2", "jetson-nano": "2", "t4": "2", "orin": "1"}
CONFIG = "deepstream/faciallandmark_sgie_config.txt"
TRITON = "triton/faciallandmark/"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """In a folder as exports have one: what INT8 is quantised from is looked for there."""
    path = tmp_path_factory.mktemp("exports") / "key" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(layered_graph(0).SerializeToString())
    return path


@pytest.fixture(scope="module")
def releases(exported, tmp_path_factory):
    """Engine of each target in production: of a CPU and a Nano that ran theirs, and of GPUs that nothing ran on."""
    root = tmp_path_factory.mktemp("workspace")
    devices = {"jetson-nano": NANO}
    made = {name: staged(root, exported, name, at="production", device=devices.get(name)) for name in GPU_TARGETS}
    return made | {"cpu": staged(root, exported, "cpu", at="production", check=PASSED)}


@pytest.fixture(scope="module")
def bundles(releases):
    return {target: contents(release) for target, release in releases.items()}


def key_file(content: bytes) -> configparser.ConfigParser:
    """As GLib reads it: `=` only, comments on lines of their own, no interpolation, nothing twice."""
    parsed = configparser.ConfigParser(
        delimiters="=", comment_prefixes="#", interpolation=None, strict=True, empty_lines_in_values=False
    )
    parsed.optionxform = str
    parsed.read_string(content.decode())
    return parsed


def shapes(values) -> dict[str, tuple[int, ...]]:
    """Name -> shape without the batch, as in ONNX Runtime's own words."""
    return {value.name: tuple(value.shape[1:]) for value in values}


def session(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("target", GPU_TARGETS)
def test_nvinfer_gets_what_the_onnx_file_has(target, bundles, releases):
    files, parsed = bundles[target], key_file(bundles[target][CONFIG])
    settings = parsed["property"]
    model = session(files[f"deepstream/{settings['onnx-file']}"])
    assert settings["infer-dims"] == ";".join(map(str, *shapes(model.get_inputs()).values()))
    assert settings["output-blob-names"].split(";") == list(shapes(model.get_outputs()))
    assert settings["output-blob-names"] == "softargmax;softargmax:1;conv_keypoints_m80"
    assert shapes(model.get_outputs())["conv_keypoints_m80"] == (POINTS, CELLS, CELLS)
    named = [settings[key] for key in ("onnx-file", "labelfile-path", "int8-calib-file") if key in settings]
    assert {posixpath.normpath(f"deepstream/{path}") for path in named} <= files.keys()
    mode = {"1": "int8", "2": "fp16"}[settings["network-mode"]]
    assert settings["network-mode"] == NETWORK_MODES[target]
    most = releases[target].target.batch.maximum
    assert settings["batch-size"] == str(most)
    assert settings["model-engine-file"] == f"{settings['onnx-file']}_b{most}_gpu0_{mode}.engine"
    expected = {
        "model-color-format": "2",
        "net-scale-factor": "1.0",
        "offsets": "0.0",
        "network-type": "100",
        "output-tensor-meta": "1",
        "process-mode": "2",
    }
    assert {key: settings[key] for key in expected} == expected
    assert parsed.sections() == ["property", "class-attrs-all"]


@pytest.mark.parametrize("target", GPU_TARGETS)
def test_the_layers_pinned_to_fp32_are_those_behind_the_heatmap(target, bundles):
    settings = key_file(bundles[target][CONFIG])["property"]
    nodes = {
        node.name: node
        for node in onnx.load_from_string(bundles[target]["deepstream/faciallandmark.onnx"]).graph.node
    }
    pinned = [entry.split(":") for entry in settings["layer-device-precision"].split(";")]
    assert {tuple(rest) for _, *rest in pinned} == {("fp32", "gpu")}
    assert {"Softmax", "ReduceSum", "Mul"} <= {nodes[name].op_type for name, *_ in pinned}
    assert not {"Conv", "ConvTranspose", "QuantizeLinear"} & {nodes[name].op_type for name, *_ in pinned}


def test_the_config_of_the_checked_engine_names_it_and_its_two_outputs(bundles):
    for target in ("jetson-nano", "t4", "orin"):
        settings = key_file(bundles[target][f"deepstream/{ENGINE_CONFIG}"])["property"]
        assert bundles[target][posixpath.normpath(f"deepstream/{settings['model-engine-file']}")] == STAND_IN_PLAN
        assert f"deepstream/{settings['labelfile-path']}" in bundles[target]
        assert settings["output-blob-names"] == "softargmax;softargmax:1"
        assert "onnx-file" not in settings
    assert f"deepstream/{ENGINE_CONFIG}" not in bundles["rtx"]  # DeepStream does not read TensorRT-RTX's
    assert not [name for name in bundles["cpu"] if name.startswith("deepstream/")]


def test_labels_and_parameters_are_those_of_this_layout(bundles):
    files = bundles["t4"]
    lines = files["deepstream/labels.txt"].decode().splitlines()
    assert (len(lines), lines[0], lines[36], lines[67]) == (POINTS, "P1 Chin", "P37 Eyes", "P68 Mouth")
    told = {"numLandmarks": POINTS, "maxBatchSize": 32, "inputLayerWidth": 80, "inputLayerHeight": 80}
    assert yaml.safe_load(files["deepstream/sample_faciallandmarks_config.yml"]) == told
    pairs = (line.split("=") for line in files["deepstream/sample_faciallandmarks_config.txt"].decode().splitlines())
    assert {key: int(value) for key, value in pairs} == told
    assert labels(5) == ["P1", "P2", "P3", "P4", "P5"]
    assert len(labels(104)) == 104


def test_the_calibration_of_int8_is_what_its_graph_was_made_with(bundles, releases, exported, tmp_path):
    """Cache and FP32 graph, put together again, are the graph of the engine to the bit."""
    files, release = bundles["orin"], releases["orin"]
    assert key_file(files[CONFIG])["property"]["int8-calib-file"] == "../calibration/calibration.cache"
    assert files["calibration/model.fp32.onnx"] == exported.read_bytes()
    (tmp_path / "cache").write_bytes(files["calibration/calibration.cache"])
    float_layers = release.manifest["float_layers"]
    plain = onnx.load_from_string(files["calibration/model.fp32.onnx"])
    scales = require_scales(
        tmp_path / "cache", read_cache(tmp_path / "cache"), list(scale_groups(plain, float_layers))
    )
    again = insert(plain, scales, float_layers)
    again = with_half_scales(again, POINTS) if reads_half_scales(release.target) else again
    assert again.SerializeToString(deterministic=True) == files["engine/model.onnx"]
    assert "--calib=calibration.cache" in files["README.md"].decode()
    assert not [name for name in bundles["t4"] if name.startswith("calibration/")]
    targets = release.directory.parent.parent / "targets"
    with pytest.raises(StorageError, match="that the engine was quantised from is gone; run the flow again"):
        release_at(targets, "orin", "production", exports=tmp_path)


def test_int8_for_deepstream_has_no_fp16_and_the_same_scales(bundles):
    """nvinfer switches on INT8 alone, and TensorRT then refuses FP16 tensors."""
    engine, deepstream = (
        onnx.load_from_string(bundles["orin"][name])
        for name in ("engine/model.onnx", "deepstream/faciallandmark.onnx")
    )
    assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in deepstream.graph.initializer}
    assert activation_scales(deepstream) == activation_scales(engine)
    assert len(activation_scales(engine)) > 5
    images_BCSS = np.moveaxis(pictures(5), -1, 1)
    found = [
        session(graph.SerializeToString()).run(["softargmax"], {"input_face_images": images_BCSS})[0]
        for graph in (engine, deepstream)
    ]
    assert np.abs(found[0] - found[1]).mean() < 0.3  # cells of the heatmap are 8 px wide


def test_the_heatmap_output_leaves_keypoints_as_they_are_to_the_bit(exported, bundles):
    images_BCSS = np.moveaxis(pictures(5), -1, 1)
    plain = load_onnx(exported)
    for graph, files in ((plain, None), (load_onnx(exported), bundles["t4"])):
        without = session(files["engine/model.onnx"] if files else graph.SerializeToString())
        more = files["deepstream/faciallandmark.onnx"] if files else with_heatmap(graph, POINTS).SerializeToString()
        expected = without.run(None, {"input_face_images": images_BCSS})
        found = session(more).run(None, {"input_face_images": images_BCSS})
        assert [np.array_equal(a, b) for a, b in zip(expected, found, strict=False)] == [True, True]
        np.testing.assert_allclose(found[2].max(axis=(2, 3)), found[1], atol=2e-2 if files else 0)
    assert with_heatmap(with_heatmap(plain, POINTS), POINTS) == with_heatmap(plain, POINTS)
    with pytest.raises(ModelFileError, match="no tensor 'conv_keypoints_m68'"):
        with_heatmap(plain, 68)


@pytest.mark.parametrize("target", ["cpu", *GPU_TARGETS])
def test_triton_reads_the_configuration_of_the_model_beside_it(target, bundles, releases):
    files = bundles[target]
    config = parse_config(files[f"{TRITON}config.pbtxt"].decode())
    given = {tensor.name: tuple(tensor.dims) for tensor in config.input}
    put_out = {tensor.name: tuple(tensor.dims) for tensor in config.output}
    model = session(files["engine/model.onnx"])
    assert (given, put_out) == (shapes(model.get_inputs()), shapes(model.get_outputs()))
    assert (given, put_out) == (
        {"input_face_images": (1, 80, 80)},
        {"softargmax": (POINTS, 2), "softargmax:1": (POINTS,)},
    )
    assert {tensor.data_type for tensor in (*config.input, *config.output)} == {2}  # TYPE_FP32
    preferred = [8] if target == "rtx" else []  # of the targets that are tuned for 1, which is a batch of its own
    assert config.max_batch_size == releases[target].target.batch.maximum
    assert list(config.dynamic_batching.preferred_batch_size) == preferred
    kinds = [(group.count, group.kind) for group in config.instance_group]
    assert kinds == [(1, 2)] if target == "cpu" else [(1, 1)]
    served = "1/model.plan" if target not in ("cpu", "rtx") else "1/model.onnx"
    assert config.backend == ("tensorrt" if served.endswith("plan") else "onnxruntime")
    source = "engine/model.onnx" if target == "rtx" else f"engine/{releases[target].engine.name}"
    assert files[TRITON + served] == files[source]
    assert config.name == "faciallandmark"
    assert sum(name.startswith(TRITON) for name in files) == 2


def test_what_triton_serves_predicts_what_the_network_does(exported, bundles):
    images = {"input_face_images": np.moveaxis(pictures(7), -1, 1)}
    expected = session(exported.read_bytes()).run(["softargmax"], images)[0]
    for target, bound in (("cpu", 1e-3), ("rtx", 0.1)):
        served = session(bundles[target][f"{TRITON}1/model.onnx"])
        found = served.run(["softargmax"], images)[0]
        assert np.abs(found - expected).max() < bound


def test_the_bill_of_materials_is_valid_names_everything_and_is_the_same_each_time(bundles, releases):
    files = bundles["t4"]
    text = files["sbom.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    by_ref = {component["bom-ref"]: component for component in bom["components"]}
    assert by_ref["model"]["type"] == "machine-learning-model"
    assert (by_ref["snapshot"]["type"], by_ref["snapshot"]["version"]) == ("data", SNAPSHOT)
    assert by_ref["package:tensorrt"]["purl"] == "pkg:pypi/tensorrt@1.2.3"
    hashes = {ref: component["hashes"][0]["content"] for ref, component in by_ref.items() if ref.startswith("file:")}
    others = {name: content for name, content in files.items() if name != "sbom.cdx.json"}
    assert hashes == {f"file:{name}": hashlib.sha256(content).hexdigest() for name, content in others.items()}
    assert datetime.fromisoformat(bom["metadata"]["timestamp"]) == datetime.fromisoformat(releases["t4"].since)
    assert contents(releases["t4"]) == files
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    assert depends["file:engine/engine.plan"] == ["model", "package:tensorrt"]
    assert depends["model"] == ["package:onnx", "package:tf2onnx", "snapshot"]
    nano = json.loads(bundles["jetson-nano"]["sbom.cdx.json"])
    builder = next(component for component in nano["components"] if component["bom-ref"] == "builder:tensorrt")
    assert (builder["version"], "purl" in builder) == ("8.2.1", False)
    assert {"name": "fpenet:built-on-gpu", "value": "Tegra X1"} in nano["metadata"]["component"]["properties"]


def test_the_readme_says_what_it_is_and_what_was_not_run(bundles, releases):
    nano, t4 = (bundles[target]["README.md"].decode() for target in ("jetson-nano", "t4"))
    for words in (
        "# FPENet for Jetson Nano, JetPack 4.6",
        "- model: fpenet version 7",
        SNAPSHOT,
        "**UNSIGNED**",
        "not in a DeepStream pipeline",
        "not in a Triton server",
        "| built on GPU | Tegra X1 |",
        "| runs with GPU | SM53 |",
        "| runs with TensorRT | 8.2.1 |",
        "| runs with JetPack | 4.6 |",
        "--maxShapes=input_face_images:8x1x80x80",
        "| Eyes | 0.025 | 0.025 | 0.025 | 0.025 |",
        "One call on nano-7, batch 1: p50 2.00 ms, p99 4.00 ms, 500 faces a second",
        "| speed | 500 | 92 | faces/s |",
    ):
        assert words in nano
    assert "**not run**: it needs a GPU" in t4
    assert "**not run**" not in nano
    assert "Not promoted" not in nano
    assert all(f"`{name}`" in nano for name in bundles["jetson-nano"] if name not in ("README.md", "sbom.cdx.json"))
    assert bundles["jetson-nano"]["engine/timing.cache"] == TIMINGS
    cpu = bundles["cpu"]["README.md"].decode()
    assert "| Eyes | 0.025 | 0.025 | 0.025 | 0.025 |" in cpu
    assert "One call, batch 1: p50 2.00 ms" in cpu
    assert "trtexec" not in cpu
    accurate = contents(releases["cpu"], accuracy=Accuracy(SNAPSHOT, 1234, {"Eyes": 1.5}), signer="abc")
    assert "on the 1,234 KPI faces" in accurate["README.md"].decode()
    assert "| Eyes | 1.50 |" in accurate["README.md"].decode()
    assert "fingerprint `abc`" in accurate["README.md"].decode()
    signed = {name: contents(releases[name], signer="abc")["README.md"].decode() for name in ("jetson-nano", "orin")}
    assert all("without this project, with OpenSSL 3, which" in text for text in signed.values())
    assert "JetPack 4.6 has OpenSSL 1.1.1, whose `pkeyutl` can't check this signature" in signed["jetson-nano"]
    assert "1.1.1" not in signed["orin"] + accurate["README.md"].decode()
    assert "Q/DQ" in bundles["orin"]["README.md"].decode()


def test_the_readme_says_of_the_soft_argmax_what_the_targets_trtexec_does(bundles):
    nano, rtx, orin = (bundles[target]["README.md"].decode() for target in ("jetson-nano", "rtx", "orin"))
    assert "Soft-argmax may run in FP16, for the trtexec of TensorRT 8.2.1 has no option" in nano
    assert "Soft-argmax stays in FP32" not in nano
    assert "TensorRT 8.2.1 wants to be told as well" in nano
    for text in (rtx, orin):
        assert "Soft-argmax stays in FP32: FP16 knows no steps" in text
        assert "wants to be told" not in text


def test_the_trtexec_line_is_that_of_the_targets_version(releases):
    assert "--fp16" in trtexec_line(releases["jetson-nano"], "8.2")
    assert "--workspace=512" in trtexec_line(releases["jetson-nano"], "8.2")
    assert "--stronglyTyped" in trtexec_line(releases["t4"], "10")
    assert "--optShapes=input_face_images:8x1x80x80" in trtexec_line(releases["rtx"], "10")


def test_an_engine_at_another_stage_says_so(exported, tmp_path):
    release = staged(tmp_path, exported, "rtx")
    assert "**Not promoted to production**: it is at stage staging." in contents(release)["README.md"].decode()
    with pytest.raises(InputError, match=r"no engine at stage production; .* at staging: .*--stage staging"):
        release_at(tmp_path / "targets", "rtx", "production", exports=tmp_path)
    with pytest.raises(InputError, match=r"target 't4': no engine at stage canary; `fpenet status` shows"):
        release_at(tmp_path / "targets", "t4", "canary", exports=tmp_path)
    with pytest.raises(SpecError, match="there is no target 't5'"):
        release_at(tmp_path / "targets", "t5", "production", exports=tmp_path)


def test_an_engine_that_was_changed_is_not_bundled(exported, tmp_path):
    release = staged(tmp_path, exported, "jetson-nano", device=NANO)
    (manifest,) = (tmp_path / "targets" / "jetson-nano" / "manifests").iterdir()
    names = ("engine.plan", "model.onnx", "reproduce.sh", "timing.cache")
    for path in (*(release.directory / name for name in names), manifest):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b" ")
        with pytest.raises(StorageError, match=rf"{path.name}: is not the (file|manifest) that"):
            release_at(tmp_path / "targets", "jetson-nano", "staging", exports=tmp_path)
        path.write_bytes(whole)
    for path in (manifest, release.model):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(StorageError, match=rf"{path.name}: is gone"):
            release_at(tmp_path / "targets", "jetson-nano", "staging", exports=tmp_path)
        path.write_bytes(whole)
    assert release_at(tmp_path / "targets", "jetson-nano", "staging", exports=tmp_path) == release


def test_what_a_bundle_says_of_a_check_is_what_its_engine_was_staged_with(exported, tmp_path):
    """The manifest beside the engine is edited, or written anew by a rollout that checks the engine once more."""
    release = staged(tmp_path, exported, "rtx")
    edited = {**release.manifest, "check": {**release.manifest["check"], "state": "passed", "reason": ""}}
    write_json(release.directory / "manifest.json", edited)
    files = contents(release_at(tmp_path / "targets", "rtx", "staging", exports=tmp_path))
    assert json.loads(files["engine/manifest.json"])["check"]["state"] == "not run here"


def test_a_bundle_names_the_version_that_its_engine_was_staged_for(exported, tmp_path):
    """Another version of the same network has the same engine, and a manifest of its own."""
    release = staged(tmp_path, exported, "rtx")
    write_json(
        release.directory / "manifest.json",
        release.manifest | {"provenance": asdict(Provenance("fpenet", "8", SNAPSHOT))},
    )
    again = release_at(tmp_path / "targets", "rtx", "staging", exports=tmp_path)
    assert again.provenance.model_version == "7"
    stages.stage(tmp_path / "targets", "rtx", release.directory, by="test", why="test")
    again = release_at(tmp_path / "targets", "rtx", "staging", exports=tmp_path)
    assert again.provenance.model_version == "8"


def test_what_was_quantised_is_known_of_an_engine_that_is_int8_in_part(exported, tmp_path):
    mixed = find_target("orin").model_copy(update={"precision": "mixed"})
    directory = engine_directory(tmp_path, exported, mixed)
    stages.stage(tmp_path / "targets", "orin", directory, by="test", why="test")
    release = release_at(tmp_path / "targets", "orin", "staging", exports=exported.parent.parent)
    assert (release.precision, release.exported) == ("mixed", exported)


def test_an_engine_that_failed_is_not_bundled(exported, tmp_path):
    gates = tuple(gate_engine(find_target("rtx"), size=1000, parity=PARITY))
    far = (replace(gates[0], value=9.0, passed=False, words="Eyes too far"), *gates[1:])
    for check, message in (
        (replace(NOT_RUN, state="failed", reason="Eyes 3 px"), "check says 'failed': Eyes 3 px"),
        (replace(NOT_RUN, gates=far), "target 'rtx': Eyes too far: such an engine is not bundled"),
    ):
        with pytest.raises(GateError, match=message):
            staged(tmp_path / check.state, exported, "rtx", check=check)


@pytest.fixture
def built_on_nano(exported, tmp_path, monkeypatch):
    """Staged, built by what stands in for trtexec and is strict about options."""
    programs = stand_in(tmp_path / "nano", JETSON_NANO)
    monkeypatch.setenv("PATH", f"{programs.path}{os.pathsep}{os.environ['PATH']}")
    shell = LocalShell("nano-1", str(tmp_path / "nano" / "engines"))
    nano = find_target("jetson-nano")
    built = build_engine_on(shell, exported, nano, tmp_path / "engines", program=programs.trtexec)
    write_manifest(built, NOT_RUN, Provenance("fpenet", "7", SNAPSHOT))
    stages.stage(tmp_path / "targets", "jetson-nano", built.directory, by="test", why="test")
    return built


def test_an_engine_goes_into_a_bundle_as_its_device_built_it(built_on_nano, tmp_path):
    """The README has the line that the device was told; the version is the pointer's."""
    write_manifest(built_on_nano, NOT_RUN, Provenance("fpenet", "8", SNAPSHOT))  # another version, the same network
    release = release_at(tmp_path / "targets", "jetson-nano", "staging", exports=tmp_path)
    files = contents(release)
    assert json.loads(files["engine/manifest.json"])["provenance"]["model_version"] == "7"
    assert files["engine/reproduce.sh"].startswith(b"#!/bin/sh\n")
    told = shlex.split(files["engine/reproduce.sh"].decode().splitlines()[-1])[2:]
    line = trtexec_line(release, "8.2.1")
    assert shlex.split(line.replace("\\\n", ""))[1:] == told
    assert line in files["README.md"].decode()
    settings = key_file(files[f"deepstream/{ENGINE_CONFIG}"])["property"]
    engine = files[posixpath.normpath(f"deepstream/{settings['model-engine-file']}")]
    assert engine == files[f"{TRITON}1/model.plan"] == built_on_nano.file.read_bytes()
    places = (tmp_path / "engines", tmp_path / "nano" / "engines")
    assert not [place for place in places if str(place).encode() in b"".join(files.values())]
    cache = files["engine/timing.cache"]
    assert release.manifest["timing_cache_sha256"] == hashlib.sha256(cache).hexdigest()
    (built_on_nano.directory / "reproduce.sh").write_text("#!/bin/sh\nrm\n")
    with pytest.raises(StorageError, match=r"reproduce.sh: is not the file that was built"):
        release_at(tmp_path / "targets", "jetson-nano", "staging", exports=tmp_path)


def test_the_same_engine_gives_the_same_bytes(releases, tmp_path):
    for name in ("one.tar.gz", "two.tar.gz"):
        made = make_bundle(releases["t4"], tmp_path / name)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    assert made.fingerprint == ""
    assert SIGNATURE not in made.files


def test_the_command_makes_keys_bundles_and_verifies(releases, tmp_path, monkeypatch, capsys):
    workspace = str(releases["t4"].directory.parent.parent)
    key, bundle = tmp_path / "signing.pem", tmp_path / "t4.tar.gz"
    assert main(["bundle", "keygen", "--key", str(key)]) == 0
    monkeypatch.setenv("FPENET_SIGNING_KEY_FILE", str(key))
    assert main(["bundle", "--target", "t4", "--workspace", workspace, "-o", str(bundle)]) == 0
    assert main(["bundle", "verify", str(bundle), "--public-key", f"{key}.pub"]) == 0
    said = capsys.readouterr().out
    assert "FP16 engine key-of-t of production for T4" in said
    assert "files are as they were made; signed by" in said
    make_keys(tmp_path / "other")
    assert main(["bundle", "verify", str(bundle), "--public-key", f"{tmp_path}/other.pub"]) == 2
    assert "signed by another key" in capsys.readouterr().err
    monkeypatch.delenv("FPENET_SIGNING_KEY_FILE")
    config = {"workspace": workspace, "sources": [{"kind": "rendered", "name": "r"}], "experiment_spec": "none.yaml"}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    assert main(["bundle", "--target", "cpu", "--config", str(tmp_path / "config.yaml")]) == 0
    assert "unsigned" in capsys.readouterr().out
    default = releases["cpu"].directory.parent.parent / "bundles" / "cpu-production.tar.gz"
    assert main(["bundle", "verify", str(default)]) == 2
    assert main(["bundle", "verify", str(default), "--unsigned-ok"]) == 0
    assert main(["bundle", "--workspace", workspace]) == 2
    assert "name a target device with --target" in capsys.readouterr().err
    assert verify_bundle(bundle, public_key=key.with_name("signing.pem.pub")).fingerprint in said
    assert read_public_key(key.with_name("signing.pem.pub"))
    assert read_json(releases["cpu"].directory / "manifest.json")["build_key"] == "key-of-cpu"
