"""Run and time an engine in a process of its own, on the machine that it is for: `python -m deploy.device.run_engine
ENGINE FOLDER`.

FOLDER holds crops.npy, float32 (B, S, S, C), and target.json; outputs.npz goes there.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from deploy.builders.registry import BUILDERS
from deploy.parity import measure_latency
from deploy.targets import Target
from schemas.storage import read_json, write_bytes


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="deploy.device.run_engine")
    parser.add_argument("engine", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    target: Target = TypeAdapter(Target).validate_python(read_json(given.folder / "target.json"))
    images_BSSC = np.load(given.folder / "crops.npy")
    engine = BUILDERS[target.builder].open_engine(given.engine, target)
    found = engine.predict(images_BSSC)
    latency = measure_latency(engine, images_BSSC, batch=target.batch.optimum)
    outputs = io.BytesIO()
    np.savez(
        outputs,
        keypoints=found.keypoints_BN2,
        confidence=found.confidence_BN,
        latency=np.array(json.dumps(asdict(latency))),
    )
    write_bytes(given.folder / "outputs.npz", outputs.getvalue())


if __name__ == "__main__":
    main(sys.argv[1:])
