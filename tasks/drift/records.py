"""What devices counted: the files of `deploy.drift_client`, read with distrust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from deploy.drift_client import FORMAT
from deploy.shells.base import Shell
from schemas.errors import InputError
from schemas.yamlspec import SpecModel

HOUR = "%Y-%m-%dT%H"
MOST_BYTES = 2**16
"""Of a file; the client's have some 2 kB."""
Faces = Annotated[int, Field(ge=0, le=2**40)]  # so that sums of hours are whole numbers for NumPy
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class HourRecord(SpecModel):
    """What a device counted in an hour (UTC).

    Attributes:
        profile: SHA-256 of the profile it counted by.
        model: the version that the profile is of, `fpenet/3`.
        faces, unusable: predictions that were counted, and those that held a number that is none.
        counts: signal -> faces in each bin.
    """

    format: Literal[FORMAT]  # type: ignore[valid-type]
    profile: Digest
    model: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,250}/[0-9]{1,9}$")]
    hour: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}$")]
    faces: Faces
    unusable: Faces
    counts: dict[str, list[Faces]]


@dataclass(frozen=True)
class DeviceRecords:
    """The records of a device, by hour, and what is wrong with those that could not be used."""

    device: str
    hours: tuple[HourRecord, ...]
    problems: tuple[str, ...]


def read_records(device: str, files: Mapping[str, bytes], *, since: datetime, now: datetime) -> DeviceRecords:
    """Records of hours that began from `since` to `now`. A damaged one, or one of an hour that is still to come, is a
    problem to be told, and spoils no other."""
    hours, problems = [], []
    for name, content in sorted(files.items()):
        try:
            record = parse_record(content, name)
        except InputError as error:
            problems.append(str(error))
            continue
        if _start(record) > now:
            problems.append(f"{name}: its hour {record.hour} is still to come; set the clock of the device")
        elif _start(record) >= since:
            hours.append(record)
    return DeviceRecords(device, tuple(sorted(hours, key=lambda record: record.hour)), tuple(problems))


def parse_record(content: bytes, name: str) -> HourRecord:
    """
    Raises:
        InputError: it is cut off, too long, of another format, or its numbers do not agree.
    """
    if len(content) > MOST_BYTES:
        raise InputError(f"{name}: more than {MOST_BYTES:,} bytes, so not a record of this project's drift client")
    try:
        record = HourRecord.model_validate(json.loads(content))
        _start(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{name}: not a record of this project's drift client: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: cut off or no JSON: {error}") from error
    wrong = [signal for signal, counts in record.counts.items() if sum(counts) != record.faces]
    if wrong:
        raise InputError(f"{name}: {wrong[0]} counts another number of faces than the {record.faces} it names")
    return record


def _start(record: HourRecord) -> datetime:
    return datetime.strptime(record.hour, HOUR).replace(tzinfo=UTC)


def files_of_shell(shell: Shell, folder: str, *, since: datetime) -> dict[str, bytes]:
    """The hours' files on a device, by name; those that are too old, by their names, are not fetched."""
    first = since.strftime(HOUR)
    names = [name for name in shell.list(folder) if name.endswith(".json") and name[: len(first)] >= first]
    read = {name: shell.read(f"{folder}/{name}") for name in names}
    return {name: content for name, content in read.items() if content is not None}


def files_of_folder(folder: Path) -> dict[str, bytes]:
    """The hours' files that somebody brought, by name; of one that is too long only as much as shows it."""
    found = {}
    for path in sorted(path for path in folder.glob("*.json") if path.is_file()):
        with path.open("rb") as file:
            found[path.name] = file.read(MOST_BYTES + 1)
    return found


def window_start(now: datetime, hours: int) -> datetime:
    """The first hour of a window that ends now."""
    return now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
