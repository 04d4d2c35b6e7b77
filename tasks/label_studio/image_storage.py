"""Where a project's images are: a folder that the server sees, or a bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from schemas.errors import SpecError
from schemas.texts import read_text
from tasks.label_studio.client import Connection, refusal
from tasks.label_studio.outcome import Outcome, State

_IMAGES = r"(?i).*\.(jpe?g|png|bmp|webp)$"
"""What a browser shows, and so what becomes a task."""


@dataclass(frozen=True)
class ImageStorage:
    """A storage to be connected.

    Attributes:
        location: as it was given: a path, or `s3://bucket/prefix`, `gs://bucket/prefix`, `azure://container/prefix`.
        kind: name of its kind in the server's API.
        place: the settings that tell it from other storages.
        access: keys for it; in no `repr`, and the server gives none of them back.
    """

    location: str
    kind: str
    place: Mapping[str, str]
    access: Mapping[str, str] = field(default_factory=dict, repr=False)


def image_storage(location: str, environment: Mapping[str, str] = os.environ) -> ImageStorage:
    """The storage at a path or URL. Keys for a bucket come from the variables that its own tools use; without them
    the server must have access by itself.

    Raises:
        SpecError: it is neither an absolute path nor a URL of a kind that is known.
    """
    scheme, _, rest = location.partition("://")
    if not rest:
        if not location.startswith("/"):
            raise SpecError("--storage", f"{location!r} is no absolute path, as the server sees it, and no URL")
        return ImageStorage(location, "localfiles", {"path": location.rstrip("/")})
    if scheme not in _BUCKETS:
        known = ", ".join(f"{name}://" for name in _BUCKETS)
        raise SpecError("--storage", f"{location!r} is of no kind that is known: a path, or {known}")
    kind, bucket_field, variables = _BUCKETS[scheme]
    parts = urlsplit(location)
    if not parts.netloc:
        raise SpecError("--storage", f"{location!r} names no bucket")
    access = {name: environment[variable] for name, variable in variables.items() if environment.get(variable)}
    if credentials := access.get("google_application_credentials"):
        access["google_application_credentials"] = read_text(
            credentials, named_by="environment variable GOOGLE_APPLICATION_CREDENTIALS"
        )
    place = {bucket_field: parts.netloc, "prefix": parts.path.strip("/")}
    return ImageStorage(location, kind, place, access)


_BUCKETS: dict[str, tuple[str, str, dict[str, str]]] = {
    "s3": (
        "s3",
        "bucket",
        {
            "aws_access_key_id": "AWS_ACCESS_KEY_ID",
            "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
            "aws_session_token": "AWS_SESSION_TOKEN",
            "region_name": "AWS_DEFAULT_REGION",
            "s3_endpoint": "AWS_ENDPOINT_URL",
        },
    ),
    "gs": ("gcs", "bucket", {"google_application_credentials": "GOOGLE_APPLICATION_CREDENTIALS"}),
    "azure": (
        "azure",
        "container",
        {"account_name": "AZURE_STORAGE_ACCOUNT", "account_key": "AZURE_STORAGE_KEY"},
    ),
}
"""Scheme -> kind in the API, its field for the bucket, its fields for access and where their values come from."""


def ensure_storage(connection: Connection, project_id: int, storage: ImageStorage) -> Outcome:
    """Connect the storage if the project has no such one, and have the server make tasks of the images that are new.

    Raises:
        SpecError: the server can't use it; the message holds its reason.
        SourceUnreachableError, SourceRefusedError: the server.
    """
    path = f"/api/storages/{storage.kind}"
    with connection.errors():
        reply = connection.files.get(path, params={"project": project_id})
        reply.raise_for_status()
        there = [entry for entry in reply.json() if _is_same(entry, storage)]
        found = min(there, key=lambda entry: entry["id"]) if there else _make(connection, path, project_id, storage)
        synced = connection.files.post(f"{path}/{found['id']}/sync")
        _check(synced, storage)
    status, number = synced.json().get("status"), synced.json().get("last_sync_count") or 0
    detail = f"{storage.location}: {number:,} images made tasks" if status == "completed" else f"sync is {status}"
    return Outcome("image storage", State.FOUND if there else State.MADE, detail)


def _is_same(entry: Mapping[str, Any], storage: ImageStorage) -> bool:
    return all((entry.get(key) or "").strip("/") == value.strip("/") for key, value in storage.place.items())


def _make(connection: Connection, path: str, project_id: int, storage: ImageStorage) -> dict[str, Any]:
    settings = {
        "project": project_id,
        "title": storage.location,
        "regex_filter": _IMAGES,
        "use_blob_urls": True,  # each file is an image, not a list of tasks
        "recursive_scan": True,
    }
    reply = connection.files.post(path, json=settings | dict(storage.place) | dict(storage.access))
    _check(reply, storage)
    return reply.json()


def _check(reply: httpx.Response, storage: ImageStorage) -> None:
    if reply.status_code == httpx.codes.BAD_REQUEST:
        raise SpecError("--storage", f"Label Studio can't use {storage.location}: {refusal(reply)}")
    reply.raise_for_status()
