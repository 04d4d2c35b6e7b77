"""Engine directories for tests of what happens to engines."""

from pathlib import Path

from deploy.targets import find_target
from schemas.storage import read_json, sha256_file, write_json
from tests.small_graphs import small_graph


def engine_directory(engines: Path, name: str, *, version: str = "", size: int = 0) -> Path:
    """A directory as `deploy.engine.write_manifest` leaves it, of an engine whose bytes start with its name."""
    directory = engines / name
    directory.mkdir(parents=True)
    (directory / "engine.onnx").write_bytes(name.encode().ljust(size, b"."))
    write_json(
        directory / "manifest.json",
        {
            "build_key": name,
            "target": {"name": "cpu"},
            "versions": {"onnxruntime": "1.2.3"},
            "engine": "engine.onnx",
            "engine_sha256": sha256_file(directory / "engine.onnx"),
            "precision": "fp16",
            "provenance": {"model_name": "fpenet", "model_version": version or name[-1], "snapshot_id": "s"},
            "check": {"state": "not run here", "reason": "needs a GPU (SM75)", "parity": None, "latency": None},
        },
    )
    return directory


def small_engine(engines: Path, name: str, *, version: str = "", size: int = 0) -> Path:
    """The same of an engine for `cpu` that runs: `small_graph`, of the version's number as its seed."""
    directory = engine_directory(engines, name, version=version, size=size)
    told = read_json(directory / "manifest.json")
    content = small_graph(seed=int(told["provenance"]["model_version"])).SerializeToString()
    for file in ("model.onnx", "engine.onnx"):
        (directory / file).write_bytes(content)
    sha256 = sha256_file(directory / "engine.onnx")
    record = told | {
        "target": find_target("cpu").build_settings(),
        "onnx_sha256": sha256,
        "model_sha256": sha256,
        "engine_sha256": sha256,
        "engine_size": len(content),
        "seconds": 1.0,
        "device": None,
    }
    write_json(directory / "build.json", record)
    write_json(directory / "manifest.json", record | {"precision": "fp32"})
    return directory
