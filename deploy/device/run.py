"""An engine run on a device: its predictions of crops, and how long a call takes there.

Legend: B faces, C channels, S side of the crop, N keypoints.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zipfile import BadZipFile

import numpy as np

from deploy.builders.base import Predictions, channels_first, filled
from deploy.builders.trtexec_lines import WARM_UP_MS, NetworkInput, run_line
from deploy.device.build import refusal
from deploy.device.scratch import scratch
from deploy.onnx_graph import CONFIDENCE_NAME, INPUT_NAME, KEYPOINTS_NAME
from deploy.parity import Latency, latency_of
from deploy.shells.base import Shell
from deploy.targets import Target, TrtexecTarget
from schemas.errors import ModelFileError

RUN_TIMEOUT_S = 300.0
RUNNING = "running"
CROPS_LEFT_S = 3600.0
"""What a device that went away keeps of a run are faces, so they go as soon as no run can be at them any more."""
MODULE = "deploy.device.run_engine"

_NOT_A_NUMBER = re.compile(r"(?<![\w.])-?nan\b")
_INFINITE = re.compile(r"(?<![\w.-])(-?)inf\b")


def run_there(
    shell: Shell, target: Target, engine: str, images_BSSC: np.ndarray, *, program: str
) -> tuple[Predictions, Latency]:
    """Predictions of all crops, and the latency of `target.batch.optimum` of them after warm-up, on a device.

    Args:
        engine: file on the device, absolute or relative to the shell's directory.
        images_BSSC: float32 (B, S, S, C), 0..255, of any B.
        program: `trtexec`, or the Python that has this project.

    Raises:
        ModelFileError: the device can't load or run the engine.
        DeviceOfflineError: it went away.
    """
    engine = str(shell.directory / engine)
    if isinstance(target, TrtexecTarget):
        with scratch(shell, RUNNING, leftover_s=CROPS_LEFT_S) as folder:
            found = _trtexec_predictions(shell, target, engine, images_BSSC, folder, program)
            return found, _trtexec_latency(shell, target, engine, images_BSSC, folder, program)
    return _by_module(shell, target, engine, images_BSSC, program)


def predict_there(
    shell: Shell, target: TrtexecTarget, engine: str, images_BSSC: np.ndarray, *, program: str
) -> Predictions:
    """The predictions of `run_there`, without timing."""
    with scratch(shell, RUNNING, leftover_s=CROPS_LEFT_S) as folder:
        return _trtexec_predictions(shell, target, str(shell.directory / engine), images_BSSC, folder, program)


def _trtexec_predictions(
    shell: Shell, target: TrtexecTarget, engine: str, images_BSSC: np.ndarray, folder: str, program: str
) -> Predictions:
    """One process for each batch, each of the largest size that the engine takes."""
    size, images_BCSS = target.batch.maximum, channels_first(images_BSSC)
    parts = []
    for start in range(0, len(images_BCSS), size):
        crops_BCSS = filled(images_BCSS[start : start + size], target.batch.minimum)
        written = _trtexec(shell, engine, crops_BCSS, folder, program, timed=False)
        with _parsed(shell, engine):
            outputs = _outputs(written, len(crops_BCSS))
        parts.append([values[: len(images_BCSS) - start] for values in outputs])
    return Predictions(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _trtexec_latency(
    shell: Shell, target: TrtexecTarget, engine: str, images_BSSC: np.ndarray, folder: str, program: str
) -> Latency:
    batch = target.batch.optimum
    crops_BCSS = filled(channels_first(images_BSSC)[:batch], batch)
    written = _trtexec(shell, engine, crops_BCSS, folder, program, timed=True)
    with _parsed(shell, engine):
        # Older versions export the calls of the warm-up too.
        times_ms = [float(call["latencyMs"]) for call in json.loads(written) if call["startComputeMs"] >= WARM_UP_MS]
    if not times_ms:
        raise ModelFileError(f"device '{shell.name}': {program} timed no call of {engine} after its warm-up")
    return latency_of(times_ms, batch=batch)


def _trtexec(shell: Shell, engine: str, crops_BCSS: np.ndarray, folder: str, program: str, *, timed: bool) -> bytes:
    """What it exports: times or outputs. Those of the batch before go first: it may end well and write nothing."""
    count, channels, side, _ = crops_BCSS.shape
    exported = f"{folder}/{'times' if timed else 'outputs'}.json"
    shell.remove(exported)
    shell.write(crops_BCSS.tobytes(), f"{folder}/crops.bin")
    taken = NetworkInput(INPUT_NAME, (channels, side, side))
    line = run_line(program, engine, taken, count, folder=f"{shell.directory / folder}/", timed=timed)
    _finished(shell, line)
    return _read(shell, exported)


@contextmanager
def _parsed(shell: Shell, engine: str) -> Iterator[None]:
    """What a device wrote may be cut off, empty or of another engine: that fails this device and no other."""
    try:
        yield
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ModelFileError(
            f"device '{shell.name}': the run of {engine} wrote something else than this project's outputs ({error}); "
            "is its disk full, or the engine another project's?"
        ) from error


def _outputs(written: bytes, count: int) -> Predictions:
    """Of trtexec's `--exportOutput`, which writes nan and inf as C++ does."""
    text = _NOT_A_NUMBER.sub("NaN", _INFINITE.sub(r"\1Infinity", written.decode()))
    tensors = {tensor["name"]: _array(tensor) for tensor in json.loads(text)}
    return _of_faces(tensors[KEYPOINTS_NAME], tensors[CONFIDENCE_NAME], count)


def _of_faces(keypoints_BN2: np.ndarray, confidence_BN: np.ndarray, count: int) -> Predictions:
    expected = (count, *confidence_BN.shape[1:], 2)
    if confidence_BN.ndim != 2 or keypoints_BN2.shape != expected:
        raise ValueError(f"keypoints {keypoints_BN2.shape}, confidences {confidence_BN.shape}, of {count} faces")
    return Predictions(keypoints_BN2, confidence_BN)


def _array(tensor: dict[str, Any]) -> np.ndarray:
    shape = [int(size) for size in str(tensor["dimensions"]).split("x")]
    return np.array(tensor["values"], np.float32).reshape(shape)


def _by_module(
    shell: Shell, target: Target, engine: str, images_BSSC: np.ndarray, program: str
) -> tuple[Predictions, Latency]:
    """This project's own Python on the device opens the engine, runs and times it."""
    with scratch(shell, RUNNING, leftover_s=CROPS_LEFT_S) as folder:
        crops = io.BytesIO()
        np.save(crops, images_BSSC.astype(np.float32))
        shell.write(crops.getvalue(), f"{folder}/crops.npy")
        shell.write(target.model_dump_json().encode(), f"{folder}/target.json")
        place = f"{shell.directory / folder}"
        _finished(shell, (program, "-m", MODULE, engine, place))
        written = _read(shell, f"{folder}/outputs.npz")
        with _parsed(shell, engine), np.load(io.BytesIO(written)) as outputs:
            found = _of_faces(outputs["keypoints"], outputs["confidence"], len(images_BSSC))
            return found, Latency(**json.loads(str(outputs["latency"])))


def _finished(shell: Shell, line: tuple[str, ...]) -> None:
    finished = shell.run(line, timeout_s=RUN_TIMEOUT_S)
    if finished.failure:
        raise ModelFileError(refusal(shell, line, finished))


def _read(shell: Shell, remote: str) -> bytes:
    content = shell.read(remote)
    if content is None:
        raise ModelFileError(f"device '{shell.name}': the run wrote no {remote}; is its disk full?")
    return content
