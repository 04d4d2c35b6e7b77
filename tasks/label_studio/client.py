"""The connection to a Label Studio server: one place for its token, its errors and its retries."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import httpx

from schemas.errors import ProjectNotFoundError, SourceError, SourceRefusedError, SourceUnreachableError
from schemas.urls import without_credentials
from tasks.addresses import is_address

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

TIMEOUT = httpx.Timeout(120.0, connect=10.0)
PATIENCE_S = (0.5, 2.0, 5.0)
"""Waits before a failed download is tried again."""

RESTART_PATIENCE_S = (*PATIENCE_S, 10.0, 20.0, 30.0)
"""The same for what would be a pity to begin again: a Label Studio takes half a minute to restart."""

BUSY = (408, 409, 425, 429, 502, 503, 504)
"""What a server answers that may do better later."""

UNUSABLE = (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.DecodingError)
"""What asking again does not mend: it leads nowhere, or in a circle, or its bytes are not compressed as it says."""

_INTERNAL_ERROR = 500


def token_from_environment(name: str) -> str:
    """The token in the environment variable `name`.

    Raises:
        SourceRefusedError: it is not set, or holds what can't be a token.
    """
    token = os.environ.get(name, "").strip()
    if not token or not token.isascii() or any(c.isspace() for c in token):
        state = "holds no token" if token else "is not set"
        raise SourceRefusedError(
            f"the environment variable {name} {state}; copy an access token from Label Studio "
            f"(Account & Settings) and set it: export {name}=..."
        )
    return token


@dataclass(frozen=True)
class Project:
    """A project on the server; `label_config` is the XML of its labelling config."""

    id: int
    title: str
    label_config: str


@dataclass(frozen=True)
class Connection:
    """A server and the token for it, legacy or personal. The token is in no `repr` and no message."""

    url: str
    token: str = field(repr=False)

    @property
    def place(self) -> str:
        """The URL as it is shown."""
        return without_credentials(self.url)

    @property
    def root(self) -> str:
        """The path of the URL, which a browser needs before each of the server's own; empty for most servers."""
        return urlsplit(self.url).path

    @cached_property
    def sdk(self) -> LabelStudio:
        from label_studio_sdk import LabelStudio

        with self.errors():
            return LabelStudio(base_url=self.url, api_key=self.token, httpx_client=self._sdk_transport)

    @cached_property
    def _sdk_transport(self) -> httpx.Client:
        return open_client()

    @cached_property
    def files(self) -> httpx.Client:
        """For what the SDK does not do, or not before its import of three seconds. Takes paths of the server."""
        return open_client(base_url=self.url, auth=_TokenAuth(self.url, self.token))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the SDK's and httpx's errors into `SourceError`s that name the server."""
        from label_studio_sdk.core.api_error import ApiError

        try:
            yield
        except ApiError as error:
            raise self.of_status(error.status_code, error.body) from None
        except httpx.HTTPStatusError as error:
            raise self.of_status(error.response.status_code, error.response.text) from None
        except httpx.RequestError as error:
            raise SourceUnreachableError(
                f"Label Studio at {self.place} can't be reached ({str(error) or type(error).__name__}); "
                "check the URL, and that the server is up: its page /health/ says UP"
            ) from None

    def of_status(self, status: int | None, body: Any) -> SourceError:
        """What an answer that is no success says."""
        if status in (401, 403):
            return SourceRefusedError(
                f"Label Studio at {self.place} refuses the token (HTTP {status}); it is wrong, expired or revoked, "
                "may not see this project, or is of a kind that the organisation has switched off: copy a new one"
            )
        if status is None or status >= 500 or status in BUSY:
            return SourceUnreachableError(
                f"Label Studio at {self.place} is in trouble (HTTP {status}); see the server's log, then run again"
            )
        return SourceError(
            f"Label Studio at {self.place} does not accept the request (HTTP {status}): {str(body)[:300]}"
        )

    def version(self) -> str:
        """The server's release, such as `1.23.2`. Asked first: it shows that a Label Studio answers.

        Raises:
            SourceUnreachableError: nobody answers, or something that is no Label Studio.
        """
        with self.errors():
            reply = self.files.get("/api/version", auth=None)
        try:
            return str(reply.json()["release"])
        except (ValueError, KeyError, TypeError):
            raise SourceUnreachableError(
                f"{self.place} answers, but is no Label Studio (/api/version: HTTP {reply.status_code}); "
                "check the URL"
            ) from None

    def project(self, wanted: int | str) -> Project:
        """The project with this id or title.

        Raises:
            ProjectNotFoundError: there is none, or several have the title; the message lists the projects.
        """
        wanted = wanted.strip() if isinstance(wanted, str) else wanted  # as the server does with titles
        if isinstance(wanted, int) and (project := self._project(wanted)):
            return project
        known = self._titles()
        found = [identity for identity, title in known if title == wanted]
        if len(found) == 1 and (project := self._project(found[0])):
            return project
        shown = ", ".join(f"{identity} '{title}'" for identity, title in known[:20]) or "none"
        problem = "several projects are called" if found else "there is no project"
        raise ProjectNotFoundError(
            f"Label Studio at {self.place}: {problem} {wanted!r}; there are: {shown}"
            + (" ..." if len(known) > 20 else "")
        )

    def _project(self, identity: int) -> Project | None:
        """The project with this id; None if there is none."""
        path, params = f"/api/projects/{identity}/", {"include": "id,title,label_config"}
        with self.errors():
            reply = get_patiently(self.files, path, params=params)
            if reply.status_code == httpx.codes.NOT_FOUND:
                return None
            reply.raise_for_status()
        return Project(**{name: reply.json()[name] for name in ("id", "title", "label_config")})

    def _titles(self) -> list[tuple[int, str]]:
        """Ids and titles of all projects that the token may see, by id."""
        found: dict[int, str] = {}
        page, total = 1, 1
        while len(found) < total:
            params = {"include": "id,title", "page": page, "page_size": 1000}
            with self.errors():
                reply = get_patiently(self.files, "/api/projects/", params=params)
                reply.raise_for_status()
            listed = reply.json()
            if not listed["results"]:
                break
            found |= {project["id"]: project["title"] for project in listed["results"]}
            page, total = page + 1, listed["count"]
        return sorted(found.items())

    def projects(self) -> list[Any]:
        """All projects that the token may see, by id."""
        with self.errors():
            return sorted(self.sdk.projects.list(page_size=100), key=lambda project: project.id)

    def close(self) -> None:
        for name in ("files", "_sdk_transport"):
            if name in vars(self):  # it was used
                vars(self)[name].close()


@contextmanager
def connected(url: str, token: str) -> Iterator[Connection]:
    """A `Connection` that is closed in the end.

    Raises:
        SourceUnreachableError: the URL is no address.
    """
    connection = Connection(url.rstrip("/"), token)
    if not is_address(url):
        raise SourceUnreachableError(f"Label Studio at {connection.place} is no address; check the URL")
    try:
        yield connection
    finally:
        connection.close()


def open_client(**settings: Any) -> httpx.Client:
    """A client that goes where it is sent, if that is an address."""
    return httpx.Client(
        timeout=TIMEOUT, follow_redirects=True, event_hooks={"response": [_check_redirect]}, **settings
    )


def _check_redirect(response: httpx.Response) -> None:
    """httpx itself fails in as many ways as there are to be no address.

    Raises:
        httpx.UnsupportedProtocol: the answer leads to none.
    """
    if not response.has_redirect_location:
        return
    location = response.headers["location"]
    try:
        sound = is_address(urljoin(str(response.url), location))
    except ValueError:
        sound = False
    if not sound:
        shown = without_credentials(location)[:300]
        raise httpx.UnsupportedProtocol(f"redirected to {shown!r}, which is no address", request=response.request)


class _TokenAuth(httpx.Auth):
    """A legacy token is sent as it is; a personal one is changed into an access token, anew when that expires."""

    requires_response_body = True

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token
        self._personal = token.count(".") == 2  # a JSON web token
        self._access: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if not self._personal:
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        if self._access is not None:
            request.headers["Authorization"] = f"Bearer {self._access}"
            response = yield request
            if response.status_code != 401:
                return
        # What is answered here is the answer to the request if there is no new access token: it says why.
        yield from self._refresh()
        if self._access is not None:
            request.headers["Authorization"] = f"Bearer {self._access}"
            yield request

    def _refresh(self) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield httpx.Request("POST", f"{self._url}/api/token/refresh/", json={"refresh": self._token})
        self._access = response.json()["access"] if response.status_code == 200 else None


def refusal(reply: httpx.Response) -> str:
    """The server's own words of why it did not accept a request."""
    try:
        body = reply.json()
        found = body.get("validation_errors") or body["detail"]
    except (ValueError, KeyError, AttributeError):
        return reply.text[:400]
    lists = found.values() if isinstance(found, dict) else [found]
    return "; ".join(str(text) for texts in lists for text in (texts if isinstance(texts, list) else [texts]))[:400]


def get_patiently(
    client: httpx.Client,
    url: str,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    patience_s: Sequence[float] | None = None,
) -> httpx.Response:
    """GET, tried again while the server is busy or the connection breaks; after an internal error only once,
    because that is also how Label Studio answers for an upload that it has lost.

    Args:
        patience_s: waits before it is tried again.

    Raises:
        httpx.RequestError: the connection broke every time, or the answer is none: `UNUSABLE`.
    """
    for attempt, wait_s in enumerate(PATIENCE_S if patience_s is None else patience_s):
        try:
            response = client.get(url, headers=headers, params=params)
        except httpx.UnsupportedProtocol:
            raise
        except httpx.TransportError:
            pass
        else:
            if response.status_code not in BUSY and (response.status_code != _INTERNAL_ERROR or attempt):
                return response
        time.sleep(wait_s)
    return client.get(url, headers=headers, params=params)
