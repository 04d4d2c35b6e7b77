"""Prefect's events, posted so that a failure is known.

`prefect.events.emit_event` puts an event into a queue of this process and says nothing if it never leaves; the
websocket behind it confirms nothing either. `POST /api/events` answers 204 when the server has taken all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from schemas.errors import ForwardError, InputError
from schemas.urls import without_credentials

_TIMEOUT_S = 10
_FINAL = {400, 413, 422}
"""Answers that are about the events. Others mean a password or an address to be set, or a server to be waited for."""
_TO_GET = {301, 302, 303}
"""Redirects that make a GET of a POST: to a page for people, never to where events are taken."""
_BETWEEN = "something stands before it; let that pass the gateway's requests on, or correct PREFECT_API_URL"


def prefect_api_url() -> str:
    """Address of the Prefect server to show, from `PREFECT_API_URL` or Prefect's profile, without user and password.

    Must be called before anything else imports Prefect: its client is told here not to retry, as the gateway does.

    Raises:
        InputError: none is set.
    """
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "0")
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise InputError(
            "PREFECT_API_URL is not set, so the gateway has nobody to wake; name the Prefect server, such as "
            "http://127.0.0.1:4200/api (it need not be up)"
        )
    return without_credentials(url)


class PrefectEvents:
    """An asynchronous context: one connection to the Prefect server, with the credentials of Prefect's settings."""

    async def __aenter__(self) -> PrefectEvents:
        from prefect.client.orchestration import get_client

        self._stack = AsyncExitStack()
        self._client = await self._stack.enter_async_context(get_client({"timeout": _TIMEOUT_S}))
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.aclose()

    async def send(self, events: Sequence[dict[str, Any]]) -> None:
        """Raises `ForwardError` unless the server has taken all the events."""
        await self._request("POST", "/events", (204, ""), json=list(events))

    async def check(self) -> None:
        """Raises `ForwardError` unless the server is up."""
        await self._request("GET", "/health", (200, "true"))

    async def _request(self, method: str, path: str, expected: tuple[int, str], **content: Any) -> None:
        """Raises `ForwardError` unless the answer has the status and the text that Prefect's own has: a proxy before
        it has pages of its own, to which Prefect's client follows a redirect."""
        import httpx

        try:
            answer = await self._client.request(method, path, **content)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            final = status in _FINAL and error.request.method == method  # not about a token or a page on the way
            raise ForwardError(f"Prefect answers {status} to {method} {path}", final=final) from error
        except httpx.HTTPError as error:
            raise ForwardError(f"Prefect can't be reached: {type(error).__name__} {error}".rstrip()) from error
        except (ValueError, httpx.InvalidURL) as error:  # a CSRF token that is none, an address that is none
            raise ForwardError(f"Prefect can't be understood ({type(error).__name__}): {_BETWEEN}") from error
        redirected = any(hop.status_code in _TO_GET for hop in answer.history)
        if redirected or (answer.status_code, answer.text) != expected:
            how = " after a redirect" if redirected else ""
            raise ForwardError(
                f"{method} {path} is answered {answer.status_code}{how}, not as by Prefect: {_BETWEEN}"
            )
