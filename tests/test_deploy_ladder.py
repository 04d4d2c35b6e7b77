import numpy as np
import onnx
import pytest

from deploy.ladder import climb, precisions
from deploy.onnx_export import load_onnx
from deploy.parity import compare, graph_predictions
from deploy.precision import graph_in
from deploy.targets import ParityBound, TargetGates, find_target
from schemas.errors import CalibrationError, GateError
from schemas.storage import write_bytes
from tests.calibration_crops import FixedCrops
from tests.layered_graphs import layered_graph
from tests.small_graphs import pictures

CROPS, IMAGES = FixedCrops(pictures(32)), pictures(9)


def target(mean_px, precision="int8"):
    gates = TargetGates(parity=ParityBound(mean_px=mean_px, max_px=1000))
    return find_target("cpu").model_copy(update={"precision": precision, "gates": gates})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_bytes(path, layered_graph(3).SerializeToString())
    return path


@pytest.fixture(scope="module")
def expected(exported):
    return graph_predictions(load_onnx(exported), IMAGES)


def up(exported, expected, its_target, **options):
    return climb(exported, its_target, expected=expected, images_BSSC=IMAGES, calibration=CROPS, **options)


def test_the_first_precision_that_is_close_enough_is_taken(exported, expected):
    ladder = up(exported, expected, target(50))
    assert [str(rung) for rung in ladder.rungs] == ["int8: passed"]
    assert ladder.require(target(50)) == ladder.result == graph_in(exported, target(50), calibration=CROPS)
    assert ladder.rungs[0].graph == compare(expected, graph_predictions(ladder.result.model, IMAGES))


def test_what_int8_and_mixed_lose_is_told_before_fp16_is_taken(exported, expected):
    half = compare(expected, graph_predictions(graph_in(exported, target(1, "fp16")).model, IMAGES)).worst_px
    between = target(2 * half)
    ladder = up(exported, expected, between)
    assert [rung.precision for rung in ladder.rungs] == ["int8", "mixed", "fp16"]
    assert ladder.result.precision == "fp16"
    int8, mixed, fp16 = ladder.rungs
    for rung in (int8, mixed):
        assert f"(at most {2 * half:g} px)" in rung.failure
        assert "; no layer errs by more than its rounding: it adds up; conv_" in str(rung)
        assert str(rung).endswith(" px on 8 faces")
        assert rung.relief.parity.worst_px < rung.relief.before.worst_px
    assert set(int8.float_layers) < set(mixed.float_layers)
    assert (fp16.failure, fp16.divergence, fp16.float_layers) == ("", None, ())


def test_where_nothing_is_close_enough_every_precision_is_named(exported, expected):
    impossible = target(1e-9, "mixed")
    ladder = up(exported, expected, impossible)
    assert ladder.result is None
    with pytest.raises(
        GateError, match=r"target 'cpu': no precision is close enough .*: mixed: parity All .*; fp16: parity All"
    ):
        ladder.require(impossible)


def test_an_engine_that_is_off_on_the_device_leads_to_the_next_precision(exported, expected):
    asked = []

    def measure(prepared):
        asked.append(prepared.precision)
        if prepared.precision == "int8":
            raise GateError("on t4-1: parity Eyes mean 3 px (at most 1 px)")
        moved = expected._replace(
            keypoints_BN2=expected.keypoints_BN2 + np.float32(prepared.precision == "mixed") * 99
        )
        return compare(expected, moved)

    ladder = up(exported, expected, target(50), measure=measure)
    assert asked == ["int8", "mixed", "fp16"]
    int8, mixed, fp16 = ladder.rungs
    assert int8.failure == "on t4-1: parity Eyes mean 3 px (at most 1 px)"
    assert mixed.failure.startswith("the engine, not its graph: parity All mean 140 px")
    assert fp16.engine.worst_px == 0
    assert ladder.result.precision == "fp16"


def test_a_precision_that_can_not_hold_the_weights_is_left(exported, expected, tmp_path):
    model = load_onnx(exported)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "conv_3/1")
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[0] = 1e5
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    write_bytes(tmp_path / "model.onnx", model.SerializeToString())
    ladder = up(tmp_path / "model.onnx", expected, target(1000, "fp16"))
    (rung,) = ladder.rungs
    assert "initializer conv_3/1: 100000 does not fit FP16" in str(rung)
    assert (rung.graph, ladder.result) == (None, None)


def test_a_target_in_fp32_has_no_ladder(exported, expected):
    assert precisions(find_target("cpu")) == ("fp32",)
    assert precisions(find_target("l4")) == ("int8", "mixed", "fp16")
    assert [rung.precision for rung in up(exported, expected, target(1, "fp32")).rungs] == ["fp32"]


def test_int8_without_faces_is_no_reason_to_take_fp16(exported, expected):
    with pytest.raises(CalibrationError, match="needs faces to calibrate on"):
        climb(exported, target(50), expected=expected, images_BSSC=IMAGES)
