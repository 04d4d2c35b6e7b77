"""Raw records out of landmark datasets: `.pts` files, WFLW's lists, COFW's MATLAB files, COCO keypoint files.

Payloads hold what was received, a file's text, a line, a row of numbers, JSON objects, and beside it the settings of
the source that say how to read it. So what is wrong in one face is found by its reader, as a violation that names
the place, and only a file that can't be gone through at all ends the pull.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schemas import coco_keypoints, pts, wflw
from schemas.errors import AnnotationFileError
from schemas.raw import RawRecord
from schemas.sources import CocoSource, CofwSource, LandmarkSource, PtsSource, WflwSource
from tasks.pull_cofw import pull_cofw
from tasks.pull_files import files_of, flags_known, ground_truth_files, image_finder
from tasks.subjects import subject_finder
from tasks.tombstones import Tombstones


def pull_landmarks(source: LandmarkSource, images: Path, tombstones: Tombstones) -> Iterator[RawRecord]:
    """A record for every face or image of the source, in a fixed order.

    Args:
        images: folder for the images that the annotation files themselves hold.
        tombstones: whose images are not to be written there.

    Raises:
        AnnotationFileError: a file can't be read, a pattern matches none, or an image is there twice.
        SpecError: the subject rule's CSV can't be used.
        StorageError: an image can't be written.
    """
    match source:
        case PtsSource():
            return _pull_pts(source)
        case WflwSource():
            return _pull_wflw(source)
        case CofwSource():
            return pull_cofw(source, images, tombstones)
        case CocoSource():
            return _pull_coco(source)


def _pull_pts(source: PtsSource) -> Iterator[RawRecord]:
    root = Path(source.root)
    image_root = Path(source.image_root or source.root)
    files = [path.relative_to(root) for path, _ in ground_truth_files(root, source.files)]
    known = flags_known(source.occlusion, lambda: any(pts.has_flags(_text(root / file)) for file in files))
    subject_of = subject_finder(source.subject)
    for file in files:
        image = _image_beside(image_root / file, source.image_suffixes)
        name = image.relative_to(image_root).as_posix() if image else file.as_posix()
        folder = file.parent.as_posix()
        yield RawRecord(
            format="pts",
            source=source.name,
            set_id=source.name if folder == "." else folder,
            key=file.as_posix(),
            payload={"image": name, "text": _text(root / file)},
            image=str(image) if image else None,
            flags_known=known,
            subject=subject_of(name, {}),
        )


def _text(path: Path) -> str:
    """The text of a file. Bytes that are no UTF-8 stand as `\\xff` in it, where its reader will find no number."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="backslashreplace")
    except OSError as error:
        raise AnnotationFileError(path, f"can't be read: {error.strerror}") from error


def _image_beside(path: Path, suffixes: list[str]) -> Path | None:
    """The image with the name of a `.pts` file; the endings are tried in small and in capital letters."""
    endings = dict.fromkeys(ending for suffix in suffixes for ending in (suffix, suffix.upper()))
    found = [image for ending in endings if (image := path.with_suffix(ending)).is_file()]
    if len(found) > 1:
        names = " and ".join(image.name for image in found)
        raise AnnotationFileError(path, f"has two images, {names}; say in image_suffixes which one is meant")
    return found[0] if found else None


def _pull_wflw(source: WflwSource) -> Iterator[RawRecord]:
    known = flags_known(source.occlusion, lambda: False)
    subject_of, find_image = subject_finder(source.subject), image_finder(Path(source.image_root))
    for name, path in files_of(source.files):
        for number, line in _lines(path):
            image = wflw.image_name(line)
            yield RawRecord(
                format="wflw",
                source=source.name,
                set_id=path.stem,
                key=f"{name}:{number}",
                payload={"line": line},
                image=find_image(image),
                flags_known=known,
                subject=subject_of(image, {}),
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if text := line.decode("utf-8-sig").strip():
                    yield number, text
    except OSError as error:
        raise AnnotationFileError(path, f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AnnotationFileError(path, "no text in UTF-8", line=number, column=error.start + 1) from error


def _pull_coco(source: CocoSource) -> Iterator[RawRecord]:
    subject_of, find_image = subject_finder(source.subject), image_finder(Path(source.image_root))
    for name, path in files_of(source.files):
        for entry in coco_keypoints.read_images(path):
            fields = entry.image or {}
            image = fields.get("file_name")
            image = image if isinstance(image, str) else ""
            yield RawRecord(
                format="coco",
                source=source.name,
                set_id=path.stem,
                key=f"{name}#{entry.place}",
                payload={"image": entry.image, "annotations": entry.annotations, "field": source.field},
                image=find_image(image) if image else None,
                flags_known=source.occlusion != "none",
                subject=subject_of(image, fields),
            )
