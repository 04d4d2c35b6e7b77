"""The faces of a snapshot as lineage sees them: whose, from which annotation, used for what.

Apart from the index, because Parquet takes a second to import and is needed only when a snapshot is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from schemas.errors import StorageError
from schemas.storage import read_json

FACE_TABLES = ("faces.parquet", "superseded.parquet")
"""As `tasks.snapshot` names them."""


class HeldFace(NamedTuple):
    """A face in a snapshot.

    Attributes:
        annotation: source key of the annotation.
        content: its content hash: the same annotation may have been changed between two snapshots.
        subject: `<dataset>/<id>`, or None where unknown.
        place: its split, or `superseded`.
    """

    annotation: str
    content: str
    subject: str | None
    place: str


def rows_of(directory: Path) -> Iterator[HeldFace]:
    """Every face in a snapshot's directory, those that were not used last.

    Raises:
        StorageError: a table is damaged, or was taken away meanwhile.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    used, unused = (directory / name for name in FACE_TABLES)
    columns = ["source_key", "content_hash", "subject", "split"]
    for path in (used, unused):
        try:
            table = pq.read_table(path, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"{path}: can't be read ({error}); run the same command again, or restore it"
            ) from error
        for annotation, content, subject, split in zip(*(table[name].to_pylist() for name in columns), strict=True):
            yield HeldFace(annotation, content, subject, split if path == used else "superseded")


def taken_at(directory: Path) -> str:
    """When a snapshot was taken, ISO 8601, or '' where that is not written down."""
    path = directory / "provenance.json"
    return str(read_json(path).get("taken_at", "")) if path.is_file() else ""
