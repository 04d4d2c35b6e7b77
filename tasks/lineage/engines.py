"""The engines of a workspace, where each stands and who has it: read from what the other steps leave.

The files are small and few, so they are read at every question: what they say is never out of date.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from schemas.storage import read_json
from tasks.workspace import Workspace

Found = defaultdict[str, list[str]]
"""Build key -> names."""

STAGES = ("staging", "canary", "production")


@dataclass(frozen=True)
class EngineFacts:
    """A built and checked engine.

    Attributes:
        build_key: its name; `engines/<build_key>/` in the workspace.
        file: the engine, relative to the workspace.
        sha256, model_sha256, onnx_sha256: of the engine, of the ONNX it was built from, of the model as exported.
        target, precision, builder: what it was built for, and by what.
        model_name, model_version, snapshot: the version of the registry it was built for, '' where there is none.
        stages: those that hold it now.
        devices: those that run it, as far as is known.
        kept_on: those that ran it and keep it, to go back to.
    """

    build_key: str
    file: str
    sha256: str
    model_sha256: str
    onnx_sha256: str
    target: str
    precision: str
    builder: str
    model_name: str
    model_version: str
    snapshot: str
    stages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    kept_on: tuple[str, ...] = ()


def engines_of(workspace: Workspace) -> list[EngineFacts]:
    """Every checked engine, by target and key."""
    stages, devices = _stages(workspace.targets), _devices(workspace.targets)
    found = [
        _facts(path, workspace, stages, *devices)
        for path in workspace.engines.glob("*/manifest.json")
        if not path.parent.name.startswith(".")
    ]
    return sorted(found, key=lambda engine: (engine.target, engine.build_key))


def _facts(path: Path, workspace: Workspace, stages: Found, running: Found, kept: Found) -> EngineFacts:
    manifest = read_json(path)
    key, origin = manifest["build_key"], manifest["provenance"]
    return EngineFacts(
        build_key=key,
        file=str((path.parent / manifest["engine"]).relative_to(workspace.root)),
        sha256=manifest["engine_sha256"],
        model_sha256=manifest["model_sha256"],
        onnx_sha256=manifest["onnx_sha256"],
        target=manifest["target"]["name"],
        precision=manifest["precision"],
        builder=manifest["builder"],
        model_name=origin["model_name"],
        model_version=origin["model_version"],
        snapshot=origin["snapshot_id"],
        stages=tuple(sorted(stages[key], key=STAGES.index)),
        devices=tuple(sorted(running[key])),
        kept_on=tuple(sorted(set(kept[key]) - set(running[key]))),
    )


def _stages(targets: Path) -> Found:
    """Stages that point to an engine, as `deploy.stages` writes them."""
    found: Found = defaultdict(list)
    for stage in STAGES:
        for path in targets.glob(f"*/{stage}.json"):
            if stage != "canary" or not _is_over(path):
                found[read_json(path)["event"]["engine"]["build_key"]].append(stage)
    return found


def _is_over(canary: Path) -> bool:
    """Whether a rollback has ended a canary; only where there was one is `deploy.stages`, which is slow to import,
    asked."""
    if read_json(canary)["event"]["action"] == "end":
        return True
    production = canary.with_name("production.json")
    if not production.is_file() or read_json(production)["event"]["action"] != "rollback":
        return False
    from deploy.stages import status

    place = canary.parent
    return status(place.parent, place.name).canary is None


def _devices(targets: Path) -> tuple[Found, Found]:
    """Devices that run an engine, and those that have it, as `tasks.fleet.deliveries` writes them."""
    running: Found = defaultdict(list)
    kept: Found = defaultdict(list)
    for path in targets.glob("*/devices/[!.]*.json"):
        record = read_json(path)
        if record["current"]:
            running[record["current"]["build_key"]].append(record["device"])
        for engine in record["kept"]:
            kept[engine["build_key"]].append(record["device"])
    return running, kept
