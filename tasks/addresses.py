"""Addresses that people wrote: of servers in a configuration, of pictures in annotation tasks."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

_LAST_PORT = 65535


def is_address(text: str) -> bool:
    """Whether httpx can ask the server at this URL for something.

    Not all that is none is its own `InvalidURL`: a host such as `a..b` and a port above 65535 are a `UnicodeError`
    and an `OverflowError` of the socket.
    """
    try:
        urlsplit(text)  # finds brackets that httpx takes for a part of the host
        url = httpx.URL(text)
        url.raw_host.decode().encode("idna")  # as the socket does
    except (httpx.InvalidURL, ValueError):
        return False
    return url.scheme in ("http", "https") and url.host != "" and 0 <= (url.port or 0) <= _LAST_PORT
