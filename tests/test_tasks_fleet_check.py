"""What devices are told of the engine that they are to run."""

from pathlib import Path

import pytest

from deploy.delivery import inspect
from deploy.engine import Provenance
from deploy.engine_directory import BuiltEngine
from deploy.shells.opening import open_shell
from deploy.targets import find_target
from schemas.errors import ShardError
from schemas.experiment import ExperimentSpec
from schemas.records import Split
from schemas.storage import read_json, sha256_file, write_json
from tasks.convert import Conversion
from tasks.evaluate import KpiCrops
from tasks.fleet.check import check_on
from tasks.fleet.material import Material
from tests.delivered_fleets import Fleet
from tests.retrain_project import experiment


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    """Version 1 in production; the manifest beside its engine is about version 9, which nobody has approved."""
    fleet = Fleet(tmp_path)
    directory = fleet.stage("key1")
    fleet.promote()
    manifest = read_json(directory / "manifest.json")
    manifest["provenance"]["model_version"] = "9"
    write_json(directory / "manifest.json", manifest)
    fleet.local("t4-b", "main")
    return fleet


def built(directory: Path) -> BuiltEngine:
    file = directory / "engine.onnx"
    sha256 = sha256_file(file)
    return BuiltEngine(find_target("t4"), directory.name, directory, file, sha256, 4, "", {}, 0.0, True)


def told(fleet: Fleet) -> str:
    with open_shell(fleet.devices[0]) as shell:
        current, found = inspect(shell, "t4")
    assert current is not None and not found
    return current.model_version


def test_a_new_device_is_told_the_version_that_was_promoted(fleet):
    (record,) = fleet.settle()
    assert (record.outcome, record.current.model_version, told(fleet)) == ("active", "1", "1")


def test_faces_that_are_gone_here_are_no_failure_of_a_device(fleet):
    (device,) = fleet.devices
    shards = {Split.KPI: [fleet.root / "kpi.tfrecords"]}
    conversion = Conversion("key", shards, {"splits": {Split.KPI: {"files": []}}}, written=0, reused=1)
    crops = KpiCrops(conversion, ExperimentSpec.model_validate(experiment()))
    material = Material(Provenance("fpenet", "1", "s"), fleet.root / "model.onnx", crops, crops)
    with pytest.raises(ShardError, match=r"kpi\.tfrecords"):
        check_on(device, open_shell, built(fleet.root / "engines" / "key1"), material)
