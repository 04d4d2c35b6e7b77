from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.export import OnnxForm, export_model
from deploy.onnx_export import export_onnx, load_onnx, summarise
from deploy.parity import compare, keras_predictions
from schemas.errors import ModelFileError
from tests.killed import killed_at_fsync
from tests.networks import KINDS, WITH_VISIBILITY, crops, sharp_network


@pytest.mark.parametrize("kind", [*KINDS, WITH_VISIBILITY])
def test_every_type_says_in_onnx_what_it_says_in_keras(kind, tmp_path):
    network, images = sharp_network(kind), crops(8)
    summary = export_onnx(network, tmp_path / "model.onnx")
    assert summary.outputs == ("softargmax", "softargmax:1")
    onnx.checker.check_model(str(summary.path), full_check=True)
    _check_names(load_onnx(summary.path))
    expected = keras_predictions(network, images)
    parity = compare(expected, OnnxRuntimeEngine(summary.path).predict(images))
    assert np.std(expected.keypoints_BN2, axis=(0, 1)).min() > 1  # else agreement would be no news
    assert parity.max_px["All"] < 1e-3
    assert parity.max_confidence < 1e-4
    assert not {"Transpose", "MatMul", "Tile", "Shape"} & set(summary.nodes)


@pytest.mark.parametrize(("channels", "num_keypoints"), [(1, 68), (3, 104)])
def test_names_shapes_and_any_batch(channels, num_keypoints, tmp_path):
    network = sharp_network(channels=channels, num_keypoints=num_keypoints)
    summary = export_onnx(network, tmp_path / "model.onnx", heatmap=True)
    assert summary.opset == 13
    assert summary.num_keypoints == num_keypoints
    assert summary.input_shape == (channels, 80, 80)
    assert summary.outputs == ("softargmax", "softargmax:1", f"conv_keypoints_m{num_keypoints}")
    model = load_onnx(summary.path)
    assert [value.name for value in model.graph.input] == ["input_face_images"]
    shapes = {value.name: _dims(value) for value in (*model.graph.input, *model.graph.output)}
    assert shapes == {
        "input_face_images": ["batch", channels, 80, 80],
        "softargmax": ["batch", num_keypoints, 2],
        "softargmax:1": ["batch", num_keypoints],
        f"conv_keypoints_m{num_keypoints}": ["batch", num_keypoints, 40, 40],
    }
    images = crops(8, channels=channels)
    together = OnnxRuntimeEngine(summary.path).predict(images)
    for batch in (1, 3, 8):
        parts = OnnxRuntimeEngine(summary.path, max_batch=batch).predict(images)
        np.testing.assert_allclose(parts.keypoints_BN2, together.keypoints_BN2, atol=1e-3)


def test_the_heatmap_is_what_keras_computes(tmp_path):
    import onnxruntime

    network, images = sharp_network(), crops(3)
    summary = export_onnx(network, tmp_path / "model.onnx", heatmap=True)
    session = onnxruntime.InferenceSession(str(summary.path), providers=["CPUExecutionProvider"])
    (heatmap,) = session.run(["conv_keypoints_m80"], {"input_face_images": np.moveaxis(images, -1, 1)})
    expected = np.asarray(network(images, training=False)[2])
    np.testing.assert_allclose(np.moveaxis(heatmap, 1, -1), expected, atol=0.01)


_EXPORT = """
import sys
from pathlib import Path
from deploy.export import export_model
export_model(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes_here_and_in_another_process_after_a_killed_one(tmp_path):
    network = sharp_network("FpeNet_release")
    first = export_onnx(network, tmp_path / "first.onnx")
    again = export_onnx(network, tmp_path / "again.onnx")
    network.save(tmp_path / "model.keras")
    other = tmp_path / "other.onnx"
    assert killed_at_fsync(1, _EXPORT, tmp_path / "model.keras", other)
    assert not other.exists()
    assert not killed_at_fsync(99, _EXPORT, tmp_path / "model.keras", other)
    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.path.read_bytes() == other.read_bytes()
    changed = export_onnx(sharp_network("FpeNet_release", seed=1), tmp_path / "changed.onnx")
    assert changed.sha256 != first.sha256


@pytest.mark.parametrize("opset", [10, 13])
def test_taos_opset_too(opset, tmp_path):
    network, images = sharp_network("FpeNet_release"), crops(2)
    summary = export_onnx(network, tmp_path / "model.onnx", opset=opset)
    assert summary.opset == opset
    found = OnnxRuntimeEngine(summary.path).predict(images)
    assert compare(keras_predictions(network, images), found).max_px["All"] < 1e-3


@pytest.mark.parametrize("opset", [9, 14])
def test_an_opset_that_not_every_target_reads_is_refused(opset, tmp_path):
    with pytest.raises(ModelFileError, match=f"opset {opset}: 10 to 13"):
        export_onnx(sharp_network(), tmp_path / "model.onnx", opset=opset)
    assert not (tmp_path / "model.onnx").exists()


def test_another_kind_of_model_is_refused(tmp_path):
    import keras

    image = keras.Input((80, 80, 1))
    other = keras.Model(image, keras.layers.Conv2D(3, 1)(image), name="other")
    with pytest.raises(ModelFileError, match=r"model 'other' puts out .* needed are keypoints"):
        export_onnx(other, tmp_path / "model.onnx")


def test_an_operator_that_a_target_lacks_is_refused(tmp_path):
    import keras

    network = sharp_network()
    softened = keras.layers.Activation("gelu")(network.outputs[2])
    other = keras.Model(network.inputs, [*network.get_layer("softargmax")(softened), softened])
    with pytest.raises(ModelFileError, match=r"Erf.* can't be read by every target"):
        export_onnx(other, tmp_path / "model.onnx")


def test_export_model_names_the_file_as_tao_does(tmp_path):
    network = sharp_network()
    network.save(tmp_path / "model.keras")
    assert export_model(tmp_path / "model.keras").path == tmp_path / "model.onnx"
    form = OnnxForm(opset=11)
    named = export_model(tmp_path / "model.keras", tmp_path / "out" / "model.etlt", form=form)
    assert named.path == tmp_path / "out" / "model.etlt.onnx"
    assert named.opset == 11


def test_files_that_are_no_models(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a protobuf \xff\xff")
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        summarise(tmp_path / "broken.onnx")
    with pytest.raises(ModelFileError, match="no such ONNX file"):
        summarise(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError):
        export_model(tmp_path / "missing.keras")


def test_a_foreign_onnx_file_is_named_for_its_outputs(tmp_path):
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", onnx.TensorProto.FLOAT, [1])], [value("y", onnx.TensorProto.FLOAT, [1])]
    )
    path: Path = tmp_path / "foreign.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(ModelFileError, match="inputs x and outputs y; needed are input_face_images"):
        summarise(path)


def _check_names(model: onnx.ModelProto) -> None:
    """Nothing in the file tells which process, or which converter, wrote it."""
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        counts[node.op_type] += 1
        assert node.name == f"{node.op_type.lower()}_{counts[node.op_type]}"
        assert not node.doc_string
    assert (model.producer_name, model.producer_version, model.ir_version) == ("fpenet-workflow", "", 7)


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
