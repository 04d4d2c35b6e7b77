"""Whether a decision that stands in a version's tags holds. Nothing here asks a server.

A decision is what a person wrote: `review` (approved or rejected), `review.by`, `review.reason`, for an approval
`review.report`, the hash of the report that was read, and `review.override` where a gate did not pass. Whoever may
write to the registry may write that; who it was is self-declared unless MLflow's authentication is on.

MLflow does not keep when a tag was set. A flow that sees a decision for the first time notes the time in the tag
`review.noted`, beside a fingerprint of the decision, where every workspace that shares the registry finds it. An
approval is valid for some days from then on. Changing any word of a decision makes it a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from schemas.errors import ReviewError
from schemas.storage import sha256_of
from tasks.review.tags import (
    APPROVED,
    BY,
    COMPARED_WITH,
    DECISION,
    GATE,
    GATE_SUMMARY,
    NOBODY,
    NOTED,
    OVERRIDE,
    REASON,
    REJECTED,
    REPORT,
    REPORT_HASH,
    REVIEW,
    USED,
)
from tasks.workspace import Workspace

PASSED = "passed"
SHORTEST_HASH = 12
"""As many characters of a report's hash name it."""
FINGERPRINT_LENGTH = 16


class Standing(StrEnum):
    """Where a version stands."""

    WAITING = "waiting"
    REFUSED = "refused"
    APPROVED = "approved"
    REJECTED = "rejected"
    CHAMPION = "champion"
    REPLACED = "replaced"


@dataclass(frozen=True)
class Decision:
    """Where a version stands, and why, in words for the reviewer. `until`: when an approval lapses."""

    standing: Standing
    words: str
    until: datetime | None = None

    def __str__(self) -> str:
        return f"{self.standing}: {self.words}"


@dataclass(frozen=True)
class Accepted:
    """The approval by which a version became the champion.

    Attributes:
        name, version: in the registry.
        report: hash of the report that was reviewed.
        by, reason: the reviewer's name and words.
        override: why it was accepted although its gate did not pass; None where it passed.
        at: when a flow accepted it, ISO 8601, UTC.
    """

    name: str
    version: str
    report: str
    by: str
    reason: str
    override: str | None
    at: str

    def __str__(self) -> str:
        return f"{self.name} version {self.version}, approved by {self.by}"


def accepted_version(workspace: Workspace) -> Accepted | None:
    """The version that the devices of this workspace are to have; None if none was ever accepted.

    Raises:
        ReviewError: the file can't be read.
    """
    path = workspace.accepted
    try:
        return TypeAdapter(Accepted).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ReviewError(f"{path}: damaged; remove it, and `fpenet run review` writes it anew") from error


def fingerprint(tags: Mapping[str, str]) -> str | None:
    """Names what people wrote; None where nobody wrote anything."""
    written = {key: tags[key] for key in DECISION if key in tags}
    return sha256_of(written)[:FINGERPRINT_LENGTH] if written else None


def stamp(at: datetime, tags: Mapping[str, str]) -> str:
    """Value of `review.noted` and `review.used`: a time and the decision that it is about."""
    return f"{at.astimezone(UTC).isoformat(timespec='seconds')} {fingerprint(tags)}"


def stamped(tags: Mapping[str, str], key: str) -> datetime | None:
    """The time in the tag `key` if it is about the decision that stands there now."""
    at, _, about = tags.get(key, "").partition(" ")
    if about != fingerprint(tags):
        return None
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        return None
    return time if time.tzinfo else None


def decide(
    tags: Mapping[str, str], *, version: str, champion: str | None, now: datetime, valid_days: int
) -> Decision:
    """Where a version stands.

    Args:
        tags: all of the version's.
        champion: the version that flows made the champion, None if there is none.
        valid_days: how long an approval holds from `review.noted` on; one that was not noted yet is new.
    """
    if version == champion:
        return Decision(Standing.CHAMPION, _champion_words(tags))
    if fingerprint(tags) is None:
        return Decision(Standing.WAITING, _waiting_words(tags, champion))
    word = tags.get(REVIEW, "").strip().lower()
    if word == APPROVED:
        return _decide_approval(tags, champion=champion, now=now, valid_days=valid_days)
    return _decide_rejection(tags) if word == REJECTED else Decision(Standing.REFUSED, _word_problem(tags))


def _decide_approval(tags: Mapping[str, str], *, champion: str | None, now: datetime, valid_days: int) -> Decision:
    if used := stamped(tags, USED):
        return Decision(
            Standing.REPLACED,
            f"this approval was used on {_day(used)}, and version {champion or NOBODY} is the champion since; to go "
            "back, have a report made against that one (`fpenet run retrain`), and approve it",
        )
    until = (stamped(tags, NOTED) or now) + timedelta(days=valid_days)
    problems = _problems(tags, champion=champion, lapsed=until <= now, until=until, valid_days=valid_days)
    if problems:
        return Decision(Standing.REFUSED, "; ".join(problems), until)
    return Decision(Standing.APPROVED, f"by {tags[BY].strip()}: {tags[REASON].strip()}", until)


def _decide_rejection(tags: Mapping[str, str]) -> Decision:
    if missing := _missing(tags, BY, REASON):
        return Decision(Standing.REFUSED, f"the rejection does not count yet: set {missing}")
    return Decision(Standing.REJECTED, f"by {tags[BY].strip()}: {tags[REASON].strip()}")


def override_of(tags: Mapping[str, str]) -> str | None:
    """The reason why a gate that did not pass does not matter; None where it passed."""
    return None if tags.get(GATE) == PASSED else tags.get(OVERRIDE, "").strip() or None


def _problems(
    tags: Mapping[str, str], *, champion: str | None, lapsed: bool, until: datetime, valid_days: int
) -> list[str]:
    """Why an approval does not hold: all reasons, so that one look mends all."""
    problems = []
    if missing := _missing(tags, BY, REASON, REPORT):
        problems.append(f"set {missing}")
    problems += _report_problem(tags, champion)
    if lapsed:
        problems.append(
            f"it lapsed on {_day(until)}, {valid_days} days after a flow first saw it; if it still holds, write "
            f"{REASON} anew"
        )
    if tags.get(GATE) != PASSED and not tags.get(OVERRIDE, "").strip():
        problems.append(f"the gate says {_gate(tags)}; to approve it nevertheless, say why in {OVERRIDE}")
    return problems


def _report_problem(tags: Mapping[str, str], champion: str | None) -> list[str]:
    actual, named = tags.get(REPORT_HASH), tags.get(REPORT, "").strip().lower()
    if actual is None:
        return [f"there is no report of this version to approve; {_who_makes_it(tags)}"]
    problems = []
    if named and not (len(named) >= SHORTEST_HASH and actual.startswith(named)):
        problems.append(
            f"{REPORT} names another report ({named[:SHORTEST_HASH]}); read review/index.html of the version's run, "
            f"then set {actual}"
        )
    if tags.get(COMPARED_WITH, NOBODY) != (champion or NOBODY):
        problems.append(_champion_changed(tags, champion))
    return problems


def _who_makes_it(tags: Mapping[str, str]) -> str:
    """The gate's verdict is told before the engines are built, the report after."""
    if GATE in tags:
        return "it is being made, unless no `fpenet run retrain` is running: then start one"
    return "`fpenet run retrain` makes it"


def _champion_changed(tags: Mapping[str, str], champion: str | None) -> str:
    return (
        f"the report compares it with champion {tags.get(COMPARED_WITH, NOBODY)}, and that is {champion or NOBODY} "
        "now; have a new report made (`fpenet run retrain`), and read that"
    )


def _waiting_words(tags: Mapping[str, str], champion: str | None) -> str:
    if (report := tags.get(REPORT_HASH)) is None:
        return f"for a report; {_who_makes_it(tags)}"
    if tags.get(COMPARED_WITH, NOBODY) != (champion or NOBODY):
        return _champion_changed(tags, champion)
    override = "" if tags.get(GATE) == PASSED else f", and {OVERRIDE} (gate: {tags.get(GATE, 'none')})"
    return (
        f"for a reviewer: read review/index.html of the version's run, then set {BY}, {REASON}, "
        f"{REPORT} = {report}{override}, and {REVIEW} = {APPROVED}; or {BY}, {REASON} and {REVIEW} = {REJECTED}"
    )


def _champion_words(tags: Mapping[str, str]) -> str:
    if tags.get(REVIEW, "").strip().lower() == REJECTED:
        return "in use; a rejection takes nothing back: approve another version, or `fpenet rollback` the devices"
    return "in use"


def _word_problem(tags: Mapping[str, str]) -> str:
    if REVIEW not in tags:
        written = ", ".join(key for key in DECISION if key in tags)
        return f"{written} is set, but not {REVIEW}: set it to {APPROVED} or {REJECTED}"
    return f"{REVIEW} is {tags[REVIEW]!r}: set it to {APPROVED} or {REJECTED}"


def _missing(tags: Mapping[str, str], *keys: str) -> str:
    return ", ".join(key for key in keys if not tags.get(key, "").strip())


def _gate(tags: Mapping[str, str]) -> str:
    return tags.get(GATE_SUMMARY) or tags.get(GATE) or "nothing"


def _day(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
