"""Whether changed annotations are worth a new model now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from schemas.config import SyncSettings
from tasks.changes import Changes


class Outcome(StrEnum):
    UNCHANGED = "unchanged"
    TOO_FEW = "too few"
    NOT_QUIET = "not quiet yet"
    RETRAIN = "retrain"
    FAILED = "failed before"


@dataclass(frozen=True)
class Comparison:
    """What changed since the faces of `model`, such as `fpenet version 3 (champion)`."""

    model: str
    changes: Changes


@dataclass(frozen=True)
class Decision:
    """An outcome and why. `wait_s`: seconds until it will have been quiet for long enough, if nothing changes."""

    outcome: Outcome
    reason: str
    wait_s: float = 0.0


def decide(
    comparisons: Sequence[Comparison], settings: SyncSettings, quiet_s: Callable[[], Mapping[str, float]]
) -> Decision:
    """Enough must have changed since every model compared with, and every source must have been quiet.

    Comparing with the newest candidate too keeps a candidate that waits for its review from being trained again at
    every look, and with the challenger one that the labels have returned to; comparing with the champion keeps small
    steps from adding up unseen.

    Args:
        comparisons: with the champion, the challenger and the newest candidate; empty where there is no model to
            compare with.
        quiet_s: gives source -> seconds since its annotations last changed; asked only if enough has changed.
    """
    for comparison in comparisons:
        if too_little := _too_little(comparison, settings):
            return too_little
    reason = "; ".join(map(_enough, comparisons)) or "there is no model whose faces are known here"
    restless = {name: since_s for name, since_s in sorted(quiet_s().items()) if since_s < settings.quiet_s}
    if restless:
        name, since_s = min(restless.items(), key=lambda item: item[1])
        waited = f"but {name} changed {since_s:,.0f} s ago; {settings.quiet_s:,.0f} s without a change are needed"
        return Decision(Outcome.NOT_QUIET, f"{reason}, {waited}", settings.quiet_s - since_s)
    return Decision(Outcome.RETRAIN, reason)


def _too_little(comparison: Comparison, settings: SyncSettings) -> Decision | None:
    changes = comparison.changes
    if not len(changes):
        return Decision(Outcome.UNCHANGED, f"the {changes.after:,} faces are those of {comparison.model}")
    if len(changes) < settings.min_changed_faces and changes.share < settings.min_changed_share:
        needed = f"{settings.min_changed_faces:,}, or {settings.min_changed_share:.1%}, are needed"
        return Decision(Outcome.TOO_FEW, f"{_enough(comparison)}; {needed}")
    return None


def _enough(comparison: Comparison) -> str:
    changes = comparison.changes
    verb = "face differs" if len(changes) == 1 else "faces differ"
    return f"{len(changes):,} {verb} from those of {comparison.model} ({changes.share:.1%} of {changes.before:,})"
