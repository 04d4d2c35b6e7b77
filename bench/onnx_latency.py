"""Latency of one face on a CPU, one thread: Keras, the ONNX file and the built engine of target `cpu`.

    python bench/onnx_latency.py FpeNet_public:64 ResidualUNet:32 examples/real-faces-spec.yaml

A model is a type and a width, with 80 keypoints, or that of an experiment spec. Everything is measured in turn, face
by face, so that a busy machine is busy for all; ratios are to the first model. Weights are fresh: they do not alter
the time. Takes a minute.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from deploy.builders.base import Engine, Predictions
from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.registry import BUILDERS
from deploy.onnx_export import export_onnx
from deploy.targets import find_target
from model.network import build_network, network_cost
from schemas.experiment import ExperimentSpec, ModelParameters
from schemas.yamlspec import load_spec

RUNS, WARM_UP = 300, 20
RUNTIMES = ("Keras", "model.onnx", "engine")


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
    return build_network(ModelParameters(type=kind, width=int(width)), num_keypoints=80)


def engines_of(network: tf.keras.Model, folder: Path) -> tuple[Engine, ...]:
    onnx = export_onnx(network, folder / "model.onnx").path
    target = find_target("cpu")
    built = BUILDERS["onnxruntime"].build(onnx, target, folder).engine
    return KerasEngine(network), OnnxRuntimeEngine(onnx), BUILDERS["onnxruntime"].open_engine(built, target)


def in_turn(engines: list[Engine], face_1SSC: np.ndarray) -> np.ndarray:
    """Milliseconds of every run of every engine, (runs, engines)."""
    times = np.zeros((WARM_UP + RUNS, len(engines)))
    for row in times:
        for number, engine in enumerate(engines):
            started = time.perf_counter()
            engine.predict(face_1SSC)
            row[number] = 1000 * (time.perf_counter() - started)
    return times[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="TYPE:WIDTH or SPEC.yaml")
    given = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    networks = [network_of(model) for model in given.models]
    face_1SSC = np.random.default_rng(0).uniform(0, 255, (1, 80, 80, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(number)) for number in range(len(networks))]
        for place in places:
            place.mkdir()
        engines = [engine for pair in zip(networks, places, strict=True) for engine in engines_of(*pair)]
        times = in_turn(engines, face_1SSC).reshape(RUNS, len(networks), len(RUNTIMES))
    medians, tails = np.median(times, axis=0), np.percentile(times, 99, axis=0)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread, {RUNS} runs in turn")
    print(f"| model | MMAC | {' | '.join(f'{name} p50 / p99 ms' for name in RUNTIMES)} | engine, times faster |")
    print(f"|---|---|{'---|' * (len(RUNTIMES) + 1)}")
    for number, (model, network) in enumerate(zip(given.models, networks, strict=True)):
        cells = " | ".join(f"{p50:.2f} / {p99:.2f}" for p50, p99 in zip(medians[number], tails[number], strict=True))
        faster = medians[0, -1] / medians[number, -1]
        name = Path(model).stem if model.endswith(".yaml") else model
        print(f"| {name} | {network_cost(network).macs / 1e6:.0f} | {cells} | {faster:.2f} |")


if __name__ == "__main__":
    main()
