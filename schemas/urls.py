"""Addresses of servers, as they may be shown."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"//(?:[^\s/@:]*:(?!\d+[/?#])\S*|[^\s/@]*)@")
"""A user and a password, which may hold what an address would have to escape; or a user. No host with its port."""


def without_credentials(text: str) -> str:
    """A URL, or a text with some in it, without the users and passwords that stand before their hosts."""
    return _CREDENTIALS.sub("//", text)
