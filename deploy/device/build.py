"""An engine built on a device: the graph goes there, the engine and the log come back."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from deploy.builder_graph import network_input, soft_argmax_layers
from deploy.builders.base import BUILD_TIMEOUT_S, BuildResult
from deploy.builders.process import Finished
from deploy.builders.tensorrt import TensorRtBuilder
from deploy.builders.trtexec_lines import build_line
from deploy.device.facts import DeviceFacts, free_bytes, read_facts, require_match
from deploy.device.scratch import remove_cut_off, scratch
from deploy.shells.base import Shell
from deploy.targets import TensorRtTarget, TrtexecTarget
from schemas.errors import DeviceError, EngineBuildError, StorageError
from schemas.storage import sha256_file, write_bytes

log = logging.getLogger(__name__)

BUILDING, TIMING = "building", "timing"
MODEL, TIMING_CACHE = "model.onnx", "timing.cache"
LEAST_FREE_BYTES = 32 << 20
"""A builder that fills a disk does not always notice: it may leave a cut-off engine and say that all went well."""


def build_there(
    shell: Shell,
    target: TensorRtTarget | TrtexecTarget,
    model: Path,
    directory: Path,
    *,
    program: str,
    facts: DeviceFacts | None = None,
    timeout_s: float = BUILD_TIMEOUT_S,
) -> BuildResult:
    """Build `model`, a graph in the target's precision, on a device into `directory/engine.*` here.

    The timing cache of the device's GPU and TensorRT is kept on the device, and a copy of it beside the engine.
    Whatever fails, no half-written engine is left here, nor, unless the device went away, there: see `scratch`.

    Args:
        program: `trtexec`, or the Python that has this project.
        facts: of `read_facts`, where they are known.

    Raises:
        EngineMismatchError: the device is no device of the target.
        EngineBuildError: the builder refused the model, crashed, or took too long.
        DeviceOfflineError: the device went away.
        StorageError: its disk is full.
    """
    facts = facts or read_facts(shell, target, program=program)
    require_match(facts, target)
    _require_space(shell, facts.free_bytes, model)
    with scratch(shell, BUILDING) as folder:
        if isinstance(target, TrtexecTarget):
            return _by_trtexec(shell, target, model, directory, folder, facts, program, timeout_s)
        return _by_module(shell, target, model, directory, folder, facts, program, timeout_s)


def _by_trtexec(
    shell: Shell,
    target: TrtexecTarget,
    model: Path,
    directory: Path,
    folder: str,
    facts: DeviceFacts,
    program: str,
    timeout_s: float,
) -> BuildResult:
    version = facts.tensorrt or ""
    options = {"float32_layers": soft_argmax_layers(model)}
    taken = network_input(model)
    line = build_line(program, version, target, taken, folder=str(shell.directory / folder) + "/", **options)
    finished = _build(shell, folder, model, line, facts, timeout_s)
    engine = _bring(shell, folder, "engine.engine", directory, finished)
    again = build_line(program, version, target, taken, **options)[1:]
    cache = _keep_timing(shell, folder, directory, facts)
    return BuildResult(engine, finished.seconds, finished.output, again, program, cache)


def _by_module(
    shell: Shell,
    target: TensorRtTarget,
    model: Path,
    directory: Path,
    folder: str,
    facts: DeviceFacts,
    program: str,
    timeout_s: float,
) -> BuildResult:
    builder = TensorRtBuilder()
    place, name = shell.directory / folder, f"engine{builder.suffix}"
    options = builder.module_options(target)
    cache = str(place / TIMING_CACHE)
    line = (program, "-m", builder.module, str(place / MODEL), str(place / name), *options, "--timing-cache", cache)
    finished = _build(shell, folder, model, line, facts, timeout_s)
    engine = _bring(shell, folder, name, directory, finished)
    kept = _keep_timing(shell, folder, directory, facts)
    again = ("-m", builder.module, MODEL, name, *options, *(("--timing-cache", TIMING_CACHE) if kept else ()))
    return BuildResult(engine, finished.seconds, finished.output, again, timing_cache=kept)


def _build(
    shell: Shell, folder: str, model: Path, line: tuple[str, ...], facts: DeviceFacts, timeout_s: float
) -> Finished:
    """Run a builder there on a copy of the graph and of the timing cache."""
    shell.put(model, f"{folder}/{MODEL}")
    if (cache := shell.read(_timing(facts))) is not None:
        shell.write(cache, f"{folder}/{TIMING_CACHE}")
    finished = shell.run(line, timeout_s=timeout_s)
    _require_space(shell, free_bytes(shell), model)
    if finished.failure:
        raise EngineBuildError(refusal(shell, line, finished))
    return finished


def _bring(shell: Shell, folder: str, name: str, directory: Path, finished: Finished) -> Path:
    """Copy the engine here and compare what has come with what is there."""
    remote = f"{folder}/{name}"
    there = shell.sha256(remote)
    if there is None:
        raise EngineBuildError(refusal(shell, (name,), finished))
    shell.fetch(remote, directory / name)
    if sha256_file(directory / name) != there:
        (directory / name).unlink()
        raise StorageError(f"device '{shell.name}': {remote} came over changed; run the same again")
    return directory / name


def _keep_timing(shell: Shell, folder: str, directory: Path, facts: DeviceFacts) -> str | None:
    """Only a build that went well leaves its timings for the next one, which is slower without them and no worse."""
    cache = shell.read(f"{folder}/{TIMING_CACHE}")
    if cache is None:
        return None
    try:
        remove_cut_off(shell, TIMING)
        shell.write(cache, _timing(facts))
    except (DeviceError, StorageError) as error:
        log.warning("the next build will take longer, its timings were not kept: %s", error)
    write_bytes(directory / TIMING_CACHE, cache)
    return TIMING_CACHE


def _timing(facts: DeviceFacts) -> str:
    return f"{TIMING}/sm{facts.compute_capability}-tensorrt-{facts.tensorrt}.cache"


def _require_space(shell: Shell, free: int | None, model: Path) -> None:
    needed = LEAST_FREE_BYTES + 4 * model.stat().st_size
    if free is not None and free < needed:
        raise StorageError(
            f"device '{shell.name}': {free >> 20} MiB are free below {shell.directory}, "
            f"a build needs {needed >> 20}. Nothing half-written is left; free space there and run the same again"
        )


def refusal(shell: Shell, line: tuple[str, ...], finished: Finished) -> str:
    """What failed, and the end of the log: the errors in it, where it marks them as trtexec does."""
    lines = [text for text in finished.output.splitlines() if text.strip()]
    errors = [text for text in lines if "[E]" in text]
    failure = finished.failure or "it wrote nothing"
    if errors and failure.startswith("&&&&"):
        failure = errors[-1]
    end = "\n".join((errors or lines)[-15:])
    return f"device '{shell.name}': {PurePosixPath(line[0]).name} failed: {failure}\n{end}"
