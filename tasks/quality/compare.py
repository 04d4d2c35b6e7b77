"""Annotations of the same face, brought together.

Annotations compete where they are of one record (a task of Label Studio); validation uses one of them and keeps the
others as superseded. Two annotations by one annotator are no agreement: the one in use, or else the later one, speaks
for that annotator, and what lies between the two is repeatability. Annotations that name nobody might be by anyone,
so they are left out, and counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.face_views import FaceViews
from schemas.raw import read_raw
from schemas.records import Face
from schemas.sources import LabelStudioSource, Source

_ANNOTATION = "/annotation/"


@dataclass
class Compared:
    """The annotations of a validation, as they can be compared.

    Attributes:
        views: faces with two known annotators or more.
        faces: for each of them, its annotations in the views' order.
        repeats: two annotations of a face by one annotator.
        annotators: everybody who is named in any accepted or superseded annotation.
        unnamed: annotations of faces with several that name no annotator.
    """

    views: list[FaceViews] = field(default_factory=list)
    faces: list[list[Face]] = field(default_factory=list)
    repeats: list[FaceViews] = field(default_factory=list)
    annotators: set[str] = field(default_factory=set)
    unnamed: int = 0


def record_of(source_key: str) -> str:
    """The source key of the record that an annotation is of."""
    return source_key.rpartition(_ANNOTATION)[0] or source_key


def annotator_prefixes(sources: Iterable[Source]) -> dict[str, str]:
    """Source -> what to put before its annotators' ids: a server numbers its users, so 3 on another server is
    somebody else. Empty for all where there is one place only."""
    places = {source.name: source.url if isinstance(source, LabelStudioSource) else source.name for source in sources}
    first_at: dict[str, str] = {}
    for name, place in places.items():
        first_at.setdefault(place, name)
    if len(first_at) == 1:
        return dict.fromkeys(places, "")
    return {name: f"{first_at[place]}/" for name, place in places.items()}


def reviewed_records(raws: Iterable[Path]) -> frozenset[str]:
    """Records of which an annotation is ground truth, by their source keys; `raws` as `tasks.pull` leaves them."""
    return frozenset(
        record.source_key
        for raw in raws
        for record in read_raw(raw)
        if record.format == "label_studio" and _has_ground_truth(record.payload)
    )


def compare(accepted: Iterable[Face], superseded: Iterable[Face], prefixes: Mapping[str, str]) -> Compared:
    """Bring the annotations of each face together.

    Args:
        accepted, superseded: of one validation.
        prefixes: see `annotator_prefixes`.
    """
    several: dict[str, list[Face]] = defaultdict(list)
    for face in superseded:
        several[record_of(face.source_key)].append(face)
    compared = Compared()
    used = set()
    for face in accepted:
        if face.annotator is not None:
            compared.annotators.add(_name(face, prefixes))
        if (record := record_of(face.source_key)) in several:
            several[record].append(face)
            used.add(face.source_key)
    for record in sorted(several):
        _compare_record(record, several[record], used, prefixes, compared)
    return compared


def _has_ground_truth(task: object) -> bool:
    annotations = task.get("annotations") if isinstance(task, Mapping) else None
    return isinstance(annotations, list) and any(
        isinstance(annotation, Mapping) and annotation.get("ground_truth") is True for annotation in annotations
    )


def _name(face: Face, prefixes: Mapping[str, str]) -> str:
    return f"{prefixes.get(face.source_key.partition(':')[0], '')}{face.annotator}"


def _compare_record(
    record: str, faces: Sequence[Face], used: set[str], prefixes: Mapping[str, str], compared: Compared
) -> None:
    by_name: dict[str, list[Face]] = defaultdict(list)
    for face in faces:
        if face.annotator is None:
            compared.unnamed += 1
        else:
            by_name[_name(face, prefixes)].append(face)
    speaking = []
    for name, own in sorted(by_name.items()):
        own.sort(key=lambda face: (face.source_key in used, face.annotated_at or "", face.source_key))
        speaking.append(own[-1])
        if len(own) > 1:
            compared.repeats.append(_views(record, (name, name), own[-2:]))
    compared.annotators |= by_name.keys()
    if len(speaking) > 1:
        compared.views.append(_views(record, sorted(by_name), speaking))
        compared.faces.append(speaking)


def _views(record: str, names: Sequence[str], faces: Sequence[Face]) -> FaceViews:
    return FaceViews(
        key=record,
        subject=faces[0].subject or "",
        annotators=tuple(names),
        points_AK2=np.stack([face.points_N2 for face in faces]).astype(np.float64),
        flags_AK=np.stack([face.flags_N for face in faces]),
    )
