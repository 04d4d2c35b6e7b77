"""Images of Label Studio tasks, fetched once and kept beside the raw records.

A file is named after the value in the task's data, so the same task finds it again. `index.json` remembers each
file's size and what the server needs to say whether it has changed. Uploads get a new name when they change;
everything else is asked about whenever the whole project is gone through, and sent again only if it differs.
"""

from __future__ import annotations

import base64
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import httpx

from schemas.errors import SourceUnreachableError
from schemas.storage import read_json, write_bytes, write_json
from schemas.urls import without_credentials
from tasks.addresses import is_address
from tasks.images import Progress
from tasks.label_studio.client import BUSY, UNUSABLE, Connection, get_patiently, open_client

WORKERS = 4
"""More than a few only queue up at Label Studio's own server."""

_QUEUED = 4096
"""Of a million images, each would take 2 kB of memory while it waits."""

_UPLOADS = "/data/upload/"
_OWN = re.compile(
    rf"""(?:/[^?\#]*?)?(?P<upload>{_UPLOADS}\d+/.*)  # after the path of LABEL_STUDIO_HOST, if that has one
    |(?:https?://[^?\#]*|/[^?\#]*?)?  # after all of it
    (?P<link>/(?:data/local-files/\?d=|(?:tasks|projects)/\d+/(?:resolve|presign)/\?fileuri=).*)""",
    re.VERBOSE | re.DOTALL,
)
"""Label Studio's uploads, and its links to images of a storage: what it shows to nobody without a token."""

_UNREAD = f"HTTP {httpx.codes.FAILED_DEPENDENCY}"
"""What Label Studio says of an image of a storage, whether that one is missing or the whole storage away."""

_WITNESSES = 3
"""Other images of the storage that are asked for to find out which."""

_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")
_LONGEST_SHOWN = 2000
_VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}


@dataclass(frozen=True)
class Fetched:
    """What became of one image.

    Attributes:
        file: where the image is now; None if it could not be had.
        problem: why not, such as `HTTP 404`.
        downloaded: False if the file was there already.
    """

    file: Path | None
    problem: str | None = None
    downloaded: bool = False


class ImageStore:
    """The folder of images of one source."""

    def __init__(self, folder: Path, connection: Connection) -> None:
        self._folder, self._connection = folder, connection
        self._index_path = folder / "index.json"
        self._index: dict[str, dict[str, Any]] = read_json(self._index_path) if self._index_path.is_file() else {}
        self._given: dict[str, list[str]] = {}  # storage -> the last image that came out of it

    def fetch(
        self, values: Iterable[str], *, ask_again: bool = True, progress: Progress | None = None
    ) -> dict[str, Fetched]:
        """The local file of every value; files of values that are no longer asked for are removed.

        Args:
            ask_again: whether servers are asked if the files that are here have changed.

        Raises:
            SourceUnreachableError: the server went away, or a storage behind it. What has arrived is kept for the
                next pull.
            SourceRefusedError: Label Studio takes the token no more; the same is kept.
        """
        asked_for = set(values)
        here = () if ask_again else filter(self._is_whole, asked_for)
        fetched = {value: Fetched(self._path(value)) for value in here}
        wanted = sorted(asked_for.difference(fetched))
        pool = ThreadPoolExecutor(WORKERS)
        try:
            with open_client() as elsewhere:
                slices = (wanted[start : start + _QUEUED] for start in range(0, len(wanted), _QUEUED))
                results = chain.from_iterable(pool.map(lambda v: self._get(v, elsewhere), some) for some in slices)
                for done, (value, result) in enumerate(zip(wanted, results, strict=True), start=1):
                    fetched[value] = result
                    if result.file is not None and (storage := _storage_of(value)):
                        self._given[storage] = [value]
                    if progress is not None:
                        progress(done, len(wanted))
            self._blame(fetched)
        finally:
            pool.shutdown(cancel_futures=True)
            if wanted and (self._index or self._index_path.is_file()):
                write_json(self._index_path, self._index)
        self._forget_others(asked_for)
        return fetched

    def _blame(self, fetched: dict[str, Fetched]) -> None:
        """Tell images that are missing in their storage from a storage that is away, which gives no other either.

        Raises:
            SourceUnreachableError: the storage is away.
        """
        unread: dict[str | None, list[str]] = defaultdict(list)
        for value, one in fetched.items():
            if one.problem == _UNREAD:
                unread[_storage_of(value)].append(value)
        for storage, values in unread.items():
            here = (v for v, one in fetched.items() if one.file is not None and _storage_of(v) == storage)
            witnesses = islice(chain(self._given.get(storage, ()), here), _WITNESSES)
            if not any(map(self._can_be_had, witnesses)):
                raise SourceUnreachableError(
                    f"Label Studio at {self._connection.place} can't read the storage {storage} ({_UNREAD}); see the "
                    "server's log, and run again: what has arrived is kept"
                )
            fetched |= {value: self._gone(value, _UNREAD) for value in values}

    def _can_be_had(self, value: str) -> bool:
        try:
            return get_patiently(self._connection.files, self._address(value)).is_success
        except httpx.RequestError:
            return False

    def _get(self, value: str, elsewhere: httpx.Client) -> Fetched:
        address = self._address(value)
        parts = _parts(address)
        if parts.scheme in ("http", "https"):
            if not is_address(address):
                return Fetched(None, "is no address")
            return self._download(value, address, self._connection.files if self._is_own(address) else elsewhere)
        if parts.scheme in ("", "file"):
            there = os.path.isfile(parts.path)  # noqa: PTH113 - any text may stand there, too long for a name
            return Fetched(Path(parts.path)) if there else Fetched(None, "no such file")
        return Fetched(None, f"no way to fetch {parts.scheme}:// from here")

    def _is_own(self, address: str | httpx.URL) -> bool:
        """Whether Label Studio is asked there, and not what else its host serves: `..` leads out of its path, written
        as `%2e%2e` too."""
        url = httpx.URL(address)
        return str(url).startswith(str(httpx.URL(f"{self._connection.url}/"))) and ".." not in url.path.split("/")

    def _address(self, value: str) -> str:
        """Where the image is asked for: what is Label Studio's own, at the URL that this connection has for it."""
        own = _OWN.fullmatch(value)
        return f"{self._connection.url}{own['upload'] or own['link']}" if own else value

    def _download(self, value: str, address: str, client: httpx.Client) -> Fetched:
        path, known, whole = self._path(value), self._index.get(value, {}), self._is_whole(value)
        shown = _shown(value)
        if whole and address.startswith(f"{self._connection.url}{_UPLOADS}"):
            return Fetched(path)
        ask = {header: known[name] for name, header in _VALIDATORS.items() if whole and name in known}
        try:
            reply = get_patiently(client, address, ask)
        except UNUSABLE as error:
            return self._gone(value, f"can't be read: {error}")
        except httpx.TransportError as error:
            asked = error.request.url  # not always what the task says: Label Studio sends on to a bucket
            place = f"{asked.scheme}://{asked.netloc.decode()}"
            raise SourceUnreachableError(
                f"{shown} can't be fetched ({str(error) or type(error).__name__}); see that {place} is up, and run "
                "again: what has arrived is kept"
            ) from None
        if reply.status_code == httpx.codes.NOT_MODIFIED:
            return Fetched(path)
        if reply.status_code > httpx.codes.INTERNAL_SERVER_ERROR or reply.status_code in BUSY:
            raise SourceUnreachableError(f"{shown}: HTTP {reply.status_code}; see the server's log, and run again")
        if reply.status_code == httpx.codes.UNAUTHORIZED and self._is_own(reply.url):
            raise self._connection.of_status(reply.status_code, None)
        if reply.status_code == httpx.codes.FAILED_DEPENDENCY and _storage_of(value):
            return Fetched(None, _UNREAD)
        if not reply.is_success:
            return self._gone(value, f"HTTP {reply.status_code}")
        return self._keep(value, path, reply, whole)

    def _gone(self, value: str, why: str) -> Fetched:
        """An image that can't be had any more leaves no copy: a fetch that does not ask would take it for whole."""
        self._index.pop(value, None)
        self._path(value).unlink(missing_ok=True)
        return Fetched(None, why)

    def _keep(self, value: str, path: Path, reply: httpx.Response, whole: bool) -> Fetched:
        downloaded = not (whole and path.read_bytes() == reply.content)
        if downloaded:
            write_bytes(path, reply.content)
        validators = {name: reply.headers[name] for name in _VALIDATORS if name in reply.headers}
        self._index[value] = {"bytes": len(reply.content)} | validators
        return Fetched(path, downloaded=downloaded)

    def _is_whole(self, value: str) -> bool:
        """Whether the file has arrived, and was not cut short since."""
        known, path = self._index.get(value), self._path(value)
        return known is not None and path.is_file() and path.stat().st_size == known["bytes"]

    def _path(self, value: str) -> Path:
        suffix = PurePosixPath(_parts(value).path).suffix.lower() or PurePosixPath(value).suffix.lower()
        name = sha256(value.encode()).hexdigest()[:32] + (suffix if _SUFFIX.fullmatch(suffix) else "")
        return self._folder / name[:2] / name

    def _forget_others(self, wanted: set[str]) -> None:
        """Remove every other file of the folder: a fetch that was killed leaves some that the index does not name."""
        kept = {self._index_path, *map(self._path, wanted)}
        for path in self._folder.rglob("*"):
            if path not in kept and path.is_file():
                path.unlink()
        others = self._index.keys() - wanted
        for value in others:
            del self._index[value]
        if others:
            write_json(self._index_path, self._index)


def about_images(images: Mapping[str, Fetched]) -> dict[str, Any]:
    """How many were wanted and downloaded, and why others are missing, in words that may be kept: no password stands
    in them, and no picture that a task holds instead of its address."""
    return {
        "wanted": len(images),
        "downloaded": sum(fetched.downloaded for fetched in images.values()),
        "missing": {_shown(value): images[value].problem for value in sorted(images) if images[value].file is None},
    }


def _shown(value: str) -> str:
    shown = without_credentials(value)
    if len(shown) <= _LONGEST_SHOWN:
        return shown
    return f"{shown[:60]}... ({len(shown):,} characters, SHA-256 {sha256(shown.encode()).hexdigest()})"


def _parts(value: str) -> SplitResult:
    """An address taken apart; one that can't be, at its first colon."""
    try:
        return urlsplit(value)
    except ValueError:
        scheme, _, rest = value.partition(":")
        return SplitResult(scheme.lower(), "", rest, "", "")


def _storage_of(value: str) -> str | None:
    """The storage that one of Label Studio's links leads to, such as `s3://faces`; None of what is no such link."""
    encoded = parse_qs(_parts(value).query).get("fileuri")
    if encoded is None or not _OWN.fullmatch(value):
        return None
    try:
        place = urlsplit(base64.urlsafe_b64decode(encoded[0]).decode())
    except ValueError:
        return None
    return f"{place.scheme}://{place.netloc}"
