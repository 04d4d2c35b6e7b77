"""What a builder of engines is.

Legend: B batch, S side of the crop, C channels, N keypoints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from deploy.builders.process import Finished, run_module
from schemas.errors import EngineBuildError
from schemas.storage import atomic_path

PROBE_TIMEOUT_S = 120.0
BUILD_TIMEOUT_S = 1800.0


class Predictions(NamedTuple):
    """Keypoints (B, N, 2) in network-input pixels and confidences (B, N), float32."""

    keypoints_BN2: np.ndarray
    confidence_BN: np.ndarray


def channels_first(images_BSSC: np.ndarray) -> np.ndarray:
    """Crops (B, S, S, C) as networks take them: float32 (B, C, S, S), in one piece."""
    return np.ascontiguousarray(np.moveaxis(images_BSSC, -1, 1), np.float32)


def filled(images_BCSS: np.ndarray, count: int) -> np.ndarray:
    """At least `count` crops, the given ones again where there are fewer."""
    return images_BCSS if len(images_BCSS) >= count else np.resize(images_BCSS, (count, *images_BCSS.shape[1:]))


@dataclass(frozen=True)
class Probe:
    """Whether a builder works on this machine.

    Attributes:
        available: True if it can build.
        reason: why not, or what it is.
        versions: package -> exact version.
    """

    available: bool
    reason: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildResult:
    """An engine that was made.

    Attributes:
        engine: the file.
        seconds: how long it took.
        log: what the builder said.
        command: arguments of `program` that make the engine again, run inside the engine's directory.
        program: `python` stands for an interpreter with this project.
        timing_cache: file beside the engine with what the builder measured, which makes it choose the same again.
    """

    engine: Path
    seconds: float
    log: str
    command: tuple[str, ...]
    program: str = "python"
    timing_cache: str | None = None


class Engine(Protocol):
    """An engine that is open and can run here."""

    def predict(self, images_BSSC: np.ndarray) -> Predictions:
        """Keypoints and confidences of float32 crops (B, S, S, C), 0..255, of any B."""
        ...


class Builder(Protocol):
    """One way from ONNX to an engine.

    Attributes:
        suffix: of its engines' files.
        recipe: module that, with what it imports, decides what is asked of the builder.
    """

    name: str
    suffix: str
    recipe: str

    def versions(self) -> dict[str, str]:
        """Package -> exact version, without importing any."""
        ...

    def probe(self) -> Probe:
        """Try the builder in a process of its own."""
        ...

    def build(self, onnx: Path, target: Any, directory: Path) -> BuildResult:
        """Make `directory/engine<suffix>`.

        Raises:
            EngineBuildError: the builder refused the model, crashed, or took too long.
        """
        ...

    def not_runnable(self, target: Any) -> str:
        """Why an engine for `target` can't run on this machine, or ''."""
        ...

    def open_engine(self, path: Path, target: Any) -> Engine:
        """Load an engine.

        Raises:
            ModelFileError: it can't be loaded, or can't run here.
        """
        ...


def probe_module(module: str, versions: dict[str, str]) -> Probe:
    """Run `python -m module --probe`, which prints a sentence as a JSON string."""
    finished = run_module(module, "--probe", timeout_s=PROBE_TIMEOUT_S)
    if finished.failure:
        return Probe(False, finished.failure, versions)
    return Probe(True, json.loads(finished.output.splitlines()[-1]), versions)


def build_with_module(
    module: str, onnx: Path, engine: Path, options: tuple[str, ...], *, timeout_s: float = BUILD_TIMEOUT_S
) -> BuildResult:
    """Run `python -m module ONNX ENGINE options` and put the engine in its place when it is whole.

    Raises:
        EngineBuildError: with the end of the builder's log.
    """
    with atomic_path(engine) as temporary:
        finished = run_module(module, str(onnx), str(temporary), *options, timeout_s=timeout_s)
        if finished.failure or not temporary.is_file():
            raise EngineBuildError(_refusal(module, onnx, finished))
    command = ("-m", module, onnx.name, engine.name, *options)
    return BuildResult(engine, finished.seconds, finished.output, command)


def _refusal(module: str, onnx: Path, finished: Finished) -> str:
    end = "\n".join(finished.output.splitlines()[-15:])
    return f"{onnx}: {module} made no engine: {finished.failure or 'it wrote nothing'}\n{end}"
