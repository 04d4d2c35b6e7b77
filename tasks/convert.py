"""From a snapshot to TFRecord shards, each named by what goes into it.

A face is in the bucket hash(image) modulo `buckets` of its split, so one changed annotation changes one shard; the
records of the others in it are copied from the shard that it replaces, so no other image is decoded again. Whatever
interrupts a conversion, the next one writes what is missing and gets the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from schemas.config import ConversionSettings
from schemas.records import Split
from schemas.storage import make_folder, read_json, remove_half_written
from tasks.face_records import BoxedFace, embedded_records, face_records
from tasks.images import ImageIndex, Progress
from tasks.reuse import reuse_or_run, step_key
from tasks.shard_plan import PlannedShard, ShardPlan, SnapshotFaces, plan_shards
from tasks.shard_store import RecordPlace, RecordReader, ShardStore, merged
from tasks.snapshot import Snapshot
from tasks.workspace import Workspace


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
        ImageError: an image is gone, or is another one than was validated.
        StorageError: the disk is full; nothing half-written is left.
    """
    plan = plan_shards(snapshot, settings)
    counter = _Counter(plan.faces, progress)
    make_folder(workspace.shards)
    with FileLock(workspace.shards / ".lock"):
        described, written = _complete(plan, snapshot, settings, workspace, counter)
    result = _result(snapshot, settings, plan, described)
    key = step_key("convert", code=__name__, result=result)
    reuse_or_run(workspace.conversions, key, lambda directory: result)
    files = {
        split: [workspace.shards / entry["file"] for entry in result["splits"][split]["files"]] for split in Split
    }
    return Conversion(key, files, result, written, len(plan.shards) - written)


def _complete(
    plan: ShardPlan, snapshot: Snapshot, settings: ConversionSettings, workspace: Workspace, counter: _Counter
) -> tuple[list[dict[str, Any]], int]:
    """Descriptions of all shards, and how many had to be written."""
    store = ShardStore(workspace.shards)
    remove_half_written(workspace.shards)  # nobody else writes here under the lock
    keys = [shard.key for shard in plan.shards]
    described = [store.find(key) for key in keys]
    missing = [number for number, found in enumerate(described) if found is None]
    there = _replaced_records(store, workspace, [plan.shards[number] for number in missing], keys)
    counter.advance(plan.faces - sum(len(plan.shards[number].rows_S) for number in missing))
    new = {number: _absent(plan.shards[number], there) for number in missing}
    faces = SnapshotFaces(snapshot, [plan.shards[number].rows_S[positions] for number, positions in new.items()])
    with closing(ImageIndex(workspace.image_index)) as index, RecordReader() as reader:
        for number, positions in new.items():
            shard = plan.shards[number]
            made = _made(faces.of(shard, positions), settings, index)
            records = counter.watch(merged(shard.record_keys, there, reader, made))
            described[number] = store.add(keys[number], shard.record_keys, records)
    return [found for found in described if found is not None], len(missing)


def _replaced_records(
    store: ShardStore, workspace: Workspace, shards: list[PlannedShard], keys: list[str]
) -> dict[str, RecordPlace]:
    """Records of `shards` that stand in shards of the last conversion that are not used any more."""
    manifests = sorted(workspace.conversions.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
    if not (manifests and shards):
        return {}
    splits = read_json(manifests[-1])["result"]["splits"].values()
    old = {Path(file["file"]).stem for split in splits for file in split["files"]} - set(keys)
    wanted = {key for shard in shards for key in shard.record_keys}
    return {record: place for key in sorted(old) for record, place in store.places(key, wanted).items()}


def _absent(shard: PlannedShard, there: dict[str, RecordPlace]) -> list[int]:
    """Positions of the records that are not there."""
    return [position for position, key in enumerate(shard.record_keys) if key not in there]


def _made(boxed: Iterable[BoxedFace], settings: ConversionSettings, index: ImageIndex) -> Iterator[bytes]:
    if not settings.embed_crops:
        return face_records(boxed)
    return embedded_records(boxed, color=settings.color, index=index)


def _result(
    snapshot: Snapshot, settings: ConversionSettings, plan: ShardPlan, described: list[dict[str, Any]]
) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for split in Split:
        own = [pair for pair in zip(plan.shards, described, strict=True) if pair[0].split is split]
        splits[str(split)] = {
            "files": [files for _, files in own],
            "records": sum(files["records"] for _, files in own),
            "subjects": sorted({subject for shard, _ in own for subject in shard.subjects}),
        }
    return {
        "snapshot": snapshot.id,
        "num_keypoints": snapshot.num_keypoints,
        "settings": settings.model_dump(mode="json"),
        "splits": splits,
        "dropped": plan.dropped,
        "unreachable_share": plan.unreachable_share,
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
