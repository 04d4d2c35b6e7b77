"""Show a person what was found: one self-contained HTML page, the same as JSON, and the suspects as a table.

Everything beside the page is for programs; people's faces and names are in all of it.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.agreement import Agreement
from model.agreement_charts import SPREAD_ENLARGED, bias_chart, enlargement, spread_chart
from model.region_error import Unit
from schemas.errors import ImageError
from schemas.records import Face
from schemas.storage import write_bytes, write_json
from tasks.pages import render_page
from tasks.quality.disputes import Dispute
from tasks.quality.findings import DuplicatePair, Suspect
from tasks.quality.pictures import ANNOTATORS, draw_dispute, draw_suspect
from tasks.quality.summary import FacePicture, QualitySummary

PAGE, DATA, SUSPECTS, DUPLICATES, PICTURES = (
    "index.html",
    "quality.json",
    "suspects.parquet",
    "duplicates.parquet",
    "pictures",
)
SUSPECT_PICTURES, DISPUTE_PICTURES, PAIR_PICTURES = 12, 8, 4
SHOWN_ROWS = 100
"""Rows of a list on the page; the files have all of them."""

SHOWN_BIASES = 6

_COLUMNS = {"score": pa.float64(), "distance": pa.int32(), "subjects_known": pa.bool_()}


@dataclass(frozen=True)
class Drawn:
    """Pictures that are not written yet: `pngs` by `FacePicture.picture`. Of `skipped` the image can't be read."""

    pictures: tuple[FacePicture, ...] = ()
    pngs: Mapping[str, bytes] = field(default_factory=dict)
    skipped: int = 0


def write_quality_page(summary: QualitySummary, pngs: Mapping[str, bytes], directory: Path) -> Path:
    """Write `quality.json`, the pictures, the page and the tables into `directory`; return the page's path.

    In this order: a picture that nothing names would not be found by who forgets the person in it.

    Args:
        pngs: `Drawn.pngs` of the summary's pictures.
    """
    write_json(directory / DATA, asdict(summary))
    for name, png in pngs.items():
        write_bytes(directory / name, png)
    write_bytes(directory / PAGE, render(summary, directory).encode())
    write_bytes(directory / SUSPECTS, _table(summary.label_errors.suspects, Suspect))
    write_bytes(directory / DUPLICATES, _table(summary.duplicates.pairs, DuplicatePair))
    return directory / PAGE


def render(summary: QualitySummary, directory: Path) -> str:
    """The page; the pictures are in `directory`."""
    agreement = summary.agreement.agreement
    return render_page(
        "quality/page.html",
        run=summary,
        picture_of={picture.key: directory / picture.picture for picture in summary.pictures},
        shown_rows=SHOWN_ROWS,
        annotator_colours=[f"rgb({red},{green},{blue})" for blue, green, red in ANNOTATORS],
        unit=_leading_unit(agreement),
        charts=_charts(agreement) if agreement else {},
    )


def draw_pictures(
    disputes: Sequence[Dispute],
    suspects: Sequence[Suspect],
    pairs: Sequence[DuplicatePair],
    faces: Iterable[Face],
) -> Drawn:
    """Draw the first disputes, suspects and pairs, each record or face once.

    Args:
        faces: accepted and superseded, in any order.
    """
    disputes = disputes[:DISPUTE_PICTURES]
    points: dict[str, str | None] = {}
    for suspect in suspects[:SUSPECT_PICTURES]:
        points.setdefault(suspect.source_key, suspect.keypoint)  # the first of a face is its worst
    for pair in pairs[:PAIR_PICTURES]:
        points |= {key: points.get(key) for key in (pair.first, pair.second)}
    wanted = points.keys() | {key for dispute in disputes for key in dispute.source_keys}
    found = {face.source_key: face for face in faces if face.source_key in wanted}
    draw: dict[str, tuple[str | None, Callable[[], bytes]]] = {}
    for dispute in disputes:
        draw[dispute.record] = dispute.subject, partial(draw_dispute, [found[key] for key in dispute.source_keys])
    for key, keypoint in points.items():
        draw[key] = found[key].subject, partial(draw_suspect, found[key], keypoint)
    pictures: list[FacePicture] = []
    pngs: dict[str, bytes] = {}
    for key, (subject, draw_one) in draw.items():
        name = f"{PICTURES}/{len(pictures) + 1:02d}.png"
        with suppress(ImageError):
            pngs[name] = draw_one()
            pictures.append(FacePicture(key, subject, name))
    return Drawn(tuple(pictures), pngs, skipped=len(draw) - len(pictures))


def _leading_unit(agreement: Agreement | None) -> Unit:
    """What differences are shown in first: per cent of the inter-ocular distance where there are eyes."""
    has_eyes = agreement is not None and Unit.INTER_OCULAR in agreement.regions["All"].spread
    return Unit.INTER_OCULAR if has_eyes else Unit.CROP


def _charts(agreement: Agreement) -> Mapping[str, Any]:
    """`spread`, and `bias`: annotator -> chart, of the first `SHOWN_BIASES`; both drawn larger than life."""
    biases = agreement.biases[:SHOWN_BIASES]
    enlarged = enlargement([bias.points_crop_px for bias in biases])
    spread = [point.spread[Unit.CROP] for point in agreement.points]
    return {
        "spread": spread_chart(agreement.mean_face, spread, [point.label for point in agreement.points]),
        "spread_enlarged": SPREAD_ENLARGED,
        "enlarged": enlarged,
        "bias": {
            bias.annotator: bias_chart(
                agreement.mean_face, bias.points_crop_px, enlarged=enlarged, name=bias.annotator
            )
            for bias in biases
        },
    }


def _table(rows: Sequence[Any], kind: type[Any]) -> bytes:
    """Parquet of dataclasses; what is neither number nor truth value is text."""
    schema = pa.schema([(field.name, _COLUMNS.get(field.name, pa.string())) for field in dataclasses.fields(kind)])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), sink)
    return sink.getvalue()
