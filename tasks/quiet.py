"""How long ago a source's annotations changed last, whatever the clocks of the machines say.

A Label Studio stamps every edit, and every deletion of an annotation, with its own time; it is compared with the time
that this server tells, never with ours. What carries no stamp (a deleted task, a file that was exchanged) and stamps
that lie in the server's future are judged by successive pulls: by our clock alone, since when the source has given
what it gives now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

from schemas.errors import SourceUnreachableError
from schemas.sources import LabelStudioSource
from schemas.storage import read_json, write_json
from tasks.label_studio.client import connected, token_from_environment
from tasks.pull import PullResult

Change = Literal["stamped", "unstamped", "unseen"]


@dataclass(frozen=True)
class Sighting:
    """What a source gave when it was looked at.

    Attributes:
        content_hash: of its records.
        stamp: newest time in them, as the server writes it; None for what has no server.
        first_seen: when a pull gave this content first, by our clock (ISO 8601).
        change: how it came to this content: with the edit that `stamp` tells of, `unstamped`, or `unseen` where no
            pull gave any other.
    """

    content_hash: str
    stamp: str | None
    first_seen: str
    change: Change


def look_at(pull: PullResult, before: Sighting | None, now: datetime) -> Sighting:
    """What `pull` shows, after what was seen `before`."""
    stamp = pull.details.get("watermark")
    if before is not None and before.content_hash == pull.content_hash:
        in_the_future = _time(before.first_seen) > now
        return replace(before, first_seen=now.isoformat()) if in_the_future else before
    if before is None:
        change: Change = "unseen" if stamp is None else "stamped"
    else:
        newer = stamp is not None and (before.stamp is None or _time(stamp) > _time(before.stamp))
        change = "stamped" if newer else "unstamped"
    return Sighting(pull.content_hash, stamp, now.isoformat(), change)


def quiet_for_s(sighting: Sighting, *, now: datetime, server_now: datetime | None) -> float:
    """Seconds since the last change; infinity where no change has been seen.

    Args:
        now: by the clock that `first_seen` is from. Where that was set back meanwhile, the wait begins anew.
        server_now: by the clock that `stamp` is from.
    """
    if sighting.change == "unseen":
        return math.inf
    seen_s = max(0.0, _since(sighting.first_seen, now))
    if server_now is None or sighting.stamp is None:
        return seen_s
    stamped_s = _since(sighting.stamp, server_now)
    if stamped_s < 0:
        return seen_s
    return stamped_s if sighting.change == "stamped" else min(stamped_s, seen_s)


def look_at_all(pulls: Sequence[PullResult], seen: Path, *, now: datetime) -> dict[str, Sighting]:
    """`look_at` every source, and keep what was seen in the file `seen` for the next time."""
    kept: Mapping[str, dict] = read_json(seen) if seen.is_file() else {}
    before = {name: Sighting(**fields) for name, fields in kept.items()}
    sightings = {pull.source: look_at(pull, before.get(pull.source), now) for pull in pulls}
    write_json(seen, {name: asdict(sighting) for name, sighting in sightings.items()})
    return sightings


def server_time(source: LabelStudioSource) -> datetime:
    """What the server's clock says, to the second.

    Raises:
        SourceUnreachableError, SourceRefusedError: see `tasks.label_studio.client`.
    """
    with connected(source.url, token_from_environment(source.token_env)) as connection, connection.errors():
        told = connection.files.get("/api/version", auth=None).headers.get("date")
    try:
        return parsedate_to_datetime(told).astimezone(UTC)
    except (TypeError, ValueError):
        raise SourceUnreachableError(
            f"{connection.place} does not say what time it is (header Date: {told!r}); see what stands in front of it"
        ) from None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _since(text: str, now: datetime) -> float:
    return (now - _time(text)).total_seconds()
