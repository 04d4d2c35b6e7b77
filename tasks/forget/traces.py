"""What in a workspace is about one subject, and how to take it out of text, JSON and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from schemas.texts import spellings


@dataclass(frozen=True)
class Traces:
    """What tells that something is about a subject.

    Attributes:
        subject: `<dataset>/<id>`.
        mark: what stands in its place where a place must be kept.
        images: SHA-256 of its frames, hex.
        figures: SHA-256 of pictures that were drawn of it, hex.
        names: names of its frames that no other subject's frame has.
        records: source keys of its raw records and annotations.
        contents: content hashes of its faces.
        snapshots: snapshot id -> split -> number of its faces, for every snapshot that has any.
    """

    subject: str
    mark: str
    images: frozenset[str] = frozenset()
    figures: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    contents: frozenset[str] = frozenset()
    snapshots: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @cached_property
    def spellings(self) -> frozenset[str]:
        """What the subject may be written as: not all that is kept was composed."""
        return spellings(self.subject)

    @cached_property
    def _whole(self) -> frozenset[str]:
        """Texts that are about the subject if they are equal to one of these."""
        return self.spellings | self.names | self.records

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The subject as a word of its own: `team/7` is in `faces of team/7.`, not in `team/70` or `big-team/7`."""
        written = "|".join(map(re.escape, sorted(self.spellings)))
        return re.compile(rf"(?<![\w.-])(?:{written})(?![\w-])(?!\.\w)")

    @cached_property
    def _names_pattern(self) -> re.Pattern[str] | None:
        """A frame's name may have Label Studio's prefix of an upload before it, and the end of a sentence behind."""
        names = sorted(self.names | self.records, key=len, reverse=True)
        before = r"(?:(?<![\w.-])|(?<=/[0-9a-f]{8}-))"
        return re.compile(rf"{before}(?:{'|'.join(map(re.escape, names))})(?![\w-])(?!\.\w)") if names else None

    def about(self, text: str) -> bool:
        """True if this very text is the subject, a frame or a record of it, or an annotation of such a record."""
        return text in self._whole or text.partition("/annotation/")[0] in self.records

    def within(self, text: str) -> bool:
        """True if the text names the subject, a frame or a record of it anywhere."""
        return bool(self.pattern.search(text) or (self._names_pattern and self._names_pattern.search(text)))

    def redacted_text(self, text: str) -> str:
        """The text with the mark for the subject."""
        return self.mark if self.about(text) else self.pattern.sub(self.mark, text)

    def redacted_lines(self, text: str) -> str:
        """Lines that name a frame or a record are gone, in the others the mark stands for the subject."""
        names = self._names_pattern
        kept = (line for line in text.splitlines(keepends=True) if not (names and names.search(line)))
        return "".join(map(self.redacted_text, kept))

    def redacted_json(self, value: Any) -> Any:
        """Objects of a list that are about the subject are gone; elsewhere the mark stands for it.

        An object is about it if one of its own texts is. What was kept under the subject as a key is None.
        """
        match value:
            case str():
                return self.redacted_text(value)
            case list():
                return [self.redacted_json(item) for item in value if not self._is_about(item)]
            case dict():
                return dict(self._redacted_items(value))
        return value

    def _is_about(self, item: Any) -> bool:
        return isinstance(item, dict) and any(isinstance(text, str) and self.about(text) for text in item.values())

    def _redacted_items(self, items: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, value in items.items():
            if self.about(key) or (self._names_pattern and self._names_pattern.search(key)):
                yield self.mark, None
            else:
                yield self.redacted_text(key), self.redacted_json(value)

    def redacted_table(self, table: pa.Table) -> pa.Table:
        """Rows in which a text is about the subject, or is the hash of a frame of it, are gone."""
        about = [False] * len(table)
        for name in _text_columns(table):
            texts = table[name].to_pylist()
            about = [known or self._is_told_by(text) for known, text in zip(about, texts, strict=True)]
        kept = table.filter(pa.array([not known for known in about], pa.bool_()))
        for name in _text_columns(kept):
            texts = kept[name].to_pylist()
            redacted = [text and self.redacted_text(text) for text in texts]
            if redacted != texts:
                kept = kept.set_column(kept.schema.get_field_index(name), kept.schema.field(name), [redacted])
        return kept

    def _is_told_by(self, text: str | None) -> bool:
        return text is not None and (self.about(text) or text in self.images)


def _text_columns(table: pa.Table) -> list[str]:
    return [field.name for field in table.schema if pa.types.is_string(field.type)]
