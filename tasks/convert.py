"""From a snapshot to TFRecord shards, each named by what goes into it.

A face is in the bucket hash(image) modulo `buckets` of its split, so one changed annotation changes one shard. A
shard `shards/<key>.tfrecords` has a description `shards/<key>.json` beside it, written after it; a shard without one
is unfinished. Whatever interrupts a conversion, the next one writes what is missing and gets the same files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from schemas.config import ConversionSettings
from schemas.errors import ShardError
from schemas.geometry import Box
from schemas.records import Face, Split, Violation
from schemas.storage import read_json, sha256_file, sha256_of, write_json
from tasks.faceboxes import box_faces, unreachable_share
from tasks.images import Progress
from tasks.reuse import KEY_LENGTH, code_version, reuse_or_run, step_key
from tasks.snapshot import Snapshot
from tasks.splits import refuse_leaks
from tasks.workspace import Workspace

_WORKERS = 2


@dataclass(frozen=True)
class Conversion:
    """Outcome of `convert`.

    Attributes:
        key: names the conversion; `conversions/<key>/manifest.json` lists the shards.
        files: the shards of every split, in a fixed order.
        result: JSON, as in the manifest: `snapshot`, `splits` (files, records, subjects), `dropped`,
            `unreachable_share`.
        written, reused: number of shards that were made, and that were there.
    """

    key: str
    files: dict[Split, list[Path]]
    result: dict[str, Any]
    written: int
    reused: int

    def hashes(self, split: Split) -> list[str]:
        """SHA-256 of the split's shards, in the order of `files`."""
        return [file["sha256"] for file in self.result["splits"][split]["files"]]


@dataclass(frozen=True)
class _Shard:
    split: Split
    bucket: int
    faces: list[tuple[Face, Box]]


def convert(
    snapshot: Snapshot,
    settings: ConversionSettings,
    workspace: Workspace,
    *,
    progress: Progress | None = None,
) -> Conversion:
    """Write the shards of a snapshot that are not there yet, and list them.

    Args:
        progress: called with faces done and faces in all.

    Raises:
        SubjectLeakError: a KPI subject in training or validation.
        ShardError: an image is gone, or is another one than was validated.
        StorageError: the disk is full; nothing half-written is left.
    """
    refuse_leaks(snapshot.faces, snapshot.splits, snapshot.kpi_subjects, f"snapshot {snapshot.id[:12]}")
    boxed = box_faces(
        snapshot.faces, enlarge_ratio=settings.bbox_enlarge_ratio, outside_frame=settings.box_outside_frame
    )
    split_of = {face.source_key: split for face, split in zip(snapshot.faces, snapshot.splits, strict=True)}
    shards = _shards(boxed.faces, split_of, settings.buckets)
    described, written = _write_missing(shards, settings, workspace.shards, _Counter(len(boxed.faces), progress))
    result = _result(snapshot, settings, shards, described, boxed.dropped)
    key = step_key("convert", code=__name__, result=result)
    reuse_or_run(workspace.conversions, key, lambda directory: result)
    files = {
        split: [workspace.shards / entry["file"] for entry in result["splits"][split]["files"]] for split in Split
    }
    return Conversion(key, files, result, written, len(shards) - written)


def _shards(boxed: list[tuple[Face, Box]], split_of: dict[str, Split], buckets: int) -> list[_Shard]:
    """The faces by split and bucket, each sorted by image and content."""
    groups: dict[tuple[Split, int], list[tuple[Face, Box]]] = defaultdict(list)
    for face, box in boxed:
        groups[split_of[face.source_key], int(face.image_sha256[:15], 16) % buckets].append((face, box))
    for faces in groups.values():
        faces.sort(key=lambda pair: (pair[0].image_sha256, pair[0].content_hash()))
    return [_Shard(split, bucket, faces) for (split, bucket), faces in sorted(groups.items())]


def _write_missing(
    shards: list[_Shard], settings: ConversionSettings, folder: Path, counter: _Counter
) -> tuple[list[dict[str, Any]], int]:
    """Descriptions of all shards, and how many had to be written."""
    described, written = [], 0
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"), ThreadPoolExecutor(_WORKERS) as pool:
        for leftover in folder.glob(".*.tmp*"):
            leftover.unlink()  # of a run that was killed; nobody else writes here under the lock
        for shard in shards:
            key = _shard_key(shard, settings)
            description = _sound_description(folder, key)
            if description is None:
                description = _write_shard(shard, key, settings, folder, pool, counter)
                written += 1
            else:
                counter.advance(len(shard.faces))
            described.append(description)
    return described, written


def _shard_key(shard: _Shard, settings: ConversionSettings) -> str:
    """Everything that decides a shard's bytes: each record's content, names and box, the pixels wanted, the code."""
    records = [[face.content_hash(), face.image_name, face.set_id, list(box)] for face, box in shard.faces]
    pixels = [settings.embed_crops, settings.color]
    return sha256_of({"records": records, "pixels": pixels, "code": code_version("model.tfrecords")})[:KEY_LENGTH]


def _sound_description(folder: Path, key: str) -> dict[str, Any] | None:
    path = folder / f"{key}.json"
    if not path.is_file():
        return None
    description = read_json(path)
    shard = folder / description["file"]
    return description if shard.is_file() and sha256_file(shard) == description["sha256"] else None


def _write_shard(
    shard: _Shard, key: str, settings: ConversionSettings, folder: Path, pool: ThreadPoolExecutor, counter: _Counter
) -> dict[str, Any]:
    from model.tfrecords import write_records

    path = folder / f"{key}.tfrecords"
    serialize = serializer(embed=settings.embed_crops, color=settings.color)
    records = write_records(path, counter.watch(pool.map(serialize, shard.faces)))
    description = {"file": path.name, "sha256": sha256_file(path), "records": records, "bytes": path.stat().st_size}
    write_json(path.with_suffix(".json"), description)
    return description


def serializer(*, embed: bool, color: Literal["gray", "rgb"]) -> Callable[[tuple[Face, Box]], bytes]:
    """The function that makes a face and its box into a record; with `embed` it reads the image, and raises
    ShardError if that is gone or another one than was validated."""
    from model.images import decode_image
    from model.tfrecords import serialize_face

    channels = 1 if color == "gray" else 3

    def serialize(pair: tuple[Face, Box]) -> bytes:
        face, box = pair
        if not embed:
            return serialize_face(face, box)
        return serialize_face(face, box, decode_image(_image_bytes(face), channels=channels, name=face.image))

    return serialize


def _image_bytes(face: Face) -> bytes:
    try:
        data = Path(face.image).read_bytes()
    except OSError as error:
        raise ShardError(f"{face.image}: can't be read: {error.strerror}; run again to pull it anew") from error
    if sha256(data).hexdigest() != face.image_sha256:
        raise ShardError(f"{face.image}: has changed since it was validated; run again to take it as it is now")
    return data


def _result(
    snapshot: Snapshot,
    settings: ConversionSettings,
    shards: list[_Shard],
    described: list[dict[str, Any]],
    dropped: list[Violation],
) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for split in Split:
        own = [(shard, files) for shard, files in zip(shards, described, strict=True) if shard.split is split]
        splits[str(split)] = {
            "files": [files for _, files in own],
            "records": sum(files["records"] for _, files in own),
            "subjects": sorted({face.subject or "" for shard, _ in own for face, _ in shard.faces}),
        }
    return {
        "snapshot": snapshot.id,
        "num_keypoints": snapshot.num_keypoints,
        "settings": settings.model_dump(mode="json"),
        "splits": splits,
        "dropped": [asdict(violation) for violation in dropped],
        "unreachable_share": unreachable_share([pair for shard in shards for pair in shard.faces]),
    }


class _Counter:
    """Tells `progress` how many faces are done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def advance(self, number: int) -> None:
        self._done += number
        if self._progress is not None:
            self._progress(self._done, self._total)

    def watch(self, records: Iterator[bytes]) -> Iterator[bytes]:
        for record in records:
            yield record
            self.advance(1)
