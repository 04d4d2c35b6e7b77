"""`fpenet export`: a trained model file to ONNX, in the precision that it shall run in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deploy.calibration_cache import CacheOrigin, read_cache, read_origin, require_scales, write_cache
from deploy.float16_graph import to_float16
from deploy.onnx_export import DEFAULT_OPSET, OnnxSummary, onnx_model, write_onnx
from deploy.onnx_graph import Naming, check_readable, with_interface
from deploy.qdq import OPSET as INT8_OPSET
from deploy.qdq import outermost, scale_groups
from schemas.errors import CalibrationError, GateError, InputError
from schemas.sealed import SUFFIX as SEALED
from schemas.sealed import Key

if TYPE_CHECKING:
    import keras
    import onnx

    from deploy.calibration import CalibrationFaces
    from deploy.parity import Parity
    from deploy.quantise import Quantised

SUFFIX = ".onnx"
MAX_SHIFT_PX = 0.07
ImageShape = tuple[int, int, int]
PLAIN_SUFFIX, CACHE_SUFFIX = ".fp32.onnx", ".cal.bin"
UNKNOWN = "unknown"
"""Where the faces of a cache were that something else wrote or changed."""


@dataclass(frozen=True, kw_only=True)
class OnnxForm:
    """How the ONNX file shall look.

    Attributes:
        opset: of the ONNX default domain.
        heatmap: also put out the logits.
        naming: of which of TAO's backends the names are.
        batch: faces in one call; None leaves it open.
        input_dims: what the caller takes the input to be, channels first or last; None takes the model's word.
    """

    opset: int = DEFAULT_OPSET
    heatmap: bool = False
    naming: Naming = "onnx"
    batch: int | None = None
    input_dims: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Int8Export:
    """What `export_int8` wrote.

    Attributes:
        onnx: the file with Q/DQ, for every builder that reads them.
        plain: the same network in FP32, for builders that quantise by themselves, together with `cache`.
        cache: the calibration cache; its tensors are those of `plain`.
        faces, origin: how many the scales come from, and where those were.
        float_layers: convolutions left in float.
        shift: from FP32, in ONNX Runtime; None where there were no faces to measure on.
        max_shift_px: how far the keypoints of a region should move at most, on average.
        cache_reused: the scales are an earlier calibration's.
    """

    onnx: OnnxSummary
    plain: OnnxSummary
    cache: Path
    faces: int
    origin: str
    float_layers: tuple[str, ...]
    shift: Parity | None
    max_shift_px: float
    cache_reused: bool

    @property
    def moves_too_far(self) -> bool:
        return self.shift is not None and self.shift.worst_px > self.max_shift_px

    @property
    def cache_unknown(self) -> bool:
        """Nothing says that the scales are this model's, but that keypoints do not move too far."""
        return self.cache_reused and self.origin == UNKNOWN


def export_model(
    model: Path,
    output: Path | None = None,
    *,
    precision: Literal["fp32", "fp16"] = "fp32",
    form: OnnxForm = OnnxForm(),
    key: Key | None = None,
) -> OnnxSummary:
    """Write the model in a `.keras` file as ONNX.

    Args:
        model: sealed or not.
        output: see `output_path`; with a key it is sealed: `model.etlt.onnx.sealed`.
        precision: of everything up to the heatmap; soft-argmax, input and outputs are always FP32.
        key: opens a sealed model, and seals the ONNX file.

    Raises:
        ModelFileError: the file is not a model of this project, or can't be written for every target.
        SealedFileError: it is sealed and can't be opened with this key, or is a deployable one.
    """
    network, output = _network(model, form, key), output_path(model, output)
    graph = onnx_model(network, opset=form.opset, heatmap=form.heatmap)
    if precision == "fp16":
        graph = to_float16(graph, network.outputs[0].shape[1])
    return _write(graph, output, form, key)


def export_int8(
    model: Path,
    output: Path | None = None,
    *,
    choose_faces: Callable[[ImageShape], CalibrationFaces] | None,
    cache: Path | None = None,
    max_shift_px: float | None = None,
    form: OnnxForm = OnnxForm(),
    key: Key | None = None,
) -> Int8Export:
    """Write the model in a `.keras` file as INT8: ONNX with Q/DQ, and plain ONNX with a calibration cache.

    Args:
        model, output, key: as `export_model`. The plain ONNX file goes beside the output, as `.fp32.onnx`.
        choose_faces: takes the model's (C, H, W), returns the faces to calibrate on. May be None where `cache` is
            there.
        cache: reused where it is there, written where it is not; beside the output, as `.cal.bin`, and always
            written, where it is not named.
        max_shift_px: bound on a region's mean shift. By default `MAX_SHIFT_PX` is aimed at, and the best that was
            found is written even if it moves keypoints further: see `moves_too_far`. A cache of which nothing says
            which model it is of is held to either.

    Raises:
        ModelFileError, SealedFileError: as `export_model`; opset below 13.
        CalibrationError: no faces and no cache, or a cache of another model, or no faces and a cache of which
            nothing says which model it is of.
        GateError: INT8 moves keypoints further than the bound; nothing is written.
    """
    if form.opset < INT8_OPSET:
        raise InputError(
            f"opset {form.opset} and int8: one scale per channel needs opset {INT8_OPSET}; leave -t out, or export "
            "fp32 or fp16"
        )
    network, output = _network(model, form, key), output_path(model, output)
    faces = choose_faces and choose_faces(_image_shape(network))
    graph = onnx_model(network, opset=form.opset, heatmap=form.heatmap)
    stem = output.name.removesuffix(SUFFIX)
    reused = cache is not None and cache.is_file()
    cache = cache or output.with_name(stem + CACHE_SUFFIX)
    aim_px = MAX_SHIFT_PX if max_shift_px is None else max_shift_px
    made, origin = _from_cache(graph, cache, faces) if reused else _calibrated(graph, faces, aim_px)
    bounded = max_shift_px is not None or (reused and origin.origin == UNKNOWN)
    if bounded and made.shift is not None and made.shift.worst_px > aim_px:
        remedy = f"delete {cache} to calibrate anew" if reused else "calibrate on more faces"
        raise GateError(_beyond(made.shift, len(made.float_layers), aim_px, remedy))
    if not reused:
        write_cache(cache, made.scales, origin)
    return Int8Export(
        onnx=_write(made.model, output, form, key),
        plain=_write(graph, output.with_name(stem + PLAIN_SUFFIX), form, key),
        cache=cache,
        faces=origin.faces,
        origin=origin.origin,
        float_layers=made.float_layers,
        shift=made.shift,
        max_shift_px=aim_px,
        cache_reused=reused,
    )


def output_path(model: Path, output: Path | None) -> Path:
    """The ONNX file's name, before it is sealed: beside the model by default.

    As in TAO, `.onnx` is appended to a name that ends otherwise, so `model.etlt` gives `model.etlt.onnx`.
    """
    if output is None:
        return model.with_name(model.name.removesuffix(SEALED)).with_suffix(SUFFIX)
    plain = output.with_name(output.name.removesuffix(SEALED))
    return plain if plain.suffix == SUFFIX else plain.with_name(plain.name + SUFFIX)


def _network(model: Path, form: OnnxForm, key: Key | None) -> keras.Model:
    from model.weights import load_network

    network = load_network(model, key=key)
    channels, height, width = _image_shape(network)
    if form.input_dims not in (None, (channels, height, width), (height, width, channels)):
        raise InputError(
            f"{model}: takes {channels},{height},{width} (channels, height, width), not "
            f"{','.join(map(str, form.input_dims))}; leave --input_dims out, or name the model it was meant for"
        )
    return network


def _image_shape(network: keras.Model) -> ImageShape:
    _, height, width, channels = network.inputs[0].shape
    return channels, height, width


def _calibrated(
    graph: onnx.ModelProto, faces: CalibrationFaces | None, max_shift_px: float
) -> tuple[Quantised, CacheOrigin]:
    from deploy.quantise import quantise

    if faces is None:
        raise CalibrationError(
            "int8 needs faces to calibrate on: give a folder of face crops with --cal_image_dir, a tensorfile with "
            "--cal_data_file, or the experiment spec with -e to take them from the training set"
        )
    made = quantise(graph, faces, max_shift_px=max_shift_px)
    return made, CacheOrigin(_identity(graph), faces.count, faces.origin, made.float_layers)


def _from_cache(graph: onnx.ModelProto, cache: Path, faces: CalibrationFaces | None) -> tuple[Quantised, CacheOrigin]:
    from deploy.quantise import with_scales

    origin, network = read_origin(cache), _identity(graph)
    if origin is not None and origin.network_sha256 != network:
        raise CalibrationError(
            f"{cache}: was made for another model ({origin.network_sha256[:12]}, this one is {network[:12]}): delete "
            "it to calibrate anew, or name another file"
        )
    taken = origin or CacheOrigin(network, 0, UNKNOWN, outermost(graph))
    groups = scale_groups(graph, taken.float_layers)
    scales = require_scales(cache, read_cache(cache), list(groups))
    if origin is None and faces is None:
        raise CalibrationError(
            f"{cache}: nothing says which model it is of: {cache.name}.json beside it is missing, or the cache was "
            "changed since. Copy that file too, or give faces (--cal_image_dir, --cal_data_file or -e) so that it is "
            "measured how far keypoints move, or delete the cache to calibrate anew"
        )
    return with_scales(graph, scales, taken.float_layers, faces), taken


def _beyond(shift: Parity, float_layers: int, max_shift_px: float, remedy: str) -> str:
    return (
        f"INT8 moves keypoints by {shift.worst_px:.3g} px on average (region {shift.worst_region}, {shift.faces} "
        f"faces) even with {float_layers} layers in float; at most {max_shift_px:g} px are allowed. Allow more with "
        f"--max_shift_px, {remedy}, or use fp16"
    )


def _identity(graph: onnx.ModelProto) -> str:
    """Hash of the nodes and weights; neither outputs nor names of the interface change what scales mean."""
    import onnx

    inner = onnx.GraphProto(node=graph.graph.node, initializer=graph.graph.initializer)
    return hashlib.sha256(inner.SerializeToString(deterministic=True)).hexdigest()


def _write(graph: onnx.ModelProto, path: Path, form: OnnxForm, key: Key | None) -> OnnxSummary:
    finished = with_interface(graph, naming=form.naming, batch=form.batch)
    check_readable(finished, str(path))
    return write_onnx(finished, path, key=key)
