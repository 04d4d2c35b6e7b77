"""INT8 that is too far from Keras becomes what is close enough, and the manifest tells of it."""

import pytest

from deploy.engine import Provenance
from deploy.ladder import LADDER
from deploy.onnx_export import export_onnx, load_onnx
from deploy.parity import compare, graph_predictions
from deploy.precision import graph_in
from deploy.targets import ParityBound, TargetGates, find_target
from tasks.engines import build_and_check
from tasks.reuse import StepOutput
from tasks.train import MODEL
from tests.calibration_crops import FixedCrops
from tests.networks import crops, sharp_network


@pytest.mark.slow
def test_an_int8_target_gets_the_fastest_precision_that_is_close_enough(tmp_path, monkeypatch):
    network = sharp_network()
    network.save(tmp_path / MODEL)
    onnx = export_onnx(network, tmp_path / "model.onnx").path
    images = FixedCrops(crops(4, seed=5))
    fp16 = find_target("cpu").model_copy(update={"precision": "fp16"})
    expected = graph_predictions(load_onnx(onnx), images())
    half = compare(expected, graph_predictions(graph_in(onnx, fp16).model, images()))
    gates = TargetGates(parity=ParityBound(mean_px=2 * half.worst_px, max_px=100))
    target = fp16.model_copy(update={"precision": "int8", "gates": gates})
    monkeypatch.setattr("deploy.targets.find_target", lambda name: target)

    def build():
        return build_and_check(
            onnx,
            "cpu",
            trained=StepOutput("trained", tmp_path, {}, reused=True),
            crops=images,
            calibration=FixedCrops(crops(32)),
            provenance=Provenance("fpenet", "7", "snap"),
            engines=tmp_path / "engines",
        )

    first, again = build(), build()
    assert (first.reused, again.reused) == (False, True)
    left = [line.split(":")[0] for line in first.manifest["ladder"]]
    assert left in (["int8"], ["int8", "mixed"])
    assert first.manifest["precision"] == LADDER[len(left)]
    assert first.check["state"] == "passed"
    assert again.manifest == first.manifest


def test_another_number_of_threads_is_another_check(tmp_path, monkeypatch):
    """The bytes of an engine for ONNX Runtime do not depend on how it is run; its latency does."""
    network = sharp_network()
    network.save(tmp_path / MODEL)
    onnx = export_onnx(network, tmp_path / "model.onnx").path
    cpu = find_target("cpu")
    targets = {"cpu": cpu, "cpu-2": cpu.model_copy(update={"name": "cpu-2", "threads": 2})}
    monkeypatch.setattr("deploy.targets.find_target", targets.__getitem__)
    checked = [
        build_and_check(
            onnx,
            name,
            trained=StepOutput("trained", tmp_path, {}, reused=True),
            crops=FixedCrops(crops(4)),
            calibration=FixedCrops(crops(4)),
            provenance=Provenance("fpenet", "7", "snap"),
            engines=tmp_path / "engines",
        )
        for name in (*targets, "cpu")
    ]
    assert [one.reused for one in checked] == [False, False, True]
    assert checked[0].manifest["engine_sha256"] == checked[1].manifest["engine_sha256"]
    assert len(list((tmp_path / "engines" / "checks").glob("[!.]*"))) == 2
