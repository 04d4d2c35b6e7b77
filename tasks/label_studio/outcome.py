"""What became of one part of a set-up that can be run again and again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    MADE = "made"
    FOUND = "found"
    CHANGED = "changed"
    DRIFTED = "drifted"


@dataclass(frozen=True)
class Outcome:
    """One part of a set-up.

    Attributes:
        part: such as `webhook`.
        state: made now; found as it should be; changed now so that it is; or found otherwise and left so.
        detail: in words, for a person.
        drift: what is otherwise, a sentence each; only with `DRIFTED` and `CHANGED`.
    """

    part: str
    state: State
    detail: str
    drift: tuple[str, ...] = ()
