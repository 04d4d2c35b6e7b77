import numpy as np
import onnx
import pytest

from deploy.onnx_export import onnx_model
from deploy.onnx_graph import INPUT_NAME
from deploy.qdq import LEVELS, ONE_SIDED_LEVELS, SMALLEST_SCALE, convolutions, outermost
from deploy.quantise import Calibrated, best_scale, calibrate, first_faces, quantise, with_scales
from tests.layered_graphs import layered_graph
from tests.networks import crops, sharp_network
from tests.small_graphs import pictures


@pytest.fixture(scope="module")
def model():
    return onnx_model(sharp_network("FpeNet_release"))


def test_even_magnitudes_keep_their_range():
    assert best_scale(np.full(4096, 10), 254.0) == pytest.approx(2.0, rel=0.02)


def test_a_lone_outlier_is_clipped():
    counts = np.zeros(4096, np.int64)
    counts[:1024] = 10_000
    counts[-1] = 1
    assert best_scale(counts, 254.0) == pytest.approx(0.5, rel=0.1)


def test_the_steps_are_those_of_the_8_bits():
    assert np.iinfo(np.int8).max == LEVELS
    assert np.iinfo(np.uint8).max == ONE_SIDED_LEVELS


def test_magnitudes_lie_in_the_middle_of_their_bin():
    assert best_scale(np.array([0, 1]), 1.0, levels=1) == pytest.approx(0.75)


def test_a_tensor_of_zeros_has_a_scale():
    assert best_scale(np.zeros(4096, np.int64), 0.0) == 1 / 127


def test_calibration_sees_every_batch_and_takes_the_largest_of_a_group(model):
    dark = np.zeros((2, 80, 80, 1), np.float32)
    groups = {"relu_1": "g", "relu_2": "g"}
    apart = calibrate(model, {"relu_1": "a", "relu_2": "b"}, [dark, crops(2)])
    together = calibrate(model, groups, [dark, crops(2)])
    assert list(together) == ["g"]
    assert 0 < min(apart.values()) <= together["g"]
    brighter = calibrate(model, groups, [crops(2), 2 * crops(2)])
    assert brighter["g"] > together["g"]


@pytest.mark.parametrize("side", [5, 7, 77])
def test_calibration_sees_every_column_whatever_the_side(side):
    """Also of maps whose side is a multiple of the stride in which values are counted."""
    images_BSSC = np.random.default_rng(0).uniform(0, 254, (200, side, side, 1)).astype(np.float32)
    images_BSSC[:, :, 0] = 0
    assert calibrate(_operator("Relu", side), {"y": "y"}, [images_BSSC])["y"] == pytest.approx(2.0, rel=0.1)


def test_calibration_sees_the_last_face_of_a_batch():
    images_BSSC = np.random.default_rng(0).uniform(0, 254, (8, 64, 64, 1)).astype(np.float32)
    images_BSSC[:7] = 0
    assert calibrate(_operator("Relu", 64), {"y": "y"}, [images_BSSC])["y"] == pytest.approx(2.0, rel=0.1)


def test_calibration_sees_negative_values():
    images_BSSC = np.random.default_rng(0).uniform(0, 254, (8, 64, 64, 1)).astype(np.float32)
    assert calibrate(_operator("Neg", 64), {"y": "y"}, [images_BSSC])["y"] == pytest.approx(2.0, rel=0.1)


def _operator(kind, side):
    shape = ["B", 1, side, side]
    ends = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)] for name in (INPUT_NAME, "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node(kind, [INPUT_NAME], ["y"])], "g", *ends)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)


def test_a_scale_is_none_that_fp16_has_not():
    assert best_scale(np.ones(4096, np.int64), 1e-9) == SMALLEST_SCALE


def test_faces_are_taken_from_the_front_of_as_many_batches_as_needed():
    batches = [crops(3), crops(3, seed=1)]
    np.testing.assert_array_equal(first_faces(batches, 4), np.concatenate(batches)[:4])
    assert len(first_faces(batches, 9)) == 6


def test_layers_that_move_keypoints_too_far_stay_in_float(model):
    loose = quantise(model, [crops(4)], max_shift_px=50.0)
    assert loose.float_layers == outermost(model)
    bound = 0.95 * loose.shift.worst_px
    tighter = quantise(model, [crops(4)], max_shift_px=bound)
    assert set(loose.float_layers) < set(tighter.float_layers)
    assert tighter.shift.worst_px <= bound
    assert tighter.float_layers == tuple(name for name in convolutions(model) if name in tighter.float_layers)
    assert set(tighter.scales) <= set(loose.scales)
    again = with_scales(model, tighter.scales, tighter.float_layers, [crops(4)])
    assert again.model.SerializeToString(deterministic=True) == tighter.model.SerializeToString(deterministic=True)
    assert again.shift == tighter.shift


def test_layers_stay_in_float_in_the_order_in_which_they_move_keypoints():
    model = layered_graph(3)
    calibrated = Calibrated(model, [pictures(8)])
    fixed, ranking = outermost(model), calibrated.ranking
    assert {*fixed, *ranking} == {*calibrated.layers}

    def moved_by(name):
        others = [other for other in calibrated.layers if other != name]
        return calibrated.with_float(others).shift.worst_px

    assert sorted(ranking, key=moved_by, reverse=True) == list(ranking)
    for count in range(3):
        made = calibrated.within(lambda shift: False, share=(len(fixed) + count + 0.5) / len(calibrated.layers))
        assert set(made.float_layers) == {*fixed, *ranking[:count]}


def test_where_the_bound_is_out_of_reach_half_of_the_layers_stay_int8(model):
    made = quantise(model, [crops(4)], max_shift_px=1e-6)
    assert made.shift.worst_px > 1e-6
    assert len(made.float_layers) == max(len(outermost(model)), len(convolutions(model)) // 2)


def test_without_faces_nothing_is_measured(model):
    loose = quantise(model, [crops(2)], max_shift_px=50.0)
    assert with_scales(model, loose.scales, loose.float_layers).shift is None
