"""The engine that a bundle is made of: at a stage, whole, and not refused by its check."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import stages
from deploy.engine import NOT_RUN_HERE, Provenance
from deploy.engine_directory import MODEL
from deploy.onnx_export import OnnxSummary, summarise
from deploy.pointers import Stage
from deploy.precision import CALIBRATED
from deploy.targets import GpuTarget, Target, find_target, target_as_built
from schemas.errors import GateError, InputError, StorageError
from schemas.storage import sha256_file

SHIPPABLE = ("passed", NOT_RUN_HERE)


@dataclass(frozen=True)
class Release:
    """An engine at a stage.

    Attributes:
        target: as the engine was built for it; title and gates are the catalogue's.
        stage: where it is.
        since: UTC, ISO 8601: when it came there.
        directory: holds the files.
        manifest: `manifest.json` as the engine was staged with it: an engine may serve several model versions.
        onnx: what the builder was given.
        exported: for INT8 and mixed, the FP32 graph that was quantised; None for others.
    """

    target: Target
    stage: Stage
    since: str
    directory: Path
    manifest: dict[str, Any]
    onnx: OnnxSummary
    exported: Path | None = None

    @property
    def engine(self) -> Path:
        return self.directory / self.manifest["engine"]

    @property
    def model(self) -> Path:
        return self.directory / MODEL

    @property
    def precision(self) -> str:
        """What the engine is in: the catalogue's, or what was fallen back to."""
        return self.target.precision

    @property
    def provenance(self) -> Provenance:
        return Provenance(**self.manifest["provenance"])

    @property
    def timing_cache(self) -> Path | None:
        """What the builder measured, where it keeps that."""
        name = self.manifest["timing_cache"]
        return self.directory / name if name else None

    @property
    def device(self) -> dict[str, Any] | None:
        """`DeviceFacts` of where it was built; None for the machine of the flow."""
        return self.manifest["device"]

    @property
    def tensorrt(self) -> str | None:
        """Version of TensorRT that the plan is for, as exactly as it is known; None where it is no plan."""
        if not isinstance(self.target, GpuTarget):
            return None
        return self.manifest["versions"].get("tensorrt", self.target.tensorrt)

    @property
    def is_plan(self) -> bool:
        """True for what TensorRT itself reads; neither DeepStream nor Triton reads a plan of TensorRT-RTX."""
        return isinstance(self.target, GpuTarget)

    @property
    def needs_gpu(self) -> bool:
        return self.target.builder != "onnxruntime"

    @property
    def name(self) -> str:
        """Names the bundle: `fpenet-t4-37241a366af9fb771666`."""
        return f"fpenet-{self.target.name}-{self.manifest['build_key']}"


def release_at(targets: Path, target: str, stage: Stage, *, exports: Path) -> Release:
    """The engine of `target` at `stage`.

    Args:
        targets: of the workspace; holds the pointers.
        exports: of the workspace; has the graph that an INT8 engine was quantised from.

    Raises:
        SpecError: no such target.
        InputError: nothing is at this stage.
        StorageError: a file of the engine is gone, or is not what was built, or its manifest not what it was staged
            with; or the graph that an INT8 engine was quantised from is gone.
        GateError: its check did not pass.
    """
    find_target(target)  # a name that the catalogue does not have is told as such
    pointer = getattr(stages.status(targets, target), stage)
    if pointer is None:
        raise InputError(_nothing(targets, target, stage))
    staged = pointer.engine
    directory = (targets / target / staged.engine).resolve().parent
    manifest = _manifest(stages.manifest_path(targets, target, staged), staged.manifest_sha256)
    _require_whole(directory, {**_written_down(manifest), manifest["engine"]: staged.engine_sha256})
    _require_passed(manifest["check"], target)
    built = target_as_built(manifest["target"])
    exported = _exported(exports, manifest["onnx_sha256"]) if built.precision in CALIBRATED else None
    summary = summarise(directory / MODEL)
    return Release(built, stage, pointer.event.at, directory, manifest, summary, exported)


def _exported(exports: Path, sha256: str) -> Path:
    for path in sorted(exports.glob("*/model.onnx")):
        if sha256_file(path) == sha256:
            return path
    raise StorageError(
        f"{exports}: the FP32 graph {sha256[:12]} that the engine was quantised from is gone; run the flow again"
    )


def _nothing(targets: Path, target: str, stage: str) -> str:
    held = [name for name, _ in stages.status(targets, target).held]
    other = f"; there is one at {' and '.join(held)}: name it with --stage {held[0]}" if held else ""
    return f"target '{target}': no engine at stage {stage}{other}; `fpenet status` shows what is where"


def _manifest(path: Path, sha256: str) -> dict[str, Any]:
    """`sha256`: of the manifest that the engine was staged with."""
    if not path.is_file():
        raise StorageError(f"{path}: is gone; run the flow again to build and check the engine anew")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StorageError(f"{path}: is not the manifest that the engine was staged with (SHA-256 differs)")
    return json.loads(content)


def _written_down(manifest: dict[str, Any]) -> dict[str, str]:
    """File -> SHA-256 by the manifest. Not every builder has a timing cache."""
    files = {MODEL: manifest["model_sha256"], manifest["reproduce"]: manifest["script_sha256"]}
    if cache := manifest["timing_cache"]:
        files[cache] = manifest["timing_cache_sha256"]
    return files


def _require_whole(directory: Path, files: dict[str, str]) -> None:
    for name, sha256 in files.items():
        path = directory / name
        if not path.is_file() or sha256_file(path) != sha256:
            state = "is not the file that was built and checked (SHA-256 differs)" if path.is_file() else "is gone"
            raise StorageError(f"{path}: {state}; put it back, or remove {directory} and run the flow again")


def _require_passed(check: dict[str, Any], target: str) -> None:
    if check["state"] not in SHIPPABLE:
        raise GateError(
            f"target '{target}': its engine's check says '{check['state']}': {check['reason'] or 'no reason given'}; "
            "such an engine is not bundled"
        )
    failed = [gate["words"] for gate in check["gates"] if gate["value"] is not None and not gate["passed"]]
    if failed:
        raise GateError(f"target '{target}': {'; '.join(failed)}: such an engine is not bundled")
