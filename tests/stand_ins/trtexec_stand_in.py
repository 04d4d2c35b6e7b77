"""A stand-in for NVIDIA's `trtexec`, for tests: NOT TensorRT.

It takes the options that a real one of its version knows and refuses all others, "builds" by wrapping the ONNX file
with the version and the GPU it pretends to have, and "runs" that by ONNX Runtime on the CPU. `--layerPrecisions` must
name layers of the graph, a timing cache must be one of its own, and an engine of another stand-in is refused.

What it pretends to be, and how it fails, stands in `device.json` beside the program that `stand_in` writes:

    {"tensorrt": "8.5.2", "compute_capability": 72, "gpu": "Xavier", "fail": "", "shift_px": 0.0, "build_s": 0.0}

fail: '', 'crash' (SIGSEGV in the middle of a build), 'no space' (writes half an engine, fills the disk and ends
well, as the real one may), 'refuse' (the parser's error), 'hang', 'nan' (outputs that are none), 'no gpu'; in runs
that end well: 'cut off', 'empty' (what is exported), 'silent' (nothing is), 'fills' (nothing from the second on).
shift_px: what it adds to every keypoint, as a bad engine does. latency_ms: of every call, where the CPU's own is not
to count.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

NAME = "trtexec STAND-IN (no TensorRT)"
MAGIC = b"STAND-IN ENGINE, NOT TENSORRT\n"
CACHE = b"STAND-IN TIMING CACHE\n"
FLAGS = {"--fp16", "--int8", "--stronglyTyped", "--skipInference", "--buildOnly"}
SHAPES = {"--minShapes", "--optShapes", "--maxShapes", "--shapes"}
VALUES = SHAPES | {
    "--onnx",
    "--saveEngine",
    "--loadEngine",
    "--loadInputs",
    "--timingCacheFile",
    "--workspace",
    "--memPoolSize",
    "--precisionConstraints",
    "--layerPrecisions",
    "--exportOutput",
    "--exportTimes",
    "--warmUp",
    "--duration",
    "--iterations",
}
FROM_TO = {
    "--workspace": ((0, 0), (8, 6)),
    "--memPoolSize": ((8, 4), (99, 0)),
    "--buildOnly": ((0, 0), (10, 99)),
    "--skipInference": ((8, 6), (99, 0)),
    "--fp16": ((0, 0), (10, 99)),
    "--int8": ((0, 0), (10, 99)),
    "--precisionConstraints": ((8, 2), (10, 99)),
    "--layerPrecisions": ((8, 4), (10, 99)),
    "--stronglyTyped": ((9, 0), (99, 0)),
}
"""First and last version that knows an option; the others all know."""


class Refused(Exception):
    """What a real one prints as an error."""


def main(arguments: list[str]) -> int:
    device = json.loads(Path(os.environ["STAND_IN_DEVICE"]).read_text())
    known = version_of(device)
    say(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{code_of(known)}] # {shlex.join(arguments)}")
    say(f"[I] {NAME}")
    try:
        options = parse(arguments, known)
        say("[I] === Device Information ===")
        if device.get("fail") == "no gpu":
            raise Refused("Cuda failure: no CUDA-capable device is detected")
        capability = device["compute_capability"]
        say(f"[I] Selected Device: {device.get('gpu', 'a GPU')}")
        say(f"[I] Compute Capability: {capability // 10}.{capability % 10}")
        say(f"[I] TensorRT version: {'.'.join(map(str, known))}")
        if "--onnx" in options:
            build(options, device, known)
        else:
            run(options, device)
    except Refused as refused:
        say(f"[E] {refused}")
        say(f"&&&& FAILED TensorRT.trtexec [TensorRT v{code_of(known)}] # {shlex.join(arguments)}")
        return 1
    say(f"&&&& PASSED TensorRT.trtexec [TensorRT v{code_of(known)}] # {shlex.join(arguments)}")
    return 0


def version_of(device: dict) -> tuple[int, int, int]:
    major, minor, patch, *_ = [*map(int, device["tensorrt"].split(".")), 0, 0]
    return major, minor, patch


def code_of(version: tuple[int, int, int]) -> int:
    major, minor, patch = version
    return major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def parse(arguments: list[str], version: tuple[int, int, int]) -> dict[str, str]:
    """Options by name, none unknown to this version and none that contradict each other."""
    options: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        first, last = FROM_TO.get(name, ((0, 0), (99, 0)))
        if name not in FLAGS | VALUES or not first <= version[:2] <= last:
            raise Refused(f"Unknown option: {name} {value}")
        if name in options or (name in FLAGS) == bool(equals) or (name in VALUES and not value):
            raise Refused(f"Bad use of option: {argument}")
        options[name] = value
    if ("--onnx" in options) == ("--loadEngine" in options):
        raise Refused("Model missing or format not recognized" if "--onnx" not in options else "Model and engine")
    if "--stronglyTyped" in options and {"--fp16", "--int8"} & options.keys():
        raise Refused("Invalid usage, setting precision flags is not allowed if --stronglyTyped is set")
    if ("--layerPrecisions" in options) != ("--precisionConstraints" in options):
        raise Refused("--layerPrecisions goes with --precisionConstraints")
    if "--workspace" in options and "--memPoolSize" in options:
        raise Refused("--workspace and --memPoolSize contradict each other")
    for name in SHAPES & options.keys():
        shape_of(options[name])
    return options


def shape_of(spec: str) -> tuple[str, list[int]]:
    name, _, shape = spec.rpartition(":")
    if not name or not all(size.isdigit() and int(size) for size in shape.split("x")):
        raise Refused(f"Bad shape: {spec}")
    return name.strip("'"), [int(size) for size in shape.split("x")]


def build(options: dict[str, str], device: dict, version: tuple[int, int, int]) -> None:
    import onnx

    fail = device.get("fail", "")
    if "--saveEngine" not in options or not {"--skipInference", "--buildOnly"} & options.keys():
        raise Refused("This stand-in only builds engines that are saved, and runs none while it builds")
    model = onnx.load(options["--onnx"])
    check_profile(options, model)
    check_types(options, model, version)
    names = {node.name for node in model.graph.node}
    for layer in filter(None, options.get("--layerPrecisions", "").split(",")):
        if layer.rpartition(":")[0] not in names:
            raise Refused(f"No layer {layer}")
    cache = Path(options["--timingCacheFile"]) if "--timingCacheFile" in options else None
    if cache and cache.exists() and not cache.read_bytes().startswith(CACHE):
        raise Refused("Failed to read the timing cache")
    if fail == "refuse":
        raise Refused("ModelImporter.cpp:726: ERROR: No importer registered for op: NoSuchOp")
    time.sleep(3600 if fail == "hang" else device.get("build_s", 0.0))
    engine = Path(options["--saveEngine"])
    header = {key: device[key] for key in ("tensorrt", "compute_capability")}
    header["batch"] = [shape_of(options[f"--{name}Shapes"])[1][0] for name in ("min", "opt", "max")]
    graph = model.SerializeToString()
    header["size"] = len(graph)
    content = MAGIC + json.dumps(header).encode() + b"\n" + graph
    if fail == "crash":
        engine.write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGSEGV)
    if fail == "no space":
        content = content[: len(content) // 2]
        Path(os.environ["STAND_IN_DEVICE"]).write_text(json.dumps({**device, "free_kib": 0}))
    engine.write_bytes(content)
    if cache:
        known = cache.read_bytes() if cache.exists() else CACHE
        cache.write_bytes(known + b"built\n")
    say("[I] Engine built in 1.5 sec.")


def check_profile(options: dict[str, str], model) -> None:
    """All three shapes, of the graph's only input, not decreasing."""
    taken = model.graph.input[0]
    counts = []
    for kind in ("min", "opt", "max"):
        name, shape = shape_of(options.get(f"--{kind}Shapes", ":0"))
        if name != taken.name or len(shape) != 4:
            raise Refused(f"Cannot find input tensor with name '{name}' in the network inputs")
        counts.append(shape[0])
    if sorted(counts) != counts:
        raise Refused(f"min, opt and max must not decrease: {counts}")


def check_types(options: dict[str, str], model, version: tuple[int, int, int]) -> None:
    """TensorRT 8 needs a flag for each type of the graph beside FP32; 8.2 reads no opset above 13."""
    import onnx

    if version[:2] == (8, 2) and model.opset_import[0].version > 13:
        raise Refused("Your ONNX model was generated with an opset that is too new")
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if version[0] < 9 and onnx.TensorProto.FLOAT16 in kinds and "--fp16" not in options:
        raise Refused("FP16 weights, and no --fp16")
    if version[0] < 9 and quantised and "--int8" not in options:
        raise Refused("Networks with Q/DQ need --int8")


def run(options: dict[str, str], device: dict) -> None:
    path = Path(options["--loadEngine"])
    if not path.is_file():
        raise Refused(f"Error opening engine file: {path}")
    header, model = load(path, device)
    images = crops(options, header)
    session = session_of(model)
    names = [value.name for value in session.get_outputs()]
    times = []
    for _ in range(int(options.get("--iterations", "10"))):
        started = time.perf_counter()
        outputs = session.run(names, {session.get_inputs()[0].name: images})
        times.append(device.get("latency_ms") or 1000 * (time.perf_counter() - started))
        if len(times) > 20:
            break
    report(times)
    if "--exportTimes" in options:
        write(options["--exportTimes"], json.dumps(traced(times, float(options.get("--warmUp", "200")))), device)
    if "--exportOutput" in options:
        write(options["--exportOutput"], exported(names, outputs, device), device)


def write(path: str, text: str, device: dict) -> None:
    fail = device.get("fail", "")
    if fail == "silent":
        return
    if fail == "fills":
        Path(os.environ["STAND_IN_DEVICE"]).write_text(json.dumps({**device, "fail": "silent"}))
    Path(path).write_text({"cut off": text[: len(text) // 2], "empty": ""}.get(fail, text))


def traced(times: list[float], warm_up_ms: float) -> list[dict]:
    """As versions before 8.6 write it: with the slow calls of the warm-up."""
    cold = [{"startComputeMs": 0.0, "computeMs": 900.0, "latencyMs": 1000.0}] * 5
    warm = [{"startComputeMs": warm_up_ms + at, "computeMs": ms, "latencyMs": ms} for at, ms in enumerate(times)]
    return cold + warm


def session_of(model: bytes):
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    session_options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, session_options, providers=["CPUExecutionProvider"])


def load(path: Path, device: dict) -> tuple[dict, bytes]:
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise Refused("Deserialization failed: magic tag does not match")
    header, _, model = content[len(MAGIC) :].partition(b"\n")
    built = json.loads(header)
    if built["tensorrt"] != device["tensorrt"]:
        raise Refused(f"The engine plan file is not compatible with this version of TensorRT, {built['tensorrt']}")
    if built["compute_capability"] != device["compute_capability"]:
        raise Refused("The engine plan file is generated on an incompatible device")
    if len(model) != built["size"]:
        raise Refused("Deserialization failed: the plan is cut off")
    return built, model


def crops(options: dict[str, str], header: dict):
    import numpy as np

    name, shape = shape_of(options.get("--shapes", ":0"))
    given, _, file = options.get("--loadInputs", "").rpartition(":")
    if given.strip("'") != name or not Path(file).is_file():
        raise Refused(f"Could not load inputs of {name}")
    if not header["batch"][0] <= shape[0] <= header["batch"][2]:
        raise Refused(f"Batch {shape[0]} is outside the profile {header['batch']}")
    values = np.fromfile(file, np.float32)
    if values.size != np.prod(shape):
        raise Refused(f"{file} has {values.size} values, {options['--shapes']} are needed")
    return values.reshape(shape)


def report(times: list[float]) -> None:
    ordered = sorted(times)
    middle = ordered[len(ordered) // 2]
    say("[I] === Performance summary ===")
    say(f"[I] Throughput: {1000 / middle:g} qps")
    say(f"[I] Latency: min = {ordered[0]:g} ms, max = {ordered[-1]:g} ms, median = {middle:g} ms")


def exported(names: list[str], outputs: list, device: dict) -> str:
    """As the real one writes it: values as C++ prints them, which for nan is no JSON."""
    tensors = []
    for name, values in zip(names, outputs, strict=True):
        if values.ndim == 3:
            values = values + device.get("shift_px", 0.0)
        shown = ", ".join("nan" if device.get("fail") == "nan" else f"{value:.6g}" for value in values.reshape(-1))
        shape = "x".join(map(str, values.shape))
        tensors.append(f'{{ "name" : "{name}"\n  , "dimensions" : "{shape}"\n  , "values" : [ {shown} ]\n  }}')
    return "[\n  " + "\n, ".join(tensors) + "\n]\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
