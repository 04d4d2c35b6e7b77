"""Addresses of servers, as they may be shown."""

from __future__ import annotations

import re


def without_credentials(text: str) -> str:
    """A URL, or a text with some in it, without the users and passwords that stand before their hosts."""
    return re.sub(r"//\S*@", "//", text)
