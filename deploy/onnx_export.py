"""From a Keras model to an ONNX file that every target reads, the same bytes each time."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.onnx_graph import (
    CONFIDENCE_NAME,
    INPUT_NAME,
    KEYPOINTS_NAME,
    OPSET_CEILING,
    TFONNX_NAMES,
    canonical,
    check_readable,
    heatmap_name,
    opset_of,
)
from schemas.errors import ModelFileError
from schemas.sealed import Key, Kind, read_content, sealed_path, write_sealed
from schemas.storage import write_bytes

if TYPE_CHECKING:
    import keras
    import onnx

DEFAULT_OPSET = 13
OPSET_FLOOR = 10
BATCH = "batch"
_ZIP = b"PK\x03\x04"
"""How a `.keras` file begins."""


@dataclass(frozen=True)
class OnnxSummary:
    """An ONNX file and what is in it.

    Attributes:
        path, sha256, size: the file, the hash of the ONNX in it, its bytes; of a sealed file as it is decrypted.
        opset: of the default operator domain.
        num_keypoints: N.
        input_shape: (C, H, W) of one crop.
        batch: None where any number of crops may go in at once.
        outputs: names, in order.
        nodes: operator -> count.
    """

    path: Path
    sha256: str
    size: int
    opset: int
    num_keypoints: int
    input_shape: tuple[int, int, int]
    batch: int | None
    outputs: tuple[str, ...]
    nodes: dict[str, int]


def export_onnx(model: keras.Model, path: Path, *, opset: int = DEFAULT_OPSET, heatmap: bool = False) -> OnnxSummary:
    """Write `model` as ONNX: input (B, C, H, W), outputs keypoints (B, N, 2) in input pixels, confidence (B, N).

    Args:
        model: (B, H, W, C) in; keypoints (B, N, 2), confidence (B, N), heatmap logits (B, Hm, Wm, N) out.
        path: replaced atomically; the same model gives the same bytes.
        opset: of the ONNX default domain.
        heatmap: also put out the logits, as `conv_keypoints_mN` (B, N, Hm, Wm).

    Raises:
        ModelFileError: see `onnx_model`.
    """
    return write_onnx(onnx_model(model, opset=opset, heatmap=heatmap), path)


def onnx_model(model: keras.Model, *, opset: int = DEFAULT_OPSET, heatmap: bool = False) -> onnx.ModelProto:
    """What `export_onnx` writes.

    Raises:
        ModelFileError: the model has another shape, or its graph holds what a target can't read.
    """
    if not OPSET_FLOOR <= opset <= OPSET_CEILING:
        raise ModelFileError(
            f"opset {opset}: {OPSET_FLOOR} to {OPSET_CEILING} can be written; TAO's default was {OPSET_FLOOR}, "
            f"TensorRT 8.2 reads none above {OPSET_CEILING}"
        )
    num_keypoints = _num_keypoints(model)
    converted = _convert(_with_resizing(model), opset)
    _name_interface(converted.graph, num_keypoints, heatmap=heatmap)
    _skip_input_reshape(converted.graph)
    result = canonical(converted, keep=[heatmap_name(num_keypoints)])
    check_readable(result, f"model '{model.name}'")
    return result


def write_onnx(model: onnx.ModelProto, path: Path, *, key: Key | None = None) -> OnnxSummary:
    """Replace `path` atomically, or with a key the encrypted file under its sealed name."""
    content = model.SerializeToString(deterministic=True)
    if not key:
        write_bytes(path, content)
        return summarise(path)
    write_sealed(sealed_path(path, key), content, Kind.DEPLOYABLE, key)
    return summarise(sealed_path(path, key), key=key)


def summarise(path: Path, *, key: Key | None = None) -> OnnxSummary:
    """What is in an ONNX file of this project, sealed or not.

    Raises:
        ModelFileError: not ONNX, or without this project's input and outputs.
        SealedFileError: see `read_onnx`.
    """
    content = read_onnx(path, key=key)
    model = _parsed(content, path)
    names = tuple(value.name for value in model.graph.output)
    inputs = {value.name: _shape(value) for value in model.graph.input}
    interface = (INPUT_NAME, KEYPOINTS_NAME, CONFIDENCE_NAME)
    if (*inputs, *names[:2]) not in (interface, tuple(TFONNX_NAMES[name] for name in interface)):
        raise ModelFileError(
            f"{path}: inputs {', '.join(inputs)} and outputs {', '.join(names)}; "
            f"needed are {INPUT_NAME}, and {KEYPOINTS_NAME} and {CONFIDENCE_NAME}"
        )
    nodes = [node.op_type for node in model.graph.node]
    batch, *image = next(iter(inputs.values()))
    return OnnxSummary(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        opset=opset_of(model),
        num_keypoints=_shape(model.graph.output[0])[1],
        input_shape=tuple(image),
        batch=batch or None,
        outputs=names,
        nodes={kind: nodes.count(kind) for kind in sorted(set(nodes))},
    )


def load_onnx(path: Path, *, key: Key | None = None) -> onnx.ModelProto:
    """Read an ONNX file, sealed or not.

    Raises:
        ModelFileError, SealedFileError: see `read_onnx`; or it is not ONNX.
    """
    return _parsed(read_onnx(path, key=key), path)


def read_onnx(path: Path, *, key: Key | None = None) -> bytes:
    """The bytes of an ONNX file; a sealed one's are decrypted in memory.

    Raises:
        ModelFileError: it is missing, or is a trainable model.
        SealedFileError: it is sealed and can't be opened with this key, or holds a trainable model.
    """
    try:
        content = read_content(path, Kind.DEPLOYABLE, key)
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: there is no such ONNX file") from error
    if content.startswith(_ZIP):
        raise ModelFileError(f"{path}: a trainable model; needed is a deployable one: export it to ONNX first")
    return content


def _parsed(content: bytes, path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelFileError(f"{path}: not an ONNX file; export the model again") from error


def _num_keypoints(model: keras.Model) -> int:
    shapes = [tuple(output.shape) for output in model.outputs]
    ranks = [len(shape) for shape in shapes]
    if ranks != [3, 2, 4] or len({shapes[0][1], shapes[1][1], shapes[2][3]}) != 1:
        raise ModelFileError(
            f"model '{model.name}' puts out {shapes}; needed are keypoints (B, N, 2), confidence (B, N) and "
            "heatmap logits (B, H, W, N)"
        )
    return shapes[0][1]


def _with_resizing(model: keras.Model) -> keras.Model:
    """The same model with nearest upsampling as one resize; Keras's own becomes 18 nodes of tile and reshape."""
    import keras

    def replacement(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _resizing(layer) if _doubles(layer) else type(layer).from_config(layer.get_config())

    if not any(_doubles(layer) for layer in model.layers):
        return model
    copy = keras.models.clone_model(model, clone_function=replacement)
    copy.set_weights(model.get_weights())
    return copy


def _resizing(layer: keras.layers.UpSampling2D) -> keras.layers.Lambda:
    """source = floor(target / factor), the one nearest resize that every opset and parser knows."""
    import keras
    import tensorflow as tf

    size, shape = layer.output.shape[1:3], layer.output.shape[1:]
    return keras.layers.Lambda(
        lambda image_BHWC: tf.raw_ops.ResizeNearestNeighbor(images=image_BHWC, size=size),
        output_shape=shape,
        name=layer.name,
    )


def _doubles(layer: keras.layers.Layer) -> bool:
    import keras

    return isinstance(layer, keras.layers.UpSampling2D) and layer.interpolation == "nearest"


def _convert(model: keras.Model, opset: int) -> onnx.ModelProto:
    """tf2onnx's graph, its outputs called keypoints, confidence and logits; images and logits channels-first."""
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32, name=INPUT_NAME)]

    @tf.function(input_signature=signature)
    def forward(images_BHWC: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(("keypoints", "confidence", "logits"), model(images_BHWC, training=False), strict=True))

    converted, _ = tf2onnx.convert.from_function(
        forward, input_signature=signature, opset=opset, inputs_as_nchw=[INPUT_NAME], outputs_as_nchw=["logits"]
    )
    return converted


def _name_interface(graph: onnx.GraphProto, num_keypoints: int, *, heatmap: bool) -> None:
    """TAO's names for the outputs in TAO's order, and one name for the batch dimension."""
    names = {
        "keypoints": KEYPOINTS_NAME,
        "confidence": CONFIDENCE_NAME,
        "logits": heatmap_name(num_keypoints),
    }
    for node in graph.node:
        for slots in (node.input, node.output):
            slots[:] = [names.get(name, name) for name in slots]
    outputs = {names[value.name]: value for value in graph.output}
    for name, value in outputs.items():
        value.name = name
    kept = [outputs[name] for name in names.values() if heatmap or name != names["logits"]]
    del graph.output[:]
    graph.output.extend(kept)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH


def _skip_input_reshape(graph: onnx.GraphProto) -> None:
    """Take out tf2onnx's step from channels-first to channels-last and back, a no-op for one channel."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    wanted = list(_shape(graph.input[0])[1:])
    for node in list(graph.node):
        if node.op_type == "Reshape" and node.input[0] == INPUT_NAME and node.input[1] in constants:
            if onnx.numpy_helper.to_array(constants[node.input[1]])[1:].tolist() != wanted:
                continue
            for reader in graph.node:
                reader.input[:] = [INPUT_NAME if name == node.output[0] else name for name in reader.input]
            graph.node.remove(node)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
