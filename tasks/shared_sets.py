"""A set that a spec names for training and for validation is divided between them, by subject."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from schemas.records import Split
from schemas.texts import composed

VALIDATION_SHARE = 0.1


def divide(files: Sequence[Path], directory: Path) -> dict[Split, list[Path]]:
    """Write the records of `files` below `directory`, whole subjects to one side; about a tenth for validation.

    A record that names no subject goes by its image's name. The same records always go to the same side.

    Raises:
        ShardError: a file can't be read.
        StorageError: the directory can't be written.
    """
    from model.tfrecords import write_records

    owned = [pair for path in files for pair in _owned(path)]
    held_out = _held_out({owner for owner, _ in owned})
    sides = {
        Split.TRAIN: [record for owner, record in owned if owner not in held_out],
        Split.VALIDATION: [record for owner, record in owned if owner in held_out],
    }
    divided = {}
    for split, records in sides.items():
        path = directory / f"{split}.tfrecords"
        write_records(path, records)
        divided[split] = [path]
    return divided


def _owned(path: Path) -> list[tuple[str, bytes]]:
    import tensorflow as tf

    from model.shards import read_records, shard_errors

    with shard_errors(path):
        return [(_owner(tf.train.Example.FromString(record)), record) for record in read_records([path])]


def _owner(example) -> str:
    features = example.features.feature
    subject = features["image/subject"].bytes_list.value
    name = features["train/image_frame_name"].bytes_list.value
    return composed(next(filter(None, (*subject, *name)), b"").decode())


def _held_out(owners: set[str]) -> set[str]:
    """At least one owner and not all, in the order of a hash, so that a new owner moves few others."""
    ordered = sorted(owners, key=lambda owner: hashlib.sha256(owner.encode()).digest())
    return set(ordered[: max(1, round(VALIDATION_SHARE * len(ordered)))]) if len(ordered) > 1 else set()
