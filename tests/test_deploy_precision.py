import numpy as np
import onnx
import pytest

from deploy.builders.registry import BUILDERS
from deploy.onnx_export import export_onnx, load_onnx
from deploy.onnx_graph import check_readable
from deploy.parity import compare, graph_predictions
from deploy.precision import calibration_sha256, graph_in, reads_half_scales
from deploy.qdq import always_float
from deploy.targets import ParityBound, TargetGates, find_target
from schemas.errors import CalibrationError
from schemas.storage import write_bytes
from tests.calibration_crops import FixedCrops
from tests.layered_graphs import layered_graph
from tests.networks import crops, sharp_network
from tests.small_graphs import pictures

CROPS = FixedCrops(pictures(32))
LOOSE = TargetGates(parity=ParityBound(mean_px=50, max_px=100))


def target_in(precision, gates=LOOSE):
    return find_target("cpu").model_copy(update={"precision": precision, "gates": gates})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_bytes(path, layered_graph(3).SerializeToString())
    return path


@pytest.fixture(scope="module")
def int8(exported):
    return graph_in(exported, target_in("int8"), calibration=CROPS)


def test_fp32_is_the_file_itself(exported):
    prepared = graph_in(exported, target_in("fp32"), calibration=CROPS)
    assert prepared.model == exported.read_bytes()
    assert (prepared.precision, prepared.float_layers) == ("fp32", ())
    assert calibration_sha256(target_in("fp32"), CROPS) is None


def test_fp16_needs_no_faces(exported):
    prepared = graph_in(exported, target_in("fp16"))
    kinds = {tensor.data_type for tensor in onnx.load_from_string(prepared.model).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


def test_int8_leaves_the_outermost_layers_in_float(exported, int8):
    assert int8.float_layers == always_float(load_onnx(exported), "around")
    check_readable(onnx.load_from_string(int8.model), "int8")
    again = graph_in(exported, target_in("int8"), calibration=CROPS)
    assert again.model == int8.model


def test_mixed_has_more_layers_in_float_and_moves_keypoints_less(exported, int8):
    gates = TargetGates(parity=ParityBound(mean_px=int8.shift.worst_px, max_px=100))
    mixed = graph_in(exported, target_in("mixed", gates), calibration=CROPS)
    assert set(mixed.float_layers) > set(int8.float_layers)
    assert mixed.shift.worst_px < 0.8 * int8.shift.worst_px
    loose = graph_in(exported, target_in("mixed"), calibration=CROPS)
    assert len(loose.float_layers) == len(int8.float_layers) + 1


def test_what_int8_leaves_in_float_is_half_for_a_parser_that_reads_it(tmp_path):
    target = find_target("rtx").model_copy(update={"precision": "int8", "gates": LOOSE, "compute_capabilities": [86]})
    exported = export_onnx(sharp_network(width=4), tmp_path / "model.onnx").path
    prepared = graph_in(exported, target, calibration=FixedCrops(crops(32)))
    model = onnx.load_from_string(prepared.model)
    scales = {name for node in model.graph.node if node.op_type.endswith("Linear") for name in node.input[1:2]}
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.name in scales}
    assert (model.opset_import[0].version, kinds) == (19, {onnx.TensorProto.FLOAT16})
    assert model.ir_version >= onnx.helper.find_min_ir_version_for(list(model.opset_import))
    images = crops(8, seed=5)
    expected = graph_predictions(load_onnx(exported), images)
    assert compare(expected, graph_predictions(model, images)).mean_px["All"] < 2
    (tmp_path / "int8.onnx").write_bytes(prepared.model)
    assert BUILDERS["tensorrt-rtx"].build(tmp_path / "int8.onnx", target, tmp_path).engine.stat().st_size > 50_000
    old = find_target("xavier-nx").model_copy(update={"precision": "int8", "gates": LOOSE})
    plain = onnx.load_from_string(graph_in(exported, old, calibration=FixedCrops(crops(32))).model)
    assert plain.opset_import[0].version == 13


def test_a_bound_of_one_region_counts(exported, int8):
    tight = ParityBound(mean_px=int8.shift.mean_px["Mouth"], max_px=100)
    gates = TargetGates(parity=LOOSE.parity, regions={"Mouth": tight})
    bounded = target_in("int8", gates)
    prepared = graph_in(exported, bounded, calibration=CROPS)
    assert len(prepared.float_layers) > len(int8.float_layers)
    assert calibration_sha256(bounded, CROPS) != calibration_sha256(target_in("int8"), CROPS)


def test_a_calibration_is_of_its_faces_and_of_the_type_of_its_scales():
    assert calibration_sha256(target_in("int8"), CROPS) != calibration_sha256(
        target_in("int8"), FixedCrops(pictures(33))
    )
    old, new = (
        find_target("rtx").model_copy(update={"precision": "int8", "opset_ceiling": opset}) for opset in (18, 19)
    )
    assert (reads_half_scales(old), reads_half_scales(new)) == (False, True)
    assert calibration_sha256(old, CROPS) != calibration_sha256(new, CROPS)


@pytest.mark.parametrize("precision", ["int8", "mixed"])
def test_without_faces_the_error_says_what_to_do(exported, precision):
    with pytest.raises(CalibrationError, match=f"'cpu' in {precision} needs faces to calibrate on: .* fp16"):
        graph_in(exported, target_in(precision))


def _with_flat(images):
    images = images.copy()
    images[[3, 7]] = 128
    return images


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (crops(31), "31 faces; INT8 is calibrated on 32 at least"),
        (crops(32)[:, :60, :60], r"crops of the shape \(60, 60, 1\), the model takes \(80, 80, 1\)"),
        (crops(32, channels=3), r"crops of the shape \(80, 80, 3\), the model takes \(80, 80, 1\)"),
        (crops(32) / 255, "gray values from .* to .*; the network takes 0 to 255"),
        (crops(32) - 127, "gray values from -126"),
        (np.where(crops(32) > 250, np.nan, crops(32)), "gray values from nan to nan"),
        (_with_flat(crops(40)), r"2 of 40 images show nothing, .* \(numbers 3, 7, from 0\); take them out"),
    ],
)
def test_faces_that_calibrate_nothing_are_refused(exported, images, problem):
    with pytest.raises(CalibrationError, match=f"calibration of target 'cpu': {problem}"):
        graph_in(exported, target_in("int8"), calibration=FixedCrops(images))
