"""Latency of one face on a CPU, one thread: Keras, the ONNX file and the built engine of target `cpu`.

    python bench/onnx_latency.py FpeNet_public:64 examples/real-faces-spec.yaml graphs/INT8-of-a-CPU.onnx

A model is a type and a width, with 68 keypoints, that of an experiment spec, or a graph, as `--keep` of
`bench/quantisation.py` leaves it. Rounds of faces, one at a time, are measured in turn, so that a busy machine is
busy for all, and within a round each finds its weights in the cache, as on a device of its own. Ratios are to the
first model that is run the same way. Weights do not alter the time. Takes two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from hardware import hardware

from deploy.builders.base import Engine, Predictions
from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.registry import BUILDERS
from deploy.onnx_export import export_onnx
from deploy.targets import find_target
from model.network import build_network
from schemas.experiment import ExperimentSpec, ModelParameters
from schemas.yamlspec import load_spec

ROUNDS, FACES, WARM_UP = 40, 15, 3
NUM_KEYPOINTS = 68


class KerasEngine:
    """A Keras model, compiled to one graph as a server would run it."""

    def __init__(self, network: tf.keras.Model) -> None:
        self._forward = tf.function(lambda images: network(images, training=False), reduce_retracing=True)

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        keypoints, confidence, _ = self._forward(tf.constant(images_BSSC))
        return Predictions(keypoints.numpy(), confidence.numpy())


def network_of(model: str) -> tf.keras.Model:
    if model.endswith(".yaml"):
        spec = load_spec(ExperimentSpec, Path(model))
        return build_network(spec.model.model_parameters, num_keypoints=spec.num_keypoints)
    kind, width = model.split(":")
    return build_network(ModelParameters(type=kind, width=int(width)), num_keypoints=NUM_KEYPOINTS)


def engines_of(model: str, folder: Path) -> dict[str, Engine]:
    """Each way to run it, by what it is called in the table."""
    if model.endswith(".onnx"):
        return {"model.onnx": OnnxRuntimeEngine(Path(model))}
    network = network_of(model)
    onnx = export_onnx(network, folder / "model.onnx").path
    target = find_target("cpu")
    built = BUILDERS["onnxruntime"].build(onnx, target, folder).engine
    return {
        "Keras": KerasEngine(network),
        "model.onnx": OnnxRuntimeEngine(onnx),
        "engine": BUILDERS["onnxruntime"].open_engine(built, target),
    }


def in_turn(engines: list[Engine], face_1SSC: np.ndarray) -> np.ndarray:
    """Milliseconds of every run of every engine, (runs, engines)."""
    times = np.zeros((ROUNDS, len(engines), WARM_UP + FACES))
    for of_round in times:
        for row, engine in zip(of_round, engines, strict=True):
            for number in range(len(row)):
                started = time.perf_counter()
                engine.predict(face_1SSC)
                row[number] = 1000 * (time.perf_counter() - started)
    return times[:, :, WARM_UP:].swapaxes(1, 2).reshape(-1, len(engines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="TYPE:WIDTH, SPEC.yaml or GRAPH.onnx")
    given = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    face_1SSC = np.random.default_rng(0).uniform(0, 255, (1, 80, 80, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for number, model in enumerate(given.models):
            place = Path(folder, str(number))
            place.mkdir()
            engines |= {(model, way): engine for way, engine in engines_of(model, place).items()}
        times = in_turn(list(engines.values()), face_1SSC)
    medians, tails = np.median(times, axis=0), np.percentile(times, 99, axis=0)
    print(f"{hardware()}, one thread, {len(times)} runs")
    print("| model | by | p50 ms | p99 ms | times faster |\n|---|---|---|---|---|")
    first = {}
    for (model, way), p50, p99 in zip(engines, medians, tails, strict=True):
        first.setdefault(way, p50)
        print(f"| {model} | {way} | {p50:.2f} | {p99:.2f} | {first[way] / p50:.2f} |")


if __name__ == "__main__":
    main()
