"""INT8 against FP32: how far keypoints move, and latency on a CPU, for this project's Q/DQ and the plain way.

    python bench/quantisation.py model.keras --spec spec.yaml --train train/*.tfrecords --kpi kpi/*.tfrecords

The plain way is `onnxruntime.quantization.quantize_static` as its documentation shows it: largest magnitudes,
symmetric, a scale per channel, Q/DQ around every operator; with the last convolution in float and biases left alone,
without which TensorRT-RTX does not read it. Calibrated on training faces, measured on KPI faces. The latency is that
of one face on one thread, all graphs in turn. Takes one to two minutes.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.registry import BUILDERS
from deploy.calibration import record_faces
from deploy.onnx_export import onnx_model
from deploy.onnx_graph import INPUT_NAME, to_float16
from deploy.parity import compare
from deploy.qdq import MOVES, OUTPUT_CHANNELS, outermost
from deploy.quantise import predictions, quantise
from deploy.targets import find_target
from model.pipeline import evaluation_batches
from model.weights import load_network
from schemas.errors import EngineBuildError
from schemas.experiment import ExperimentSpec
from schemas.yamlspec import load_spec

RUNS, WARM_UP = 100, 10


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
    """Which GPU generations TensorRT-RTX builds this graph for, here and now."""
    done = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        for name in ("rtx", "rtx"):
            try:
                BUILDERS["tensorrt-rtx"].build(path, find_target(name), Path(folder) / name)
            except EngineBuildError as error:
                done.append(f"{name} refused ({str(error).splitlines()[-1][:60]})")
            else:
                done.append(name)
    return ", ".join(done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="trained .keras")
    parser.add_argument("--spec", type=Path, required=True, help="experiment spec that it was trained with")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="TFRecords to calibrate on (a tenth)")
    parser.add_argument("--kpi", type=Path, nargs="+", required=True, help="TFRecords to measure on")
    parser.add_argument("--faces", type=int, default=256, help="KPI faces to measure on (default: %(default)s)")
    parser.add_argument("--max_shift_px", type=float, default=0.08, help="(default: %(default)s)")
    given = parser.parse_args()
    spec = load_spec(ExperimentSpec, given.spec)
    model = onnx_model(load_network(given.model))
    faces = list(record_faces(given.train, spec, batch_size=8))
    every = (image for batch in evaluation_batches(given.kpi, spec) for image in batch.images_BHWC)
    images_BSSC = np.stack(list(itertools.islice(every, given.faces)))
    started = time.perf_counter()
    made = quantise(model, faces, max_shift_px=given.max_shift_px)
    seconds = time.perf_counter() - started
    num_keypoints = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    models = {
        "FP32": model,
        "FP16": to_float16(model, num_keypoints),
        "INT8, plain way": plain_way(model, faces),
        "INT8": made.model,
    }
    expected, times = predictions(model, images_BSSC), latencies(models, images_BSSC[0])
    print(f"{platform.processor() or platform.machine()}, {platform.platform()}, one thread")
    print(
        f"calibrated on {sum(map(len, faces))} training faces in {seconds:.0f} s, "
        f"measured on {len(images_BSSC)} KPI faces"
    )
    print(f"INT8 in float: {', '.join(made.float_layers)}\n")
    print("| graph | mean px by region | p95 px | max px | ms | MiB | TensorRT-RTX builds |")
    print("|---|---|---|---|---|---|---|")
    for name, graph in models.items():
        parity = compare(expected, predictions(graph, images_BSSC))
        regions = ", ".join(f"{region} {px:.3f}" for region, px in parity.mean_px.items())
        ratio = times["FP32"] / times[name]
        print(
            f"| {name} | {regions} | {parity.p95_px['All']:.3f} | {parity.max_px['All']:.2f} | {times[name]:.2f} "
            f"({ratio:.2f}x) | {graph.ByteSize() / 2**20:.1f} | {rtx_builds(graph)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
