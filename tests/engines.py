"""Engine directories for tests of what happens to engines: their bytes are no engine."""

from pathlib import Path

from schemas.storage import sha256_file, write_json


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
