"""Raw records out of files: Sloth/TAO ground truth, and JSON exports of Label Studio."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote

from schemas import label_studio, sloth
from schemas.errors import AnnotationFileError
from schemas.raw import RawRecord
from schemas.sources import LabelStudioExportSource, SlothSource
from tasks.subjects import BY_ENTRY, SubjectOf, subject_finder

_WILDCARD = re.compile(r"[*?\[]")
_UNTIDY_NAME = re.compile(r"^/|^\./|//|/\.?/|/\.?$|^\.?$")  # which `Path` would write in another way


def pull_sloth(source: SlothSource) -> Iterator[RawRecord]:
    """A record for every image entry, by file and position; a few entries at a time are in memory.

    Raises:
        AnnotationFileError: a file is broken, or a pattern of `gt` matches none.
        SpecError: the subject rule's CSV can't be used.
    """
    root = Path(source.root)
    files = ground_truth_files(root, source.gt)
    known = flags_known(
        source.occlusion, lambda: any(sloth.has_flags(e) for path, _ in files for e in sloth.read_entries(path))
    )
    subject_of = subject_finder(source.subject or BY_ENTRY)
    find_image = image_finder(Path(source.image_root or source.root))
    return (
        sloth_record(
            entry,
            source=source.name,
            set_id=set_id,
            key=f"{name}#{index}",
            find_image=find_image,
            flags_are_known=known,
            subject_of=subject_of,
        )
        for path, set_id in files
        for name in [path.relative_to(root).as_posix()]
        for index, entry in enumerate(sloth.read_entries(path))
    )


def sloth_record(
    entry: Any,
    *,
    source: str,
    set_id: str,
    key: str,
    find_image: Callable[[str], str],
    flags_are_known: bool,
    subject_of: SubjectOf,
) -> RawRecord:
    """The record of an image entry, of whatever form it is: that is for validation to report."""
    fields = entry if isinstance(entry, dict) else {}
    name = fields.get("filename")
    name = name if isinstance(name, str) else ""
    image = find_image(name) if name else None
    known = sloth.flags_known_in(entry, flags_are_known)
    return RawRecord("sloth", source, set_id, key, entry, image, known, subject_of(name, fields))


def image_finder(root: Path) -> Callable[[str], str]:
    """The function that joins `root` and the name of an image, as `Path` does but in a tenth of the time."""
    above = "" if root == Path() else f"{root}/"

    def find(name: str) -> str:
        if _UNTIDY_NAME.search(name):
            return str(root / name)
        return above + name

    return find


def ground_truth_files(root: Path, patterns: Iterable[str]) -> list[tuple[Path, str]]:
    """The files below `root` that match, sorted, each with its set id: its folder below the fixed part of the
    pattern, or its stem where it lies directly in it.

    Raises:
        AnnotationFileError: there is no such folder, or a pattern matches nothing.
    """
    if not root.is_dir():
        raise AnnotationFileError(root, "no such folder")
    found: dict[Path, str] = {}
    for pattern in patterns:
        matches = [path for path in root.glob(pattern) if _is_shown(path)]
        if not matches:
            raise AnnotationFileError(root / pattern, f"no file matches; {root} holds {_listing(root)}")
        fixed = root / Path(*_fixed_part(pattern))
        for path in matches:
            folder = path.parent.relative_to(fixed).as_posix()
            found.setdefault(path, path.stem if folder == "." else folder)
    return sorted(found.items())


def pull_export(source: LabelStudioExportSource) -> Iterator[RawRecord]:
    """A record for every task of the exports, by file and position; a few tasks at a time are in memory.

    Raises:
        AnnotationFileError: a file is broken, a pattern matches none, or there is no folder of images.
        SpecError: the subject rule's CSV can't be used.
    """
    files = files_of(source.files)
    find = _export_image_finder(Path(source.image_root), source.image_field)
    known = flags_known(
        source.occlusion,
        lambda: any(label_studio.has_flags(t) for _, path in files for t in label_studio.read_tasks(path)),
    )
    subject_of = subject_finder(source.subject)
    return (
        task_record(
            task,
            source=source.name,
            set_id=path.stem,
            key=f"{name}#{index}{_task_suffix(task)}",
            image=find(task_data(task)),
            image_field=source.image_field,
            flags_are_known=known,
            subject_of=subject_of,
        )
        for name, path in files
        for index, task in enumerate(label_studio.read_tasks(path))
    )


def files_of(patterns: Iterable[str]) -> list[tuple[str, Path]]:
    """The files that match, sorted, each with its path below the folder that holds them all.

    Raises:
        AnnotationFileError: a pattern matches nothing.
    """
    found: set[Path] = set()
    for pattern in patterns:
        fixed = Path(Path(pattern).anchor, *_fixed_part(pattern))
        matches = {path for path in fixed.glob(str(Path(pattern).relative_to(fixed))) if _is_shown(path)}
        if not matches:
            raise AnnotationFileError(pattern, f"no file matches; {fixed} {_state(fixed)}")
        found |= matches
    paths = sorted(path.absolute() for path in found)
    above = Path(os.path.commonpath([path.parent for path in paths]))
    return [(path.relative_to(above).as_posix(), path) for path in paths]


def task_record(
    task: Any,
    *,
    source: str,
    set_id: str,
    key: str,
    image: str | None,
    image_field: str,
    flags_are_known: bool,
    subject_of: SubjectOf,
) -> RawRecord:
    """The record of a Label Studio task; its field `occlusion: unknown` says that this one was not flagged."""
    data = task_data(task)
    return RawRecord(
        format="label_studio",
        source=source,
        set_id=set_id,
        key=key,
        payload=task,
        image=image,
        flags_known=flags_are_known and data.get("occlusion") != "unknown",
        subject=subject_of(label_studio.image_name(data, image_field), data),
        image_field=image_field,
    )


def task_data(task: Any) -> Mapping[str, Any]:
    """The fields of a task; none if it is not of a task's form, which is for validation to report."""
    data = task.get("data") if isinstance(task, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def flags_known(occlusion: Literal["auto", "flagged", "none"], has_flags: Callable[[], bool]) -> bool:
    """What a keypoint without a flag means, see `SourceBase`: True visible, False unknown."""
    return has_flags() if occlusion == "auto" else occlusion == "flagged"


def _task_suffix(task: Any) -> str:
    return f"/task/{task['id']}" if isinstance(task, Mapping) and "id" in task else ""


def _fixed_part(pattern: str) -> tuple[str, ...]:
    """The folders of a pattern before the first wildcard, its last part apart."""
    parts = PurePosixPath(pattern).parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    return parts[:fixed]


def _listing(folder: Path) -> str:
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") or "nothing"


def _is_shown(path: Path) -> bool:
    """A file that is not hidden by its name, as what is half-written is."""
    return not path.name.startswith(".") and path.is_file()


def _state(folder: Path) -> str:
    return f"holds {_listing(folder)}" if folder.is_dir() else "is not there"


def _export_image_finder(root: Path, image_field: str) -> Callable[[Mapping[str, Any]], str | None]:
    """Finds a task's image below `root`: by its path there, else by a file name that only one file has."""
    if not root.is_dir():
        raise AnnotationFileError(root, "no such folder of images")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in root.rglob("*"):
        by_name[path.name].append(path)

    def find(data: Mapping[str, Any]) -> str | None:
        value = data.get(image_field)
        stored = unquote(value.split("?")[0]).rsplit("/", 1)[-1] if isinstance(value, str) else ""
        for name in filter(None, (stored, label_studio.image_name(data, image_field))):
            if os.path.isfile(root / name):  # noqa: PTH113 - any text may stand there, too long for a name
                return str(root / name)
            same = by_name.get(PurePosixPath(name).name, [])
            if len(same) == 1:
                return str(same[0])
        return None

    return find
