"""What the search for label errors and for duplicates finds: the shape that the quality page shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suspect:
    """One label that looks wrong.

    Attributes:
        source_key: of the face, `Face.source_key`.
        image_name: name in the annotation.
        subject: `<dataset>/<id>`, or None where unknown.
        kind: stable kebab-case name of the fault that is suspected, such as `swapped-sides` or `wrong-flag`.
        keypoint: label such as `P7`, or None where the whole face is meant.
        score: larger is more suspicious; comparable between kinds.
        value: what was found, as text.
        hint: what to look at or to do.
    """

    source_key: str
    image_name: str
    subject: str | None
    kind: str
    keypoint: str | None
    score: float
    value: str
    hint: str


@dataclass(frozen=True)
class LabelErrors:
    """Suspects, the most suspicious first; `notes` say what could not be looked for, and why."""

    suspects: tuple[Suspect, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DuplicatePair:
    """Two faces, not known to be of one subject, whose images are the same or nearly so.

    Attributes:
        first, second: `Face.source_key`s, the smaller first.
        distance: between the images' hashes, in bits; 0 is the same picture.
        subjects_known: whether both have a subject, two different ones then.
        crosses: splits that the pair connects, such as `train-kpi`; None where both are in one split or
            the splits are not known.
    """

    first: str
    second: str
    distance: int
    subjects_known: bool
    crosses: str | None


@dataclass(frozen=True)
class Duplicates:
    """Pairs, those that leak (other subject, other split) first; `notes` as in `LabelErrors`."""

    pairs: tuple[DuplicatePair, ...] = ()
    notes: tuple[str, ...] = ()
