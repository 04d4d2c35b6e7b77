"""First step: the annotations of a source, kept as received in `raw/<source>/`.

`raw.jsonl` holds one record a line, sorted; the same annotations give the same file. `pull.json` beside it says when
and from where they came. Images of a server are kept in `images/`, and fetched once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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
        details: what only some kinds have: server, project, watermark, images.
    """

    source: str
    kind: str
    raw: Path
    records: int
    sets: dict[str, int]
    content_hash: str
    details: dict[str, Any]


def pull(source: Source, workspace: Workspace, *, num_keypoints: int, progress: StepProgress = silent) -> PullResult:
    """Bring in what `source` holds now.

    Args:
        num_keypoints: how many a rendered source draws; the other sources give what was annotated.
        progress: called as things come in.

    Raises:
        SourceEmptyError: the source holds nothing to use.
        SourceUnreachableError, SourceRefusedError, ProjectNotFoundError: the server, see
            `tasks.label_studio.client`.
        AnnotationFileError: a file that can't be read, or a pattern that matches none.
        SpecError: a subject rule or a rendered source that can't be met.
        StorageError: the workspace can't be written.
    """
    folder, tally = workspace.raw(source.name), RawTally()
    records, details = _records(source, workspace, num_keypoints, progress)
    first = next(records, None)
    if first is None:
        raise SourceEmptyError(f"source {source.name}: {_place(source)} holds no record; see that it was filled")
    records = itertools.chain([first], records)
    if source.name_format is not None:
        records = (replace(record, name_format=source.name_format) for record in records)
    count = write_raw(folder / RAW_FILE, tally.watch(records))
    result = PullResult(
        source=source.name,
        kind=source.kind,
        raw=folder / RAW_FILE,
        records=count,
        sets=dict(sorted(tally.sets.items())),
        content_hash=tally.content_hash,
        details=details,
    )
    pulled_at = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / PULL_FILE, asdict(result) | {"raw": RAW_FILE, "pulled_at": pulled_at})
    return result


def _records(
    source: Source, workspace: Workspace, num_keypoints: int, progress: StepProgress
) -> tuple[Iterator[RawRecord], dict[str, Any]]:
    match source:
        case RenderedSource():
            return _rendered(source, workspace.rendered / source.name, num_keypoints, progress)
        case SlothSource():
            return pull_sloth(source), {}
        case LabelStudioExportSource():
            return pull_export(source), {}
        case LabelStudioSource():
            return _from_server(source, workspace.raw(source.name) / "images", progress)
        case PtsSource() | WflwSource() | CofwSource() | CocoSource():
            return pull_landmarks(source, workspace.raw(source.name) / "images"), {}


def _place(source: Source) -> str:
    match source:
        case SlothSource():
            return f"{source.root} ({', '.join(source.gt)})"
        case PtsSource():
            return f"{source.root} ({', '.join(source.files)})"
        case LabelStudioExportSource() | WflwSource() | CofwSource() | CocoSource():
            return ", ".join(source.files)
        case LabelStudioSource():
            return f"project {source.project} at {source.url}"
        case RenderedSource():
            return "the rendered dataset"


def _rendered(
    source: RenderedSource, folder: Path, num_keypoints: int, progress: StepProgress
) -> tuple[Iterator[RawRecord], dict[str, Any]]:
    """Render the faces, and take them in as any folder of ground truth."""
    from model.faces.dataset import SUBJECT_RULE, render_dataset

    try:
        rendered = render_dataset(
            folder,
            subjects=source.subjects,
            images_per_subject=source.images_per_subject,
            num_keypoints=num_keypoints,
            seed=source.seed,
            progress=lambda done, of: progress("images", done, of),
        )
    except ValueError as error:
        raise SpecError(f"source {source.name}", str(error)) from error
    as_folder = SlothSource(
        kind="sloth",
        name=source.name,
        root=str(folder),
        subject=source.subject or SUBJECT_RULE,
        occlusion=source.occlusion,
    )
    return pull_sloth(as_folder), {"rendered": rendered.key, "reused": rendered.reused}


def _from_server(
    source: LabelStudioSource, images: Path, progress: StepProgress
) -> tuple[Iterator[RawRecord], dict[str, Any]]:
    from tasks.label_studio.pull import pull_label_studio

    pulled = pull_label_studio(source, images, progress=progress)
    fetched = pulled.images
    missing = {value: fetched[value].problem for value in sorted(fetched) if fetched[value].file is None}
    details = {
        "server": {"url": source.url, "version": pulled.version},
        "project": pulled.project,
        "watermark": pulled.watermark,
        "images": {
            "wanted": len(fetched),
            "downloaded": sum(result.downloaded for result in fetched.values()),
            "missing": missing,
        },
    }
    return iter(pulled.records), details
