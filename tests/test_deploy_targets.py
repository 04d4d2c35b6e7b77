import tomllib
from pathlib import Path

import pytest

from deploy.builders.registry import BUILDERS
from deploy.targets import find_target, load_targets, meets
from schemas.errors import SpecError

CPU = """\
targets:
  cpu:
    title: a CPU
    builder: onnxruntime
    precision: fp32
    opset_ceiling: 21
    threads: 2
    batch: {minimum: 1, optimum: 2, maximum: 4}
    gates:
      parity: {mean_px: 0.001, max_px: 0.01}
"""


def test_the_catalogue_loads_and_every_target_has_a_builder():
    targets = load_targets()
    of_jetsons = {"jetson-nano", "xavier-nx", "agx-xavier", "orin"}
    assert {"cpu", "cpu-int8", "rtx", "t4", "a10", "l4", "h100", *of_jetsons} <= set(targets)
    assert {target.builder for target in targets.values()} <= set(BUILDERS)
    assert all(name == target.name for name, target in targets.items())
    assert targets["rtx"].compute_capabilities == [75, 80, 86, 89, 120]
    assert targets["rtx"].precision == "fp16"
    run = [target for target in targets.values() if target.name != "rtx"]
    assert all(target.gates.min_fps and target.gates.max_p99_ms and target.gates.max_size_mib for target in run)


def test_every_target_of_tensorrts_python_has_an_extra_with_one_version():
    """Engines run with the version that built them alone: two devices of a target that are installed on two days."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    for target in load_targets().values():
        if target.builder == "tensorrt":
            extra = project["optional-dependencies"][f"tensorrt{target.tensorrt_major}"]
            (version,) = (one.removeprefix("tensorrt==") for one in extra if one.startswith("tensorrt"))
            assert meets(version, target.tensorrt)


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(SpecError, match=r"no target 'rtxx' \(did you mean 'rtx'\?\)"):
        find_target("rtxx")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threads: 2", "threds: 2", r"threds: unknown key \(did you mean 'threads'\?\)"),
        ("builder: onnxruntime", "builder: trtexe", "onnxruntime"),
        ("optimum: 2", "optimum: 8", "minimum 1, optimum 8 and maximum 4 must not decrease"),
        ("precision: fp32", "precision: int4", "precision"),
        ("    threads: 2\n", "    compute_capabilities: [75]\n", "compute_capabilities: unknown key"),
        ("opset_ceiling: 21", "opset_ceiling: 9", "opset_ceiling"),
    ],
)
def test_a_wrong_catalogue_names_the_line(old, new, message, tmp_path):
    path = tmp_path / "targets.yaml"
    path.write_text(CPU)
    assert load_targets(path)["cpu"].threads == 2
    path.write_text(CPU.replace(old, new))
    with pytest.raises(SpecError, match=rf"targets\.yaml:\d+: .*{message}"):
        load_targets(path)


def test_build_settings_hold_what_changes_an_engine_and_nothing_else(tmp_path):
    path = tmp_path / "targets.yaml"
    settings = []
    for old, new in [
        ("", ""),
        ("a CPU", "another CPU"),
        ("max_px: 0.01", "max_px: 0.02"),
        ("maximum: 4", "maximum: 8"),
    ]:
        path.write_text(CPU.replace(old, new))
        settings.append(load_targets(path)["cpu"].build_settings())
    assert settings[0] == settings[1] == settings[2] != settings[3]


@pytest.mark.parametrize(
    ("found", "wanted", "met"),
    [
        ("8.2.1", "8.2", True),
        ("8.20.1", "8.2", False),
        ("8", "8.2", False),
        ("10.16.1.11", "10.16.1.11", True),
        ("10.16.1.12", "10.16.1.11", False),
        ("10.16.1", "10.16.1.11", True),
        ("10.16.2", "10.16.1.11", False),
        ("5.1.2-b104", "5.1.2", True),
        (None, "8", False),
    ],
)
def test_a_version_meets_what_is_asked_of_it(found, wanted, met):
    assert meets(found, wanted) is met
