"""The labels that look wrong, the most suspicious first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.label_errors import Finding, Kind, rank_label_errors
from schemas.config import QualitySettings
from schemas.records import Face
from tasks.quality.findings import LabelErrors, Suspect

_HINTS = {
    Kind.SWAPPED_SIDES: "left and right are those of the image: label these points again, from the image's left",
    Kind.SHIFTED_ORDER: "the points are there, but numbered from the wrong one: number them again",
    Kind.POINT_OFF: "zoom in and see whether this point is where the guidelines want it",
    Kind.WRONG_FLAG: "see whether something hides this point, or the head's turn does",
}
_WORDS = {
    Kind.SWAPPED_SIDES: "likelier by {gain:.0f} nats with the sides of {part} exchanged",
    Kind.SHIFTED_ORDER: "likelier by {gain:.0f} nats with the points of {part} numbered from another one",
    Kind.POINT_OFF: "likelier by {gain:.0f} nats with {part} where the other points expect it",
    Kind.WRONG_FLAG: "the face's other flags speak against that of {part} by {gain:.1f} nats",
}


def find_label_errors(faces: Sequence[Face], settings: QualitySettings) -> LabelErrors:
    """Rank the faces' labels by how wrong they look, all faces of one layout; see `model.label_errors`.

    Args:
        settings: `max_suspects` and `min_suspicion` bound the list.

    Returns:
        Suspects whose `score` is at least `min_suspicion`, and notes on what could not be judged or is left out.
    """
    if not faces:
        return LabelErrors(notes=("no faces",))
    ordered = sorted(faces, key=lambda face: face.source_key)
    points_FN2 = np.stack([face.points_N2 for face in ordered]).astype(np.float64)
    flags_FN = np.stack([face.flags_N for face in ordered])
    people = [face.subject or f"image {face.image_sha256}" for face in ordered]
    ranking = rank_label_errors(points_FN2, flags_FN, people)
    found = [finding for finding in ranking.findings if finding.score >= settings.min_suspicion]
    notes = list(ranking.notes)
    if len(found) > settings.max_suspects:
        notes.append(f"{len(found)} labels look wrong; the first {settings.max_suspects} are listed")
    suspects = tuple(_suspect(finding, ordered[finding.face]) for finding in found[: settings.max_suspects])
    return LabelErrors(suspects, tuple(notes))


def _suspect(finding: Finding, face: Face) -> Suspect:
    return Suspect(
        source_key=face.source_key,
        image_name=face.image_name,
        subject=face.subject,
        kind=str(finding.kind),
        keypoint=None if finding.point is None else finding.part,
        score=round(finding.score, 3),
        value=_WORDS[finding.kind].format(part=finding.part, gain=finding.gain),
        hint=_HINTS[finding.kind],
    )
