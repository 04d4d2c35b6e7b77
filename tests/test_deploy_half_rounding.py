"""What FP16 costs, seen on a CPU: rounded behind every operator, infinite where it is too large."""

import numpy as np
import onnx

from deploy.onnx_graph import INPUT_NAME, to_float16, with_half_rounding, with_outputs
from deploy.parity import compare
from deploy.quantise import predictions
from tests.layered_graphs import layered_graph
from tests.small_graphs import POINTS, pictures, small_graph


def values(model, name, images_BSSC):
    import onnxruntime

    session = onnxruntime.InferenceSession(with_outputs(model, [name]).SerializeToString())
    return session.run([name], {INPUT_NAME: np.moveaxis(images_BSSC, -1, 1)})[0]


def test_what_operators_put_out_is_rounded():
    images_BSSC, exact = pictures(4), layered_graph(3)
    convolutions = [node.output[0] for node in exact.graph.node if node.op_type == "Conv"]
    rounded = with_half_rounding(to_float16(exact, POINTS))
    assert len(convolutions) == 8
    for name in convolutions:
        found = values(rounded, name, images_BSSC)
        np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))
        assert (values(exact, name, images_BSSC) != found).any()


def test_what_is_too_large_for_fp16_is_seen():
    """Weights fit, what they make of a bright picture does not: 300 times 255 is above 65,504."""
    model = small_graph()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full((POINTS, 1, 8, 8), 300.0, np.float32), "weight"))
    images_BSSC = pictures(2)
    parity = compare(predictions(model, images_BSSC), predictions(to_float16(model, POINTS), images_BSSC))
    assert parity.max_px["All"] == np.inf
