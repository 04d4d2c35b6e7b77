"""First step: the annotations of a source, kept as received in `raw/<source>/`.

What comes from files is written to `raw.jsonl`, one record a line, sorted; the same annotations give the same file.
What comes from a server is kept in `raw.sqlite`, of which a pull changes what changed there; images are kept beside
it in `images/`, and fetched once. `schemas.raw.read_raw` reads both. `pull.json` says when and from where they came.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.errors import SourceEmptyError, SpecError
from schemas.raw import RawRecord, RawTally, write_raw
from schemas.sources import (
    CocoSource,
    CofwSource,
    LabelStudioExportSource,
    LabelStudioSource,
    PtsSource,
    RenderedSource,
    SlothSource,
    Source,
    WflwSource,
)
from schemas.storage import write_json
from tasks.progress import StepProgress, silent
from tasks.pull_files import pull_export, pull_sloth
from tasks.pull_landmarks import pull_landmarks
from tasks.reuse import reuse_or_run, step_key
from tasks.tombstones import Tombstones
from tasks.workspace import Workspace

RAW_FILE, PULL_FILE = "raw.jsonl", "pull.json"


@dataclass(frozen=True)
class PullResult:
    """What a pull left in the workspace.

    Attributes:
        source, kind: as in the configuration.
        raw: the file of records.
        records: their number.
        sets: set id -> number of records.
        content_hash: of the records, wherever this machine keeps the images.
        details: `forgotten`, records that were left out because their subject is; and what only some kinds have:
            server, project, watermark, drift of the labelling config, what became of tasks and images.
    """

    source: str
    kind: str
    raw: Path
    records: int
    sets: dict[str, int]
    content_hash: str
    details: dict[str, Any]

    def __str__(self) -> str:
        """One line for people. It names no image: it is kept where none would be looked for."""
        told = f"{self.records:,} records from {self.kind}"
        if "tasks" in self.details:
            tasks = self.details["tasks"]
            told += f": {tasks['new']:,} new, {tasks['changed']:,} changed, {tasks['deleted']:,} deleted"
        if drift := self.details.get("label_config_drift"):
            told += f"; the labelling config has drifted: {'; '.join(drift)}"
        if missing := self.details.get("images", {}).get("missing"):
            reasons = Counter(why.partition(":")[0] for why in missing.values()).most_common()
            shown = ", ".join(f"{why} {number:,}" for why, number in reasons)
            told += f"; {len(missing):,} images can't be had: {shown} ({PULL_FILE} names them)"
        return told


def pull(source: Source, workspace: Workspace, *, num_keypoints: int, progress: StepProgress = silent) -> PullResult:
    """Bring in what `source` holds now.

    Args:
        num_keypoints: how many a rendered source draws, and a server's labelling config should have; the other
            sources give what was annotated.
        progress: called as things come in.

    Raises:
        SourceEmptyError: the source holds nothing to use.
        SourceUnreachableError, SourceRefusedError, ProjectNotFoundError: the server, see
            `tasks.label_studio.client`.
        AnnotationFileError: a file that can't be read, or a pattern that matches none.
        SpecError: a subject rule or a rendered source that can't be met.
        StorageError: the workspace can't be written.
    """
    tombstones = Tombstones.of(workspace.root)
    if isinstance(source, LabelStudioSource):
        result = _from_server(source, workspace, tombstones, num_keypoints, progress)
    else:
        result = _from_files(source, workspace, tombstones, num_keypoints, progress)
    pulled_at = datetime.now(UTC).isoformat(timespec="seconds")
    noted = asdict(result) | {"raw": result.raw.name, "pulled_at": pulled_at}
    write_json(workspace.raw(source.name) / PULL_FILE, noted)
    return result


def _from_files(
    source: Source, workspace: Workspace, tombstones: Tombstones, num_keypoints: int, progress: StepProgress
) -> PullResult:
    path, tally, left_out = workspace.raw(source.name) / RAW_FILE, RawTally(), Counter[str]()
    records, details = _records(source, workspace, tombstones, num_keypoints, progress)
    records = _without(tombstones, records, left_out)
    first = next(records, None)
    if first is None:
        what = "no record; see that it was filled"
        if left_out["records"]:
            what = f"no record but {left_out['records']:,} of subjects that were forgotten; take the source out"
        raise SourceEmptyError(f"source {source.name}: {_place(source)} holds {what}")
    records = itertools.chain([first], records)
    if source.name_format is not None:
        records = (replace(record, name_format=source.name_format) for record in records)
    count = write_raw(path, tally.watch(records))
    return PullResult(
        source=source.name,
        kind=source.kind,
        raw=path,
        records=count,
        sets=dict(sorted(tally.sets.items())),
        content_hash=tally.content_hash,
        details=details | {"forgotten": left_out["records"]},
    )


def _without(tombstones: Tombstones, records: Iterable[RawRecord], left_out: Counter[str]) -> Iterator[RawRecord]:
    """The records of subjects that are not forgotten; the others are counted."""
    for record in records:
        if tombstones.cover(record.subject):
            left_out["records"] += 1
        else:
            yield record


def _from_server(
    source: LabelStudioSource,
    workspace: Workspace,
    tombstones: Tombstones,
    num_keypoints: int,
    progress: StepProgress,
) -> PullResult:
    from tasks.label_studio.pull import STORE_FILE, pull_label_studio

    folder = workspace.raw(source.name)
    pulled = pull_label_studio(
        source,
        folder,
        note=folder / PULL_FILE,
        num_keypoints=num_keypoints,
        tombstones=tombstones,
        progress=progress,
    )
    return PullResult(
        source=source.name,
        kind=source.kind,
        raw=folder / STORE_FILE,
        records=pulled.records,
        sets={pulled.set_id: pulled.records},
        content_hash=pulled.content_hash,
        details=pulled.details,
    )


def _records(
    source: Source, workspace: Workspace, tombstones: Tombstones, num_keypoints: int, progress: StepProgress
) -> tuple[Iterator[RawRecord], dict[str, Any]]:
    """The records of a source of files, and details."""
    match source:
        case RenderedSource():
            return _rendered(source, workspace.rendered / source.name, num_keypoints, progress)
        case SlothSource():
            return _counted_from(source.origin, pull_sloth(source)), {}
        case LabelStudioExportSource():
            return pull_export(source), {}
        case PtsSource() | WflwSource() | CofwSource() | CocoSource():
            records = pull_landmarks(source, workspace.raw(source.name) / "images", tombstones)
            return _counted_from(source.origin, records), {}
    raise TypeError(f"a source of another kind: {source.kind}")


def _counted_from(origin: float, records: Iterator[RawRecord]) -> Iterator[RawRecord]:
    return (replace(record, origin=origin) for record in records) if origin else records


def _place(source: Source) -> str:
    match source:
        case SlothSource():
            return f"{source.root} ({', '.join(source.gt)})"
        case PtsSource():
            return f"{source.root} ({', '.join(source.files)})"
        case LabelStudioExportSource() | WflwSource() | CofwSource() | CocoSource():
            return ", ".join(source.files)
        case RenderedSource():
            return "the rendered dataset"


def _rendered(
    source: RenderedSource, folder: Path, num_keypoints: int, progress: StepProgress
) -> tuple[Iterator[RawRecord], dict[str, Any]]:
    """Render the faces into `folder/<key>/`, and take them in as any folder of ground truth."""
    import cv2
    import numpy as np

    from model.faces.dataset import SUBJECT_RULE, render_dataset

    order = {
        "subjects": source.subjects,
        "images_per_subject": source.images_per_subject,
        "num_keypoints": num_keypoints,
        "seed": source.seed,
    }

    def run(directory: Path) -> dict[str, Any]:
        render_dataset(directory, **order, progress=lambda done, of: progress("images", done, of))
        return {}

    key = step_key("render", code="model.faces.dataset", numpy=np.__version__, opencv=cv2.__version__, **order)
    try:
        rendered = reuse_or_run(folder, key, run)
    except ValueError as error:
        raise SpecError(f"source {source.name}", str(error)) from error
    as_folder = SlothSource(
        kind="sloth",
        name=source.name,
        root=str(rendered.directory),
        subject=source.subject or SUBJECT_RULE,
        occlusion=source.occlusion,
    )
    return pull_sloth(as_folder), {"rendered": rendered.key, "reused": rendered.reused}
