"""What ties a version of the registry to what it was made of: a record, written when the version is registered.

MLflow knows the same of a version as tags, but it may be a server that is away, and is slow to ask. What it doesn't
know is which training and which ONNX file of the workspace are meant.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from schemas.storage import read_json, write_json
from tasks.workspace import Workspace


@dataclass(frozen=True)
class VersionRecord:
    """A registered version.

    Attributes:
        name, version: as in MLflow's registry.
        run_id: of MLflow's run; '' where unknown, as the following are.
        snapshot: id of the annotations.
        training: key of the training, `training/<key>/` in the workspace.
        onnx_sha256: of its ONNX file.
    """

    name: str
    version: str
    snapshot: str
    run_id: str = ""
    training: str = ""
    onnx_sha256: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def record_version(workspace: Workspace, record: VersionRecord) -> None:
    """Keep a record; the same version again replaces it."""
    path = workspace.versions / f"{quote(record.name, safe='')}-{record.version}.json"
    told = asdict(record)
    if not (path.is_file() and read_json(path) == told):
        write_json(path, told)


def recorded_versions(workspace: Workspace) -> list[VersionRecord]:
    """Every version that was registered from this workspace, in order."""
    return sorted((_read(path) for path in workspace.versions.glob("*.json")), key=in_order)


def in_order(record: VersionRecord) -> tuple[str, int, str]:
    """To sort by: versions of a name by number."""
    return record.name, int(record.version) if record.version.isdigit() else 0, record.version


def _read(path: Path) -> VersionRecord:
    return VersionRecord(**read_json(path))
