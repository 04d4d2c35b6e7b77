"""The command lines of `trtexec`, which differ between versions of TensorRT, and what it prints.

From trtexec's own sources (samples/common/sampleOptions.cpp of NVIDIA/TensorRT, by release) and the migration guides:

    --workspace=MiB                                to 8.6; gone in 10
    --memPoolSize=workspace:MiB                    from 8.4
    --buildOnly                                    to 8.5; called --skipInference from 8.6
    --fp16, --int8                                 to 10; gone in 11
    --precisionConstraints, --layerPrecisions      8.4 to 10
    --stronglyTyped                                from 10; without effect in 11, where nothing else is left

An option that a version does not know ends it.

Legend: C channels, S side of the crop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.targets import Precision, TrtexecTarget

NO_ENGINE = "no-such-engine"
WARM_UP_MS, DURATION_S, TIMED_CALLS = 500, 3, 200

_MEMORY_POOLS = (8, 4)
_LAYER_PRECISIONS = (8, 4)
_SKIP_INFERENCE = (8, 6)

_CODE = re.compile(r"\[TensorRT v(\d+)\]")
_GPU = re.compile(r"Selected Device: (.+)")
_CAPABILITY = re.compile(r"Compute Capability: (\d+)\.(\d+)")


@dataclass(frozen=True)
class NetworkInput:
    """The only input of an ONNX file. `batch`: None where any number of crops may go in at once."""

    name: str
    image_CSS: tuple[int, int, int]
    batch: int | None = None

    def shape(self, count: int) -> str:
        """`name:COUNTxCxSxS`. A name with a colon of its own is quoted."""
        name = f"'{self.name}'" if ":" in self.name else self.name
        return f"{name}:{'x'.join(map(str, (count, *self.image_CSS)))}"


@dataclass(frozen=True)
class Banner:
    """What `trtexec` says of itself and of the GPU; None for what it did not say."""

    version: str | None
    gpu: str | None
    compute_capability: int | None


def version_of(text: str) -> tuple[int, ...]:
    """(8, 2, 1) of `8.2.1`, or of the longer versions of packages."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def pins_layers(version: str) -> bool:
    """Whether layers stay in FP32 with this version of TensorRT: by `--layerPrecisions`, or as the file has them."""
    return version_of(version) >= _LAYER_PRECISIONS


def build_line(
    program: str,
    version: str,
    target: TrtexecTarget,
    network_input: NetworkInput,
    *,
    folder: str = "",
    float32_layers: Sequence[str] = (),
) -> tuple[str, ...]:
    """The line that makes `engine.engine` of `model.onnx`, and reads and writes `timing.cache`.

    Args:
        version: of TensorRT on the device.
        folder: where the files are, with a slash at its end; '' is the working directory.
        float32_layers: nodes that must stay in FP32. TensorRT 8 is told, as its types follow flags and not the file.
    """
    known = version_of(version)
    return (
        program,
        f"--onnx={folder}model.onnx",
        f"--saveEngine={folder}engine.engine",
        f"--timingCacheFile={folder}timing.cache",
        *_shapes(target, network_input),
        *_workspace(known, target.workspace_mib),
        *_precision(known, target.precision, float32_layers),
        "--skipInference" if known >= _SKIP_INFERENCE else "--buildOnly",
    )


def run_line(
    program: str, engine: str, network_input: NetworkInput, count: int, *, folder: str, timed: bool
) -> tuple[str, ...]:
    """The line that runs an engine on `count` crops: once, or, if `timed`, for long enough to time it.

    It reads `crops.bin` in `folder`, float32 (count, C, S, S), and writes outputs.json there, or times.json.
    """
    line = (
        program,
        f"--loadEngine={engine}",
        f"--loadInputs={network_input.shape(count).rpartition(':')[0]}:{folder}crops.bin",
        *((f"--shapes={network_input.shape(count)}",) if network_input.batch is None else ()),
    )
    if timed:
        limits = (f"--warmUp={WARM_UP_MS}", f"--duration={DURATION_S}", f"--iterations={TIMED_CALLS}")
        return (*line, *limits, f"--exportTimes={folder}times.json")
    return (*line, "--warmUp=0", "--duration=0", "--iterations=1", f"--exportOutput={folder}outputs.json")


def banner_line(program: str) -> tuple[str, ...]:
    """A line after which `trtexec` names its version and the GPU. It fails then, as there is no such engine."""
    return (program, f"--loadEngine={NO_ENGINE}")


def read_banner(output: str) -> Banner:
    """What `trtexec` has printed of itself before anything else."""
    code, gpu, capability = _CODE.search(output), _GPU.search(output), _CAPABILITY.search(output)
    return Banner(
        version=_version_of_code(int(code[1])) if code else None,
        gpu=gpu[1].strip() if gpu else None,
        compute_capability=int(capability[1]) * 10 + int(capability[2]) if capability else None,
    )


def _version_of_code(code: int) -> str:
    """8201 is 8.2.1; 101601 is 10.16.1, for from 10 on each part has two digits."""
    if code < 10_000:
        return f"{code // 1000}.{code // 100 % 10}.{code % 100}"
    return f"{code // 10_000}.{code // 100 % 100}.{code % 100}"


def _shapes(target: TrtexecTarget, network_input: NetworkInput) -> tuple[str, ...]:
    """A profile; a file with a fixed batch has none to give."""
    if network_input.batch is not None:
        return ()
    batch = target.batch
    counts = {"min": batch.minimum, "opt": batch.optimum, "max": batch.maximum}
    return tuple(f"--{name}Shapes={network_input.shape(count)}" for name, count in counts.items())


def _workspace(version: tuple[int, ...], mib: int | None) -> tuple[str, ...]:
    if mib is None:
        return ()
    return (f"--memPoolSize=workspace:{mib}" if version >= _MEMORY_POOLS else f"--workspace={mib}",)


def _precision(version: tuple[int, ...], precision: Precision, float32_layers: Sequence[str]) -> tuple[str, ...]:
    if version[0] >= 11:
        return ()
    if version[0] >= 10:
        return ("--stronglyTyped",)
    flags = {"fp32": (), "fp16": ("--fp16",), "mixed": ("--fp16", "--int8"), "int8": ("--fp16", "--int8")}[precision]
    if not flags or version < _LAYER_PRECISIONS or not float32_layers:
        return flags
    layers = ",".join(f"{name}:fp32" for name in float32_layers)
    return (*flags, "--precisionConstraints=obey", f"--layerPrecisions={layers}")
