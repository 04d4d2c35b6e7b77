"""Reading a page as a browser would, for tests."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Text, ids, links, and every address that a browser would fetch without being asked."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, html):
        super().__init__()
        self.text, self.addresses, self.links, self.ids, self.open = "", [], [], set(), []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        found = self.links if tag == "a" else self.addresses
        found += [given[name] for name in ("src", "href", "srcset", "data") if name in given]
        self.ids.add(given.get("id"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        """SVG elements, closed at once."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def assert_self_contained(html: str, *, pictures: int) -> None:
    """Every element is closed, every picture is inside, and nothing is fetched or run."""
    page = Page(html)
    assert page.open == []
    assert len(page.addresses) == pictures
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    without_namespace = html.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(|<script", without_namespace)
