"""An exported graph in the precision of a target.

    fp32    as it was exported
    fp16    everything up to the heatmap in FP16
    int8    Q/DQ, with those layers in float that move keypoints most, until the shift is 0.7 of the target's gate
    mixed   the same with more layers in float: at least one more, until the shift is half of the gate

What INT8 leaves in float is FP16 where the target's parser reads FP16 scales (opset 19: TensorRT 10 and later,
TensorRT-RTX): a strongly typed builder takes types as they stand and would compute it in FP32. TensorRT 8.x chooses
FP16 by itself (`--fp16`); a CPU is faster in FP32.

The shift is measured on the calibration faces, the gate on others; hence the room between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.calibration import Crops, require_usable
from deploy.float16_graph import HALF_SCALES_OPSET, to_float16, with_half_scales
from deploy.onnx_export import OnnxSummary, load_onnx, summarise
from deploy.qdq import Placement
from deploy.quantise import INT8_FLOAT_SHARE, Calibrated, Quantised
from deploy.targets import Precision, Target, TargetGates
from schemas.errors import CalibrationError
from schemas.storage import sha256_of

if TYPE_CHECKING:
    import onnx

    from deploy.parity import Parity

CALIBRATED = frozenset[Precision](("int8", "mixed"))
"""Precisions that need faces to calibrate on."""

INT8_AIM, MIXED_AIM = 0.7, 0.5
"""Of the gate's mean: how far INT8 may move keypoints on the faces it was calibrated on."""

MIXED_FLOAT_SHARE = 0.8
"""Of the layers that may stay in float."""


@dataclass(frozen=True)
class PreparedGraph:
    """A graph for a builder.

    Attributes:
        model: ONNX, serialised; the same inputs give the same bytes.
        float_layers: convolutions that were left in float on purpose; none for fp32 and fp16.
        shift: from the float graph, on calibration faces, before what INT8 leaves in float became FP16.
    """

    model: bytes
    precision: Precision
    float_layers: tuple[str, ...]
    shift: Parity | None


def graph_in(onnx: Path, target: Target, *, calibration: Crops | None = None) -> PreparedGraph:
    """An exported FP32 graph in the target's precision. Another rung: `target.model_copy(update={"precision": ...})`.

    Args:
        calibration: training faces, for int8 and mixed.

    Raises:
        ModelFileError: not ONNX of this project, or not to be had in this precision.
        CalibrationError: int8 or mixed without faces, with too few, or with such that calibrate nothing.
    """
    precision = target.precision
    if precision == "fp32":
        return PreparedGraph(onnx.read_bytes(), precision, (), None)
    summary = summarise(onnx)
    if precision == "fp16":
        half = to_float16(load_onnx(onnx), summary.num_keypoints)
        return PreparedGraph(_bytes(half), precision, (), None)
    made = _quantised(onnx, summary, target, calibration)
    quantised = with_half_scales(made.model, summary.num_keypoints) if reads_half_scales(target) else made.model
    return PreparedGraph(_bytes(quantised), precision, made.float_layers, made.shift)


def placement_of(target: Target) -> Placement:
    """Where the target's runtime wants Q/DQ."""
    return "around" if target.builder == "onnxruntime" else "inputs"


def reads_half_scales(target: Target) -> bool:
    return target.builder != "onnxruntime" and target.opset_ceiling >= HALF_SCALES_OPSET


def calibration_sha256(target: Target, calibration: Crops | None) -> str | None:
    """Names what INT8 depends on beside the float graph: faces and bounds. None where nothing is calibrated."""
    if target.precision not in CALIBRATED or calibration is None:
        return None
    gates = target.gates
    return sha256_of(
        {
            "crops": calibration.id,
            "half": reads_half_scales(target),
            "placement": placement_of(target),
            "parity": gates.parity.mean_px,
            "regions": {name: bound.mean_px for name, bound in gates.regions.items()},
        }
    )


def _quantised(onnx: Path, summary: OnnxSummary, target: Target, calibration: Crops | None) -> Quantised:
    if calibration is None:
        raise CalibrationError(
            f"target '{target.name}' in {target.precision} needs faces to calibrate on: build it from a run, which "
            "takes training faces, or set its precision to fp16"
        )
    require_usable(calibration(), summary.input_shape, f"calibration of target '{target.name}'")
    calibrated = _calibrated(onnx, summary.sha256, calibration, placement_of(target))
    int8 = calibrated.within(lambda shift: _fits(shift, target.gates, INT8_AIM), share=INT8_FLOAT_SHARE)
    if target.precision == "int8":
        return int8
    return calibrated.within(
        lambda shift: _fits(shift, target.gates, MIXED_AIM),
        share=MIXED_FLOAT_SHARE,
        at_least=len(int8.float_layers) + 1,
    )


@lru_cache(maxsize=2)
def _calibrated(onnx: Path, _sha256: str, calibration: Crops, placement: Placement) -> Calibrated:
    """Kept, as one ladder asks for it several times, and so do the targets of one rollout."""
    return Calibrated(load_onnx(onnx), [calibration()], placement)


def _fits(shift: Parity, gates: TargetGates, aim: float) -> bool:
    return all(px <= aim * gates.parity_of(region).mean_px for region, px in shift.mean_px.items())


def _bytes(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)
