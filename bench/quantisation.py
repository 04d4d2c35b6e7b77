"""Parity of every precision, beside INT8 the plain way: how far keypoints move, and latency on a CPU.

    python bench/quantisation.py runs/ours/model.keras --spec runs/ours/spec.yaml --data FACES

FP16, INT8 and mixed are what `deploy.precision` makes for the target (l4 by default), INT8 also as a parser without
FP16 scales gets it (TensorRT 8.x), and as ONNX Runtime does (target `cpu-int8`). The plain way is
`onnxruntime.quantization.quantize_static` as its documentation shows it: largest magnitudes, symmetric, a scale per
channel, Q/DQ around every operator; with the last convolution in float and biases left alone, without which
TensorRT-RTX does not read it. Calibrated on training faces of all sets of `bench/model_accuracy.py`, measured on the
held-out ones of `--sets` against FP32, in crop pixels (1/80 of the tight square about the true points, whatever crop
the network takes; gates count in the network's own). What is FP16 is rounded behind every operator, as on a GPU; the
arithmetic is this CPU's. The latency is that of one face on one thread, all graphs in turn. Takes a few
minutes.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from hardware import hardware
from model_accuracy import SETS, bring_in
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.registry import BUILDERS
from deploy.calibration import record_faces
from deploy.divergence import find_divergence
from deploy.onnx_export import export_onnx, load_onnx
from deploy.onnx_graph import INPUT_NAME, OUTPUT_CHANNELS
from deploy.parity import compare, graph_predictions
from deploy.precision import graph_in
from deploy.qdq import MOVES, outermost
from deploy.target_gates import failures, parity_gates
from deploy.targets import Target, find_target
from model.pipeline import EvaluationBatch, evaluation_batches
from model.weights import load_network
from schemas.errors import EngineBuildError
from schemas.experiment import ExperimentSpec
from schemas.geometry import CROP_SIZE, tight_square
from schemas.records import Split
from schemas.yamlspec import load_spec

RUNS, WARM_UP = 100, 10
PLAIN, OF_CPU = "INT8, plain way", "INT8 of a CPU"


@dataclass(frozen=True, eq=False)
class TrainingFaces:
    images_BSSC: np.ndarray
    id: str = "bench"

    def __call__(self) -> np.ndarray:
        return self.images_BSSC


class Reader(CalibrationDataReader):
    def __init__(self, batches) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        images_BSSC = next(self._batches, None)
        return None if images_BSSC is None else {INPUT_NAME: np.moveaxis(images_BSSC, -1, 1).copy()}


def plain_way(model: onnx.ModelProto, faces) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(faces),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*OUTPUT_CHANNELS, *MOVES],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_head(model),
            extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
        )
        return onnx.load(target)


def _head(model: onnx.ModelProto) -> list[str]:
    """The last convolution and the soft-argmax behind it."""
    names = [node.name for node in model.graph.node]
    return names[names.index(outermost(model)[1]) :]


def latencies(models: dict[str, onnx.ModelProto], image_SSC: np.ndarray) -> dict[str, float]:
    """Median ms of one face on one thread, the models in turn."""
    engines = {name: OnnxRuntimeEngine(Path(name), content=m.SerializeToString()) for name, m in models.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(WARM_UP + RUNS):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.predict(image_SSC[None])
            if turn >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def rtx_builds(model: onnx.ModelProto) -> str:
    """Size of what TensorRT-RTX builds of this graph, here and now."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        try:
            result = BUILDERS["tensorrt-rtx"].build(path, find_target("rtx"), Path(folder))
        except EngineBuildError as error:
            return f"refused: {str(error).splitlines()[-1][:60]}"
        return f"{result.engine.stat().st_size / 2**20:.1f} MiB"


def graphs(exported: Path, target: Target, faces: TrainingFaces) -> dict[str, onnx.ModelProto]:
    """Every precision, and what it costs to make it."""

    def made(precision: str, base: Target = target, **changes) -> onnx.ModelProto:
        changed = base.model_copy(update={"precision": precision, **changes})
        started = time.perf_counter()
        prepared = graph_in(exported, changed, calibration=faces)
        seconds = time.perf_counter() - started
        kept = f"; in float: {', '.join(prepared.float_layers)}" if prepared.float_layers else ""
        print(f"{precision} for {base.name} in {seconds:.0f} s{kept}", flush=True)
        return onnx.load_from_string(prepared.model)

    float_graph = load_onnx(exported)
    batches = np.array_split(faces(), max(1, len(faces()) // 8))
    return {
        "FP32": float_graph,
        "FP16": made("fp16"),
        PLAIN: plain_way(float_graph, batches),
        "INT8, rest FP32": made("int8", opset_ceiling=13),
        "INT8": made("int8"),
        OF_CPU: made("int8", find_target("cpu-int8")),
        "mixed": made("mixed"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="trained .keras")
    parser.add_argument("--spec", type=Path, required=True, help="experiment spec that it was trained with")
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of faces")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="measured (default: all)")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/bench"), help="(default: %(default)s)")
    parser.add_argument("--calibration", type=int, default=256, help="training faces (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the graphs, for `model_accuracy.py compare`")
    parser.add_argument("--target", default="l4", help="whose gates count (default: %(default)s)")
    given = parser.parse_args()
    spec, target = load_spec(ExperimentSpec, given.spec), find_target(given.target)
    sets = dict(bring_in(given.data, given.workspace, spec))
    chosen = record_faces(
        [file for found in sets.values() for file in found.files[Split.TRAIN]], spec, batches=given.calibration
    )
    faces = TrainingFaces(np.concatenate(list(chosen)))
    held_out = [file for name in given.sets for file in sets[name].files[Split.KPI]]
    batches = list(evaluation_batches(held_out, spec))
    images_BSSC = np.concatenate([batch.images_BHWC for batch in batches])
    print(f"{hardware()}, {platform.platform()}, one thread")
    print(f"{chosen.origin}, measured on {len(images_BSSC)} held-out faces, gates of {target.name}")
    with tempfile.TemporaryDirectory() as folder:
        exported = export_onnx(load_network(given.model), Path(folder) / "model.onnx").path
        models = graphs(exported, target, faces)
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
        for name, graph in models.items():
            onnx.save(graph, given.keep / f"{name.replace(',', '').replace(' ', '-')}.onnx")
    show(models, target, images_BSSC, np.concatenate([crop_px(batch) for batch in batches]))


def crop_px(batch: EvaluationBatch) -> np.ndarray:
    """(B, 1, 1): how many crop pixels a pixel of the network's input is, of each face."""
    source_px_B = batch.boxes_B4[:, 2] / batch.images_BHWC.shape[2]
    sides_B = np.array([tight_square(points_N2.astype(np.float64)).width for points_N2 in batch.points_BN2])
    return (source_px_B * CROP_SIZE / sides_B)[:, None, None]


def show(
    models: dict[str, onnx.ModelProto], target: Target, images_BSSC: np.ndarray, crop_px_B11: np.ndarray
) -> None:
    expected, times = graph_predictions(models["FP32"], images_BSSC), latencies(models, images_BSSC[0])
    print("\n| graph | mean crop px by region | p95 | max | beyond gates | own / clean | ms | MiB | TensorRT-RTX |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, graph in models.items():
        found = graph_predictions(graph, images_BSSC)
        parity = compare(*(one._replace(keypoints_BN2=one.keypoints_BN2 * crop_px_B11) for one in (expected, found)))
        regions = ", ".join(f"{region} {px:.4f}" for region, px in parity.mean_px.items())
        beyond = len(failures(parity_gates(target, compare(expected, found))))
        print(
            f"| {name} | {regions} | {parity.p95_px['All']:.3f} | {parity.max_px['All']:.2f} | {beyond} "
            f"| {furthest(models['FP32'], graph, images_BSSC) if name != PLAIN else '-'} "
            f"| {times[name]:.2f} ({times['FP32'] / times[name]:.2f}x) | {graph.ByteSize() / 2**20:.1f} "
            f"| {'-' if name == OF_CPU else rtx_builds(graph)} |",
            flush=True,
        )


def furthest(float_graph: onnx.ModelProto, graph: onnx.ModelProto, images_BSSC: np.ndarray) -> str:
    """The layer that errs most against its own clean rounding."""
    found = find_divergence(float_graph, graph, images_BSSC[:8])
    worst = max(found.tensors, key=lambda tensor: tensor.times_clean)
    return f"{worst.times_clean:.1f} {worst.tensor}"


if __name__ == "__main__":
    main()
