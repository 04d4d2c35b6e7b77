"""From any source to a folder of Sloth/TAO ground truth, which `fpenet label-studio import` and TAO's tools read.

    gt/<set>.json     an entry for each face, sorted; with `subject` and `occlusion`, see below
    images/...        the pictures, byte for byte
    manifest.csv      file, subject: the pictures, and whose face each shows where that is known, `<dataset>/<id>`
    fpenet-export.json   which source it is of, and its sets: what a later export may bring up to date

What is written are face records: annotations that break a rule are left out and named, and of several annotators' the
one is taken that a training would use. An entry says by itself what the format has no word for, so that nothing hangs
on the settings of the source that reads it: `subject` is `<dataset>/<id>`, and `occlusion` says whether a keypoint
without a flag is visible (`flagged`) or was never looked at (`unknown`).

Label Studio -> folder -> Label Studio -> face records gives the records that Label Studio gave in the first place.
Points are float32 there, whose shortest decimal comes back exactly, from a folder and, by percent of the frame, from
a server: of 27 million coordinates in frames of 16 to 8192 pixels none differed. A face box is kept in double
precision, and percent and back moved it by at most 2e-12 pixels. (A percent of Label Studio's itself is rounded to
float32 once, when it becomes a record: by at most 6e-5 pixels in frames up to 2048 pixels.)
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from schemas.annotation import NOT_REJECTED
from schemas.config import ValidationRules
from schemas.errors import AnnotationFileError, SourceEmptyError, SpecError, ViolationsError
from schemas.raw import RawRecord, read_raw
from schemas.records import Face, Violation
from schemas.sloth import face_to_sloth, image_entry
from schemas.sources import Source
from schemas.storage import is_half_written, read_json, remove_half_written, sha256_file, write_bytes, write_json
from tasks.images import ImageIndex
from tasks.lease import present
from tasks.progress import StepProgress, silent
from tasks.pull import pull
from tasks.pull_files import task_data
from tasks.validate import summary, validate
from tasks.workspace import Workspace

GT, IMAGES, MANIFEST, NOTES = "gt", "images", "manifest.csv", "fpenet-export.json"
_COLUMNS = ("file", "subject")
_NO_FILE_NAME = re.compile(r"[/\\\0]|^\.")


@dataclass(frozen=True)
class FolderExport:
    """What an export wrote.

    Attributes:
        folder: where.
        sets: set -> number of faces.
        images: number of pictures.
        left_out: the rules that other annotations break.
        skipped: annotations that are none: skipped by their annotators, or not begun.
    """

    folder: Path
    sets: dict[str, int]
    images: int
    left_out: list[Violation]
    skipped: int


def export_source(
    source: Source, folder: Path, workspace: Workspace, *, num_keypoints: int, progress: StepProgress = silent
) -> FolderExport:
    """Pull `source` into the workspace, and write its face records to `folder`; again, to bring it up to date.

    What is pulled is kept apart from what trainings read: a pull takes away images that the source has no more.

    Where there is nothing to write, a new folder is not made, and one of this source is emptied before that is told:
    those who were in it may have been forgotten.

    Raises:
        SpecError: the folder holds something else, or another source.
        SourceEmptyError: nothing in the source is annotated.
        SourceError, AnnotationFileError: see `tasks.pull.pull`.
        ViolationsError: every annotation breaks a rule.
        StorageError: the folder or the workspace can't be written.
    """
    with present(workspace.lease):
        return _export(source, folder, workspace, num_keypoints, progress)


def _export(
    source: Source, folder: Path, workspace: Workspace, num_keypoints: int, progress: StepProgress
) -> FolderExport:
    try:
        raw = pull(source, workspace.for_exports, num_keypoints=num_keypoints, progress=progress).raw
    except SourceEmptyError as error:
        raise SourceEmptyError(f"{error}; {_empty(folder, source.name)}") from None
    with closing(ImageIndex(workspace.image_index)) as index:
        outcome = validate(
            _with_own_sets(read_raw(raw)),
            num_keypoints=num_keypoints,
            rules=ValidationRules(max_rejected_share=1.0, require_subject=False),
            index=index,
            progress=lambda done, of: progress("images", done, of),
        )
    left_out = [violation for violation in outcome.violations if violation.code not in NOT_REJECTED]
    if not outcome.counts.accepted:
        written = _empty(folder, source.name)
        if left_out:
            raise ViolationsError(
                f"source '{source.name}': none of {outcome.counts.annotations} annotations can be used, and "
                f"{written}: {summary(left_out)}"
            )
        raise SourceEmptyError(f"source {source.name}: nothing in it is annotated; {written}")
    sets, images = write_folder(outcome.faces, folder, source=source.name, progress=progress)
    return FolderExport(folder, sets, images, left_out, outcome.counts.skipped)


def _empty(folder: Path, source: str) -> str:
    """Remove what earlier exports of the source have left in the folder; says whether there was something."""
    if not any(_written_before(folder, source)):
        return "nothing was written"
    write_folder([], folder, source=source)
    return "the folder is empty now"


def write_folder(
    faces: Sequence[Face], folder: Path, *, source: str, progress: StepProgress = silent
) -> tuple[dict[str, int], int]:
    """Write the folder of some faces; numbers of faces by set, and of pictures.

    A folder that was written before is brought up to date: pictures and sets of that time that are not among these
    faces are removed, so that nobody who was forgotten stays in it. What somebody else put there stays.

    Args:
        source: name of where the faces are from: the folder is that source's from now on.

    Raises:
        SpecError: the folder holds something that was not written here, or another source.
        AnnotationFileError: a picture has changed since the faces were validated.
        StorageError: the folder can't be written.
    """
    sets_before, pictures_before = _written_before(folder, source)
    remove_half_written(folder)
    entries: dict[str, list[bytes]] = defaultdict(list)
    pictures: dict[str, Face] = {}
    for face in faces:
        name = _picture_name(face, pictures)
        pictures.setdefault(name, face)
        entries[_NO_FILE_NAME.sub("-", face.set_id)].append(orjson.dumps(sloth_entry(face, name)))
    subjects = {name: face.subject for name, face in pictures.items()}
    # What may be here from now on:
    write_json(folder / NOTES, {"source": source, "sets": sorted(sets_before | entries.keys())})
    write_bytes(folder / MANIFEST, _manifest(dict.fromkeys(pictures_before) | subjects))
    for done, (name, face) in enumerate(sorted(pictures.items()), start=1):
        _copy_picture(face, folder / name)
        progress("pictures", done, len(pictures))
    for set_id, texts in sorted(entries.items()):
        write_bytes(folder / GT / f"{set_id}.json", b"[\n" + b",\n".join(texts) + b"\n]\n")
    _remove(folder, sets_before - entries.keys(), pictures_before - pictures.keys())
    write_bytes(folder / MANIFEST, _manifest(subjects))
    write_json(folder / NOTES, {"source": source, "sets": sorted(entries)})
    return {set_id: len(texts) for set_id, texts in sorted(entries.items())}, len(pictures)


def sloth_entry(face: Face, filename: str) -> dict[str, Any]:
    """The entry of one face."""
    chunks = face_to_sloth(face.points_N2, face.flags_N, tight_box=face.tight_box, outer_box=face.outer_box)
    return image_entry(
        filename,
        [chunks],
        subject=face.subject,
        occlusion="flagged" if face.occlusion_known else "unknown",
        session=face.session,
        camera=face.camera,
        illumination=face.illumination,
        annotator=face.annotator,
        annotated_at=face.annotated_at,
    )


def _with_own_sets(records: Iterable[RawRecord]) -> Iterator[RawRecord]:
    """A task that came out of a folder says which of its sets it was in; the server's projects are no sets of it."""
    for record in records:
        own = task_data(record.payload).get("set") if record.format == "label_studio" else None
        yield replace(record, set_id=own) if isinstance(own, str) and own else record


def _picture_name(face: Face, taken: dict[str, Face]) -> str:
    """`images/...` by the name in the annotation; another picture of the same name has its hash added."""
    parts = [part for part in PurePosixPath(face.image_name).parts if part not in ("/", "..")]
    parts = parts or [Path(face.image).name]
    path = PurePosixPath(IMAGES, *(parts[1:] if parts[0] == IMAGES else parts))
    if not path.suffix:
        path = path.with_suffix(Path(face.image).suffix)
    there = taken.get(str(path))
    if there is not None and there.image_sha256 != face.image_sha256:
        path = path.with_stem(f"{path.stem}-{face.image_sha256[:12]}")
    return str(path)


def _copy_picture(face: Face, path: Path) -> None:
    if path.is_file() and sha256_file(path) == face.image_sha256:
        return
    data = Path(face.image).read_bytes()
    if hashlib.sha256(data).hexdigest() != face.image_sha256:
        raise AnnotationFileError(face.image, "has changed since it was looked at; run the same command again")
    write_bytes(path, data)


def _manifest(subjects: Mapping[str, str | None]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for name, subject in sorted(subjects.items()):
        rows.writerow((name, subject or ""))
    return text.getvalue().encode()


def _written_before(folder: Path, source: str) -> tuple[set[str], set[str]]:
    """The sets and the pictures of a folder that was written before; none of a new one."""
    if not folder.is_dir() or all(map(is_half_written, folder.iterdir())):
        return set(), set()
    if not (folder / NOTES).is_file():
        raise SpecError(str(folder), f"holds something else (there is no {NOTES} of ours); choose another folder")
    noted = read_json(folder / NOTES)
    if noted["source"] != source:
        raise SpecError(
            str(folder),
            f"holds the source '{noted['source']}', which '{source}' would replace; choose another folder, or remove "
            "this one first",
        )
    manifest = folder / MANIFEST
    lines = manifest.read_text("utf-8").splitlines()[1:] if manifest.is_file() else []
    names = [row[0] for row in csv.reader(lines) if row]
    ours = {name for name in names if name.startswith(f"{IMAGES}/") and ".." not in name.split("/")}
    return set(noted["sets"]), ours


def _remove(folder: Path, sets: Iterable[str], pictures: Iterable[str]) -> None:
    for set_id in sets:
        (folder / GT / f"{set_id}.json").unlink(missing_ok=True)
    for name in pictures:
        (folder / name).unlink(missing_ok=True)
