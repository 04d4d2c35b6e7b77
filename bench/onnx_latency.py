"""Latency of one face on a CPU: Keras against the ONNX file and the built engine of target `cpu`, one thread each.

    python bench/onnx_latency.py FpeNet_public:64 FpeNet_public:16 ResidualUNet:32

Takes a minute. Weights are fresh: they do not change the time. Another process on the same cores does.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from deploy.builders.base import Predictions
from deploy.builders.onnxruntime import OnnxRuntimeEngine
from deploy.builders.registry import BUILDERS
from deploy.onnx_export import export_onnx
from deploy.parity import measure_latency
from deploy.targets import find_target
from model.network import build_network, network_cost
from schemas.experiment import ModelParameters


class KerasEngine:
    """A Keras model, compiled to one graph as a server would run it."""

    def __init__(self, network: tf.keras.Model) -> None:
        self._forward = tf.function(lambda images: network(images, training=False), reduce_retracing=True)

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        keypoints, confidence, _ = self._forward(tf.constant(images_BSSC))
        return Predictions(keypoints.numpy(), confidence.numpy())


def measure(kind: str, width: int, folder: Path) -> str:
    network = build_network(ModelParameters(type=kind, width=width), num_keypoints=80)
    onnx = export_onnx(network, folder / "model.onnx").path
    target = find_target("cpu")
    built = BUILDERS["onnxruntime"].build(onnx, target, folder).engine
    engines = (KerasEngine(network), OnnxRuntimeEngine(onnx), BUILDERS["onnxruntime"].open_engine(built, target))
    face = np.random.default_rng(0).uniform(0, 255, (1, 80, 80, 1)).astype(np.float32)
    times = [measure_latency(engine, face, batch=1) for engine in engines]
    cells = " | ".join(f"{time.p50_ms:.2f} / {time.p99_ms:.2f}" for time in times)
    return f"| {kind} {width} | {network_cost(network).macs / 1e6:.0f} | {cells} |"


def main(models: list[str]) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print("| model, width | MMAC | Keras p50 / p99 ms | ONNX Runtime, model.onnx | ONNX Runtime, engine |")
    print("|---|---|---|---|---|")
    for model in models:
        kind, width = model.split(":")
        with tempfile.TemporaryDirectory() as folder:
            print(measure(kind, int(width), Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
