"""Addresses of servers, as they may be shown."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(
    r"""(?<=:)//  # after a scheme: a path may hold // as well
    (?!\[[^\]\s/]*\](?::\d+)?(?:[/?#\s]|$))  # no IPv6 host: its colons come before no password
    (?:
        [^\s/@:]*:(?!\d+[/?#])\S*@  # a user and a password, which may hold what an address would have to escape
      | [^\s/@:]*:\S*@(?=[\w.-]+(?::\d+|\.[a-zA-Z]{2,}/)|\[)  # or what could be a port and a path: a host follows
      | [^\s/@]*@  # a user
    )""",
    re.VERBOSE,
)


def without_credentials(text: str) -> str:
    """A URL, or a text with some in it, without the users and passwords that stand before their hosts.

    `http://team:12/3@h/api` can be read in two ways, and stays: a password that begins as a port and a path do is
    known by a port, a dotted name before a slash or an IPv6 address behind its `@`.
    """
    return _CREDENTIALS.sub("//", text)
